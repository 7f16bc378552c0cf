//! [`SqlxPostgres`]: effect and record in one transaction.

use std::convert::Infallible;

use oncekey::store::{Grant, StoreError};
use oncekey::transaction::{Admitted, Prepared};
use oncekey::{Fingerprint, Idempotency, Key, Outcome, RecordError, RunError};
use oncekey_postgres::sql::fault::rolled_back;
use oncekey_postgres::sql::{MARK, Tables, Terms};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::postgres::{PgConnection, PgPool};

use crate::connection::Guarded;
use crate::driver;
use crate::run::{Ended, LOCK_TIMEOUT, RUN, encode};

/// Runs operations whose effects are writes by sqlx to the database that has the keys.
///
/// It knows the names of the tables and holds no connection. The tables are those of
/// [`oncekey_postgres`], and what is recorded here is replayed there: give the engine a store on the same
/// tables, for whatever is not done inside a transaction.
#[derive(Debug, Clone)]
pub struct SqlxPostgres {
    pub(crate) tables: Tables,
    pub(crate) terms: Terms,
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
        let patience = Some(LOCK_TIMEOUT.as_millis().to_string());
        let terms = Terms { durable: true, patience };
        Ok(Self { tables: Tables::new(schema, table)?, terms })
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
    /// `business` gets it, may borrow from its surroundings, and must not end it. A duplicate that comes
    /// meanwhile waits for the row, for 5 seconds at most, and gets the result.
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
    ///   and the key is as free as before.
    /// - [`LeaseLost`](RunError::LeaseLost): `business` itself took the key away. Rolled back.
    /// - [`Store`](RunError::Store): of kind `OutcomeUnknown`, the connection was lost, and reading did not
    ///   tell what became of the transaction; or `business` ended it itself, whatever it returned. Of
    ///   other kinds, rolled back.
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
        let mut connection = Guarded::acquire(pool, RUN).await.map_err(RunError::Store)?;
        let guarded = connection.get(RUN).map_err(RunError::Store)?;
        match self.run_on(guarded, &prepared, business).await {
            Ended::Committed { running, value } => {
                connection.give_back();
                Ok(prepared.committed(running.number, value))
            }
            Ended::InDoubt { running, value, failed } => {
                drop(connection);
                let xact = running.xact.as_deref();
                let settled = self.settle_commit(pool, &prepared, failed, xact).await;
                settled.map(|()| prepared.committed(running.number, value)).map_err(RunError::Store)
            }
            Ended::Lost { running, error, failed } => {
                drop(connection);
                let settled =
                    self.settle_lost(pool, &prepared, failed, running.xact.as_deref()).await;
                Err(settled.map_or_else(RunError::Store, |()| error))
            }
            Ended::RolledBack { ran, in_order } => {
                if in_order {
                    connection.give_back();
                }
                ran
            }
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
    ///     Admitted::Run { grant, number } => {
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
        let (outcome, _) = claimed.map_err(|error| RunError::Store(rolled_back(error)))?;
        prepared.admit(outcome)
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
