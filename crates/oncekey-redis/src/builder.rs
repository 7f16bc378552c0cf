//! How a store is set up: [`RedisStoreBuilder`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use oncekey::store::{ErrorKind, StoreError};
use redis::Client;
use redis::aio::ConnectionManagerConfig;
use tokio::runtime::Handle;

use crate::link::{Link, Replicas};
use crate::listener::Connector;
use crate::name::Names;
use crate::own::OwnRecords;
use crate::shared::Shared;
use crate::standing::Standing;
use crate::store::RedisStore;
use crate::time::ServerClock;

/// How long an answer is waited for on connections that are made here.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
pub(crate) const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// How many commands of different tasks may be handed to a connection before it has sent any.
pub(crate) const PIPELINE_BUFFER: usize = 1024;

/// Sets up a [`RedisStore`]. Made by [`RedisStore::builder`], or from addresses.
///
/// ```no_run
/// use std::time::Duration;
/// use oncekey_redis::RedisStoreBuilder;
///
/// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisStoreBuilder::connect("redis://127.0.0.1/")?
///     .key_prefix("billing:")
///     .wait_for_replicas(1, Duration::from_secs(1))
///     .build()?;
/// store.check().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "call `build` to get the store"]
pub struct RedisStoreBuilder {
    link: Box<dyn Link>,
    prefix: String,
    replicas: Option<Replicas>,
    allow_eviction: bool,
    native: bool,
    connector: Option<Connector>,
}

impl RedisStoreBuilder {
    /// The prefix of the keys' names unless told otherwise.
    pub const DEFAULT_PREFIX: &str = Names::DEFAULT_PREFIX;

    pub(crate) fn new(link: Box<dyn Link>) -> Self {
        Self {
            link,
            prefix: Self::DEFAULT_PREFIX.to_owned(),
            replicas: None,
            allow_eviction: false,
            native: true,
            connector: None,
        }
    }

    /// A store on the server at `url`, which [listens](Self::listen) there, too. Nothing is sent yet.
    ///
    /// The connection is a [`ConnectionManager`](redis::aio::ConnectionManager): it connects when it is
    /// first used, and again when it is lost. An answer and a connection are waited for 5 seconds each;
    /// the driver's own default for an answer is 500 ms. Its buffer has room for 1024 commands.
    ///
    /// # Errors
    /// [`Misconfigured`](ErrorKind::Misconfigured) when the address is not usable, or when this is called
    /// outside of a Tokio runtime: the connection has a task there.
    pub fn connect(url: &str) -> Result<Self, StoreError> {
        let client = Client::open(url).map_err(|_| unusable())?;
        if Handle::try_current().is_err() {
            return Err(misconfigured("there is no Tokio runtime here; call this within one"));
        }
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_connection_timeout(Some(CONNECTION_TIMEOUT))
            .set_max_delay(Duration::from_millis(500))
            .set_pipeline_buffer_size(PIPELINE_BUFFER);
        let connection = client.get_connection_manager_lazy(config).map_err(|_| unusable())?;
        Ok(Self::new(Box::new(connection)).listen(client))
    }

    /// The prefix of the keys' names; `oncekey:` unless set.
    ///
    /// 1 to 64 printable ASCII characters, without space, `{`, `}`, `*`, `?`, `[`, `]`, `\`, `^` and `~`.
    /// Stores with the same prefix on the same server share their records.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Whether a server is used although it may evict keys, or does not tell whether it does; false unless set.
    ///
    /// A key that is evicted is as good as new: its operation runs again, also while the first one runs.
    pub const fn allow_eviction(mut self, allow: bool) -> Self {
        self.allow_eviction = allow;
        self
    }

    /// Waits until `count` replicas have what a call wrote, or what its answer says, whoever wrote that; but
    /// no longer than `timeout`, which must be shorter than the connection's response timeout. Reading and
    /// listing wait for nothing.
    ///
    /// When there are too few in time, the call fails with [`OutcomeUnknown`](ErrorKind::OutcomeUnknown):
    /// the primary has the write, and a failover may lose it. The wait is one of the connection, so calls
    /// that share it wait for each other. It makes a loss by failover unlikely, not impossible: see the
    /// table in the [crate documentation](crate).
    pub const fn wait_for_replicas(mut self, count: usize, timeout: Duration) -> Self {
        self.replicas = if count == 0 { None } else { Some(Replicas { count, timeout }) };
        self
    }

    /// Whether all decisions are left to scripts; false unless set.
    ///
    /// Otherwise a new key is claimed by one `SET`, and completed by another where the server can
    /// compare; scripts decide what is left. It is here to compare and to look for faults: the answers are
    /// the same.
    pub const fn scripts_only(mut self, scripts_only: bool) -> Self {
        self.native = !scripts_only;
        self
    }

    /// Wakes those who wait for a key in this process, by a subscription on a connection of its own.
    ///
    /// The connection is there only while somebody waits, one however many they are, and it is made again
    /// when it is lost. Others publish only what somebody waits for. Without this, those who wait poll; they
    /// poll besides in any case. In a cluster, any node will do.
    ///
    /// That somebody waits is written in the record. If the key vanishes meanwhile (a flush, a failover) and
    /// comes again, that is lost with it, and those who wait are left to polling.
    pub fn listen(mut self, client: Client) -> Self {
        self.connector = Some(Connector::new(move || {
            let client = client.clone();
            Box::pin(async move { client.get_async_pubsub().await })
        }));
        self
    }

    /// Leaves those who wait to polling.
    ///
    /// Without this, a store on a connection that is made here [listens](Self::listen).
    pub fn poll_only(mut self) -> Self {
        self.connector = None;
        self
    }

    #[cfg(any(feature = "cluster", feature = "sentinel"))]
    pub(crate) fn with_connector(mut self, connector: Connector) -> Self {
        self.connector = Some(connector);
        self
    }

    /// The store. Nothing is sent yet; [`check`](RedisStore::check) says whether the server will do.
    ///
    /// # Errors
    /// [`Misconfigured`](ErrorKind::Misconfigured) when the prefix is not usable.
    pub fn build(self) -> Result<RedisStore, StoreError> {
        let names = Names::new(&self.prefix).ok_or_else(|| {
            misconfigured("the prefix is empty, too long, or has a character that is not allowed")
        })?;
        let channel = names.channel();
        let listening = self.connector.map(|connector| connector.channel(&channel));
        Ok(RedisStore {
            shared: Arc::new(Shared {
                link: self.link,
                names,
                channel,
                replicas: self.replicas,
                allow_eviction: self.allow_eviction,
                native: self.native,
                listening,
                standing: Standing::default(),
                clock: ServerClock::default(),
                own: OwnRecords::default(),
            }),
        })
    }
}

pub(crate) fn misconfigured(message: &'static str) -> StoreError {
    StoreError::new(ErrorKind::Misconfigured, "set up the store").with_message(message)
}

/// The address itself is left out: it may have a password.
pub(crate) fn unusable() -> StoreError {
    misconfigured(
        "the address is not usable; it is like `redis://user:password@host:port/database`",
    )
}

impl fmt::Debug for RedisStoreBuilder {
    /// Shows no address and no password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder")
            .field("key_prefix", &self.prefix)
            .field("replicas", &self.replicas)
            .field("allow_eviction", &self.allow_eviction)
            .field("native", &self.native)
            .field("listens", &self.connector.is_some())
            .finish_non_exhaustive()
    }
}
