//! Programs: where they are, as whom they run, and how they end.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The file of `program`: in the folder that `variable` names, on PATH, or in one of `folders`.
pub(crate) fn find(program: &str, variable: &str, folders: &[PathBuf], package: &str) -> PathBuf {
    let own = std::env::var_os(variable).map(PathBuf::from);
    if let Some(folder) = &own {
        let file = folder.join(program);
        assert!(file.is_file(), "{variable} is set, and there is no {}", file.display());
        return file;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path: Vec<_> = std::env::split_paths(&path).collect();
    let found = path.iter().chain(folders).map(|folder| folder.join(program)).find(|p| p.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "the program `{program}` is missing; install it (on Debian and Ubuntu: `apt-get install \
             {package}`), or set {variable} to the folder that has it"
        )
    })
}

/// Whom servers run as: they refuse to run as root.
pub(crate) fn unprivileged() -> Option<&'static str> {
    let id = Command::new("id").arg("-u").output().expect("the program `id` is there");
    if String::from_utf8_lossy(&id.stdout).trim() != "0" {
        return None;
    }
    let has = |user: &str| Command::new("id").args(["-u", user]).output().unwrap().status.success();
    Some(if has("postgres") { "postgres" } else { "nobody" })
}

/// `program` as that user, and in a session of its own: what a terminal sends is for the tests.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setsid");
    if let Some(user) = unprivileged() {
        command.args(["setpriv", "--reuid", user, "--regid"]).arg(group_of(user));
        command.arg("--clear-groups");
    }
    command.arg(program).stdin(Stdio::null());
    command
}

fn group_of(user: &str) -> String {
    let id = Command::new("id").args(["-g", user]).output().unwrap();
    String::from_utf8_lossy(&id.stdout).trim().to_owned()
}

/// Runs `command` to its end, which must be a success.
pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A folder that the servers' user owns.
pub(crate) fn new_folder(name: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    // Short: the path of a socket in it may have no more than 107 bytes.
    let folder = std::env::temp_dir().join(format!("ok-{name}-{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    own(&folder);
    folder
}

/// Gives the folder, and what is in it, to the servers' user.
pub(crate) fn own(folder: &Path) {
    if let Some(user) = unprivileged() {
        run(Command::new("chown").arg("-R").arg(format!("{user}:")).arg(folder));
    }
}

/// Sends a signal, by name and without fail: the process may have ended.
pub(crate) fn signal(name: &str, process: u32) {
    let _ = Command::new("kill")
        .args([format!("-{name}"), process.to_string()])
        .stderr(Stdio::null())
        .status();
}

/// Waits until `done`, for as long as a busy machine may take.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Ends the server of a folder, and removes the folder, when this process ends or drops it.
pub(crate) struct Watchdog {
    shell: Child,
}

impl Watchdog {
    /// The process id is read from the first line of `pid_file` when the time comes.
    pub(crate) fn new(folder: &Path, pid_file: &Path, signal: &str) -> Self {
        let script = r#"
            trap '' HUP INT TERM
            read -r _
            pid=$(head -n 1 "$2" 2>/dev/null)
            if [ -n "$pid" ]; then
                kill -CONT "$pid" 2>/dev/null
                kill "-$3" "$pid" 2>/dev/null
                for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
                    kill -0 "$pid" 2>/dev/null || break
                    grep -q '^State:[[:space:]]*Z' "/proc/$pid/status" && break
                    sleep 0.1
                done
                kill -KILL "$pid" 2>/dev/null
            fi
            rm -rf "$1"
        "#;
        let shell = Command::new("setsid")
            .args(["sh", "-c", script, "watchdog"])
            .args([folder.as_os_str(), pid_file.as_os_str(), OsStr::new(signal)])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the programs `setsid` and `sh` are there");
        Self { shell }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.shell.stdin.take() {
            let _ = stdin.write_all(b"\n");
        }
        let _ = self.shell.wait();
    }
}
