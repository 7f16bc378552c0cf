//! Events as `tracing` events.

use tracing::{debug, error, warn};

use super::{Event, Observer};

/// Writes one `tracing` event per [`Event`], with target `oncekey`.
///
/// | level | events |
/// |---|---|
/// | error | `Unrecorded` |
/// | warn | `LeaseLost`, `TakenOver`, `Interrupted`, `GaveUp`, `TooManyWaiters`, `StoreFailed` |
/// | debug | all others |
///
/// Fields: `operation`, and `event` with its numbers. Never a key, a body or a fingerprint.
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
        match event {
            Event::Unrecorded => error!(target: "oncekey", operation, ?event),
            Event::LeaseLost { .. }
            | Event::TakenOver { .. }
            | Event::Interrupted
            | Event::GaveUp { .. }
            | Event::TooManyWaiters
            | Event::StoreFailed { .. } => warn!(target: "oncekey", operation, ?event),
            _ => debug!(target: "oncekey", operation, ?event),
        }
    }
}
