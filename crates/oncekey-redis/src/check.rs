//! Whether a server is one to keep promises on.

use oncekey::store::{ErrorKind, StoreError};
use redis::Value;

use crate::fault::Purpose;
use crate::link::{Failed, Link, may_resend};
use crate::script::FULL_SCRIPTS;

const CHECK: Purpose = Purpose::read("check the server");

/// What was found out about the server.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Server {
    /// It has `SET .. IFEQ`.
    pub(crate) compares: bool,
}

/// Checks all nodes that `INFO` asks, and refuses what would break a promise.
pub(crate) async fn server(
    link: &dyn Link,
    allow_eviction: bool,
    probe: &str,
) -> Result<Server, StoreError> {
    let resends = may_resend(link);
    let failed = |error| CHECK.failed(Failed::Command(error), resends);
    let answer = link.send(&redis::cmd("INFO")).await.map_err(failed)?;
    let mut texts = Vec::new();
    collect(answer, &mut texts);
    let infos: Vec<_> = texts.iter().map(|text| Info(text)).collect();
    if infos.is_empty() {
        return Err(CHECK.error(ErrorKind::Misconfigured, "the server says nothing of itself"));
    }
    for info in &infos {
        info.check(allow_eviction)?;
    }
    let is_cluster = infos.iter().any(|info| info.field("cluster_enabled") == Some("1"));
    if is_cluster && !resends {
        let message = "the server is one of a cluster, and the connection knows only this one; use a \
                       cluster's connection";
        return Err(CHECK.error(ErrorKind::Misconfigured, message));
    }
    // What is not allowed shows now: reading by a script, and writing. None leaves a trace.
    let get = FULL_SCRIPTS.get.by_text(probe.as_bytes(), &[]);
    let mut expiry = redis::cmd("PEXPIRETIME");
    expiry.arg(probe);
    let mut set = redis::cmd("SET");
    set.arg(probe).arg("").arg("XX").arg("PX").arg(1);
    for command in [get, expiry, set] {
        link.send(&command).await.map_err(failed)?;
    }
    Ok(Server { compares: infos.iter().all(Info::compares) })
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

    fn check(&self, allow_eviction: bool) -> Result<(), StoreError> {
        let refuse = |message| Err(CHECK.error(ErrorKind::Misconfigured, message));
        if self.version("redis_version").is_some_and(|version| version < (7, 0)) {
            return refuse("the server is older than Redis 7; upgrade it");
        }
        // A node of a cluster may be a replica now and a primary soon; what matters is who answers.
        if self.field("role").is_some_and(|role| role != "master") {
            return refuse(
                "the server is a replica, where a key may seem free that is not; connect to the primary",
            );
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
        assert!(Info(&info("slave", "noeviction")).check(true).is_err());
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
}
