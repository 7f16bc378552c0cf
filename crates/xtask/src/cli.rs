//! The command line: arguments in, one task with its options out.

use std::{collections::VecDeque, ffi::OsString, path::PathBuf, str::FromStr};

use crate::{
    backends::{BACKENDS, VALKEY},
    check, conformance,
    error::{Error, Result},
    night, test,
};

#[derive(Debug)]
pub(crate) enum Invocation {
    Help(String),
    Test(test::Options),
    Check(check::Options),
    Conformance(conformance::Options),
    Night(night::Options),
}

pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation> {
    let mut args = Args::new(args)?;
    let Some(task) = args.next() else {
        return Ok(Invocation::Help(overview()));
    };
    match task.as_str() {
        "help" | "-h" | "--help" => help(args.next().as_deref()),
        "test" => parse_test(args),
        "check" => parse_check(args),
        "conformance" => parse_conformance(args),
        "night" => parse_night(args),
        _ => Err(usage(
            format!("the task `{task}`"),
            "there is no task of that name",
            "`cargo xtask help` lists the tasks",
        )),
    }
}

fn parse_test(mut args: Args) -> Result<Invocation> {
    let mut options = test::Options::default();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-h" | "--help" => return help(Some("test")),
            "--skip" => options.skip.push(args.value("--skip")?),
            _ => return Err(unexpected(&arg, "test")),
        }
    }
    Ok(Invocation::Test(options))
}

fn parse_check(mut args: Args) -> Result<Invocation> {
    let mut options = check::Options::default();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-h" | "--help" => return help(Some("check")),
            _ if arg.starts_with('-') => return Err(unexpected(&arg, "check")),
            _ => options.steps.push(arg),
        }
    }
    Ok(Invocation::Check(options))
}

fn parse_conformance(mut args: Args) -> Result<Invocation> {
    let mut options = conformance::Options::default();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-h" | "--help" => return help(Some("conformance")),
            "--json" => options.json = Some(PathBuf::from(args.value("--json")?)),
            "--skip" => options.skip.push(args.value("--skip")?),
            _ => return Err(unexpected(&arg, "conformance")),
        }
    }
    Ok(Invocation::Conformance(options))
}

fn parse_night(mut args: Args) -> Result<Invocation> {
    let mut options = night::Options::default();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-h" | "--help" => return help(Some("night")),
            "--minutes" => options.minutes = Some(args.number("--minutes")?),
            "--seeds" => options.seeds = args.number("--seeds")?,
            "--cases" => options.cases = args.number("--cases")?,
            "--seed" => options.seed = Some(args.number("--seed")?),
            "--skip" => options.skip.push(args.value("--skip")?),
            _ => return Err(unexpected(&arg, "night")),
        }
    }
    Ok(Invocation::Night(options))
}

fn help(task: Option<&str>) -> Result<Invocation> {
    let text = match task {
        None => overview(),
        Some("test") => test_help(),
        Some("check") => check_help(),
        Some("conformance") => CONFORMANCE_HELP.to_owned(),
        Some("night") => night_help(),
        Some(task) => {
            return Err(usage(
                format!("`help {task}`"),
                "there is no task of that name",
                "`cargo xtask help` lists the tasks",
            ));
        }
    };
    Ok(Invocation::Help(text))
}

fn unexpected(arg: &str, task: &str) -> Error {
    usage(
        format!("the argument `{arg}`"),
        format!("`{task}` does not take it"),
        format!("`cargo xtask {task} --help` lists what it takes"),
    )
}

fn usage(subject: String, cause: impl std::fmt::Display, advice: impl Into<String>) -> Error {
    Error::new(format!("understand {subject}"), cause, advice)
}

/// The arguments that are left; `--name=value` has been split in two.
struct Args(VecDeque<String>);

impl Args {
    fn new(args: impl IntoIterator<Item = OsString>) -> Result<Self> {
        let mut split = VecDeque::new();
        for arg in args {
            let arg = arg.into_string().map_err(|arg| {
                usage(
                    format!("the argument `{}`", arg.display()),
                    "it is not valid UTF-8",
                    "use a plain name or path",
                )
            })?;
            match arg.split_once('=') {
                Some((name, value)) if name.starts_with("--") => {
                    split.extend([name.to_owned(), value.to_owned()]);
                }
                _ => split.push_back(arg),
            }
        }
        Ok(Self(split))
    }

    fn next(&mut self) -> Option<String> {
        self.0.pop_front()
    }

    fn value(&mut self, name: &str) -> Result<String> {
        self.next().filter(|value| !value.is_empty()).ok_or_else(|| {
            usage(format!("`{name}`"), "its value is missing", format!("write `{name} VALUE`"))
        })
    }

    fn number<N: FromStr>(&mut self, name: &str) -> Result<N> {
        let value = self.value(name)?;
        value.parse().map_err(|_| {
            usage(
                format!("`{name} {value}`"),
                "the value is not a whole number in range",
                format!("write for example `{name} 10`"),
            )
        })
    }
}

fn overview() -> String {
    "\
The tasks of this workspace.

Usage: cargo xtask TASK [OPTIONS]

Tasks:
  check        format, lints, documentation, the core's dependencies, packages, words
  test         every test and documentation test of the workspace
  conformance  the conformance suite on every backend, as a table
  night        the tests again, in release and with far larger numbers
  help [TASK]  this text, or that of one task (also: TASK --help)
"
    .to_owned()
}

fn test_help() -> String {
    format!(
        "\
Runs every test of the workspace: with cargo-nextest where it is installed, with `cargo test`
otherwise; then, with their default features, the crates that have features; then the
documentation tests. All of them run, also after a failure. Programs that a backend's tests
need are looked for first, and installed with apt-get on Debian and Ubuntu (Valkey with pip).

Usage: cargo xtask test [--skip BACKEND]...

Options:
  --skip BACKEND  leave out that backend's tests; may be repeated
                  (backends: {})
  -h, --help      this text
",
        backend_names()
    )
}

fn check_help() -> String {
    let mut text = String::from(
        "\
Checks everything that is not a test. Without STEP, every step runs, also after a failure.

Usage: cargo xtask check [STEP]...

Steps:
",
    );
    for step in check::STEPS {
        text.push_str(&format!("  {:<10}  {}\n", step.name, step.about));
    }
    text.push_str(
        "
Where the variable CI is set, packages are made from committed files only.

Options:
  -h, --help  this text
",
    );
    text
}

const CONFORMANCE_HELP: &str = "\
Runs the conformance suite on every backend and prints a table of rules and backends. The exit
status is not zero if a rule failed, if a backend did not report a rule that another one did, or
if a backend could not be run.

Usage: cargo xtask conformance [--json PATH] [--skip BACKEND]...

Options:
  --json PATH     where to write the merged report (default: conformance.json in the target folder)
  --skip BACKEND  leave that backend out; may be repeated
  -h, --help   this text
";

fn night_help() -> String {
    format!(
        "\
Runs the tests in the release profile and with far larger numbers. A failure prints the seed
that repeats it.

Usage: cargo xtask night [OPTIONS]

Options:
  --minutes M     start another round, with fresh seeds, until M minutes have passed; a round
                  that has started is finished (default: one round)
  --seeds N       random seeds per test and round, as ONCEKEY_SEEDS (default: {})
  --cases N       cases per property and round, as PROPTEST_CASES (default: {})
  --seed S        the first seed of the first round, as ONCEKEY_SEED and PROPTEST_RNG_SEED
                  (default: from the time of day)
  --skip BACKEND  leave out that backend's tests; may be repeated
                  (backends: {})
  -h, --help      this text
",
        night::DEFAULT_SEEDS,
        night::DEFAULT_CASES,
        backend_names()
    )
}

fn backend_names() -> String {
    let names = BACKENDS.iter().map(|backend| backend.name);
    names.chain([VALKEY]).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{Invocation, parse};

    fn parsed(line: &str) -> Invocation {
        parse(line.split_whitespace().map(Into::into)).unwrap()
    }

    fn refused(line: &str) -> String {
        parse(line.split_whitespace().map(Into::into)).unwrap_err().to_string()
    }

    #[test]
    fn every_task_has_help() {
        for task in ["test", "check", "conformance", "night"] {
            for line in [format!("{task} --help"), format!("{task} -h"), format!("help {task}")] {
                let Invocation::Help(text) = parsed(&line) else { panic!("{line} is not help") };
                assert!(text.contains(&format!("Usage: cargo xtask {task}")), "{text}");
            }
        }
        for line in ["", "help", "--help"] {
            assert!(matches!(parsed(line), Invocation::Help(_)));
        }
    }

    #[test]
    fn values_may_follow_a_space_or_an_equals_sign() {
        for line in ["test --skip memory --skip other", "test --skip=memory --skip=other"] {
            let Invocation::Test(options) = parsed(line) else { panic!("{line}") };
            assert_eq!(options.skip, ["memory", "other"]);
        }
    }

    #[test]
    fn night_takes_numbers() {
        let Invocation::Night(options) = parsed("night --minutes 5 --seed=7 --cases 9") else {
            panic!()
        };
        assert_eq!((options.minutes, options.seed, options.cases), (Some(5), Some(7), 9));
        assert_eq!(options.seeds, crate::night::DEFAULT_SEEDS);
    }

    #[test]
    fn mistakes_are_named() {
        assert!(refused("tset").contains("`tset`"));
        assert!(refused("test --json x").contains("`--json`"));
        assert!(refused("test --skip").contains("value is missing"));
        assert!(refused("night --minutes soon").contains("`--minutes soon`"));
        assert!(refused("check --fix").contains("`--fix`"));
    }
}
