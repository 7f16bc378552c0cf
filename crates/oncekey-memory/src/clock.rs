//! A clock for tests: [`ManualClock`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oncekey::runtime::{Clock, Timestamp};

/// A clock that moves only when it is told to. Clones show, and set, the same time.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use oncekey::runtime::Clock;
/// use oncekey_memory::{ManualClock, MemoryStore};
///
/// let clock = ManualClock::default();
/// let store = MemoryStore::builder().clock(Arc::new(clock.clone())).build();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(3600));
/// assert_eq!(clock.now(), before.saturating_add(Duration::from_secs(3600)));
/// clock.step_back(Duration::from_secs(3600));
/// assert_eq!(clock.now(), before);
/// # drop(store);
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock {
    micros: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock that shows `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self { micros: Arc::new(AtomicU64::new(start.as_micros())) }
    }

    /// Moves the clock forward by `by`, at most to [`Timestamp::MAX`].
    pub fn advance(&self, by: Duration) {
        let forward = |now| {
            let later = Timestamp::from_micros(now).saturating_add(by);
            Some(later.as_micros())
        };
        // The closure always returns a value, so there is nothing to report.
        let _ = self.micros.fetch_update(Ordering::AcqRel, Ordering::Acquire, forward);
    }

    /// Moves the clock back by `by`, at most to 1970: what a time service may do to a machine.
    pub fn step_back(&self, by: Duration) {
        let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        let back = |now: u64| Some(now.saturating_sub(micros));
        // The closure always returns a value, so there is nothing to report.
        let _ = self.micros.fetch_update(Ordering::AcqRel, Ordering::Acquire, back);
    }

    /// Sets the clock to `to`, which may lie before the time it shows.
    pub fn set(&self, to: Timestamp) {
        self.micros.store(to.as_micros(), Ordering::Release);
    }
}

impl Default for ManualClock {
    /// Shows a day in January 2027: any time will do, and the same one makes tests repeatable.
    fn default() -> Self {
        Self::new(Timestamp::from_micros(1_800_000_000_000_000))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.micros.load(Ordering::Acquire))
    }
}
