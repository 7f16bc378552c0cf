//! What became of every rule: [`Report`].

use std::fmt;

use serde_json::json;

use crate::{Capability, Rule, Violation};

/// What became of every rule on one fixture.
#[derive(Debug, Clone)]
#[must_use = "a report says whether the store conforms"]
pub struct Report {
    entries: Vec<Entry>,
}

/// What became of one rule.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Entry {
    /// The rule.
    pub rule: Rule,
    /// What became of it.
    pub outcome: Outcome,
}

/// How a rule ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The store keeps it.
    Passed,
    /// The store breaks it.
    Failed(Violation),
    /// It was not run.
    Skipped(Skip),
}

/// Why a rule was not run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Skip {
    /// The fixture lacks these capabilities.
    Missing(Vec<Capability>),
    /// The store's author says why.
    Excused(String),
}

impl Report {
    pub(crate) const fn new(entries: Vec<Entry>) -> Self {
        Self { entries }
    }

    /// Every rule of the suite, in its order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether no rule failed. Skipped rules prove nothing: read which they are.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.count("failed") == 0
    }

    /// The report as JSON, for a program that compares stores: `{"backend": .., "rules": [{"name": ..,
    /// "doc": .., "verdict": "passed" | "failed" | "skipped", "detail": ..}]}`.
    #[must_use]
    pub fn to_json(&self, backend: &str) -> String {
        let rules: Vec<_> = self
            .entries
            .iter()
            .map(|entry| {
                json!({
                    "name": entry.rule.name,
                    "doc": entry.rule.doc,
                    "verdict": entry.outcome.verdict(),
                    "detail": entry.outcome.detail(),
                })
            })
            .collect();
        json!({ "backend": backend, "rules": rules }).to_string()
    }

    fn count(&self, verdict: &str) -> usize {
        let entries = self.entries.iter();
        entries.filter(|entry| entry.outcome.verdict() == verdict).count()
    }
}

impl fmt::Display for Report {
    /// One line a rule, and a line with the sums.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Entry { rule, outcome } in &self.entries {
            write!(f, "{:<7} {}", outcome.verdict(), rule.name)?;
            match outcome {
                Outcome::Passed => writeln!(f)?,
                Outcome::Failed(_) | Outcome::Skipped(_) => writeln!(f, ": {}", outcome.detail())?,
            }
        }
        let [passed, failed, skipped] =
            ["passed", "failed", "skipped"].map(|verdict| self.count(verdict));
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

impl Outcome {
    /// `passed`, `failed` or `skipped`.
    #[must_use]
    pub const fn verdict(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "failed",
            Self::Skipped(_) => "skipped",
        }
    }

    /// What was required and observed, or why the rule was not run; empty when it passed.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::Passed => String::new(),
            Self::Failed(violation) => violation.to_string(),
            Self::Skipped(skip) => skip.to_string(),
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(capabilities) => {
                write!(f, "the fixture lacks the capability")?;
                for (index, capability) in capabilities.iter().enumerate() {
                    let before = if index == 0 { " " } else { ", " };
                    write!(f, "{before}{capability:?}")?;
                }
                Ok(())
            }
            Self::Excused(reason) => f.write_str(reason),
        }
    }
}
