//! `test`: every test of the workspace.

use crate::{
    Verdict,
    backends::{Backend, Backends},
    counts::Counts,
    error::Result,
    runner::{Outcome, Profile, Runner, Scope},
    workspace::Workspace,
};

#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Names of backends.
    pub(crate) skip: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<Verdict> {
    let backends = Backends::prepare(workspace, &options.skip)?;
    let runner = Runner::detect();
    let all = everything(&backends);

    let mut tally = Tally::default();
    tally.add("tests", runner.run(&backends, &all, Profile::Dev, &[])?);
    for package in with_features(workspace, &backends) {
        let scope = Scope::Package(package.to_owned());
        let outcome = runner.run(&backends, &scope, Profile::Dev, &[])?;
        tally.add(format!("tests of {package} with its default features"), outcome);
    }
    tally.add("documentation tests", all.run_doctests(&backends)?);

    println!("{}", tally.closing_line("test"));
    Ok(Verdict::good_if(tally.failures.is_empty()))
}

/// The whole workspace but the crates of skipped backends.
pub(crate) fn everything(backends: &Backends) -> Scope {
    let without = backends.skipped.iter().flat_map(|backend| backend.packages());
    Scope::Workspace { without: without.map(str::to_owned).collect() }
}

/// The published packages that behave differently with and without features. Not those that need a
/// server: their features add to what there is and change none of it, and their tests take minutes.
fn with_features<'a>(
    workspace: &'a Workspace,
    backends: &'a Backends,
) -> impl Iterator<Item = &'a str> {
    workspace
        .published()
        .filter(|package| package.has_features())
        .map(|package| package.name.as_str())
        .filter(|name| !backends.skipped.iter().any(|backend| backend.has(name)))
        .filter(|name| {
            let needs_server = |backend: &&Backend| !backend.needs.is_empty();
            !backends.chosen.iter().copied().filter(needs_server).any(|backend| backend.has(name))
        })
}

/// The counts of several runs, and which of the runs failed.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) failures: Vec<String>,
    counts: Counts,
    uncounted: Vec<String>,
}

impl Tally {
    pub(crate) fn add(&mut self, what: impl Into<String>, outcome: Outcome) {
        let what = what.into();
        match outcome.counts {
            Some(counts) => self.counts += counts,
            None => self.uncounted.push(what.clone()),
        }
        if !outcome.good {
            self.failures.push(what);
        }
    }

    pub(crate) fn closing_line(&self, task: &str) -> String {
        let mut line = format!("{task}: {}", self.counts);
        if !self.uncounted.is_empty() {
            line.push_str(&format!("; no count from: {}", self.uncounted.join(", ")));
        }
        if !self.failures.is_empty() {
            line.push_str(&format!("; failed: {}", self.failures.join(", ")));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;
    use crate::{counts::Counts, runner::Outcome};

    #[test]
    fn counts_add_up() {
        let counts = Some(Counts { passed: 2, skipped: 1, ..Counts::default() });
        let mut tally = Tally::default();
        tally.add("tests", Outcome { good: true, counts });
        tally.add("documentation tests", Outcome { good: true, counts });

        assert_eq!(tally.closing_line("test"), "test: 4 passed, 0 failed, 2 skipped");
    }

    #[test]
    fn a_run_that_could_not_be_counted_is_not_passed_over() {
        let mut tally = Tally::default();
        tally.add("tests", Outcome { good: false, counts: None });

        assert_eq!(
            tally.closing_line("test"),
            "test: 0 passed, 0 failed, 0 skipped; no count from: tests; failed: tests"
        );
    }
}
