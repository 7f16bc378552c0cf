//! Whether a server is one to keep promises on.

use std::time::Duration;

use oncekey::store::{ErrorKind, StoreError};
use redis::{Cmd, RedisError, Value};
use tokio::time::timeout;

use crate::fault::{DENIED, Purpose};
use crate::link::{Failed, Link, is_of_a_cluster, is_unknown_script, may_resend, wait};
use crate::nodes::{Nodes, silence};
use crate::script::{FULL_SCRIPTS, code};

const CHECK: Purpose = Purpose::read("check the server");

/// How far apart the clocks of a cluster may be, as far as one look tells, for one estimate to be good for
/// all: with what the look itself may take, so little that tokens go up all the same.
const ONE_CLOCK: u64 = 5_000_000;

/// For how long the nodes of a cluster are waited for in a look that a claim waits for.
const NODE_PATIENCE: Duration = Duration::from_secs(1);

/// What was found out about the server.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Server {
    /// It has `SET .. IFEQ`.
    pub(crate) compares: bool,
    /// It is one, or its clocks are about the same.
    pub(crate) has_one_clock: bool,
}

/// What the store needs of a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demands<'a> {
    pub(crate) allow_eviction: bool,
    pub(crate) waits_for_replicas: bool,
    /// The channel, if those who wait are to be woken.
    pub(crate) channel: Option<&'a str>,
    /// A key that is never there.
    pub(crate) probe: &'a str,
}

/// Checks all nodes that `INFO` asks, and refuses what would break a promise or is not allowed.
pub(crate) async fn server(link: &dyn Link, demands: Demands<'_>) -> Result<Server, StoreError> {
    let texts = infos(link).await?;
    let infos: Vec<_> = texts.iter().map(|text| Info(text)).collect();
    if infos.is_empty() {
        return Err(refused("the server says nothing of itself"));
    }
    if infos.iter().any(Info::is_of_a_cluster) && !may_resend(link) {
        return Err(refused(
            "the server is one of a cluster, and the connection knows only this one; use a cluster's \
             connection",
        ));
    }
    for info in &infos {
        if info.is_replica() {
            // Whoever was sent here by Sentinel is sent to a primary the next time.
            return Err(if is_led(link) { moved() } else { replica() });
        }
        info.check(demands.allow_eviction)?;
    }
    rights(link, demands).await?;
    Ok(Server::of(&infos))
}

/// What a look at servers saw that were fit before.
pub(crate) struct Look {
    pub(crate) verdict: Result<Server, StoreError>,
    /// Whether all of them answered.
    pub(crate) is_whole: bool,
}

/// Looks again at a server that was fit before. An error is that the look failed.
pub(crate) async fn again(link: &dyn Link, demands: Demands<'_>) -> Result<Look, StoreError> {
    let (texts, is_whole) = infos_that_come(link).await?;
    let infos: Vec<_> = texts.iter().map(|text| Info(text)).collect();
    if infos.iter().any(Info::is_replica) {
        // A connection that can lead elsewhere does so when it is refused.
        let _ = link.send(&nothing(demands.probe)).await;
        return Ok(Look { verdict: Err(moved()), is_whole });
    }
    let fit = infos.iter().try_for_each(|info| info.check(demands.allow_eviction));
    Ok(Look { verdict: fit.map(|()| Server::of(&infos)), is_whole })
}

fn refused(message: &'static str) -> StoreError {
    CHECK.error(ErrorKind::Misconfigured, message)
}

fn replica() -> StoreError {
    refused(
        "the server is a replica, where a key may seem free that is not; connect to the primary",
    )
}

fn moved() -> StoreError {
    CHECK.error(
        ErrorKind::Unavailable,
        "the server is no primary at the moment; if it stays so, connect to the primary, through Sentinel or \
         Cluster if it moves",
    )
}

/// Whether the connection goes where Sentinel says.
fn is_led(link: &dyn Link) -> bool {
    #[cfg(feature = "sentinel")]
    return link.as_any().is::<crate::SentinelConnection>();
    #[cfg(not(feature = "sentinel"))]
    {
        let _ = link;
        false
    }
}

fn failed(error: RedisError) -> StoreError {
    CHECK.failed(Failed::Command(error), false)
}

async fn infos(link: &dyn Link) -> Result<Vec<String>, StoreError> {
    let answer = link.send(&redis::cmd("INFO")).await.map_err(failed)?;
    let mut texts = Vec::new();
    collect(answer, &mut texts);
    Ok(texts)
}

/// What the servers say, and whether all do. A node of a cluster that says nothing is no reason to refuse
/// what others serve.
async fn infos_that_come(link: &dyn Link) -> Result<(Vec<String>, bool), StoreError> {
    if !is_of_a_cluster(link) {
        return Ok((infos(link).await?, true));
    }
    if let Ok(Ok(texts)) = timeout(NODE_PATIENCE, infos(link)).await {
        return Ok((texts, true));
    }
    let nodes = nodes(link).await?;
    let answers = nodes.send_to_all(link, &redis::cmd("INFO"), NODE_PATIENCE).await;
    let mut texts = Vec::new();
    let mut error = None;
    for answer in answers {
        match answer {
            Ok(answer) => collect(answer, &mut texts),
            Err(failed) => error = Some(failed),
        }
    }
    match error {
        Some(error) if texts.is_empty() => Err(failed(error)),
        error => Ok((texts, error.is_none())),
    }
}

/// Any node knows the others, and the one that is asked may be the one that says nothing.
async fn nodes(link: &dyn Link) -> Result<Nodes, StoreError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match timeout(NODE_PATIENCE, Nodes::of(link)).await {
            Ok(Ok(nodes)) => return Ok(nodes),
            _ if tries < 3 => {}
            Ok(Err(error)) => return Err(CHECK.failed(error, false)),
            Err(_) => return Err(CHECK.failed(Failed::Command(silence().into()), false)),
        }
    }
}

/// A command that writes, and finds nothing to write.
fn nothing(probe: &str) -> Cmd {
    let mut set = redis::cmd("SET");
    set.arg(probe).arg("").arg("XX").arg("PX").arg(1);
    set
}

/// What is not allowed shows now. None of this leaves a trace.
async fn rights(link: &dyn Link, demands: Demands<'_>) -> Result<(), StoreError> {
    let Demands { probe, channel, .. } = demands;
    let mut expiry = redis::cmd("PEXPIRETIME");
    expiry.arg(probe);
    link.send(&expiry).await.map_err(failed)?;
    let get = &FULL_SCRIPTS.get;
    let read = link.send(&get.by_text(probe.as_bytes(), &[])).await.map_err(failed)?;
    if !matches!(&read, Value::Array(answer) if answer.first() == Some(&Value::Int(code::GONE))) {
        return Err(refused(DENIED));
    }
    match link.send(&get.by_digest(probe.as_bytes(), &[])).await {
        Err(error) if !is_unknown_script(&error) => return Err(failed(error)),
        _ => {}
    }
    if demands.waits_for_replicas {
        let mut touch = redis::cmd("PEXPIREAT");
        touch.arg(probe).arg(1);
        let (asking, wait) = (redis::cmd("ASKING"), wait(0, 1));
        let then = [&asking, &touch, &wait];
        let then = if is_of_a_cluster(link) { &then[..] } else { &then[1..] };
        let all = link.send_with(&nothing(probe), then).await;
        if !matches!(all.map_err(failed)?, (_, Value::Int(_))) {
            return Err(refused(
                "replicas are to be waited for, and the server denies it; allow the user WAIT and PEXPIREAT \
                 (in a cluster also ASKING), or do without `wait_for_replicas`",
            ));
        }
    } else {
        link.send(&nothing(probe)).await.map_err(failed)?;
    }
    if let Some(channel) = channel {
        let mut publish = redis::cmd("PUBLISH");
        // A name that no key has: it wakes nobody.
        publish.arg(channel).arg("");
        link.send(&publish).await.map_err(|error| match failed(error) {
            error if error.kind() == ErrorKind::Misconfigured => refused(SILENT),
            error => error,
        })?;
    }
    Ok(())
}

/// The refusal where those who wait cannot be woken.
pub(crate) const SILENT: &str = "those who wait are to be woken, and the server denies it; allow the user PUBLISH and SUBSCRIBE on \
     `<prefix>ended`, or leave it to polling with `poll_only`";

impl Server {
    /// What holds for those that were seen and for those that were seen last time.
    pub(crate) const fn and(self, last: Self) -> Self {
        Self {
            compares: self.compares && last.compares,
            has_one_clock: self.has_one_clock && last.has_one_clock,
        }
    }

    fn of(infos: &[Info<'_>]) -> Self {
        let clocks: Option<Vec<_>> = infos.iter().map(Info::clock).collect();
        let apart = clocks.and_then(|clocks| {
            let (first, last) = (clocks.iter().min()?, clocks.iter().max()?);
            Some(last - first)
        });
        Self {
            compares: infos.iter().all(Info::compares),
            has_one_clock: infos.len() == 1 || apart.is_some_and(|apart| apart <= ONE_CLOCK),
        }
    }
}

/// The texts in an answer: one, or one a node.
fn collect(answer: Value, texts: &mut Vec<String>) {
    match answer {
        Value::BulkString(bytes) => texts.push(String::from_utf8_lossy(&bytes).into_owned()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => texts.push(text),
        Value::Map(pairs) => pairs.into_iter().for_each(|(_, value)| collect(value, texts)),
        Value::Array(values) => values.into_iter().for_each(|value| collect(value, texts)),
        _ => {}
    }
}

/// What one node says of itself.
struct Info<'a>(&'a str);

impl Info<'_> {
    fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// Major and minor version.
    fn version(&self, name: &str) -> Option<(u32, u32)> {
        let mut numbers = self.field(name)?.split('.').map(|number| number.parse().ok());
        Some((numbers.next()??, numbers.next()??))
    }

    /// A replica in a cluster does no harm: it sends whoever asks to its primary.
    fn is_replica(&self) -> bool {
        self.field("role").is_some_and(|role| role != "master") && !self.is_of_a_cluster()
    }

    fn is_of_a_cluster(&self) -> bool {
        self.field("cluster_enabled") == Some("1")
    }

    /// Microseconds since 1970, when it said so.
    fn clock(&self) -> Option<u64> {
        self.field("server_time_usec")?.parse().ok()
    }

    fn check(&self, allow_eviction: bool) -> Result<(), StoreError> {
        let refuse = |message| Err(refused(message));
        if self.version("redis_version").is_some_and(|version| version < (7, 0)) {
            return refuse("the server is older than Redis 7; upgrade it");
        }
        match self.field("maxmemory_policy") {
            Some("noeviction") => Ok(()),
            _ if allow_eviction => Ok(()),
            Some(_) => refuse(
                "the server's `maxmemory-policy` may evict a record, and its operation would run again; set \
                 it to `noeviction`, or accept that with `allow_eviction`",
            ),
            None => refuse(
                "the server does not tell its `maxmemory-policy`; make sure that it is `noeviction`, and say \
                 so with `allow_eviction`",
            ),
        }
    }

    fn compares(&self) -> bool {
        match self.version("valkey_version") {
            Some(version) => version >= (8, 1),
            None => self.version("redis_version").is_some_and(|version| version >= (8, 4)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(role: &str, policy: &str) -> String {
        format!(
            "# Server\r\nredis_version:7.0.15\r\n\r\nrole:{role}\r\nmaxmemory_policy:{policy}\r\n"
        )
    }

    #[test]
    fn what_may_lose_a_record_is_refused() {
        for policy in ["allkeys-lru", "volatile-ttl", "allkeys-random", "volatile-lfu"] {
            let info = info("master", policy);
            let error = Info(&info).check(false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misconfigured);
            assert!(error.to_string().contains("allow_eviction"), "{error}");
            assert!(Info(&info).check(true).is_ok());
        }
        assert!(Info(&info("master", "noeviction")).check(false).is_ok());
        assert!(!Info(&info("master", "noeviction")).is_replica());
        assert!(Info(&info("slave", "noeviction")).is_replica());
        let in_a_cluster = info("slave", "noeviction") + "cluster_enabled:1\r\n";
        assert!(!Info(&in_a_cluster).is_replica());
        assert!(Info("redis_version:6.2.1").check(true).is_err());
        assert!(Info("redis_version:7.0.1").check(false).is_err());
    }

    #[test]
    fn who_compares_is_known_by_version() {
        assert!(Info("valkey_version:8.1.0\nredis_version:7.2.4").compares());
        assert!(Info("redis_version:8.4.0").compares());
        assert!(Info("redis_version:10.0.0").compares());
        assert!(!Info("valkey_version:8.0.2\nredis_version:7.2.4").compares());
        assert!(!Info("redis_version:8.2.1").compares());
        assert!(!Info("redis_version:7.0.15").compares());
    }

    /// One estimate of the time makes tokens for all nodes: only while none of them would be misled.
    #[test]
    fn nodes_whose_clocks_differ_have_no_common_estimate() {
        let at = |seconds: u64| format!("role:master\nserver_time_usec:{}\n", seconds * 1_000_000);
        let has_one_clock = |texts: &[&str]| {
            Server::of(&texts.iter().map(|text| Info(text)).collect::<Vec<_>>()).has_one_clock
        };
        let (now, soon, late) = (at(1_800_000_000), at(1_800_000_005), at(1_800_000_006));
        assert!(has_one_clock(&[&now]));
        assert!(has_one_clock(&[&now, &soon, &now]));
        assert!(has_one_clock(&[&soon, &now]));
        assert!(!has_one_clock(&[&now, &now, &late]));
        assert!(!has_one_clock(&[&late, &now]));
        // Who does not tell may be anywhere.
        assert!(!has_one_clock(&[&now, "role:master"]));
        assert!(has_one_clock(&["role:master"]));
    }
}
