//! Two fixtures over the map: time that is injected, and time that passes by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use oncekey::Key;
use oncekey::runtime::{Clock, SystemClock, ThreadTimer, Timer, Timestamp};
use oncekey::store::{CasStore, Store};
use oncekey_conformance::{Capabilities, Capability, Damage, Fixture};

use crate::map::{Habits, Map};

/// Its clock stands still but for `advance`, and its futures pend.
#[derive(Debug)]
pub(crate) struct InMemory {
    map: Map,
    clock: Arc<Stepped>,
}

#[derive(Debug)]
struct Stepped(AtomicU64);

impl Clock for Stepped {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

#[async_trait]
impl Fixture for InMemory {
    async fn create() -> Self {
        let clock = Arc::new(Stepped(AtomicU64::new(1_800_000_000_000_000)));
        let habits = Habits { pends: true, ..Habits::default() };
        Self { map: Map::new(clock.clone(), habits), clock }
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(CasStore::new(self.map.clone()))
    }

    async fn advance(&self, duration: Duration) {
        let later = self.clock.now().saturating_add(duration);
        self.clock.0.store(later.as_micros(), Ordering::SeqCst);
    }

    async fn step_back(&self, by: Duration) {
        self.clock.0.fetch_sub(by.as_micros() as u64, Ordering::SeqCst);
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::injected_time()
            .with(Capability::ClockStep)
            .with(Capability::Restart)
            .with(Capability::Damage)
            .with(Capability::Bounded)
            .with(Capability::Watch)
    }

    async fn damage(&self, key: &Key, damage: Damage) {
        self.map.damage(key, |bytes| match damage {
            Damage::Truncate => bytes.truncate(bytes.len() / 2),
            Damage::NewerVersion => bytes[0] = u8::MAX,
            _ => bytes[7] ^= 1,
        });
    }

    async fn open_bounded(&self, keys: usize) -> Arc<dyn Store> {
        let habits = Habits { room: Some(keys), ..self.map.habits };
        Arc::new(CasStore::new(Map::new(self.clock.clone(), habits)))
    }
}

/// Its clock is the system's, its futures are ready at once, what is over is gone by itself, and large
/// results do not fit.
#[derive(Debug)]
pub(crate) struct InRealTime {
    map: Map,
}

#[async_trait]
impl Fixture for InRealTime {
    async fn create() -> Self {
        let habits = Habits { forgets: true, largest: Some(1 << 20), ..Habits::default() };
        Self { map: Map::new(Arc::new(SystemClock::new()), habits) }
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(CasStore::new(self.map.clone()))
    }

    async fn advance(&self, duration: Duration) {
        let timer = ThreadTimer::new();
        timer.sleep_until(timer.now() + duration).await;
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::real_time().with(Capability::Watch)
    }
}
