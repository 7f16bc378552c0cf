//! What the suite says of passed, failed and skipped rules.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use oncekey::store::Store;
use oncekey_conformance::{Capabilities, Fixture, Outcome, rules, run_all};

use crate::fixtures::InMemory;

#[test]
fn a_report_names_every_rule() {
    let fixture = InMemory::block_on(InMemory::create());
    let report = run_all(&fixture);
    assert!(report.is_success(), "{report}");
    let reported: Vec<_> = report.entries().iter().map(|entry| entry.rule.name).collect();
    let listed: Vec<_> = rules().iter().map(|rule| rule.name).collect();
    assert_eq!(reported, listed);

    let text = report.to_string();
    assert!(text.contains("passed  claim::grants_an_absent_key\n"));
    let skipped = "skipped inspect::lists_every_record: the fixture lacks the capability Inspect\n";
    assert!(text.contains(skipped), "{text}");
    assert!(text.ends_with("passed, 0 failed, 4 skipped"), "{text}");

    let json: serde_json::Value = serde_json::from_str(&report.to_json("a \"map\"")).unwrap();
    assert_eq!(json["backend"], "a \"map\"");
    let entries = json["rules"].as_array().unwrap();
    assert_eq!(entries.len(), listed.len());
    assert_eq!(entries[0]["name"], listed[0]);
    assert_eq!(entries[0]["verdict"], "passed");
    assert_eq!(entries[0]["detail"], "");
}

/// Its clock cannot be advanced.
struct Panics {
    inner: InMemory,
}

#[async_trait]
impl Fixture for Panics {
    async fn create() -> Self {
        Self { inner: InMemory::create().await }
    }

    async fn open(&self) -> Arc<dyn Store> {
        self.inner.open().await
    }

    async fn advance(&self, _: Duration) {
        panic!("the clock is stuck");
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

#[test]
fn a_rule_that_panics_is_reported_and_the_others_run() {
    let report = run_all(&Panics::block_on(Panics::create()));
    assert!(!report.is_success());
    let outcome = |name| {
        let entry = report.entries().iter().find(|entry| entry.rule.name == name);
        &entry.unwrap().outcome
    };
    assert_eq!(*outcome("claim::grants_an_absent_key"), Outcome::Passed);
    let Outcome::Failed(violation) = outcome("fixture::is_what_it_says") else {
        panic!("a panic is a failure");
    };
    assert_eq!(violation.observed, "a panic: the clock is stuck");
    assert!(report.to_string().contains("failed  fixture::is_what_it_says: required: "));
}

/// Past the capture of the harness, which hides what passing tests print.
#[test]
fn what_is_skipped_is_printed() {
    let printed_by = |test: &str| {
        let this = std::env::current_exe().unwrap();
        let output = Command::new(this).args(["--exact", test]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let printed = printed_by("in_real_time::contention::one_takeover_wins");
    let excused = "skipped contention::one_takeover_wins: it waits for many leases to lapse";
    assert!(printed.contains(excused), "{printed}");
    let printed = printed_by("in_real_time::reopen::an_answer_survives");
    let missing = "skipped reopen::an_answer_survives: the fixture lacks the capability Restart";
    assert!(printed.contains(missing), "{printed}");
}
