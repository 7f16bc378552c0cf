//! Events as numbers of the `metrics` facade.

use std::time::Duration;

use metrics::{Label, counter, histogram};

use super::{Event, Observer};

/// Counts every [`Event`].
///
/// | metric | kind | labels | meaning |
/// |---|---|---|---|
/// | `idempotency_events_total` | counter | `operation`, `event` | how often each event happened |
/// | `idempotency_run_seconds` | histogram | `operation` | claim to acknowledged record |
/// | `idempotency_replay_seconds` | histogram | `operation` | claim to replay, waiting included |
/// | `idempotency_busy_seconds` | histogram | `operation` | claim to refusal, waiting included |
/// | `idempotency_store_failures_total` | counter | `operation`, `call`, `kind` | calls of the store that failed |
/// | `idempotency_purged_total` | counter | `operation` | records removed by sweepers |
///
/// `event` is [`Event::name`], `call` the method of the store, `kind` the
/// [name](crate::store::ErrorKind::name) of the kind of error. Seconds want buckets from 0.005 to 10.
/// Labels never carry a key.
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
        match event {
            Event::Executed { elapsed, .. } => {
                record("idempotency_run_seconds", &operation, *elapsed);
            }
            Event::Replayed { elapsed } => {
                record("idempotency_replay_seconds", &operation, *elapsed);
            }
            Event::Busy { elapsed } => record("idempotency_busy_seconds", &operation, *elapsed),
            Event::Purged { removed } => {
                counter!("idempotency_purged_total", "operation" => operation.clone())
                    .increment(*removed as u64);
            }
            Event::StoreFailed { operation: call, kind } => {
                let labels = [
                    Label::new("operation", operation.clone()),
                    Label::from_static_parts("call", call),
                    Label::from_static_parts("kind", kind.name()),
                ];
                counter!("idempotency_store_failures_total", labels.iter()).increment(1);
            }
            _ => {}
        }
        counter!("idempotency_events_total", "operation" => operation, "event" => event.name())
            .increment(1);
    }
}

fn record(name: &'static str, operation: &str, elapsed: Duration) {
    histogram!(name, "operation" => operation.to_owned()).record(elapsed.as_secs_f64());
}
