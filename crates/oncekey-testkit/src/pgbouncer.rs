//! [`Pgbouncer`]: a connection pool between the tests and a server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::Postgres;
use crate::process::{self, Watchdog, wait_until};

const VARIABLE: &str = "ONCEKEY_PGBOUNCER_BIN";

/// For how long a client has a server's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolMode {
    /// Until it disconnects.
    Session,
    /// Until its transaction ends.
    Transaction,
}

/// A throwaway pgbouncer in front of a [`Postgres`].
pub struct Pgbouncer {
    folder: PathBuf,
    server: Child,
    _watchdog: Watchdog,
}

impl Pgbouncer {
    /// The number in the names of the sockets.
    pub const PORT: u16 = 6432;

    /// A pgbouncer with `pool_size` connections to `postgres`.
    #[must_use]
    pub fn start(postgres: &Postgres, mode: PoolMode, pool_size: u32) -> Self {
        let folder = process::new_folder("pgb");
        let ini = folder.join("pgbouncer.ini");
        let mode = match mode {
            PoolMode::Session => "session",
            PoolMode::Transaction => "transaction",
        };
        let users = folder.join("users");
        fs::write(&users, format!("\"{}\" \"\"\n", Postgres::USER)).unwrap();
        let pid_file = folder.join("pid");
        let text = format!(
            "[databases]\n* = host={host} port={port}\n[pgbouncer]\nlisten_addr =\n\
             listen_port = {own}\nunix_socket_dir = {folder}\nauth_type = trust\n\
             auth_file = {users}\npool_mode = {mode}\ndefault_pool_size = {pool_size}\n\
             max_client_conn = 1000\npidfile = {pid}\nlogfile = {folder}/log\n\
             server_login_retry = 0\nignore_startup_parameters = extra_float_digits\n",
            host = postgres.host().display(),
            port = Postgres::PORT,
            own = Self::PORT,
            folder = folder.display(),
            users = users.display(),
            pid = pid_file.display(),
        );
        fs::write(&ini, text).unwrap();
        let binary = process::find(
            "pgbouncer",
            VARIABLE,
            &["/usr/sbin".into(), "/usr/local/sbin".into()],
            "pgbouncer",
        );
        let watchdog = Watchdog::new(&folder, &pid_file, "KILL");
        let mut command = process::command(binary);
        command.arg(&ini).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let socket = folder.join(format!(".s.PGSQL.{}", Self::PORT));
        wait_until("pgbouncer starts", || {
            if let Ok(Some(status)) = server.try_wait() {
                let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
                panic!("pgbouncer ended with {status}:\n{log}");
            }
            socket.exists() && pid_file.exists()
        });
        Self { folder, server, _watchdog: watchdog }
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
            user = Postgres::USER
        )
    }
}

impl Drop for Pgbouncer {
    fn drop(&mut self) {
        process::signal("KILL", self.server.id());
        let _ = self.server.wait();
    }
}

impl std::fmt::Debug for Pgbouncer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pgbouncer").field("folder", &self.folder).finish_non_exhaustive()
    }
}
