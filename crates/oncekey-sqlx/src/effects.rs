//! [`SqlxPostgres`]: effect and record in one transaction.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use oncekey::store::{ClaimOutcome, Grant, StoreError};
use oncekey::transaction::{Admitted, Prepared, store_error};
use oncekey::{Fingerprint, Idempotency, Key, Outcome, RecordError, RunError};
use oncekey_postgres::sql::fault::rolled_back;
use oncekey_postgres::sql::{MARK, Tables, Terms, Turns};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::postgres::{PgConnection, PgPool};

use crate::connection::Guarded;
use crate::driver;
use crate::run::{Claimed, Ended, RUN, Ran, Running, encode};

/// How long a key's row is waited for unless told otherwise.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs operations whose effects are writes by sqlx to the database that has the keys.
///
/// It knows the names of the tables and holds no connection. Make one, and clone it: among duplicates that
/// wait in the clones, one at a time needs a connection. The tables are those of
/// [`oncekey_postgres`], and what is recorded here is replayed there: give the engine a store on the same
/// tables, for whatever is not done inside a transaction.
#[derive(Debug, Clone)]
pub struct SqlxPostgres {
    pub(crate) tables: Tables,
    pub(crate) terms: Terms,
    pub(crate) lock_timeout: Duration,
    /// Of all clones.
    turns: Arc<Turns>,
}

impl SqlxPostgres {
    /// On the table `oncekey` of the schema `public`.
    #[must_use]
    pub fn new() -> Self {
        match Self::on(Tables::DEFAULT_SCHEMA, Tables::DEFAULT_TABLE) {
            Ok(own) => own,
            Err(error) => unreachable!("the default names are usable: {error}"),
        }
    }

    /// On another table. A completion's commit waits for the disk, also where the session would not.
    ///
    /// # Errors
    /// [`Misconfigured`](oncekey::store::ErrorKind::Misconfigured): a schema is 1 to 63 ASCII letters, digits and
    /// underscores, a table 1 to 40 of them in lower case, neither with a digit first.
    pub fn on(schema: &str, table: &str) -> Result<Self, StoreError> {
        Ok(Self {
            tables: Tables::new(schema, table)?,
            terms: Terms { durable: true, patience: None },
            lock_timeout: LOCK_TIMEOUT,
            turns: Arc::default(),
        }
        .lock_timeout(LOCK_TIMEOUT))
    }

    /// How long [`run_in_transaction`](Self::run_in_transaction) waits for another transaction that has the
    /// key's row; 5 seconds unless set. Zero is for ever.
    ///
    /// Then it is `Busy`, since somebody is at work on the key.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        let millis = match timeout {
            Duration::ZERO => 0,
            timeout => timeout.as_millis().clamp(1, i32::MAX.unsigned_abs().into()),
        };
        self.terms.patience = Some(millis.to_string());
        self.lock_timeout = timeout;
        self
    }

    /// The statements that make the tables and functions, for your migrations. They belong into one
    /// transaction.
    #[must_use]
    pub fn ddl(&self) -> String {
        self.tables.ddl()
    }

    /// Runs `business` in one transaction with the claim and the completion of `key`: its writes and the
    /// record of its result commit together, or not at all.
    ///
    /// The transaction is begun here, at READ COMMITTED, on a connection of `pool`, and committed here.
    /// `business` gets it, may borrow from its surroundings, must not end it, and must end what it begins
    /// within it. A duplicate that comes meanwhile waits for the row, for [`lock_timeout`](Self::lock_timeout) at most, and
    /// gets the result.
    ///
    /// ```no_run
    /// use oncekey::{Fingerprint, Idempotency, Key, Scope};
    /// use oncekey_sqlx::{SqlxPostgres, sqlx};
    ///
    /// # async fn demo(
    /// #     idempotency: Idempotency, pool: sqlx::PgPool,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let effects = SqlxPostgres::new();
    /// let key = Key::new(&Scope::new("tenant-42", "POST /payments")?, "order-17")?;
    /// let fingerprint = Fingerprint::of("100 EUR");
    ///
    /// let amount = 100_i64;
    /// let outcome = effects
    ///     .run_in_transaction(&pool, &idempotency, &key, &fingerprint, async |tx| {
    ///         let sql = "INSERT INTO payments (amount) VALUES ($1) RETURNING id";
    ///         sqlx::query_scalar::<_, i64>(sql).bind(amount).fetch_one(tx).await
    ///     })
    ///     .await?;
    /// println!("payment {}", outcome.value());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Dropped: everything happened, or nothing. The connection is closed, and does not go back to the pool
    /// with an open transaction. Run again with the same key to find out: it replays what happened, or makes
    /// it happen.
    ///
    /// # Errors
    /// - The refusals: `Busy`, `Mismatch`, `Interrupted`, `Retired`. A key that was claimed by other means
    ///   and interrupted is taken over by an engine that runs at least once, and refused by the others.
    /// - [`NotStarted`](RunError::NotStarted): `business` returned an error. Everything was rolled back,
    ///   and the key is as free as before. [`Unknown`](RunError::Unknown) if it had taken over from an
    ///   interrupted attempt: what that one did is as unknown as before.
    /// - [`LeaseLost`](RunError::LeaseLost): `business` itself took the key away. Rolled back.
    /// - [`InDoubt`](RunError::InDoubt): the connection was lost, and reading for some seconds did not tell
    ///   what became of the transaction; or `business` ended it itself, whatever it returned.
    /// - [`Store`](RunError::Store): it did not run, or was rolled back. Of kind `Misconfigured`, also when
    ///   `business` left a transaction of its own open.
    /// - [`NotReplayable`](RunError::NotReplayable) and [`Codec`](RunError::Codec): done earlier, and its
    ///   result was not kept or is not a `T`.
    pub async fn run_in_transaction<T, E, F>(
        &self,
        pool: &PgPool,
        idempotency: &Idempotency,
        key: &Key,
        fingerprint: &Fingerprint,
        business: F,
    ) -> Result<Outcome<T>, RunError<E>>
    where
        T: Serialize + DeserializeOwned,
        F: AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    {
        let prepared = idempotency.prepare(key, fingerprint).map_err(RunError::Store)?;
        let connections = usize::try_from(pool.options().get_max_connections()).unwrap_or(1);
        let mut waiting = self.turns.wait_for(prepared.key(), self.lock_timeout, connections);
        let mut business = business;
        loop {
            let mut connection = Guarded::acquire(pool, RUN).await.map_err(RunError::Store)?;
            let guarded = connection.get(RUN).map_err(RunError::Store)?;
            let terms = waiting.terms(&self.terms);
            match self.run_on(guarded, &prepared, &terms, business).await {
                Ran::Ended(running, ended) => {
                    return self.end(pool, connection, &prepared, &running, ended).await;
                }
                Ran::Refused { told, in_order } => {
                    connection.close(in_order);
                    return told;
                }
                Ran::Locked { business: later, in_order } => {
                    business = later;
                    // Others need it more.
                    connection.close(in_order);
                }
            }
            if !waiting.again().await {
                let busy = ClaimOutcome::Busy { retry_after: self.lock_timeout };
                return match prepared.admit(busy)? {
                    Admitted::Replay(outcome) => Ok(outcome),
                    Admitted::Run { .. } => Err(RunError::LeaseLost),
                };
            }
        }
    }

    /// Gives the connection back, and finds out what became of the transaction if that was lost.
    async fn end<T, E>(
        &self,
        pool: &PgPool,
        connection: Guarded,
        prepared: &Prepared,
        running: &Running,
        ended: Ended<T, E>,
    ) -> Result<Outcome<T>, RunError<E>> {
        let xact = running.xact.as_deref();
        let ended = match ended {
            Ended::Committed(value) => {
                connection.close(true);
                Ok(value)
            }
            Ended::InDoubt(value, failed) => {
                drop(connection);
                let settled = self.settle_commit(pool, prepared, failed, xact).await;
                settled.map(|()| value).map_err(store_error)
            }
            Ended::Lost(error, failed) => {
                drop(connection);
                let settled = self.settle_lost(pool, prepared, failed, xact).await;
                Err(settled.map_or_else(store_error, |()| error))
            }
            Ended::RolledBack { error, in_order } => {
                connection.close(in_order);
                Err(error)
            }
        };
        match ended {
            Ok(value) => Ok(prepared.committed(running.number, value)),
            Err(error) => Err(prepared.failed(running.number, error)),
        }
    }

    /// Claims a key in a transaction of your own: the first of two steps around your own writes.
    ///
    /// Prepare the run with [`Idempotency::prepare`]. If this returns [`Admitted::Run`], do your writes
    /// and call [`complete_in`](Self::complete_in), in the same transaction or, before the lease ends, in
    /// a later one; in every other case roll back. It waits for the key's row as long as the
    /// transaction's `lock_timeout` says. `connection` must be in a transaction, whoever began it: this looks,
    /// by a round trip of its own.
    ///
    /// ```no_run
    /// use oncekey::transaction::Admitted;
    /// use oncekey::{Fingerprint, Idempotency, Key, Scope};
    /// use oncekey_sqlx::{SqlxPostgres, sqlx};
    ///
    /// # async fn demo(
    /// #     idempotency: Idempotency, pool: sqlx::PgPool,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let effects = SqlxPostgres::new();
    /// let key = Key::new(&Scope::new("tenant-42", "POST /payments")?, "order-17")?;
    /// let prepared = idempotency.prepare(&key, &Fingerprint::of("100 EUR"))?;
    ///
    /// let mut tx = pool.begin().await?;
    /// let outcome = match effects.claim_in::<i64>(&mut tx, &prepared).await? {
    ///     Admitted::Replay(outcome) => outcome,
    ///     Admitted::Run { grant, number, .. } => {
    ///         let sql = "INSERT INTO payments (amount) VALUES (100) RETURNING id";
    ///         let receipt = sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut *tx).await?;
    ///         effects.complete_in(&mut tx, &prepared, grant, &receipt).await?;
    ///         tx.commit().await?;
    ///         prepared.committed(number, receipt)
    ///     }
    /// };
    /// println!("payment {}", outcome.value());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A commit that fails may have happened: run the same key again, which replays it then.
    ///
    /// # Cancel safety
    /// Dropped: roll back. A `begin` of sqlx 0.9.0 that is dropped may leave its transaction open on a
    /// connection that goes back to the pool: where calls are cancelled, begin in a task of its own, or
    /// use [`run_in_transaction`](Self::run_in_transaction).
    ///
    /// # Errors
    /// As [`run_in_transaction`](Self::run_in_transaction), without `NotStarted`; and `Misconfigured`, with
    /// nothing done, if `connection` is in no transaction. After [`Store`](RunError::Store) the transaction
    /// can only roll back.
    pub async fn claim_in<T: DeserializeOwned>(
        &self,
        connection: &mut PgConnection,
        prepared: &Prepared,
    ) -> Result<Admitted<T>, RunError<Infallible>> {
        let terms = self.callers_terms();
        let call = self.tables.claim_in(prepared.key(), prepared.claim(), &terms);
        // If it fails, so does the claim, or finds no mark.
        let _ = driver::execute(connection, MARK).await;
        let claimed = self.claim_on(connection, &call, prepared).await;
        prepared.admit(match claimed.map_err(|error| RunError::Store(rolled_back(error)))? {
            Claimed::Told(outcome, _) => outcome,
            // Whoever has the row is at work on the key.
            Claimed::Locked => ClaimOutcome::Busy { retry_after: self.lock_timeout },
        })
    }

    /// Completes a key in a transaction of your own, so that your writes and the result commit together.
    ///
    /// If it is refused, the server fails the transaction *at once*: your writes belong to an owner that
    /// was replaced. What was written can then only roll back, also if the refusal is ignored. (A later
    /// `commit` of sqlx returns no error then, since the server answers a COMMIT of a failed transaction by
    /// rolling it back: heed this result, not that one.)
    ///
    /// See [`claim_in`](Self::claim_in) for an example.
    ///
    /// # Cancel safety
    /// Dropped: roll back. A refusal stands even then.
    ///
    /// # Errors
    /// - [`Lost`](RecordError::Lost), [`Gone`](RecordError::Gone), [`Conflict`](RecordError::Conflict):
    ///   the key is no longer this attempt's. Rolled back.
    /// - [`Store`](RecordError::Store): as for every store, and `Misconfigured` if `value` cannot be
    ///   encoded or `connection` is in no transaction. Roll back.
    pub async fn complete_in<T: Serialize>(
        &self,
        connection: &mut PgConnection,
        prepared: &Prepared,
        grant: Grant,
        value: &T,
    ) -> Result<(), RecordError> {
        let command = encode(prepared, grant, value).map_err(RecordError::Store)?;
        let _ = driver::execute(connection, MARK).await;
        self.complete_on(connection, prepared, &command, None, &self.callers_terms()).await
    }

    fn callers_terms(&self) -> Terms {
        Terms { patience: None, ..self.terms.clone() }
    }
}

impl Default for SqlxPostgres {
    fn default() -> Self {
        Self::new()
    }
}
