//! A Redis server of our own, which ends with us.

use std::error::Error;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::aio::MultiplexedConnection;

pub(crate) struct Broker {
    server: Child,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Broker {
    /// Whether there is a server to start.
    #[cfg(test)]
    pub(crate) fn is_installed() -> bool {
        let version = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    }

    /// Starts one, without files and without a port.
    pub(crate) async fn start() -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("redis.sock");
        let server = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| {
                format!("redis-server cannot be started (is it installed?): {error}")
            })?;
        let broker = Self { server, socket, _folder: folder };
        for _ in 0..500 {
            if broker.connect().await.is_ok() {
                return Ok(broker);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err("redis-server did not start".into())
    }

    pub(crate) async fn connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        let client = redis::Client::open(format!("unix://{}", self.socket.display()))?;
        client.get_multiplexed_async_connection().await
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
