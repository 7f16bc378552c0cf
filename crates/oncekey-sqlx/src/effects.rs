//! [`SqlxPostgres`]: effect and record in one transaction.

use std::convert::Infallible;
use std::time::Duration;

use oncekey::store::{ClaimOutcome, Complete, ErrorKind, Fenced, Grant, Status, StoreError};
use oncekey::transaction::{Admitted, Prepared, check_completed};
use oncekey::{Fingerprint, Idempotency, Key, Outcome, RecordError, RunError};
use oncekey_postgres::sql::fault::{Purpose, REFUSED, rolled_back};
use oncekey_postgres::sql::{Call, Tables, Terms, answer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Connection as _;
use sqlx::postgres::{PgConnection, PgPool};

use crate::connection::Guarded;
use crate::driver::{self, Answer, Failed};

const CLAIM: Purpose = Purpose::new_key("claim");
const RUN: Purpose = Purpose::write("run in a transaction");
const SETTLE: Purpose = Purpose::read("read what became of a commit");

/// How long a key's row is waited for, where the caller's transaction does not say.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often, and how long apart, a commit of unknown outcome is asked about while it is under way.
const ASKED: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// Runs operations whose effects are writes by sqlx to the database that has the keys.
///
/// It knows the names of the tables and holds no connection. The tables are those of
/// [`oncekey_postgres`], and what is recorded here is replayed there: give the engine a store on the same
/// tables, for whatever is not done inside a transaction.
#[derive(Debug, Clone)]
pub struct SqlxPostgres {
    tables: Tables,
    terms: Terms,
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
    /// [`Misconfigured`](ErrorKind::Misconfigured): a schema is 1 to 63 ASCII letters, digits and
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
    /// - [`Store`](RunError::Store): of kind `OutcomeUnknown`, the connection was lost while it committed,
    ///   and reading did not tell whether it did; or `business` ended the transaction itself. Of other
    ///   kinds, rolled back.
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
            Ended::Committed { number, value } => {
                connection.give_back();
                Ok(prepared.committed(number, value))
            }
            Ended::InDoubt { number, value, xact, failed } => {
                drop(connection);
                let settled = self.settle_commit(pool, &prepared, failed, xact.as_deref()).await;
                settled.map(|()| prepared.committed(number, value)).map_err(RunError::Store)
            }
            Ended::RolledBack { ran, in_order } => {
                if in_order {
                    connection.give_back();
                }
                ran
            }
        }
    }

    /// Begins, runs, and ends. The transaction is one of sqlx, which so knows that a `begin` of `business` is a
    /// savepoint.
    async fn run_on<T, E, F>(
        &self,
        connection: &mut PgConnection,
        prepared: &Prepared,
        business: F,
    ) -> Ended<T, E>
    where
        T: Serialize + DeserializeOwned,
        F: AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    {
        let begun = connection.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await;
        let mut transaction = match begun {
            Ok(transaction) => transaction,
            Err(error) => {
                let error = rolled_back(Failed::from(error).into_error(RUN));
                return Ended::RolledBack { ran: Err(RunError::Store(error)), in_order: false };
            }
        };
        let ran = match self.run_in(&mut transaction, prepared, business).await {
            Ok(Ran::Now { number, value, xact }) => {
                return match transaction.commit().await {
                    Ok(()) => Ended::Committed { number, value },
                    Err(error) => {
                        Ended::InDoubt { number, value, xact, failed: Failed::from(error) }
                    }
                };
            }
            Ok(Ran::Before(outcome)) => Ok(outcome),
            Err(error) => Err(error),
        };
        Ended::RolledBack { ran, in_order: transaction.rollback().await.is_ok() }
    }

    /// Everything but the commit.
    async fn run_in<T, E, F>(
        &self,
        connection: &mut PgConnection,
        prepared: &Prepared,
        business: F,
    ) -> Result<Ran<T>, RunError<E>>
    where
        T: Serialize + DeserializeOwned,
        F: AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    {
        let claimed = self.claim_on(connection, prepared, &self.terms).await;
        let (outcome, xact) = claimed.map_err(|error| RunError::Store(rolled_back(error)))?;
        let (grant, number) = match prepared.admit(outcome)? {
            Admitted::Run { grant, number } => (grant, number),
            Admitted::Replay(outcome) => return Ok(Ran::Before(outcome)),
        };
        let value = business(&mut *connection).await.map_err(RunError::NotStarted)?;
        let command = encode(prepared, grant, &value).map_err(RunError::Store)?;
        let terms = &self.terms;
        match self.complete_on(connection, prepared, &command, xact.as_deref(), terms).await {
            Ok(()) => Ok(Ran::Now { number, value, xact }),
            Err(RecordError::Store(error)) => Err(RunError::Store(error)),
            Err(_) => Err(RunError::LeaseLost),
        }
    }

    /// Claims a key in a transaction of your own: the first of two steps around your own writes.
    ///
    /// Prepare the run with [`Idempotency::prepare`]. If this returns [`Admitted::Run`], do your writes
    /// and call [`complete_in`](Self::complete_in), in the same transaction or, before the lease ends, in
    /// a later one; in every other case roll back. It waits for the key's row as long as the
    /// transaction's `lock_timeout` says. `connection` must be in a transaction.
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
    /// As [`run_in_transaction`](Self::run_in_transaction), without `NotStarted`. After
    /// [`Store`](RunError::Store) the transaction can only roll back.
    pub async fn claim_in<T: DeserializeOwned>(
        &self,
        connection: &mut PgConnection,
        prepared: &Prepared,
    ) -> Result<Admitted<T>, RunError<Infallible>> {
        let claimed = self.claim_on(connection, prepared, &self.callers_terms()).await;
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
    ///   encoded. Roll back.
    pub async fn complete_in<T: Serialize>(
        &self,
        connection: &mut PgConnection,
        prepared: &Prepared,
        grant: Grant,
        value: &T,
    ) -> Result<(), RecordError> {
        let command = encode(prepared, grant, value).map_err(RecordError::Store)?;
        self.complete_on(connection, prepared, &command, None, &self.callers_terms()).await
    }

    fn callers_terms(&self) -> Terms {
        Terms { patience: None, ..self.terms.clone() }
    }

    async fn claim_on(
        &self,
        connection: &mut PgConnection,
        prepared: &Prepared,
        terms: &Terms,
    ) -> Result<(ClaimOutcome, Option<String>), StoreError> {
        let call = self.tables.claim(prepared.key(), prepared.claim(), terms);
        match driver::query(connection, &call).await {
            Ok(row) => answer::claim(CLAIM, prepared.claim(), &one(CLAIM, row)?),
            // Whoever has the row is at work on the key.
            Err(Failed::Server(error)) if error.is_lock_timeout() => {
                Ok((ClaimOutcome::Busy { retry_after: LOCK_TIMEOUT }, None))
            }
            Err(failed) => Err(failed.into_error(CLAIM)),
        }
    }

    async fn complete_on(
        &self,
        connection: &mut PgConnection,
        prepared: &Prepared,
        command: &Complete,
        xact: Option<&str>,
        terms: &Terms,
    ) -> Result<(), RecordError> {
        let completing = Purpose::completing("complete", &command.completion);
        let purpose = completing.map_err(RecordError::Store)?;
        let call = self.tables.complete_in(prepared.key(), command, xact, terms);
        let fenced = match driver::query(connection, &call).await {
            Ok(Some(_)) => Fenced::Applied,
            Ok(None) => return Err(RecordError::Store(ended_by_business())),
            Err(Failed::Server(error)) if error.sqlstate() == REFUSED => {
                answer::refusal(purpose, error.message()).map_err(RecordError::Store)?
            }
            Err(failed) => {
                return Err(RecordError::Store(rolled_back(failed.into_error(purpose))));
            }
        };
        check_completed(fenced)
    }

    /// Whether a commit that failed happened: found out by reading, never by running again.
    async fn settle_commit(
        &self,
        pool: &PgPool,
        prepared: &Prepared,
        failed: Failed,
        xact: Option<&str>,
    ) -> Result<(), StoreError> {
        let error = match failed {
            Failed::Server(error) if error.sqlstate().starts_with("23") => {
                let message = "a deferred constraint of a business table is violated; everything was \
                               rolled back";
                return Err(StoreError::new(ErrorKind::Misconfigured, RUN.operation())
                    .with_message(message)
                    .with_source(error));
            }
            failed => failed.into_error(RUN),
        };
        if error.kind() != ErrorKind::OutcomeUnknown {
            return Err(error);
        }
        for asked in 0..ASKED {
            if asked > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            match self.became(pool, prepared, xact).await {
                Ok(Became::Committed) => return Ok(()),
                Ok(Became::RolledBack) => return Err(rolled_back(error)),
                // It is still at it, or the server may be about to come back.
                Ok(Became::Unknown) => {}
                Err(error) if error.is_retryable() => {}
                Err(_) => break,
            }
        }
        Err(error)
    }

    async fn became(
        &self,
        pool: &PgPool,
        prepared: &Prepared,
        xact: Option<&str>,
    ) -> Result<Became, StoreError> {
        let mut guarded = Guarded::acquire(pool, SETTLE).await?;
        let failed = |failed: Failed| failed.into_error(SETTLE);
        let connection = guarded.get(SETTLE)?;
        driver::execute(connection, "BEGIN ISOLATION LEVEL READ COMMITTED")
            .await
            .map_err(failed)?;
        // In this order: a commit between the two is seen by the next look.
        let call = Call::status_of(xact);
        let status = one(SETTLE, driver::query(connection, &call).await.map_err(failed)?)?;
        let call = self.tables.get(prepared.key());
        let row = driver::query(connection, &call).await.map_err(failed)?;
        if driver::execute(connection, "ROLLBACK").await.is_ok() {
            guarded.give_back();
        }
        let observed = row.map(|row| answer::observed(SETTLE, &row)).transpose()?;
        let is_completed = observed.is_some_and(|observed| {
            observed.record.attempt == prepared.claim().attempt
                && matches!(observed.record.status, Status::Completed { .. })
        });
        Ok(match answer::Row::text(&status, 0) {
            _ if is_completed => Became::Committed,
            Some("aborted") => Became::RolledBack,
            _ => Became::Unknown,
        })
    }
}

impl Default for SqlxPostgres {
    fn default() -> Self {
        Self::new()
    }
}

/// How a run and its transaction ended.
enum Ended<T, E> {
    Committed {
        number: u32,
        value: T,
    },
    /// The commit was not answered.
    InDoubt {
        number: u32,
        value: T,
        xact: Option<String>,
        failed: Failed,
    },
    /// Nothing is in force. `in_order`: the connection can serve again.
    RolledBack {
        ran: Result<Outcome<T>, RunError<E>>,
        in_order: bool,
    },
}

enum Ran<T> {
    /// In an earlier transaction.
    Before(Outcome<T>),
    Now {
        number: u32,
        value: T,
        xact: Option<String>,
    },
}

enum Became {
    Committed,
    RolledBack,
    Unknown,
}

fn encode<T: Serialize>(
    prepared: &Prepared,
    grant: Grant,
    value: &T,
) -> Result<Complete, StoreError> {
    prepared.complete(grant, value).map_err(|error| {
        StoreError::new(ErrorKind::Misconfigured, "complete")
            .with_message("the result cannot be encoded; roll back")
            .with_source(error)
    })
}

/// The row of a statement that always answers with one.
fn one(purpose: Purpose, row: Option<Answer>) -> Result<Answer, StoreError> {
    row.ok_or_else(|| {
        StoreError::new(ErrorKind::Misconfigured, purpose.operation())
            .with_message("a function of the schema gave no answer")
    })
}

fn ended_by_business() -> StoreError {
    StoreError::new(ErrorKind::OutcomeUnknown, RUN.operation()).with_message(
        "the closure ended the transaction itself, so what it wrote may be committed without a result; \
         it must leave BEGIN, COMMIT and ROLLBACK to the caller",
    )
}
