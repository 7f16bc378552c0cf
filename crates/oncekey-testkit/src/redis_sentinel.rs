//! [`RedisSentinels`]: a primary, its replica, and three sentinels that watch them.

use crate::process::wait_until;
use crate::{Flavor, Redis};

/// A throwaway primary and replica behind Sentinel.
#[derive(Debug)]
pub struct RedisSentinels {
    servers: [Redis; 2],
    sentinels: Vec<Redis>,
}

impl RedisSentinels {
    /// What the sentinels call the primary.
    pub const NAME: &str = "primary";
    const COUNT: usize = 3;

    /// New, empty servers. `arguments` are those of primary and replica.
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
        let servers = [(); 2].map(|()| Redis::start_with(Flavor::Redis, arguments));
        servers[1].replicate(servers[0].port());
        let sentinels: Vec<_> = (0..Self::COUNT)
            .map(|_| Redis::start_sentinel(Self::NAME, servers[0].port(), 2))
            .collect();
        for sentinel in &sentinels {
            wait_until("the sentinels know each other and the replica", || {
                let state = sentinel.ask(&["SENTINEL", "MASTER", Self::NAME]);
                field(&state, "num-other-sentinels") == Some("2")
                    && field(&state, "num-slaves") == Some("1")
            });
        }
        Self { servers, sentinels }
    }

    /// The addresses of the sentinels, as `redis://` URLs.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(Redis::url).collect()
    }

    /// The server that is the primary now, by what the sentinels say.
    #[must_use]
    pub fn primary(&self) -> &Redis {
        let address = self.sentinels[0].ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::NAME]);
        let port = address.lines().nth(1).and_then(|port| port.parse().ok());
        let is_it = |server: &&Redis| Some(server.port()) == port;
        self.servers.iter().find(is_it).expect("the primary is one of the servers")
    }

    /// The server that is the replica now.
    #[must_use]
    pub fn replica(&self) -> &Redis {
        let primary = self.primary().port();
        let other = self.servers.iter().find(|server| server.port() != primary);
        other.expect("there are two")
    }

    /// Kills the primary, and waits until the sentinels have agreed on the other.
    pub fn fail_over(&self) {
        let old = self.primary();
        old.kill();
        wait_until("the sentinels have agreed on another primary", || {
            let new = self.primary();
            new.port() != old.port() && new.info("role").as_deref() == Some("master")
        });
    }

    /// Starts the server that was killed again, and waits until it is a replica.
    pub fn mend(&self) {
        let other = self.replica();
        other.launch();
        wait_until("the server that came back is a replica", || {
            if other.info("master_link_status").as_deref() == Some("up") {
                return true;
            }
            // The sentinels would say so too, in their own time.
            let primary = self.primary().port();
            let follows = other.info("master_port").and_then(|port| port.parse().ok());
            if primary != other.port() && follows != Some(primary) {
                other.ask(&["REPLICAOF", "127.0.0.1", &primary.to_string()]);
            }
            false
        });
    }
}

/// The line after the one that is `name`.
fn field<'a>(lines: &'a str, name: &str) -> Option<&'a str> {
    lines.lines().skip_while(|line| *line != name).nth(1)
}
