//! The nodes that a listing goes over: one, or the primaries of a cluster.

use redis::{Cmd, RedisResult, Value};

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
}
