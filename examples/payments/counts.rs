//! Counts what the engine reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use oncekey::observe::{Event, Observer, VerdictKind};

/// What happened how often. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts(Arc<Counters>);

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) executed: AtomicU64,
    pub(crate) replayed: AtomicU64,
    pub(crate) waited: AtomicU64,
    pub(crate) busy: AtomicU64,
    pub(crate) mismatch: AtomicU64,
    pub(crate) interrupted: AtomicU64,
    pub(crate) taken_over: AtomicU64,
    pub(crate) verified_done: AtomicU64,
    pub(crate) verified_not_done: AtomicU64,
    pub(crate) lease_lost: AtomicU64,
    pub(crate) released: AtomicU64,
    pub(crate) gave_up: AtomicU64,
    pub(crate) unrecorded: AtomicU64,
    pub(crate) store_failed: AtomicU64,
}

impl Counts {
    /// One of the numbers, as it is now.
    pub(crate) fn of(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        counter(&self.0).load(Ordering::Relaxed)
    }
}

impl Observer for Counts {
    fn observe(&self, _operation: &str, event: &Event) {
        let counter = match event {
            Event::Executed { .. } => &self.0.executed,
            Event::Replayed { .. } => &self.0.replayed,
            Event::Waiting => &self.0.waited,
            Event::Busy { .. } => &self.0.busy,
            Event::Mismatch => &self.0.mismatch,
            Event::Interrupted => &self.0.interrupted,
            Event::TakenOver { .. } => &self.0.taken_over,
            Event::Verified { verdict } => match verdict {
                VerdictKind::Done => &self.0.verified_done,
                VerdictKind::NotDone => &self.0.verified_not_done,
                // Followed by `Interrupted`.
                VerdictKind::Unknown => return,
            },
            Event::LeaseLost { .. } => &self.0.lease_lost,
            Event::Released { .. } => &self.0.released,
            Event::GaveUp { .. } => &self.0.gave_up,
            Event::Unrecorded => &self.0.unrecorded,
            Event::StoreFailed { .. } => &self.0.store_failed,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
