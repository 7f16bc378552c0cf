//! A store that can do no more than it must.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use oncekey::Key;
use oncekey::store::{
    Abandon, Claim, ClaimOutcome, Complete, Evict, Fenced, Observed, Purged, Renew, Settle, Store,
    StoreError,
};
use oncekey_memory::MemoryStore;

/// A store in memory that neither notifies nor lists, and can do something before it renews.
#[derive(Clone)]
pub(crate) struct PlainStore {
    inner: MemoryStore,
    before_renewal: Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
}

impl PlainStore {
    pub(crate) fn new(inner: MemoryStore) -> Self {
        Self::before_renewal(inner, || Box::pin(std::future::ready(())))
    }

    pub(crate) fn before_renewal(
        inner: MemoryStore,
        before_renewal: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        Self { inner, before_renewal: Arc::new(before_renewal) }
    }
}

#[async_trait]
impl Store for PlainStore {
    async fn claim(&self, key: &Key, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        self.inner.claim(key, claim).await
    }

    async fn renew(&self, key: &Key, renew: &Renew) -> Result<Fenced, StoreError> {
        (self.before_renewal)().await;
        self.inner.renew(key, renew).await
    }

    async fn complete(&self, key: &Key, complete: &Complete) -> Result<Fenced, StoreError> {
        self.inner.complete(key, complete).await
    }

    async fn abandon(&self, key: &Key, abandon: &Abandon) -> Result<Fenced, StoreError> {
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
}
