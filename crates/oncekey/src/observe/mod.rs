//! What an engine tells those who watch over it: [`Observer`] and [`Event`].
//!
//! Events carry no key, no body and no fingerprint; they are safe to log and to count. They are told
//! per operation (the name given to [`Idempotency::named`](crate::Idempotency::named)), never per key.

#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "tracing")]
mod tracing;

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "metrics")]
pub use self::metrics::MetricsObserver;
#[cfg(feature = "tracing")]
pub use self::tracing::TracingObserver;
use crate::store::{Cause, ErrorKind};

/// Is told what happens, from within the futures of the engine: it must not block, and it must not
/// panic, since a panic of its own would end the run like one of the operation.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use oncekey::observe::{Event, Observer};
///
/// #[derive(Default)]
/// struct Replays(AtomicU64);
///
/// impl Observer for Replays {
///     fn observe(&self, _operation: &str, event: &Event) {
///         if let Event::Replayed { .. } = event {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
/// ```
pub trait Observer: Send + Sync {
    /// `event` happened to a run of `operation`.
    fn observe(&self, operation: &str, event: &Event);
}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn observe(&self, operation: &str, event: &Event) {
        (**self).observe(operation, event);
    }
}

/// Something that happened to one run, or to the keeping of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The operation ran, and its result is recorded.
    Executed {
        /// Which attempt in a row it was.
        number: u32,
        /// From the claim to the acknowledged record.
        elapsed: Duration,
    },
    /// A duplicate got the recorded result.
    Replayed {
        /// From the claim to the answer: the time waited for an owner, for the most part.
        elapsed: Duration,
    },
    /// A duplicate was told that the operation is done and that its result was not kept.
    NotKept,
    /// A duplicate starts to wait for an owner.
    Waiting,
    /// A duplicate was turned away: an owner is at work.
    Busy {
        /// How long it had waited.
        elapsed: Duration,
    },
    /// A duplicate was turned away without waiting: too many wait already.
    TooManyWaiters,
    /// A key was used for another request.
    Mismatch,
    /// A request was refused, since an earlier attempt was interrupted.
    Interrupted,
    /// A request was refused, since its result is no longer kept.
    Retired,
    /// A grant takes over from an interrupted attempt.
    TakenOver {
        /// How that one ended.
        cause: Cause,
        /// Which attempt in a row this one is.
        number: u32,
    },
    /// A grant whose answer was lost was found again.
    Adopted,
    /// A [`Verify`](crate::Verify) said what became of an interrupted attempt.
    Verified {
        /// What it said.
        verdict: VerdictKind,
    },
    /// The lease of a running operation was lost.
    LeaseLost {
        /// Which attempt in a row it was.
        number: u32,
    },
    /// An operation failed and did nothing; its key is free.
    Released {
        /// Which attempt in a row it was.
        number: u32,
    },
    /// An operation failed with an unknown outcome; its key is interrupted.
    GaveUp {
        /// Which attempt in a row it was.
        number: u32,
    },
    /// The future of a run was dropped while its operation was under way, by a timeout or by a client
    /// that hung up: its key is interrupted when the lease lapses.
    Dropped {
        /// Which attempt in a row it was.
        number: u32,
    },
    /// A step could not be saved, or what was saved of it could not be read: the operation was stopped.
    StepFailed {
        /// Which attempt in a row it was.
        number: u32,
    },
    /// A recorded result, or what a [`Verify`](crate::Verify) said it was, is not of the type that the
    /// caller wants.
    Undecodable,
    /// A result is recorded as done without its bytes.
    NotReplayable {
        /// How many bytes it has.
        len: usize,
    },
    /// An operation is done, and its result could not be recorded. Somebody should look.
    Unrecorded,
    /// A call of the store failed; it is retried where that can help.
    StoreFailed {
        /// Which call.
        operation: &'static str,
        /// How.
        kind: ErrorKind,
    },
    /// A sweeper removed records whose time was over.
    Purged {
        /// How many.
        removed: usize,
    },
}

impl Event {
    /// A name for logs and metrics, in snake case. It never changes.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Executed { .. } => "executed",
            Self::Replayed { .. } => "replayed",
            Self::NotKept => "not_kept",
            Self::Waiting => "waiting",
            Self::Busy { .. } => "busy",
            Self::TooManyWaiters => "too_many_waiters",
            Self::Mismatch => "mismatch",
            Self::Interrupted => "interrupted",
            Self::Retired => "retired",
            Self::TakenOver { .. } => "taken_over",
            Self::Adopted => "adopted",
            Self::Verified { .. } => "verified",
            Self::LeaseLost { .. } => "lease_lost",
            Self::Released { .. } => "released",
            Self::GaveUp { .. } => "gave_up",
            Self::Dropped { .. } => "dropped",
            Self::StepFailed { .. } => "step_failed",
            Self::Undecodable => "undecodable",
            Self::NotReplayable { .. } => "not_replayable",
            Self::Unrecorded => "unrecorded",
            Self::StoreFailed { .. } => "store_failed",
            Self::Purged { .. } => "purged",
        }
    }
}

/// What a [`Verify`](crate::Verify) said, without the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "the kinds of a verdict, which are closed")]
pub enum VerdictKind {
    /// It was done.
    Done,
    /// It was not done.
    NotDone,
    /// It cannot be found out now.
    Unknown,
}
