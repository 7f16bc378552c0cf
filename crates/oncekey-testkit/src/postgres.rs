//! [`Postgres`]: a server that a test may restart, kill and pause.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex};

use crate::process::{self, Watchdog, wait_until};

const VARIABLE: &str = "ONCEKEY_POSTGRES_BIN";

/// What the server's disk writes are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// None is waited for: quick, and enough for all faults but a loss of power.
    ProcessCrash,
    /// All are, as in production.
    Full,
}

/// A throwaway PostgreSQL server with one superuser, `postgres`, who needs no password.
pub struct Postgres {
    folder: PathBuf,
    settings: Vec<String>,
    server: Mutex<Option<Child>>,
    _watchdog: Watchdog,
}

impl Postgres {
    /// The number in the names of the sockets, for those who build a connection string.
    pub const PORT: u16 = 5432;
    /// The superuser, and the name of the database.
    pub const USER: &str = "postgres";

    /// A new, empty server.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(Durability::ProcessCrash, &[])
    }

    /// The same with other settings, each as `name=value`.
    #[must_use]
    pub fn start_with(durability: Durability, settings: &[&str]) -> Self {
        let folder = process::new_folder("pg");
        let data = folder.join("data");
        process::run(process::command("cp").arg("-a").arg(template()).arg(&data));
        let mut all: Vec<String> = [
            "listen_addresses=",
            "max_connections=400",
            "shared_buffers=64MB",
            "log_min_messages=fatal",
            "max_wal_size=256MB",
            "logging_collector=off",
        ]
        .map(str::to_owned)
        .into();
        all.push(format!("unix_socket_directories={}", folder.display()));
        if durability == Durability::ProcessCrash {
            all.extend(["fsync=off", "full_page_writes=off"].map(str::to_owned));
        }
        all.extend(settings.iter().map(|setting| (*setting).to_owned()));
        // QUIT is an immediate end, and still tidies up what is outside of the folder.
        let watchdog = Watchdog::new(&folder, &data.join("postmaster.pid"), "QUIT");
        let server = Self { folder, settings: all, server: Mutex::default(), _watchdog: watchdog };
        server.launch();
        server
    }

    /// The folder with the sockets: the `host` of a connection.
    #[must_use]
    pub fn host(&self) -> &Path {
        &self.folder
    }

    /// A connection string of the form `host=.. port=.. user=.. dbname=..`.
    #[must_use]
    pub fn connection_string(&self) -> String {
        format!(
            "host={} port={} user={user} dbname={user}",
            self.folder.display(),
            Self::PORT,
            user = Self::USER
        )
    }

    /// Kills the server, all of it and at once, and starts it again.
    pub fn crash(&self) {
        self.kill();
        self.launch();
    }

    /// Ends the server in good order, closing all connections, and starts it again.
    pub fn restart(&self) {
        self.stop("INT");
        self.launch();
    }

    /// Kills the server: it is not there until [`launch`](Self::launch).
    pub fn kill(&self) {
        self.stop("QUIT");
    }

    /// Starts the server that was killed.
    ///
    /// # Panics
    /// If it runs already, or does not start.
    pub fn launch(&self) {
        let mut server = self.server.lock().unwrap();
        assert!(server.is_none(), "the server runs already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .expect("the folder is writable");
        let mut command = process::command(binary("postgres"));
        command.arg("-D").arg(self.folder.join("data"));
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let child = command
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let child = server.insert(child);
        let socket = self.folder.join(format!(".s.PGSQL.{}", Self::PORT));
        wait_until("the server starts", || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("the server ended with {status}:\n{}", self.log());
            }
            socket.exists() && self.is_ready()
        });
    }

    /// Stops the server in its tracks, without closing a connection, until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.signal_all("STOP");
    }

    /// Lets the server go on.
    pub fn resume(&self) {
        self.signal_all("CONT");
    }

    /// One of the server's own programs, for example `pgbench`, told where the server is.
    #[must_use]
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(binary(name));
        command
            .env("PGHOST", &self.folder)
            .env("PGPORT", Self::PORT.to_string())
            .env("PGUSER", Self::USER)
            .env("PGDATABASE", Self::USER);
        command
    }

    /// The processor time that the server has used, in seconds: all of its processes, also those that
    /// have ended.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        let server = self.server.lock().unwrap();
        let id = server.as_ref().expect("the server runs").id();
        // In hundredths of a second, as Linux counts for programs on every machine.
        let ticks: u64 = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
            .filter_map(|stat| {
                // The name may have spaces in it, and ends with the last bracket.
                let (before, after) = stat.rsplit_once(')')?;
                let fields: Vec<u64> =
                    after.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
                let own: u64 = fields.get(11..13)?.iter().sum();
                let ended: u64 = fields.get(13..15)?.iter().sum();
                match before.split(' ').next()?.parse::<u32>().ok()? {
                    process if process == id => Some(own + ended),
                    _ if fields.get(1) == Some(&u64::from(id)) => Some(own),
                    _ => None,
                }
            })
            .sum();
        ticks as f64 / 100.0
    }

    /// What the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn is_ready(&self) -> bool {
        let pid_file = fs::read_to_string(self.folder.join("data/postmaster.pid"));
        pid_file.is_ok_and(|text| text.lines().nth(7).is_some_and(|line| line.trim() == "ready"))
    }

    fn stop(&self, signal: &str) {
        let Some(mut child) = self.server.lock().unwrap().take() else { return };
        process::signal(signal, child.id());
        let _ = child.wait();
    }

    /// The server is a process with one child for each connection and each task.
    fn signal_all(&self, signal: &str) {
        let server = self.server.lock().unwrap();
        let Some(child) = &*server else { return };
        let _ = Command::new("pkill")
            .args([format!("-{signal}"), "-P".to_owned(), child.id().to_string()])
            .status();
        process::signal(signal, child.id());
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.resume();
        self.kill();
    }
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// One of the server's programs; the newest, where several are installed.
fn binary(name: &str) -> PathBuf {
    let mut folders: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    folders.sort_by_key(|folder| {
        let version: Option<u32> = folder.file_name().and_then(|v| v.to_str()?.parse().ok());
        std::cmp::Reverse(version)
    });
    let folders: Vec<_> = folders.into_iter().map(|folder| folder.join("bin")).collect();
    process::find(name, VARIABLE, &folders, "postgresql")
}

/// A fresh data folder to copy: to make one takes seconds. Kept from one test process to the next.
fn template() -> &'static Path {
    static TEMPLATE: LazyLock<PathBuf> = LazyLock::new(|| {
        let initdb = binary("initdb");
        let version = Command::new(&initdb).arg("--version").output().unwrap().stdout;
        let version: String =
            String::from_utf8_lossy(&version).chars().filter(char::is_ascii_alphanumeric).collect();
        let user = process::unprivileged()
            .map_or_else(|| std::env::var("USER").unwrap_or_default(), str::to_owned);
        let kept = std::env::temp_dir().join(format!("oncekey-testkit-{user}-{version}-1"));
        if kept.join("PG_VERSION").is_file() {
            return kept;
        }
        let folder = process::new_folder("init");
        let data = folder.join("data");
        process::run(
            process::command(initdb)
                .args([
                    "--no-sync",
                    "--auth=trust",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--wal-segsize=1",
                ])
                .arg(format!("--username={}", Postgres::USER))
                .arg("-D")
                .arg(&data),
        );
        // Another process may have been quicker; then theirs is as good.
        let _ = fs::rename(&data, &kept);
        let _ = fs::remove_dir_all(&folder);
        kept
    });
    &TEMPLATE
}
