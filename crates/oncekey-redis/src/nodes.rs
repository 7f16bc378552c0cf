//! The nodes that a listing goes over: one, or the primaries of a cluster.

use std::io;
use std::time::Duration;

use futures::future::join_all;
use redis::{Cmd, RedisResult, Value};
use tokio::time::timeout;

use crate::link::{Failed, Link};

/// The nodes by name, in order. The one server of a store that is no cluster has no name.
pub(crate) struct Nodes(Vec<String>);

impl Nodes {
    #[cfg_attr(
        not(feature = "cluster"),
        allow(clippy::unused_async, reason = "only a cluster has to be asked")
    )]
    pub(crate) async fn of(link: &dyn Link) -> Result<Self, Failed> {
        #[cfg(feature = "cluster")]
        if let Some(connection) = crate::cluster::connection(link) {
            return Ok(Self(crate::cluster::primaries(connection).await?));
        }
        let _ = link;
        Ok(Self(vec![String::new()]))
    }

    pub(crate) fn first(&self) -> String {
        self.0.first().cloned().unwrap_or_default()
    }

    pub(crate) fn after(&self, node: &str) -> Option<String> {
        self.0.iter().find(|name| name.as_str() > node).cloned()
    }

    /// Sends `command` to that node.
    pub(crate) async fn send(
        &self,
        link: &dyn Link,
        node: &str,
        command: &Cmd,
    ) -> RedisResult<Value> {
        #[cfg(feature = "cluster")]
        if let Some(connection) = crate::cluster::connection(link) {
            return crate::cluster::send_to(connection, node, command).await;
        }
        let _ = node;
        link.send(command).await
    }

    /// Sends `command` to all of them at once, and waits for each no longer than `patience`.
    pub(crate) async fn send_to_all(
        &self,
        link: &dyn Link,
        command: &Cmd,
        patience: Duration,
    ) -> Vec<RedisResult<Value>> {
        let asked = self.0.iter().map(async |node| {
            let answer = timeout(patience, self.send(link, node, command)).await;
            answer.unwrap_or_else(|_| Err(silence().into()))
        });
        join_all(asked).await
    }
}

pub(crate) fn silence() -> io::Error {
    io::ErrorKind::TimedOut.into()
}
