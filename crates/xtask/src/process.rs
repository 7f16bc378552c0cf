//! Running other programs: shown before they start, explained when they fail.

use std::{
    ffi::OsString,
    fmt,
    io::{self, BufRead, BufReader, IsTerminal, Read, Write},
    path::Path,
    process::{Command, ExitStatus, Stdio},
    thread,
};

use crate::error::{Error, Result};

/// One run of a program.
#[derive(Debug)]
pub(crate) struct Run {
    program: OsString,
    name: String,
    args: Vec<String>,
    env: Vec<(&'static str, OsString)>,
    directory: Option<std::path::PathBuf>,
    advice: String,
}

impl Run {
    /// The cargo that runs this task, so that both use one toolchain.
    pub(crate) fn cargo<A: Into<String>>(args: impl IntoIterator<Item = A>) -> Self {
        let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Self { program, ..Self::program("cargo", args) }
    }

    pub(crate) fn program<A: Into<String>>(
        name: impl Into<String>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let name = name.into();
        Self {
            program: OsString::from(&name),
            name,
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            directory: None,
            advice: "the lines above say why; repeat the command to see them again".into(),
        }
    }

    pub(crate) fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub(crate) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    pub(crate) fn directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// What to do when the program ends with a failure.
    pub(crate) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }

    /// Runs it with its output going where ours goes; a failure is an error.
    pub(crate) fn must_succeed(&self) -> Result<()> {
        self.announce();
        let status = self.command().status().map_err(|cause| self.not_started(&cause))?;
        if status.success() { Ok(()) } else { Err(self.failed(status)) }
    }

    /// Runs it in silence and says whether it succeeded; a missing program did not.
    pub(crate) fn succeeds(&self) -> bool {
        let status = self
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    }

    /// What it printed on stdout; a failure is an error that carries its stderr.
    pub(crate) fn output_of_success(&self) -> Result<String> {
        let output = self.command().output().map_err(|cause| self.not_started(&cause))?;
        if !output.status.success() {
            return Err(Error::new(
                format!("run `{self}`"),
                format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim()),
                self.advice.clone(),
            ));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it and returns its stdout; its stderr goes where ours goes.
    pub(crate) fn capture(&self) -> Result<Captured> {
        self.announce();
        let output = self
            .command()
            .stderr(Stdio::inherit())
            .output()
            .map_err(|cause| self.not_started(&cause))?;
        Ok(Captured {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::new(),
        })
    }

    /// Runs it, shows what it prints as it comes, and returns it too.
    pub(crate) fn watch(&self) -> Result<Captured> {
        self.announce();
        let mut command = self.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // The program sees pipes, but what it prints ends up where our own output goes.
        if io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
            command.env("CARGO_TERM_COLOR", "always");
        }
        let mut child = command.spawn().map_err(|cause| self.not_started(&cause))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (stdout, stderr) = thread::scope(|scope| {
            let errors = scope.spawn(|| pass_on(stderr, io::stderr()));
            let stdout = pass_on(stdout, io::stdout());
            (stdout, errors.join().unwrap_or_default())
        });
        let status = child.wait().map_err(|cause| self.not_started(&cause))?;
        Ok(Captured { status, stdout, stderr })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }

    fn announce(&self) {
        println!("$ {self}");
        // The program writes to the same place, and must not overtake this line.
        let _ = io::stdout().flush();
    }

    fn not_started(&self, cause: &io::Error) -> Error {
        Error::new(
            format!("start `{self}`"),
            cause,
            format!("check that `{}` is installed and on PATH", self.name),
        )
    }

    fn failed(&self, status: ExitStatus) -> Error {
        Error::new(format!("finish `{self}`"), status, self.advice.clone())
    }
}

/// As one would type it in a shell. PATH is left out: it is long, and says nothing.
impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.env.iter().filter(|(name, _)| *name != "PATH") {
            write!(f, "{name}={} ", quoted(&value.to_string_lossy()))?;
        }
        f.write_str(&self.name)?;
        for arg in &self.args {
            write!(f, " {}", quoted(arg))?;
        }
        Ok(())
    }
}

fn quoted(word: &str) -> String {
    if word.is_empty() || word.contains(char::is_whitespace) {
        format!("'{word}'")
    } else {
        word.to_owned()
    }
}

#[derive(Debug)]
pub(crate) struct Captured {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Copies line by line. A terminal that has gone away must not stop the program being watched, so
/// only reading ends the loop.
fn pass_on(from: Option<impl Read>, mut to: impl Write) -> String {
    let mut seen = Vec::new();
    let Some(from) = from else {
        return String::new();
    };
    let mut from = BufReader::new(from);
    loop {
        let start = seen.len();
        match from.read_until(b'\n', &mut seen) {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                let _ = to.write_all(&seen[start..]).and_then(|()| to.flush());
            }
        }
    }
    String::from_utf8_lossy(&seen).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{Run, pass_on};

    #[test]
    fn is_shown_as_it_would_be_typed() {
        let run = Run::cargo(["doc", "--no-deps", "two words"]).env("RUSTDOCFLAGS", "-D warnings");

        assert_eq!(run.to_string(), "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps 'two words'");
    }

    #[test]
    fn a_missing_program_is_named() {
        let run = Run::program("no-such-program-7f3a", ["--version"]);

        assert!(!run.succeeds());
        let error = run.output_of_success().unwrap_err().to_string();
        assert!(error.contains("`no-such-program-7f3a --version`"), "{error}");
        assert!(error.contains("on PATH"), "{error}");
    }

    #[test]
    fn what_is_passed_on_is_also_returned() {
        let mut shown = Vec::new();

        let seen = pass_on(Some(&b"one\ntwo"[..]), &mut shown);

        assert_eq!(seen, "one\ntwo");
        assert_eq!(shown, b"one\ntwo");
    }
}
