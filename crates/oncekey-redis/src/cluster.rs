//! A Redis Cluster.

use oncekey::store::StoreError;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{Client, Cmd, ErrorKind, RedisResult, Value};

use crate::builder::{CONNECTION_TIMEOUT, RESPONSE_TIMEOUT, unusable};
use crate::fault::Purpose;
use crate::link::{Failed, Link};
use crate::listener::Connector;
use crate::{RedisStore, RedisStoreBuilder};

const CONNECT: Purpose = Purpose::read("connect to the cluster");

impl RedisStore {
    /// A store on the cluster that the servers at `urls` are of, with the defaults of
    /// [`RedisStoreBuilder::connect_cluster`].
    ///
    /// # Errors
    /// As there.
    pub async fn connect_cluster(urls: &[&str]) -> Result<Self, StoreError> {
        RedisStoreBuilder::connect_cluster(urls).await?.build()
    }
}

impl RedisStoreBuilder {
    /// A store on the cluster that the servers at `urls` are of: some of its nodes, to find the others by.
    /// It [listens](Self::listen) on one of them, too.
    ///
    /// The driver follows keys that move, and sends a command again when a node does not answer: the store
    /// is made for that, and calls most failures [`OutcomeUnknown`]. Answers and connections are waited
    /// for 5 seconds each. Only primaries are asked.
    ///
    /// # Errors
    /// [`Misconfigured`] when an address is not usable; [`Unavailable`] when no node can be reached.
    ///
    /// [`Misconfigured`]: oncekey::store::ErrorKind::Misconfigured
    /// [`OutcomeUnknown`]: oncekey::store::ErrorKind::OutcomeUnknown
    /// [`Unavailable`]: oncekey::store::ErrorKind::Unavailable
    pub async fn connect_cluster(urls: &[&str]) -> Result<Self, StoreError> {
        let clients: Result<Vec<_>, _> = urls.iter().map(|url| Client::open(*url)).collect();
        let clients = clients.map_err(|_| unusable())?;
        let client = ClusterClientBuilder::new(urls.to_vec())
            .response_timeout(RESPONSE_TIMEOUT)
            .connection_timeout(CONNECTION_TIMEOUT)
            .build()
            .map_err(|_| unusable())?;
        let connection = client.get_async_connection().await;
        let connection =
            connection.map_err(|error| CONNECT.failed(Failed::Command(error), false))?;
        Ok(Self::new(Box::new(connection)).with_connector(connector(clients)))
    }
}

/// What is published on one node, all nodes hand on. So the first that answers will do.
fn connector(clients: Vec<Client>) -> Connector {
    Connector::new(move || {
        let clients = clients.clone();
        Box::pin(async move {
            let mut result = Err((ErrorKind::ClusterConnectionNotFound, "no address").into());
            for client in clients {
                result = client.get_async_pubsub().await;
                if result.is_ok() {
                    break;
                }
            }
            result
        })
    })
}

/// The connection, if it is a cluster's.
pub(crate) fn connection(link: &dyn Link) -> Option<ClusterConnection> {
    link.as_any().downcast_ref::<ClusterConnection>().cloned()
}

/// The names of the primaries: `host:port`, in order.
pub(crate) async fn primaries(mut connection: ClusterConnection) -> Result<Vec<String>, Failed> {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    let routing = RoutingInfo::SingleNode(SingleNodeRoutingInfo::RandomPrimary);
    let answer = connection.route_command(command, routing).await?;
    let Value::Array(slots) = answer else { return Ok(Vec::new()) };
    let mut names: Vec<_> = slots.into_iter().filter_map(primary).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Of a range of slots: first, last, primary, replicas. A node: host, port, and more.
fn primary(range: Value) -> Option<String> {
    let Value::Array(range) = range else { return None };
    let Value::Array(node) = range.into_iter().nth(2)? else { return None };
    let mut node = node.into_iter();
    let host: String = redis::from_redis_value(node.next()?).ok()?;
    let port: u16 = redis::from_redis_value(node.next()?).ok()?;
    Some(format!("{host}:{port}"))
}

/// Sends `command` to the node of that name.
pub(crate) async fn send_to(
    mut connection: ClusterConnection,
    node: &str,
    command: &Cmd,
) -> RedisResult<Value> {
    let address = node.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let Some((host, port)) = address else {
        return Err((ErrorKind::ClusterConnectionNotFound, "no such node").into());
    };
    let node = SingleNodeRoutingInfo::ByAddress { host: host.to_owned(), port };
    connection.route_command(command.clone(), RoutingInfo::SingleNode(node)).await
}
