//! `check`: everything that must hold besides the tests.

mod fence;
mod package;
mod words;

use crate::{
    Verdict,
    error::{Error, Result},
    process::Run,
    workspace::Workspace,
};

#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Names of steps; none means all.
    pub(crate) steps: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    run: fn(&Workspace) -> Result<Status>,
}

/// How a step ended that did not fail.
#[derive(Debug)]
enum Status {
    Passed,
    NotRun(&'static str),
}

/// In the order of what fails fastest.
pub(crate) const STEPS: &[Step] = &[
    Step { name: "fmt", about: "the format of every file", run: format },
    Step { name: "words", about: "no machine's paths, no foreign registry", run: words::check },
    Step { name: "fence", about: "the core pulls no runtime and no driver", run: fence::check },
    Step { name: "clippy", about: "lints, all targets and features", run: clippy },
    Step { name: "features", about: "lints without features, and with each", run: features },
    Step { name: "doc", about: "the documentation, without warnings", run: documentation },
    Step { name: "package", about: "packages: build, licence texts", run: package::check },
    Step { name: "deny", about: "licences and sources, by cargo-deny", run: deny },
];

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<Verdict> {
    let steps = choose(&options.steps)?;
    let mut failures = Vec::new();
    let mut not_run = 0;
    for step in &steps {
        println!("== {}: {}", step.name, step.about);
        match (step.run)(workspace) {
            Ok(Status::Passed) => {}
            Ok(Status::NotRun(reason)) => {
                println!("not run: {reason}");
                not_run += 1;
            }
            Err(error) => {
                eprintln!("error: {error}");
                failures.push(step.name);
            }
        }
    }

    let passed = steps.len() - failures.len() - not_run;
    print!("check: {passed} passed, {} failed, {not_run} not run", failures.len());
    println!("{}{}", if failures.is_empty() { "" } else { "; failed: " }, failures.join(", "));
    Ok(Verdict::good_if(failures.is_empty()))
}

fn choose(names: &[String]) -> Result<Vec<&'static Step>> {
    if names.is_empty() {
        return Ok(STEPS.iter().collect());
    }
    let find = |name: &String| {
        STEPS.iter().find(|step| step.name == name).ok_or_else(|| {
            let known: Vec<_> = STEPS.iter().map(|step| step.name).collect();
            Error::new(
                format!("run the step `{name}`"),
                "there is no step of that name",
                format!("the steps are: {}", known.join(", ")),
            )
        })
    };
    names.iter().map(find).collect()
}

fn format(_: &Workspace) -> Result<Status> {
    Run::cargo(["fmt", "--all", "--", "--check"]).advice("run `cargo fmt --all`").must_succeed()?;
    Ok(Status::Passed)
}

fn clippy(_: &Workspace) -> Result<Status> {
    Run::cargo(["clippy", "--workspace", "--all-targets", "--all-features"])
        .args(DENY_WARNINGS)
        .must_succeed()?;
    Ok(Status::Passed)
}

/// Only libraries: their tests may use any feature, and have been linted with all of them.
fn features(workspace: &Workspace) -> Result<Status> {
    for package in workspace.published().filter(|package| package.has_features()) {
        let alone =
            || Run::cargo(["clippy", "--package", &package.name, "--lib", "--no-default-features"]);
        alone().args(DENY_WARNINGS).must_succeed()?;
        for feature in package.features() {
            alone().args(["--features", feature]).args(DENY_WARNINGS).must_succeed()?;
        }
    }
    Ok(Status::Passed)
}

/// Given to clippy, not through RUSTFLAGS: those would have every dependency built once more.
const DENY_WARNINGS: [&str; 3] = ["--", "-D", "warnings"];

fn documentation(_: &Workspace) -> Result<Status> {
    Run::cargo(["doc", "--workspace", "--no-deps", "--all-features"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .must_succeed()?;
    Ok(Status::Passed)
}

fn deny(_: &Workspace) -> Result<Status> {
    if !Run::cargo(["deny", "--version"]).succeeds() {
        return Ok(Status::NotRun("cargo-deny is not installed"));
    }
    // Advisories come from a database that changes without us, and would break old commits.
    Run::cargo(["deny", "--all-features", "check", "licenses", "bans", "sources"])
        .advice("change the dependency, or `.deny.toml` with the reason beside it")
        .must_succeed()?;
    Ok(Status::Passed)
}

#[cfg(test)]
mod tests {
    use super::{STEPS, choose};

    #[test]
    fn without_names_every_step_runs() {
        assert_eq!(choose(&[]).unwrap().len(), STEPS.len());
    }

    #[test]
    fn named_steps_run_in_the_order_given() {
        let steps = choose(&["doc".to_owned(), "fmt".to_owned()]).unwrap();

        assert_eq!(steps.iter().map(|step| step.name).collect::<Vec<_>>(), ["doc", "fmt"]);
    }

    #[test]
    fn an_unknown_step_is_an_error_that_lists_the_known_ones() {
        let error = choose(&["docs".to_owned()]).unwrap_err().to_string();

        assert!(error.contains("`docs`"), "{error}");
        assert!(error.contains("fence, clippy"), "{error}");
    }
}
