//! Events as `tracing` events.

use tracing::{debug, error, warn};

use super::{Event, Observer};

/// Writes one `tracing` event per [`Event`], with target `oncekey`.
///
/// | level | events |
/// |---|---|
/// | error | `unrecorded`, `undecodable` |
/// | warn | `lease_lost`, `taken_over`, `interrupted`, `gave_up`, `dropped`, `step_failed`, `too_many_waiters`, `store_failed` |
/// | debug | all others |
///
/// Fields: `operation`; `event`, which is [`Event::name`]; and what the event carries (`number`,
/// `seconds`, `cause`, `verdict`, `call`, `kind`, `len`, `removed`). Never a key, a body or a
/// fingerprint.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct TracingObserver;

impl TracingObserver {
    /// An observer that writes to the current subscriber.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Observer for TracingObserver {
    fn observe(&self, operation: &str, event: &Event) {
        let name = event.name();
        match event {
            Event::Unrecorded => {
                error!(target: "oncekey", operation, event = name);
            }
            Event::Undecodable => error!(target: "oncekey", operation, event = name),
            Event::TakenOver { cause, number } => {
                warn!(target: "oncekey", operation, event = name, ?cause, number);
            }
            Event::LeaseLost { number }
            | Event::GaveUp { number }
            | Event::Dropped { number }
            | Event::StepFailed { number } => {
                warn!(target: "oncekey", operation, event = name, number);
            }
            Event::StoreFailed { operation: call, kind } => {
                warn!(target: "oncekey", operation, event = name, call, kind = kind.name());
            }
            Event::Interrupted | Event::TooManyWaiters => {
                warn!(target: "oncekey", operation, event = name);
            }
            Event::Executed { number, elapsed } => {
                let seconds = elapsed.as_secs_f64();
                debug!(target: "oncekey", operation, event = name, number, seconds);
            }
            Event::Replayed { elapsed } | Event::Busy { elapsed } => {
                debug!(target: "oncekey", operation, event = name, seconds = elapsed.as_secs_f64());
            }
            Event::Verified { verdict } => {
                debug!(target: "oncekey", operation, event = name, ?verdict);
            }
            Event::Released { number } => {
                debug!(target: "oncekey", operation, event = name, number)
            }
            Event::NotReplayable { len } => debug!(target: "oncekey", operation, event = name, len),
            Event::Purged { removed } => {
                debug!(target: "oncekey", operation, event = name, removed)
            }
            Event::NotKept | Event::Waiting | Event::Mismatch | Event::Retired | Event::Adopted => {
                debug!(target: "oncekey", operation, event = name);
            }
        }
    }
}
