//! [`PostgresStore`]: the contract of the core, one statement a call.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::Pool;
use deadpool_postgres::tokio_postgres::Row;
use oncekey::Key;
use oncekey::store::{
    Abandon, Claim, ClaimOutcome, Complete, Evict, Fenced, Inspect, Listener, Observed, Page,
    Purged, Query, Renew, Settle, Settlement, Store, StoreError, Subscription, Watch,
};

use crate::batch::{self, Queue, Reply};
use crate::builder::PostgresStoreBuilder;
use crate::driver::{self, Failed};
use crate::sql::fault::Purpose;
use crate::sql::{Call, Tables, Terms, Turns, answer};

/// The most rows that one statement of a purge looks at: bounds how long it holds their locks.
const PURGED_AT_ONCE: usize = 500;
/// How many rows a page looks at for each that it may return.
const LOOKS_PER_ENTRY: usize = 8;

pub(crate) const CLAIM: Purpose = Purpose::new_key("claim");
const GET: Purpose = Purpose::read("get");
const PURGE: Purpose = Purpose::read("purge");
const LIST: Purpose = Purpose::read("list");
const WATCH: Purpose = Purpose::read("watch");
const UNWATCH: Purpose = Purpose::read("unwatch");

/// A store in a PostgreSQL database, for any number of processes on any number of machines.
///
/// A clone shares the pool; a second store on the same table shares the records. The pool may be of any
/// size, also of one connection, may lead to a pgbouncer in transaction mode, and may have any default
/// isolation level. It is the service's own: business writes in the same database can
/// [commit with the result](Self::run_in_transaction).
///
/// ```no_run
/// use oncekey::{Fingerprint, Idempotency, Key, Scope};
/// use oncekey_postgres::PostgresStore;
/// use oncekey_postgres::deadpool_postgres::{Manager, Pool};
/// use oncekey_postgres::tokio_postgres::NoTls;
///
/// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
/// let config = "host=/run/postgresql user=app dbname=app".parse()?;
/// let pool = Pool::builder(Manager::new(config, NoTls)).max_size(16).build()?;
/// let store = PostgresStore::new(pool);
/// store.migrate().await?;
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
/// Every answer, also a refusal, is given after the commit that it rests on. With
/// [`SynchronousCommit::On`](crate::SynchronousCommit::On), the default, a commit waits for the disk and
/// for the synchronous standby, if the server has one, whatever `synchronous_commit` says. What was
/// acknowledged survives a crash of client and server. It survives a failover if the standby is
/// synchronous; an asynchronous one may lack the last moments.
///
/// # Time
/// The server's clock, read after the wait for the row. When it steps back, tokens still go up while a
/// key is remembered.
///
/// # Cancel safety
/// A call is one statement that commits by itself, or a part of one that it shares with
/// [others of its kind](PostgresStoreBuilder::batching). Once its future was polled, it may be sent; dropped
/// after that, it happens as a whole, at the latest when the lock that it waits for is free, or not at
/// all, and the calls that it shares with are answered as if it was not dropped. It leaves no transaction
/// open, and its connection is good for the next call, which may have to wait for it.
///
/// # Errors
/// - [`Unavailable`]: there is no connection, or the server refused the
///   statement, for example on a standby. Not applied.
/// - [`Timeout`]: the pool had no connection in time, or the row was locked for longer
///   than [`lock_timeout`](PostgresStoreBuilder::lock_timeout), or the session's `statement_timeout` was
///   over. Not applied. (A claim is [`Busy`](ClaimOutcome::Busy) when the row is locked.)
/// - [`OutcomeUnknown`]: the connection was lost before the answer came.
/// - [`Full`], [`TooLarge`]: the server's disk is full; a content is
///   longer than half a gigabyte.
/// - [`Corrupt`]: the row was changed so that it makes no sense, or is a newer
///   oncekey's.
/// - [`Misconfigured`]: the schema is not there or not as it should be, or the
///   role lacks a right; the message says how to mend it.
///
/// The source of an error is the server's own, as [`ServerError`](crate::ServerError), without its details,
/// which may contain keys.
///
/// [`Corrupt`]: oncekey::store::ErrorKind::Corrupt
/// [`Full`]: oncekey::store::ErrorKind::Full
/// [`Misconfigured`]: oncekey::store::ErrorKind::Misconfigured
/// [`OutcomeUnknown`]: oncekey::store::ErrorKind::OutcomeUnknown
/// [`Timeout`]: oncekey::store::ErrorKind::Timeout
/// [`TooLarge`]: oncekey::store::ErrorKind::TooLarge
/// [`Unavailable`]: oncekey::store::ErrorKind::Unavailable
#[derive(Clone)]
pub struct PostgresStore {
    pub(crate) shared: std::sync::Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) pool: Pool,
    pub(crate) tables: Tables,
    pub(crate) terms: Terms,
    /// For those who hold up others while they wait for a row.
    pub(crate) hurried: Terms,
    pub(crate) lock_timeout: Duration,
    pub(crate) turns: Turns,
    pub(crate) batching: bool,
    pub(crate) prepared_statements: bool,
    pub(crate) claims: Queue<Claim>,
    pub(crate) completions: Queue<Complete>,
    pub(crate) listener: Option<Listener>,
}

impl PostgresStore {
    /// A store in the table `oncekey` of the schema `public`, with the defaults of
    /// [`builder`](Self::builder). Nothing is sent yet.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        match Self::builder(pool).build() {
            Ok(store) => store,
            Err(error) => unreachable!("the default names are usable: {error}"),
        }
    }

    /// Sets up a store on the connections of `pool`.
    pub fn builder(pool: Pool) -> PostgresStoreBuilder {
        PostgresStoreBuilder::new(pool)
    }

    /// The pool that the store was made with.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    /// The name of the schema.
    #[must_use]
    pub fn schema(&self) -> &str {
        self.shared.tables.schema()
    }

    /// The name of the table.
    #[must_use]
    pub fn table(&self) -> &str {
        self.shared.tables.table()
    }

    /// The statements that make the tables and functions, as
    /// [`PostgresStoreBuilder::ddl`].
    #[must_use]
    pub fn ddl(&self) -> String {
        self.shared.tables.ddl()
    }

    async fn send(&self, purpose: Purpose, call: &Call<'_>) -> Result<Vec<Row>, StoreError> {
        let sent = driver::send(&self.shared, purpose, call).await;
        sent.map_err(|failed| failed.into_error(purpose))
    }

    /// Sends what ends an attempt: without telling those who wait, if that is why it fails. They poll, too.
    async fn send_end(
        &self,
        purpose: Purpose,
        key: &Key,
        call: &Call<'_>,
    ) -> Result<Fenced, StoreError> {
        let sent = match driver::send(&self.shared, purpose, call).await {
            Err(Failed::Server(error)) if error.is_over_limit() => {
                let unwatch = self.shared.tables.unwatch(key, &self.shared.terms);
                // If it fails, so does the rest.
                let _ = driver::send(&self.shared, UNWATCH, &unwatch).await;
                driver::send(&self.shared, purpose, call).await
            }
            sent => sent,
        };
        let rows = sent.map_err(|failed| failed.into_error(purpose))?;
        answer::fenced(purpose, one(purpose, &rows)?)
    }
}

/// The row of a statement that always answers with one.
pub(crate) fn one(purpose: Purpose, rows: &[Row]) -> Result<&Row, StoreError> {
    rows.first().ok_or_else(|| purpose.misconfigured("a function of the schema gave no answer"))
}

#[async_trait]
impl Store for PostgresStore {
    async fn claim(&self, key: &Key, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        if let Reply::Answer(answer) = batch::send(&self.shared, key, claim).await {
            return answer;
        }
        let Shared { pool, tables, terms, turns, lock_timeout, .. } = &*self.shared;
        let mut waiting = turns.wait_for(key, *lock_timeout, pool.status().max_size);
        loop {
            let terms = waiting.terms(terms);
            match driver::send(&self.shared, CLAIM, &tables.claim(key, claim, &terms)).await {
                Ok(rows) => return Ok(answer::claim(CLAIM, claim, one(CLAIM, &rows)?)?.0),
                Err(Failed::Server(error)) if error.is_lock_timeout() => {
                    if !waiting.again().await {
                        // Whoever has the row is at work on the key.
                        return Ok(ClaimOutcome::Busy { retry_after: *lock_timeout });
                    }
                }
                Err(failed) => return Err(failed.into_error(CLAIM)),
            }
        }
    }

    async fn renew(&self, key: &Key, renew: &Renew) -> Result<Fenced, StoreError> {
        let purpose = match &renew.progress {
            Some(progress) => Purpose::content("renew").of_length(progress.data.len())?,
            None => Purpose::write("renew"),
        };
        let Shared { tables, terms, .. } = &*self.shared;
        let call = tables
            .renew(key, renew, terms)
            .ok_or_else(|| purpose.too_large("the number of the progress is above 2^63"))?;
        answer::fenced(purpose, one(purpose, &self.send(purpose, &call).await?)?)
    }

    async fn complete(&self, key: &Key, complete: &Complete) -> Result<Fenced, StoreError> {
        let purpose = Purpose::completing("complete", &complete.completion)?;
        if let Reply::Answer(answer) = batch::send(&self.shared, key, complete).await {
            return answer;
        }
        let Shared { tables, terms, .. } = &*self.shared;
        self.send_end(purpose, key, &tables.complete(key, complete, terms)).await
    }

    async fn abandon(&self, key: &Key, abandon: &Abandon) -> Result<Fenced, StoreError> {
        let Shared { tables, terms, .. } = &*self.shared;
        self.send_end(Purpose::write("abandon"), key, &tables.abandon(key, abandon, terms)).await
    }

    async fn settle(&self, key: &Key, settle: &Settle) -> Result<Fenced, StoreError> {
        let purpose = match &settle.settlement {
            Settlement::Done(completion) => Purpose::completing("settle", completion)?,
            Settlement::NotDone { .. } => Purpose::write("settle"),
        };
        let Shared { tables, terms, .. } = &*self.shared;
        self.send_end(purpose, key, &tables.settle(key, settle, terms)).await
    }

    async fn evict(&self, key: &Key, evict: &Evict) -> Result<Fenced, StoreError> {
        let Shared { tables, terms, .. } = &*self.shared;
        self.send_end(Purpose::write("evict"), key, &tables.evict(key, evict, terms)).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Observed>, StoreError> {
        let rows = self.send(GET, &self.shared.tables.get(key)).await?;
        rows.first().map(|row| answer::observed(GET, row)).transpose()
    }

    async fn purge(&self, limit: usize) -> Result<Purged, StoreError> {
        let mut purged = Purged { removed: 0, more: limit > 0 };
        // In steps, each a commit of its own: none holds many locks, and none waits for one.
        while purged.more && purged.removed < limit {
            let at_once = (limit - purged.removed).min(PURGED_AT_ONCE);
            let rows = self.send(PURGE, &self.shared.tables.purge(at_once)).await?;
            let (removed, looked_at) = answer::purged(PURGE, one(PURGE, &rows)?)?;
            purged.removed += removed;
            purged.more = looked_at >= at_once;
        }
        Ok(purged)
    }

    fn watch(&self) -> Option<&dyn Watch> {
        self.shared.listener.is_some().then_some(self as &dyn Watch)
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }
}

#[async_trait]
impl Inspect for PostgresStore {
    async fn list(&self, query: &Query) -> Result<Page, StoreError> {
        let looks = query.limit.saturating_mul(LOOKS_PER_ENTRY);
        let rows = self.send(LIST, &self.shared.tables.list(query, looks)).await?;
        Ok(answer::page(LIST, query, looks, &rows))
    }
}

#[async_trait]
impl Watch for PostgresStore {
    async fn subscribe(&self, key: &Key) -> Result<Subscription, StoreError> {
        let Some(listener) = &self.shared.listener else {
            return Err(WATCH.misconfigured("the store does not listen; set it up with `listen`"));
        };
        // First it listens, then it asks to be told: what happens in between is not missed.
        let subscription = listener.subscribe(Tables::payload(key)).await?;
        self.send(WATCH, &self.shared.tables.watch(key)).await?;
        Ok(subscription)
    }
}

impl fmt::Debug for PostgresStore {
    /// Shows where the store is and how busy its pool: no address, no key, no value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("schema", &self.schema())
            .field("table", &self.table())
            .field("pool", &self.shared.pool.status())
            .finish_non_exhaustive()
    }
}
