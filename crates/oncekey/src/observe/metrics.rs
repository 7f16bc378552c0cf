//! Events as numbers of the `metrics` facade.

use std::time::Duration;

use metrics::{counter, histogram};

use super::{Event, Observer};

/// Counts every [`Event`].
///
/// | metric | kind | labels | meaning |
/// |---|---|---|---|
/// | `idempotency_events_total` | counter | `operation`, `event` | how often each event happened |
/// | `idempotency_run_seconds` | histogram | `operation` | claim to acknowledged record |
/// | `idempotency_replay_seconds` | histogram | `operation` | claim to replay, waiting included |
/// | `idempotency_busy_seconds` | histogram | `operation` | claim to refusal, waiting included |
/// | `idempotency_purged_total` | counter | `operation` | records removed by sweepers |
///
/// Seconds want buckets from 0.005 to 10. Labels never carry a key.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct MetricsObserver;

impl MetricsObserver {
    /// An observer that counts with the installed recorder.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Observer for MetricsObserver {
    fn observe(&self, operation: &str, event: &Event) {
        let operation = operation.to_owned();
        let name = match event {
            Event::Executed { elapsed, .. } => {
                record("idempotency_run_seconds", &operation, *elapsed);
                "executed"
            }
            Event::Replayed { elapsed } => {
                record("idempotency_replay_seconds", &operation, *elapsed);
                "replayed"
            }
            Event::Busy { elapsed } => {
                record("idempotency_busy_seconds", &operation, *elapsed);
                "busy"
            }
            Event::Purged { removed } => {
                counter!("idempotency_purged_total", "operation" => operation.clone())
                    .increment(*removed as u64);
                "purged"
            }
            Event::Waiting => "waiting",
            Event::TooManyWaiters => "too_many_waiters",
            Event::Mismatch => "mismatch",
            Event::Interrupted => "interrupted",
            Event::Retired => "retired",
            Event::TakenOver { .. } => "taken_over",
            Event::Adopted => "adopted",
            Event::Verified { .. } => "verified",
            Event::LeaseLost { .. } => "lease_lost",
            Event::Released { .. } => "released",
            Event::GaveUp { .. } => "gave_up",
            Event::NotReplayable { .. } => "not_replayable",
            Event::Unrecorded => "unrecorded",
            Event::StoreFailed { .. } => "store_failed",
        };
        counter!("idempotency_events_total", "operation" => operation, "event" => name)
            .increment(1);
    }
}

fn record(name: &'static str, operation: &str, elapsed: Duration) {
    histogram!(name, "operation" => operation.to_owned()).record(elapsed.as_secs_f64());
}
