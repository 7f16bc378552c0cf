//! A store that fails when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use oncekey::Key;
use oncekey::store::{
    Abandon, Claim, ClaimOutcome, Complete, ErrorKind, Evict, Fenced, Observed, Purged, Renew,
    Settle, Store, StoreError, Watch,
};
use oncekey_memory::MemoryStore;

#[derive(Debug, Clone, Default)]
pub(crate) struct FaultyStore {
    inner: MemoryStore,
    faults: Arc<Mutex<Faults>>,
    pub(crate) claims: Arc<AtomicUsize>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    pub(crate) claim: Option<ErrorKind>,
    pub(crate) complete: Option<ErrorKind>,
    /// What completing is answered with, without being done.
    pub(crate) completed: Option<Fenced>,
    pub(crate) abandon: Option<ErrorKind>,
    pub(crate) delay: Duration,
    /// Of completing and abandoning only.
    pub(crate) delay_at_the_end: Duration,
}

impl FaultyStore {
    pub(crate) fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.faults.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn faults(&self) -> Faults {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !faults.delay.is_zero() {
            tokio::time::sleep(faults.delay).await;
        }
        faults
    }
}

fn fail(kind: Option<ErrorKind>, operation: &'static str) -> Result<(), StoreError> {
    kind.map_or(Ok(()), |kind| Err(StoreError::new(kind, operation)))
}

#[async_trait]
impl Store for FaultyStore {
    async fn claim(&self, key: &Key, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        self.claims.fetch_add(1, Ordering::SeqCst);
        fail(self.faults().await.claim, "claim")?;
        self.inner.claim(key, claim).await
    }

    async fn renew(&self, key: &Key, renew: &Renew) -> Result<Fenced, StoreError> {
        self.inner.renew(key, renew).await
    }

    async fn complete(&self, key: &Key, complete: &Complete) -> Result<Fenced, StoreError> {
        let faults = self.faults().await;
        tokio::time::sleep(faults.delay_at_the_end).await;
        fail(faults.complete, "complete")?;
        match faults.completed {
            Some(fenced) => Ok(fenced),
            None => self.inner.complete(key, complete).await,
        }
    }

    async fn abandon(&self, key: &Key, abandon: &Abandon) -> Result<Fenced, StoreError> {
        let faults = self.faults().await;
        tokio::time::sleep(faults.delay_at_the_end).await;
        fail(faults.abandon, "abandon")?;
        self.inner.abandon(key, abandon).await
    }

    async fn settle(&self, key: &Key, settle: &Settle) -> Result<Fenced, StoreError> {
        self.inner.settle(key, settle).await
    }

    async fn evict(&self, key: &Key, evict: &Evict) -> Result<Fenced, StoreError> {
        self.inner.evict(key, evict).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Observed>, StoreError> {
        self.inner.get(key).await
    }

    async fn purge(&self, limit: usize) -> Result<Purged, StoreError> {
        self.inner.purge(limit).await
    }

    fn watch(&self) -> Option<&dyn Watch> {
        self.inner.watch()
    }
}
