//! Events as metrics: every event is counted under its name, and nothing that was sent is a label.
#![cfg(feature = "metrics")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key as MetricKey, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use oncekey::observe::{Event, MetricsObserver, Observer, VerdictKind};
use oncekey::store::{Cause, ErrorKind};
use support::{World, key, seconds};

/// What was counted, by name and labels.
#[derive(Default)]
struct Counts {
    counters: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    histograms: Mutex<BTreeMap<String, Arc<Values>>>,
}

#[derive(Default)]
struct Values(Mutex<Vec<f64>>);

impl HistogramFn for Values {
    fn record(&self, value: f64) {
        self.0.lock().unwrap().push(value);
    }
}

impl Counts {
    fn counter(&self, name: &str) -> u64 {
        let counters = self.counters.lock().unwrap();
        counters.get(name).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    fn histogram(&self, name: &str) -> Vec<f64> {
        let histograms = self.histograms.lock().unwrap();
        histograms.get(name).map_or_else(Vec::new, |values| values.0.lock().unwrap().clone())
    }
}

fn text(key: &MetricKey) -> String {
    let labels: Vec<_> =
        key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
    format!("{}{{{}}}", key.name(), labels.join(","))
}

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &MetricKey, _: &Metadata<'_>) -> Counter {
        let mut counters = self.counters.lock().unwrap();
        Counter::from_arc(Arc::clone(counters.entry(text(key)).or_default()))
    }

    fn register_gauge(&self, _: &MetricKey, _: &Metadata<'_>) -> Gauge {
        panic!("no gauges")
    }

    fn register_histogram(&self, key: &MetricKey, _: &Metadata<'_>) -> Histogram {
        let mut histograms = self.histograms.lock().unwrap();
        Histogram::from_arc(Arc::clone(histograms.entry(text(key)).or_default()))
    }
}

#[test]
fn runs_are_counted_and_timed() {
    let counts = Counts::default();
    metrics::with_local_recorder(&counts, || {
        let world = World::new();
        let engine = world
            .at_least_once()
            .wait_for_duplicate(seconds(5))
            .named("payments")
            .observer(MetricsObserver::new());
        let key = key("secret-key");
        let owner = world.start(&engine, &key, seconds(8), "secret-body");
        world.sim.settle();
        let refused = world.start(&engine, &key, seconds(1), "2");
        assert!(world.sim.finish(&refused).is_err());
        let waiter = world.start(&engine, &key, seconds(1), "3");
        assert!(world.sim.finish(&waiter).unwrap().is_replay());
        assert!(world.sim.finish(&owner).is_ok());
    });
    let events = |event| {
        counts.counter(&format!("idempotency_events_total{{operation=payments,event={event}}}"))
    };
    assert_eq!((events("executed"), events("replayed"), events("busy")), (1, 1, 1));
    assert_eq!(events("waiting"), 2);
    let timed =
        |name| counts.histogram(&format!("idempotency_{name}_seconds{{operation=payments}}"));
    assert_eq!((timed("run"), timed("busy"), timed("replay")), (vec![8.0], vec![5.0], vec![3.0]));
    let names: Vec<_> = counts.counters.lock().unwrap().keys().cloned().collect();
    assert!(names.iter().all(|name| !name.contains("secret")), "{names:?}");
}

#[test]
fn every_event_has_a_name_of_its_own() {
    let elapsed = seconds(1);
    let all = [
        (Event::Executed { number: 1, elapsed }, "executed"),
        (Event::Replayed { elapsed }, "replayed"),
        (Event::NotKept, "not_kept"),
        (Event::Waiting, "waiting"),
        (Event::Busy { elapsed }, "busy"),
        (Event::TooManyWaiters, "too_many_waiters"),
        (Event::Mismatch, "mismatch"),
        (Event::Interrupted, "interrupted"),
        (Event::Retired, "retired"),
        (Event::TakenOver { cause: Cause::Lapsed, number: 2 }, "taken_over"),
        (Event::Adopted, "adopted"),
        (Event::Verified { verdict: VerdictKind::Done }, "verified"),
        (Event::LeaseLost { number: 1 }, "lease_lost"),
        (Event::Released { number: 1 }, "released"),
        (Event::GaveUp { number: 1 }, "gave_up"),
        (Event::Dropped { number: 1 }, "dropped"),
        (Event::StepFailed { number: 1 }, "step_failed"),
        (Event::Undecodable, "undecodable"),
        (Event::NotReplayable { len: 1 }, "not_replayable"),
        (Event::Unrecorded, "unrecorded"),
        (Event::StoreFailed { operation: "claim", kind: ErrorKind::Timeout }, "store_failed"),
        (Event::Purged { removed: 7 }, "purged"),
    ];
    let counts = Counts::default();
    metrics::with_local_recorder(&counts, || {
        for (event, _) in &all {
            MetricsObserver::new().observe("payments", event);
        }
    });
    for (event, name) in &all {
        let name = format!("idempotency_events_total{{operation=payments,event={name}}}");
        assert_eq!(counts.counter(&name), 1, "{event:?}");
    }
    let failures = "idempotency_store_failures_total{operation=payments,call=claim,kind=timeout}";
    assert_eq!(counts.counter(failures), 1);
    assert_eq!(counts.counter("idempotency_purged_total{operation=payments}"), 7);
    assert_eq!(counts.counters.lock().unwrap().len(), all.len() + 2);
    assert_eq!(counts.histograms.lock().unwrap().len(), 3);
}
