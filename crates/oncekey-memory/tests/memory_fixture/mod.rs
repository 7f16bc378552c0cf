//! The store as the conformance suite sees it: one database a fixture, on a clock of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use oncekey::store::Store;
use oncekey_conformance::{Capabilities, Capability, Fixture};
use oncekey_memory::{ManualClock, MemoryStore};

/// A store and the clock that it reads.
pub(crate) struct MemoryFixture {
    store: MemoryStore,
    clock: ManualClock,
}

#[async_trait]
impl Fixture for MemoryFixture {
    async fn create() -> Self {
        let clock = ManualClock::default();
        let store = MemoryStore::builder().clock(Arc::new(clock.clone())).build();
        Self { store, clock }
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    async fn advance(&self, duration: Duration) {
        self.clock.advance(duration);
    }

    async fn step_back(&self, by: Duration) {
        self.clock.step_back(by);
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::injected_time()
            .with(Capability::Bounded)
            .with(Capability::ClockStep)
            .with(Capability::Inspect)
            .with(Capability::Watch)
    }

    async fn open_bounded(&self, keys: usize) -> Arc<dyn Store> {
        let store =
            MemoryStore::builder().max_keys(keys).clock(Arc::new(self.clock.clone())).build();
        Arc::new(store)
    }
}
