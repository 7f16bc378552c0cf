//! Two stores in memory as one, as the conformance suite sees them. What the fast one has is often lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use oncekey::Key;
use oncekey::store::{
    Abandon, Claim, ClaimOutcome, Complete, Evict, Expected, Fenced, Observed, Purged, Renew,
    Settle, Store, StoreError,
};
use oncekey_conformance::{Capabilities, Capability, Fixture};
use oncekey_memory::{ManualClock, MemoryStore};
use oncekey_tiered::Tiered;

/// Both stores, and the clock that both read.
pub(crate) struct TieredFixture {
    fast: Arc<Forgetful>,
    durable: MemoryStore,
    clock: ManualClock,
}

#[async_trait]
impl Fixture for TieredFixture {
    async fn create() -> Self {
        let clock = ManualClock::default();
        let store = || MemoryStore::builder().clock(Arc::new(clock.clone())).build();
        let fast = Arc::new(Forgetful { store: store(), calls: AtomicU64::new(0) });
        Self { fast, durable: store(), clock: clock.clone() }
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(Tiered::new(Arc::clone(&self.fast), self.durable.clone()))
    }

    async fn advance(&self, duration: Duration) {
        self.clock.advance(duration);
    }

    async fn step_back(&self, by: Duration) {
        self.clock.step_back(by);
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::injected_time()
            .with(Capability::ClockStep)
            .with(Capability::Bounded)
            .with(Capability::Inspect)
            .with(Capability::Watch)
    }

    async fn open_bounded(&self, keys: usize) -> Arc<dyn Store> {
        let durable = MemoryStore::builder();
        let durable = durable.max_keys(keys).clock(Arc::new(self.clock.clone())).build();
        Arc::new(Tiered::new(Arc::clone(&self.fast), durable))
    }
}

/// Loses the record of every third key that it is asked about.
struct Forgetful {
    store: MemoryStore,
    calls: AtomicU64,
}

impl Forgetful {
    async fn may_forget(&self, key: &Key) -> &MemoryStore {
        if self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
            let evict = Evict { expected: Expected::Any, force: true };
            let _ = self.store.evict(key, &evict).await;
        }
        &self.store
    }
}

#[async_trait]
impl Store for Forgetful {
    async fn claim(&self, key: &Key, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        self.store.claim(key, claim).await
    }

    async fn renew(&self, key: &Key, renew: &Renew) -> Result<Fenced, StoreError> {
        self.store.renew(key, renew).await
    }

    async fn complete(&self, key: &Key, complete: &Complete) -> Result<Fenced, StoreError> {
        self.store.complete(key, complete).await
    }

    async fn abandon(&self, key: &Key, abandon: &Abandon) -> Result<Fenced, StoreError> {
        self.store.abandon(key, abandon).await
    }

    async fn settle(&self, key: &Key, settle: &Settle) -> Result<Fenced, StoreError> {
        self.store.settle(key, settle).await
    }

    async fn evict(&self, key: &Key, evict: &Evict) -> Result<Fenced, StoreError> {
        self.store.evict(key, evict).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Observed>, StoreError> {
        self.may_forget(key).await.get(key).await
    }

    async fn purge(&self, limit: usize) -> Result<Purged, StoreError> {
        self.store.purge(limit).await
    }
}
