//! [`RedisStore`]: the contract of the core, one command or one script a call.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use oncekey::Key;
use oncekey::store::{
    Abandon, Claim, ClaimOutcome, Complete, Evict, Fenced, Inspect, Observed, Purged, Renew,
    Settle, Store, StoreError, Watch,
};
use redis::aio::ConnectionLike;

use crate::builder::RedisStoreBuilder;
use crate::shared::Shared;

/// A store in Redis or Valkey: one server, one behind Sentinel, or a Cluster.
///
/// A clone shares the connection; a second store with the same prefix on the same server shares the
/// records. The connection may be used for other things too.
///
/// ```no_run
/// use oncekey::{Fingerprint, Idempotency, Key, Scope};
/// use oncekey_redis::RedisStore;
///
/// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisStore::connect("redis://127.0.0.1/")?;
/// store.check().await?;
///
/// let idempotency = Idempotency::at_least_once(store);
/// let key = Key::new(&Scope::new("tenant-42", "POST /payments")?, "order-17")?;
/// let charge = |_attempt| async { Ok::<_, std::io::Error>("receipt 1".to_owned()) };
/// let outcome = idempotency.run(&key, &Fingerprint::of("100 EUR"), charge).await?;
/// assert_eq!(outcome.value(), "receipt 1");
/// # Ok(())
/// # }
/// ```
///
/// # Durability
/// What the server acknowledged is what the store acknowledges: see the table in the
/// [crate documentation](crate). With [`wait_for_replicas`](RedisStoreBuilder::wait_for_replicas), also
/// that replicas have it.
///
/// # Time
/// The server's clock, in whole milliseconds: a lease may end up to one earlier than a finer clock would
/// say, which is within the engine's margin for any lease of 20 ms or more. Durations are rounded up. When
/// the clock steps back, tokens
/// still go up while a key is remembered. The token of a new key may come from an estimate of that clock
/// that is some milliseconds behind.
///
/// # Cancel safety
/// Once its future was polled, a call may be sent; dropped after that, it happens as a whole or not at all,
/// maybe later. The connection is good for the next call.
///
/// # Sent twice
/// A cluster's connection, or one of yours, may send a command again when its answer was lost. The second
/// copy of all but one finds its attempt or its token, and changes nothing more. The exception is `evict` of
/// [`Any`](oncekey::store::Expected::Any): its second copy may remove what came after the first, so that a
/// result that was recorded in between is forgotten, and with `force` also what is in progress. Evict an
/// attempt or a token where requests may come meanwhile.
///
/// # Errors
/// - [`Unavailable`]: there is no connection, or the server refused the command, for example because it
///   is a replica, is loading its data or has lost its replicas. Not applied.
/// - [`Timeout`]: a reading call was not answered within the connection's response timeout.
/// - [`OutcomeUnknown`]: a writing call was not answered, or too few replicas have what it wrote. A
///   connection that may send twice (a cluster's, or one of yours) makes this of every refusal by the
///   server; the message says what to do about it all the same.
/// - [`Full`]: the server is at its `maxmemory`, and the key is new.
/// - [`TooLarge`]: a content is longer than half a gigabyte, or longer than 1 KiB while the server is at
///   its `maxmemory`. Completing without the content works then; the engine does so by itself.
/// - [`Corrupt`]: the value of the key is no record, or is a newer oncekey's.
/// - [`Misconfigured`]: the server may lose records, is too old, or denies a command; the message says how
///   to mend it.
///
/// The source of an error names the server's error code; its text is left out, since it may quote keys.
///
/// [`Corrupt`]: oncekey::store::ErrorKind::Corrupt
/// [`Full`]: oncekey::store::ErrorKind::Full
/// [`Misconfigured`]: oncekey::store::ErrorKind::Misconfigured
/// [`OutcomeUnknown`]: oncekey::store::ErrorKind::OutcomeUnknown
/// [`Timeout`]: oncekey::store::ErrorKind::Timeout
/// [`TooLarge`]: oncekey::store::ErrorKind::TooLarge
/// [`Unavailable`]: oncekey::store::ErrorKind::Unavailable
#[derive(Clone)]
pub struct RedisStore {
    pub(crate) shared: Arc<Shared>,
}
impl RedisStore {
    /// A store on `connection`, with the defaults of [`builder`](Self::builder). Nothing is sent yet.
    ///
    /// Any connection of the driver will do that many tasks can use at once: a
    /// [`ConnectionManager`](redis::aio::ConnectionManager), which connects again by itself, a
    /// [`MultiplexedConnection`](redis::aio::MultiplexedConnection), a cluster's. The driver's own default
    /// for a response is 500 ms, which is short for a server that is saving or failing over: a call that
    /// took longer has an unknown outcome. Set some seconds, as [`connect`](Self::connect) does.
    #[must_use]
    pub fn new<C>(connection: C) -> Self
    where
        C: ConnectionLike + Clone + Send + Sync + 'static,
    {
        match Self::builder(connection).build() {
            Ok(store) => store,
            Err(error) => unreachable!("the default prefix is usable: {error}"),
        }
    }

    /// A store on the server at `url`, with the defaults of
    /// [`RedisStoreBuilder::connect`]. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Misconfigured`](oncekey::store::ErrorKind::Misconfigured) when the address is not usable, or when
    /// this is called outside of a Tokio runtime.
    pub fn connect(url: &str) -> Result<Self, StoreError> {
        RedisStoreBuilder::connect(url)?.build()
    }

    /// Sets up a store on `connection`.
    pub fn builder<C>(connection: C) -> RedisStoreBuilder
    where
        C: ConnectionLike + Clone + Send + Sync + 'static,
    {
        RedisStoreBuilder::new(Box::new(connection))
    }

    /// The prefix of the keys' names.
    #[must_use]
    pub fn key_prefix(&self) -> &str {
        self.shared.names.prefix()
    }

    /// Checks that the server keeps what it is given, is a primary, and allows what the store needs,
    /// listening too if it is set up to. The first call does the same, but for listening; this says it at
    /// start.
    ///
    /// What can change is looked at again by the next claim after a minute, and after a call that failed: that
    /// the server is a primary, and that it does not evict. Until it is fit again, no claim is made; what was
    /// granted is ended all the same. In a cluster that look goes by the primaries that answer within a second.
    ///
    /// # Errors
    /// [`Misconfigured`](oncekey::store::ErrorKind::Misconfigured), with what to do about it;
    /// [`Unavailable`](oncekey::store::ErrorKind::Unavailable) or
    /// [`Timeout`](oncekey::store::ErrorKind::Timeout) when the server cannot be asked.
    pub async fn check(&self) -> Result<(), StoreError> {
        let shared = &*self.shared;
        shared.standing.anew(&*shared.link, shared.demands()).await?;
        match &shared.listening {
            Some(channel) => channel.check().await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn claim(&self, key: &Key, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        self.shared.claim(&self.shared.names.name(key), claim).await
    }

    async fn renew(&self, key: &Key, renew: &Renew) -> Result<Fenced, StoreError> {
        self.shared.server().await?;
        self.shared.renew(&self.shared.names.name(key), renew).await
    }

    async fn complete(&self, key: &Key, complete: &Complete) -> Result<Fenced, StoreError> {
        let server = self.shared.server().await?;
        self.shared.complete(&self.shared.names.name(key), complete, server).await
    }

    async fn abandon(&self, key: &Key, abandon: &Abandon) -> Result<Fenced, StoreError> {
        self.shared.server().await?;
        self.shared.abandon(&self.shared.names.name(key), abandon).await
    }

    async fn settle(&self, key: &Key, settle: &Settle) -> Result<Fenced, StoreError> {
        self.shared.server().await?;
        self.shared.settle(&self.shared.names.name(key), settle).await
    }

    async fn evict(&self, key: &Key, evict: &Evict) -> Result<Fenced, StoreError> {
        self.shared.server().await?;
        self.shared.evict(&self.shared.names.name(key), evict).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Observed>, StoreError> {
        self.shared.server().await?;
        self.shared.get(&self.shared.names.name(key)).await
    }

    /// The server removes what is over by itself.
    async fn purge(&self, _: usize) -> Result<Purged, StoreError> {
        Ok(Purged::default())
    }

    fn watch(&self) -> Option<&dyn Watch> {
        self.shared.listening.is_some().then_some(self as &dyn Watch)
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }
}

impl fmt::Debug for RedisStore {
    /// Shows no address, no key, no value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("key_prefix", &self.key_prefix())
            .field("standing", &self.shared.standing)
            .field("replicas", &self.shared.replicas)
            .field("listens", &self.shared.listening.is_some())
            .finish_non_exhaustive()
    }
}
