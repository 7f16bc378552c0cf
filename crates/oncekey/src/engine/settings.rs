//! How an engine is set up, and what is checked before anything runs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::verify::Verify;
use crate::key::{Key, KeyHasher};
use crate::observe::{Event, Observer};
use crate::runtime::{ProcessRandom, Random, ThreadTimer, Timer};
use crate::store::{ErrorKind, OnInterrupted, OnRetired, StoreError};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Stores keep time in microseconds, and some work by the millisecond: less would be nothing.
const SHORTEST: Duration = Duration::from_millis(1);
/// As long as any timestamp can say: for ever.
const FOREVER: Duration = Duration::MAX;

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) guarantee: Guarantee,
    pub(crate) lease: Duration,
    pub(crate) retention: Duration,
    pub(crate) hold: Option<Duration>,
    pub(crate) wait: Duration,
    pub(crate) max_waiters: usize,
    pub(crate) max_value_len: usize,
    pub(crate) name: Arc<str>,
    pub(crate) hasher: Option<KeyHasher>,
    pub(crate) observers: Vec<Arc<dyn Observer>>,
    pub(crate) timer: Arc<dyn Timer>,
    pub(crate) random: Arc<dyn Random>,
}

/// What a retry may do after an attempt was interrupted.
#[derive(Clone)]
pub(crate) enum Guarantee {
    AtLeastOnce,
    AtMostOnce,
    Verified(Arc<dyn Verify>),
}

impl Settings {
    pub(crate) fn new(guarantee: Guarantee) -> Self {
        Self {
            guarantee,
            lease: Duration::from_secs(30),
            retention: DAY,
            hold: None,
            wait: Duration::ZERO,
            max_waiters: 2_048,
            max_value_len: 1 << 20,
            name: Arc::from(""),
            hasher: None,
            observers: Vec::new(),
            timer: Arc::new(ThreadTimer::new()),
            random: Arc::new(ProcessRandom::new()),
        }
    }

    /// Refuses what would break a promise, before anything runs.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let problem = if self.lease < SHORTEST {
            "the lease is shorter than a millisecond, so that every attempt would be interrupted at \
             once; set it to longer than a renewal takes, for example 30 s"
        } else if self.retention < self.lease {
            "the retention is shorter than the lease, so that a result could be forgotten while its \
             request is still being retried; set it to as long as clients may retry"
        } else if self.max_value_len == 0 {
            "the largest value has zero bytes, so that no result could be replayed"
        } else if self.hold.is_some_and(|hold| hold < SHORTEST)
            && !matches!(self.guarantee, Guarantee::AtLeastOnce)
        {
            "the hold is shorter than a millisecond, so that an interrupted key would be forgotten \
             at once and run again; set it to longer than clients may retry"
        } else {
            return Ok(());
        };
        Err(StoreError::new(ErrorKind::Misconfigured, "run").with_message(problem))
    }

    /// The key that the store sees.
    pub(crate) fn stored_key(&self, key: &Key) -> Key {
        match &self.hasher {
            Some(hasher) => hasher.hash(key),
            None => key.clone(),
        }
    }

    pub(crate) fn on_interrupted(&self) -> OnInterrupted {
        match self.guarantee {
            Guarantee::AtMostOnce => OnInterrupted::Refuse,
            Guarantee::AtLeastOnce | Guarantee::Verified(_) => OnInterrupted::TakeOver,
        }
    }

    pub(crate) fn on_retired(&self) -> OnRetired {
        match self.guarantee {
            Guarantee::AtMostOnce => OnRetired::Tell,
            Guarantee::AtLeastOnce | Guarantee::Verified(_) => OnRetired::Forget,
        }
    }

    /// How long an interrupted key is remembered after its lease. By default until one retention after
    /// the claim: as long as clients may retry. A completion then never brings the time to forget
    /// forward, which would cost stores that keep records in that order.
    pub(crate) fn interrupted_hold(&self) -> Duration {
        self.hold.unwrap_or_else(|| match self.guarantee {
            Guarantee::AtMostOnce | Guarantee::Verified(_) => FOREVER,
            Guarantee::AtLeastOnce => self.retention.saturating_sub(self.lease).max(self.lease),
        })
    }

    /// How long a released key is remembered: its fingerprint, and that its attempts are spent.
    pub(crate) fn released_hold(&self) -> Duration {
        self.hold.unwrap_or(self.retention)
    }

    /// How long a retired key is remembered.
    pub(crate) fn retired_hold(&self) -> Duration {
        self.hold.unwrap_or(match self.guarantee {
            Guarantee::AtMostOnce => 30 * DAY,
            Guarantee::AtLeastOnce | Guarantee::Verified(_) => Duration::ZERO,
        })
    }

    /// For how much of a lease its owner takes it to last: less by what clocks may drift apart meanwhile,
    /// and then some.
    pub(crate) fn usable(lease: Duration) -> Duration {
        let margin = (lease / 20).min(Duration::from_millis(500)).max(lease / 1000);
        lease.saturating_sub(margin)
    }

    /// How long ago `started` is; zero if nobody asked when that was.
    pub(crate) fn elapsed(&self, started: Option<Duration>) -> Duration {
        started.map_or(Duration::ZERO, |started| self.timer.now().saturating_sub(started))
    }

    pub(crate) fn observe(&self, event: &Event) {
        for observer in &self.observers {
            observer.observe(&self.name, event);
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guarantee = match self.guarantee {
            Guarantee::AtLeastOnce => "at least once",
            Guarantee::AtMostOnce => "at most once",
            Guarantee::Verified(_) => "verified",
        };
        f.debug_struct("Settings")
            .field("guarantee", &guarantee)
            .field("name", &self.name)
            .field("lease", &self.lease)
            .field("retention", &self.retention)
            .field("hold", &self.hold)
            .field("wait_for_duplicate", &self.wait)
            .finish_non_exhaustive()
    }
}
