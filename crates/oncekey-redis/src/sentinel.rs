//! The primary behind Sentinel, whoever it is now: [`SentinelConnection`].

use std::fmt;
use std::sync::Arc;

use oncekey::store::StoreError;
use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult,
    ServerErrorKind, Value,
};
use tokio::sync::Mutex;

use crate::builder::{CONNECTION_TIMEOUT, PIPELINE_BUFFER, RESPONSE_TIMEOUT, unusable};
use crate::listener::Connector;
use crate::{RedisStore, RedisStoreBuilder};

/// A connection to the primary that Sentinel names, for many tasks at once.
///
/// It is made when it is first used. After an error that speaks of the end of the connection, or of a server
/// that is no primary any more, the next command asks Sentinel anew. A command that failed is not sent
/// again. Answers and connections are waited for 5 seconds each.
#[derive(Clone)]
pub struct SentinelConnection {
    shared: Arc<Shared>,
}

struct Shared {
    sentinel: Mutex<SentinelClient>,
    /// With a number, so that the end of one connection is not taken for that of the next.
    current: Mutex<(u64, Option<MultiplexedConnection>)>,
}

impl SentinelConnection {
    /// A connection to the primary named `master` by the sentinels at `urls`. `node` says how nodes are
    /// connected to: user, password, database, TLS. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Misconfigured`](oncekey::store::ErrorKind::Misconfigured) when an address is not usable.
    pub fn new(
        urls: &[&str],
        master: &str,
        node: Option<SentinelNodeConnectionInfo>,
    ) -> Result<Self, StoreError> {
        let sentinel = SentinelClient::build(
            urls.to_vec(),
            master.to_owned(),
            node,
            SentinelServerType::Master,
        );
        let sentinel = Mutex::new(sentinel.map_err(|_| unusable())?);
        Ok(Self { shared: Arc::new(Shared { sentinel, current: Mutex::default() }) })
    }

    async fn get(&self) -> RedisResult<(u64, MultiplexedConnection)> {
        let mut current = self.shared.current.lock().await;
        if let (number, Some(connection)) = &*current {
            return Ok((*number, connection.clone()));
        }
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_connection_timeout(Some(CONNECTION_TIMEOUT))
            .set_pipeline_buffer_size(PIPELINE_BUFFER);
        let mut sentinel = self.shared.sentinel.lock().await;
        let connection =
            sentinel.get_async_connection_with_config(&config).await.map_err(not_connected)?;
        current.0 += 1;
        current.1 = Some(connection.clone());
        Ok((current.0, connection))
    }

    /// Forgets the connection of that number, if `result` says that it is of no more use.
    async fn look_at<T>(&self, number: u64, result: &RedisResult<T>) {
        let Err(error) = result else { return };
        if is_over(error) {
            let mut current = self.shared.current.lock().await;
            if current.0 == number {
                current.1 = None;
            }
        }
    }

    async fn pubsub(&self) -> RedisResult<PubSub> {
        let client = self.shared.sentinel.lock().await.async_get_client().await?;
        client.get_async_pubsub().await
    }
}

/// Nothing was sent, so it must not read as if an answer had been lost.
fn not_connected(error: RedisError) -> RedisError {
    if error.is_io_error() {
        (ErrorKind::MasterNameNotFoundBySentinel, "the primary cannot be reached").into()
    } else {
        error
    }
}

fn is_over(error: &RedisError) -> bool {
    error.is_io_error()
        || matches!(
            error.kind(),
            ErrorKind::Server(
                ServerErrorKind::ReadOnly
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::BusyLoading
            )
        )
        || matches!(error.code(), Some("UNBLOCKED" | "NOREPLICAS"))
}

fn refusal(answer: &Value) -> Option<RedisError> {
    match answer {
        Value::ServerError(error) => Some(error.clone().into()),
        _ => None,
    }
}

impl ConnectionLike for SentinelConnection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let (number, mut connection) = self.get().await?;
            let result = command.query_async(&mut connection).await;
            self.look_at(number, &result).await;
            result
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let (number, mut connection) = self.get().await?;
            let result = connection.req_packed_commands(pipeline, offset, count).await;
            // In a pipeline, a refusal is an answer.
            let refusal = result.as_ref().ok().and_then(|answers| answers.iter().find_map(refusal));
            match refusal {
                Some(refusal) => self.look_at::<()>(number, &Err(refusal)).await,
                None => self.look_at(number, &result).await,
            }
            result
        })
    }

    fn get_db(&self) -> i64 {
        0
    }
}

impl fmt::Debug for SentinelConnection {
    /// Shows no address and no password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SentinelConnection").finish_non_exhaustive()
    }
}

impl RedisStore {
    /// A store on the primary named `master` by the sentinels at `urls`, with the defaults of
    /// [`RedisStoreBuilder::sentinel`]. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Misconfigured`](oncekey::store::ErrorKind::Misconfigured) when an address is not usable.
    pub fn connect_sentinel(urls: &[&str], master: &str) -> Result<Self, StoreError> {
        RedisStoreBuilder::sentinel(SentinelConnection::new(urls, master, None)?).build()
    }
}

impl RedisStoreBuilder {
    /// A store on the primary that `connection` leads to, which [listens](Self::listen) there, too.
    pub fn sentinel(connection: SentinelConnection) -> Self {
        let listening = connection.clone();
        let connector = Connector::new(move || {
            let connection = listening.clone();
            Box::pin(async move { connection.pubsub().await })
        });
        Self::new(Box::new(connection)).with_connector(connector)
    }
}
