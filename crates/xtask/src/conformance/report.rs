//! The reports: that of one backend, as it prints it, and all of them merged.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// What a backend prints:
/// `{"backend": "x", "rules": [{"name": "claim::y", "verdict": "passed", "detail": "..."}]}`.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    backend: String,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    name: String,
    verdict: RuleVerdict,
    #[serde(default)]
    detail: String,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum RuleVerdict {
    Passed,
    Failed,
    Skipped,
}

impl Report {
    /// Takes only a report that can be believed: the right backend, some rules, each of them once,
    /// and a reason wherever the program that printed it ended with a failure.
    pub(super) fn parse(stdout: &str, backend: &str, succeeded: bool) -> Result<Self, String> {
        if !succeeded && stdout.trim().is_empty() {
            return Err("it could not be built, or stopped early; the lines above say why".into());
        }
        let report: Self = serde_json::from_str(stdout.trim())
            .map_err(|cause| format!("what it printed is not a report: {cause}"))?;
        if report.backend != backend {
            return Err(format!("it is the report of `{}`, not `{backend}`", report.backend));
        }
        if report.rules.is_empty() {
            return Err("it has no rules, so nothing was run".to_owned());
        }
        let mut names = BTreeSet::new();
        if let Some(rule) = report.rules.iter().find(|rule| !names.insert(&rule.name)) {
            return Err(format!("it has the rule `{}` twice", rule.name));
        }
        let has_failure = report.rules.iter().any(|rule| rule.verdict == RuleVerdict::Failed);
        if !succeeded && !has_failure {
            return Err("no rule failed, and yet the program did".to_owned());
        }
        Ok(report)
    }
}

/// All reports side by side. Its JSON form is what `conformance.json` contains.
#[derive(Debug, Serialize)]
pub(super) struct Merged {
    pub(super) backends: Vec<Column>,
    pub(super) rules: Vec<Row>,
}

/// One backend: its totals, or why it could not be run.
#[derive(Debug, Serialize)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) totals: Totals,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) passed: u32,
    pub(super) failed: u32,
    pub(super) skipped: u32,
    /// Rules that another backend reported.
    pub(super) missing: u32,
}

/// One rule, and what became of it on the backends that reported it.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) results: BTreeMap<String, Cell>,
}

#[derive(Debug, Serialize)]
pub(super) struct Cell {
    pub(super) verdict: RuleVerdict,
    pub(super) detail: String,
}

impl Merged {
    /// Takes (backend, its report or why there is none); rules keep the order in which they come.
    pub(super) fn new(results: Vec<(String, Result<Report, String>)>) -> Self {
        let mut merged = Self { backends: Vec::new(), rules: Vec::new() };
        for (name, result) in results {
            let error = match result {
                Ok(report) => {
                    merged.add(&name, report.rules);
                    None
                }
                Err(error) => Some(error),
            };
            merged.backends.push(Column { name, totals: Totals::default(), error });
        }
        for column in merged.backends.iter_mut().filter(|column| column.error.is_none()) {
            column.totals = totals(&merged.rules, &column.name);
        }
        merged
    }

    fn add(&mut self, backend: &str, rules: Vec<Rule>) {
        for Rule { name, verdict, detail } in rules {
            let known = self.rules.iter().position(|row| row.name == name);
            let index = known.unwrap_or_else(|| {
                self.rules.push(Row { name, results: BTreeMap::new() });
                self.rules.len() - 1
            });
            self.rules[index].results.insert(backend.to_owned(), Cell { verdict, detail });
        }
    }

    /// Every backend ran, reported every rule, and failed none.
    pub(super) fn is_good(&self) -> bool {
        !self.backends.is_empty()
            && self.backends.iter().all(|column| {
                column.error.is_none() && column.totals.failed == 0 && column.totals.missing == 0
            })
    }
}

fn totals(rules: &[Row], backend: &str) -> Totals {
    let mut totals = Totals::default();
    for row in rules {
        let count = match row.results.get(backend).map(|cell| cell.verdict) {
            Some(RuleVerdict::Passed) => &mut totals.passed,
            Some(RuleVerdict::Failed) => &mut totals.failed,
            Some(RuleVerdict::Skipped) => &mut totals.skipped,
            None => &mut totals.missing,
        };
        *count += 1;
    }
    totals
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Merged, Report, Totals};

    /// `rules` as `name verdict detail...`, one a line.
    pub(crate) fn report(backend: &str, rules: &[&str]) -> Report {
        let rules: Vec<_> = rules
            .iter()
            .map(|rule| {
                let mut words = rule.splitn(3, ' ');
                serde_json::json!({
                    "name": words.next(),
                    "verdict": words.next(),
                    "detail": words.next().unwrap_or_default(),
                })
            })
            .collect();
        let json = serde_json::json!({ "backend": backend, "rules": rules }).to_string();
        Report::parse(&json, backend, true).unwrap()
    }

    fn refusal(json: &str, succeeded: bool) -> String {
        Report::parse(json, "near", succeeded).unwrap_err()
    }

    #[test]
    fn rules_keep_their_order_and_meet_by_name() {
        let merged = Merged::new(vec![
            ("near".into(), Ok(report("near", &["b passed", "a failed it ran twice"]))),
            ("far".into(), Ok(report("far", &["a passed", "b skipped no clock"]))),
        ]);

        let names: Vec<_> = merged.rules.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
        assert_eq!(merged.rules[1].results["near"].detail, "it ran twice");
        assert_eq!(merged.backends[0].totals, Totals { passed: 1, failed: 1, ..Totals::default() });
        assert_eq!(
            merged.backends[1].totals,
            Totals { passed: 1, skipped: 1, ..Totals::default() }
        );
        assert!(!merged.is_good());
    }

    #[test]
    fn a_skipped_rule_is_no_failure() {
        let merged = Merged::new(vec![("near".into(), Ok(report("near", &["a skipped x"])))]);

        assert!(merged.is_good());
    }

    #[test]
    fn a_rule_that_one_backend_forgot_is_a_failure() {
        let merged = Merged::new(vec![
            ("near".into(), Ok(report("near", &["a passed", "b passed"]))),
            ("far".into(), Ok(report("far", &["a passed"]))),
        ]);

        assert_eq!(merged.backends[1].totals.missing, 1);
        assert!(!merged.is_good());
    }

    #[test]
    fn a_backend_that_could_not_be_run_is_a_failure() {
        let merged = Merged::new(vec![
            ("near".into(), Ok(report("near", &["a passed"]))),
            ("far".into(), Err("no server".into())),
        ]);

        assert_eq!(merged.backends[1].error.as_deref(), Some("no server"));
        assert_eq!(merged.backends[1].totals, Totals::default());
        assert!(!merged.is_good());
        assert!(!Merged::new(Vec::new()).is_good());
    }

    #[test]
    fn a_report_that_cannot_be_believed_is_refused() {
        let rule = r#"{"name": "a", "verdict": "passed"}"#;

        assert!(refusal("\n", false).contains("could not be built"));
        assert!(refusal("running 1 test", true).contains("not a report"));
        assert!(refusal(r#"{"backend": "far", "rules": []}"#, true).contains("`far`"));
        assert!(refusal(r#"{"backend": "near", "rules": []}"#, true).contains("no rules"));
        let twice = format!(r#"{{"backend": "near", "rules": [{rule}, {rule}]}}"#);
        assert!(refusal(&twice, true).contains("twice"));
        let unknown = r#"{"backend": "near", "rules": [{"name": "a", "verdict": "maybe"}]}"#;
        assert!(refusal(unknown, true).contains("maybe"));
        let crashed = format!(r#"{{"backend": "near", "rules": [{rule}]}}"#);
        assert!(refusal(&crashed, false).contains("the program did"));
    }

    #[test]
    fn the_merged_report_is_json() {
        let merged = Merged::new(vec![
            ("near".into(), Ok(report("near", &["a failed why"]))),
            ("far".into(), Err("no server".into())),
        ]);

        assert_eq!(
            serde_json::to_value(&merged).unwrap(),
            serde_json::json!({
                "backends": [
                    {"name": "near",
                     "totals": {"passed": 0, "failed": 1, "skipped": 0, "missing": 0}},
                    {"name": "far", "error": "no server",
                     "totals": {"passed": 0, "failed": 0, "skipped": 0, "missing": 0}},
                ],
                "rules": [
                    {"name": "a", "results": {"near": {"verdict": "failed", "detail": "why"}}},
                ],
            })
        );
    }
}
