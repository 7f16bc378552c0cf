//! The numbers behind `/metrics`: a recorder of the `metrics` facade that writes the text format of
//! Prometheus. Small enough to read; a service takes an exporter crate instead.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

/// Seconds.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Clones record together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prometheus {
    series: Arc<Mutex<Series>>,
}

/// By name and labels, as they are printed.
#[derive(Debug, Default)]
struct Series {
    counters: BTreeMap<(String, String), Arc<AtomicU64>>,
    histograms: BTreeMap<(String, String), Arc<Seconds>>,
}

#[derive(Debug, Default)]
struct Seconds {
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

impl Prometheus {
    /// The recorder of this process.
    pub(crate) fn of_this_process() -> Self {
        static INSTALLED: OnceLock<Prometheus> = OnceLock::new();
        let install = || {
            let recorder = Self::default();
            // Fails if there is one already; then this one stays empty.
            let _ = metrics::set_global_recorder(recorder.clone());
            recorder
        };
        INSTALLED.get_or_init(install).clone()
    }

    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        let series = self.series();
        for ((name, labels), counter) in &series.counters {
            let count = counter.load(Ordering::Relaxed);
            let _ = writeln!(text, "{name}{{{labels}}} {count}");
        }
        for ((name, labels), seconds) in &series.histograms {
            let mut at_most = 0;
            for (bound, bucket) in BUCKETS.iter().zip(&seconds.buckets) {
                at_most += bucket.load(Ordering::Relaxed);
                let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {at_most}");
            }
            let count = seconds.count.load(Ordering::Relaxed);
            let sum = seconds.micros.load(Ordering::Relaxed) as f64 / 1e6;
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
            let _ =
                writeln!(text, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}");
        }
        text
    }

    fn series(&self) -> MutexGuard<'_, Series> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn identity(key: &Key) -> (String, String) {
    let labels = key.labels().map(|it| format!("{}={:?}", it.key(), it.value()));
    (key.name().to_owned(), labels.collect::<Vec<_>>().join(","))
}

impl Recorder for Prometheus {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::clone(self.series().counters.entry(identity(key)).or_default()))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::clone(self.series().histograms.entry(identity(key)).or_default()))
    }
}

impl HistogramFn for Seconds {
    fn record(&self, seconds: f64) {
        if let Some(at) = BUCKETS.iter().position(|bound| seconds <= *bound) {
            self.buckets[at].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add((seconds * 1e6) as u64, Ordering::Relaxed);
    }
}
