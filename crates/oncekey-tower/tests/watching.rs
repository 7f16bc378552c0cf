//! What the README says of metrics is what there is.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;

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
