//! How a store is set up: [`PostgresStoreBuilder`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Pool;
use deadpool_postgres::tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use deadpool_postgres::tokio_postgres::{Config, Socket};
use oncekey::store::StoreError;

use crate::batch::{PATIENCE, Queue};
use crate::listener::Connector;
use crate::sql::{Tables, Terms, Turns};
use crate::store::{PostgresStore, Shared};

/// What a commit of the store waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SynchronousCommit {
    /// For the disk, and for a synchronous standby if there is one: what was acknowledged survives a
    /// crash. Where the session waits for more, it goes on to.
    On,
    /// For what the session is set to wait for. With `synchronous_commit` off, the last moments before a
    /// crash of the server may be lost, and with them grants and results that were acknowledged.
    AsConfigured,
}

/// Sets up a [`PostgresStore`]. Made by [`PostgresStore::builder`].
///
/// ```no_run
/// use std::time::Duration;
/// use oncekey_postgres::{PostgresStore, deadpool_postgres::Pool};
///
/// # async fn demo(pool: Pool) -> Result<(), Box<dyn std::error::Error>> {
/// let store = PostgresStore::builder(pool)
///     .schema("billing")
///     .table("idempotency_keys")
///     .lock_timeout(Duration::from_secs(2))
///     .build()?;
/// store.migrate().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "call `build` to get the store"]
pub struct PostgresStoreBuilder {
    pool: Pool,
    schema: String,
    table: String,
    lock_timeout: Duration,
    synchronous_commit: SynchronousCommit,
    batching: bool,
    prepared_statements: bool,
    connector: Option<Connector>,
}

impl PostgresStoreBuilder {
    /// The name of the schema unless told otherwise.
    pub const DEFAULT_SCHEMA: &str = Tables::DEFAULT_SCHEMA;
    /// The name of the table unless told otherwise.
    pub const DEFAULT_TABLE: &str = Tables::DEFAULT_TABLE;

    pub(crate) fn new(pool: Pool) -> Self {
        Self {
            pool,
            schema: Self::DEFAULT_SCHEMA.to_owned(),
            table: Self::DEFAULT_TABLE.to_owned(),
            lock_timeout: Duration::from_secs(5),
            synchronous_commit: SynchronousCommit::On,
            batching: true,
            prepared_statements: false,
            connector: None,
        }
    }

    /// The schema of the tables and functions; `public` unless set.
    ///
    /// 1 to 63 ASCII letters, digits and underscores, the first not a digit. It is named in every
    /// statement, so that no `search_path` matters.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = name.into();
        self
    }

    /// The name of the table; `oncekey` unless set. The names of a second table and of all functions
    /// begin with it.
    ///
    /// 1 to 40 lower-case ASCII letters, digits and underscores, the first not a digit.
    pub fn table(mut self, name: impl Into<String>) -> Self {
        self.table = name.into();
        self
    }

    /// How long a call waits for a transaction that has the key's row; 5 seconds unless set. Zero is for
    /// ever.
    ///
    /// Then a claim is answered [`Busy`](oncekey::store::ClaimOutcome::Busy), since somebody is at work
    /// on the key, and other calls fail with [`Timeout`](oncekey::store::ErrorKind::Timeout), not
    /// applied. Of all claims of one key, one at a time waits on a connection of the pool, and gives it
    /// back again and again; of what only an owner calls, each holds one while it waits.
    pub const fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// What a commit waits for; [`SynchronousCommit::On`] unless set.
    pub const fn synchronous_commit(mut self, synchronous_commit: SynchronousCommit) -> Self {
        self.synchronous_commit = synchronous_commit;
        self
    }

    /// Whether claims that come while others are under way share a statement and its commit, and
    /// completions likewise; true unless set.
    ///
    /// It makes no call wait that comes alone, and no outcome different. A busy store takes up to four
    /// connections of the pool for all claims and completions, instead of one for each.
    pub const fn batching(mut self, batching: bool) -> Self {
        self.batching = batching;
        self
    }

    /// Whether statements are prepared once on each connection, which spares the server to plan each anew;
    /// false unless set.
    ///
    /// For connections to the server itself. Behind a pgbouncer in transaction mode it must stay off: a
    /// name there may be another client's for another statement.
    pub const fn prepared_statements(mut self, prepared_statements: bool) -> Self {
        self.prepared_statements = prepared_statements;
        self
    }

    /// Wakes those who wait for a key in this process, by `LISTEN` on a connection of its own.
    ///
    /// `config` and `tls` make that connection: it must lead to the server itself, not to a pgbouncer in
    /// transaction mode. It is there only while somebody waits, and others notify only what somebody
    /// waits for. Without this, those who wait poll.
    pub fn listen<T>(mut self, config: Config, tls: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        self.connector = Some(Connector::new(config, tls));
        self
    }

    /// The statements that make the tables and functions, for those who run migrations with tools of
    /// their own. They belong into one transaction.
    ///
    /// # Errors
    /// [`Misconfigured`](oncekey::store::ErrorKind::Misconfigured) when a name is not usable.
    pub fn ddl(&self) -> Result<String, StoreError> {
        Ok(Tables::new(&self.schema, &self.table)?.ddl())
    }

    /// The store. Nothing is sent yet: [`migrate`](PostgresStore::migrate) makes the tables, and
    /// [`check`](PostgresStore::check) says whether they are there.
    ///
    /// # Errors
    /// [`Misconfigured`](oncekey::store::ErrorKind::Misconfigured) when a name is not usable.
    pub fn build(self) -> Result<PostgresStore, StoreError> {
        let tables = Tables::new(&self.schema, &self.table)?;
        let millis = match self.lock_timeout {
            Duration::ZERO => 0,
            timeout => timeout.as_millis().clamp(1, i32::MAX.unsigned_abs().into()),
        };
        let terms = Terms {
            durable: self.synchronous_commit == SynchronousCommit::On,
            patience: Some(millis.to_string()),
        };
        let hurried = Terms { patience: Some(PATIENCE.to_owned()), ..terms.clone() };
        let listener = self.connector.map(|connector| connector.listener(tables.channel()));
        Ok(PostgresStore {
            shared: Arc::new(Shared {
                pool: self.pool,
                tables,
                terms,
                hurried,
                batching: self.batching,
                prepared_statements: self.prepared_statements,
                claims: Queue::default(),
                completions: Queue::default(),
                lock_timeout: self.lock_timeout,
                turns: Turns::default(),
                listener,
            }),
        })
    }
}

impl fmt::Debug for PostgresStoreBuilder {
    /// Shows no address and no password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStoreBuilder")
            .field("schema", &self.schema)
            .field("table", &self.table)
            .field("lock_timeout", &self.lock_timeout)
            .field("synchronous_commit", &self.synchronous_commit)
            .field("batching", &self.batching)
            .field("prepared_statements", &self.prepared_statements)
            .field("listens", &self.connector.is_some())
            .finish_non_exhaustive()
    }
}
