//! The two test runners behind one face: nextest where it is installed, `cargo test` otherwise.

use crate::{backends::Backends, counts::Counts, error::Result, process::Run};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runner {
    Nextest,
    CargoTest,
}

/// What to run.
#[derive(Clone, Debug)]
pub(crate) enum Scope {
    /// The workspace with all features, without these packages.
    Workspace { without: Vec<String> },
    /// One package with its default features.
    Package(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) good: bool,
    /// Nothing if the runner printed no closing line that we can read.
    pub(crate) counts: Option<Counts>,
}

impl Runner {
    pub(crate) fn detect() -> Self {
        if Run::cargo(["nextest", "--version"]).succeeds() {
            Self::Nextest
        } else {
            println!("cargo-nextest is not installed: using cargo test");
            Self::CargoTest
        }
    }

    /// Runs unit and integration tests to the end, whatever fails on the way.
    pub(crate) fn run(
        self,
        backends: &Backends,
        scope: &Scope,
        profile: Profile,
        env: &[(&'static str, String)],
    ) -> Result<Outcome> {
        let mut run = backends.reach(Run::cargo(self.args(scope, profile)));
        for (name, value) in env {
            run = run.env(name, value);
        }
        let captured = run.watch()?;
        Ok(Outcome {
            good: captured.status.success(),
            counts: match self {
                Self::Nextest => Counts::from_nextest(&captured.stderr),
                Self::CargoTest => Counts::from_cargo_test(&captured.stdout),
            },
        })
    }

    fn args(self, scope: &Scope, profile: Profile) -> Vec<String> {
        let mut args = match self {
            Self::Nextest => strings(&["nextest", "run", "--no-fail-fast"]),
            // Documentation tests run apart from these, as nextest has none.
            Self::CargoTest => {
                strings(&["test", "--no-fail-fast", "--lib", "--bins", "--tests", "--examples"])
            }
        };
        if profile == Profile::Release {
            args.push("--release".to_owned());
        }
        args.extend(scope.args());
        if self == Self::Nextest && matches!(scope, Scope::Package(_)) {
            args.push("--no-tests=pass".to_owned());
        }
        args
    }
}

impl Scope {
    /// Runs the documentation tests, which only `cargo test` can.
    pub(crate) fn run_doctests(&self, backends: &Backends) -> Result<Outcome> {
        let run = Run::cargo(["test", "--doc", "--no-fail-fast"]).args(self.args());
        let captured = backends.reach(run).watch()?;
        Ok(Outcome {
            good: captured.status.success(),
            counts: Counts::from_cargo_test(&captured.stdout),
        })
    }

    fn args(&self) -> Vec<String> {
        match self {
            Self::Workspace { without } => {
                let mut args = strings(&["--workspace", "--all-features"]);
                args.extend(without.iter().flat_map(|name| ["--exclude".to_owned(), name.clone()]));
                args
            }
            Self::Package(name) => strings(&["--package", name]),
        }
    }
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::{Profile, Runner, Scope};

    fn line(runner: Runner, scope: &Scope, profile: Profile) -> String {
        runner.args(scope, profile).join(" ")
    }

    #[test]
    fn the_workspace_runs_with_all_features() {
        let scope = Scope::Workspace { without: vec!["oncekey-far".to_owned()] };

        assert_eq!(
            line(Runner::Nextest, &scope, Profile::Dev),
            "nextest run --no-fail-fast --workspace --all-features --exclude oncekey-far"
        );
        assert_eq!(
            line(Runner::CargoTest, &scope, Profile::Release),
            "test --no-fail-fast --lib --bins --tests --examples --release --workspace \
             --all-features --exclude oncekey-far"
        );
    }

    #[test]
    fn one_package_may_have_no_tests() {
        let scope = Scope::Package("oncekey".to_owned());

        assert_eq!(
            line(Runner::Nextest, &scope, Profile::Dev),
            "nextest run --no-fail-fast --package oncekey --no-tests=pass"
        );
    }
}
