//! What the README says of metrics is what there is, and both kinds of counts have the same labels.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use oncekey::Idempotency;
use oncekey::observe::{Event, Observer};
use oncekey_memory::MemoryStore;
use oncekey_tower::{IdempotencyLayer, Principal};
use tower::ServiceExt;

const README: &str = include_str!("../README.md");
const EVENTS: &str = include_str!("../../oncekey/src/observe/mod.rs");
const METRICS: &str = include_str!("../../oncekey/src/observe/metrics.rs");

/// What is between `mark`s.
fn quoted(text: &str, mark: char) -> impl Iterator<Item = &str> {
    text.split(mark).skip(1).step_by(2)
}

/// The names that events have in metrics.
fn events() -> BTreeSet<&'static str> {
    let arms = EVENTS.lines().filter(|line| line.trim().starts_with("Self::"));
    arms.filter_map(|line| line.split("=> \"").nth(1)?.split('"').next()).collect()
}

fn metrics() -> BTreeSet<&'static str> {
    let code = METRICS.lines().filter(|line| !line.trim().starts_with("///"));
    let strings = code.flat_map(|line| quoted(line, '"'));
    strings.filter(|string| string.starts_with("idempotency_")).collect()
}

#[test]
fn every_metric_and_every_event_is_listed() {
    let rows: Vec<_> = README.lines().filter(|line| line.starts_with("| `idempotency_")).collect();
    let named = rows.iter().filter_map(|row| quoted(row, '`').next()).collect::<BTreeSet<_>>();
    assert_eq!(named, metrics());

    let row = rows.iter().find(|row| row.contains("idempotency_events_total")).unwrap();
    let listed = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
    assert_eq!(quoted(listed, '`').collect::<BTreeSet<_>>(), events());
    assert!(events().len() > 15);
}

#[test]
fn queries_ask_for_what_there_is() {
    let queries: Vec<_> = README.split("```promql").skip(1).collect();
    let queries: String = queries.iter().map(|it| it.split("```").next().unwrap()).collect();
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let used: BTreeSet<_> =
        queries.split(word).filter(|word| word.starts_with("idempotency_")).collect();
    assert!(used.len() >= 2);
    for name in used {
        let name = name.strip_suffix("_bucket").unwrap_or(name);
        assert!(metrics().contains(name), "{name}");
    }
    let mut asked = 0;
    for selector in quoted(&queries, '"') {
        for event in selector.split('|') {
            assert!(events().contains(event), "{event}");
            asked += 1;
        }
    }
    assert!(asked >= 8, "{asked}");
}

/// The labels that it was told, each with what it came with.
#[derive(Debug, Clone, Default)]
struct Labels(Arc<Mutex<Vec<(String, &'static str)>>>);

impl Labels {
    fn add(&self, label: &str, of: &'static str) {
        self.0.lock().unwrap().push((label.to_owned(), of));
    }
}

impl Observer for Labels {
    fn observe(&self, operation: &str, event: &Event) {
        self.add(operation, event.name());
    }
}

/// What is told of a request that runs, and of one that is refused at the door.
async fn labels(
    name: impl Fn(Idempotency) -> Idempotency,
    set: impl Fn(IdempotencyLayer) -> IdempotencyLayer,
) -> BTreeSet<(String, &'static str)> {
    let labels = Labels::default();
    let engine = Idempotency::at_least_once(MemoryStore::new()).observer(labels.clone());
    let told = labels.clone();
    let layer = set(IdempotencyLayer::new(name(engine), Principal::single_tenant()))
        .on_problem(move |label, problem| told.add(label, problem.kind().slug()));
    let router: Router = Router::new().route("/", post(async || "paid")).layer(layer);
    for (key, status) in [("k", 200), ("", 400)] {
        let request = http::Request::post("/").header("idempotency-key", key);
        let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), status);
    }
    labels.0.lock().unwrap().drain(..).collect()
}

#[tokio::test]
async fn events_and_problems_have_the_same_label() {
    let both = |label: &str| {
        BTreeSet::from([(label.to_owned(), "executed"), (label.to_owned(), "key-malformed")])
    };
    assert_eq!(labels(|engine| engine, |layer| layer).await, both("http"));
    assert_eq!(labels(|engine| engine.named("pay"), |layer| layer).await, both("pay"));
    let named = |layer: IdempotencyLayer| layer.with_operation("refunds");
    assert_eq!(labels(|engine| engine.named("pay"), named).await, both("refunds"));
}
