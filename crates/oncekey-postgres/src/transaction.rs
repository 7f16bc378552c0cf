//! Effect and record in one transaction: [`PostgresStore::run_in_transaction`], and the two steps of it
//! on a transaction of the caller's own.

use std::convert::Infallible;

use deadpool_postgres::Transaction;
use deadpool_postgres::tokio_postgres::{self, IsolationLevel};
use futures::join;
use oncekey::store::{ClaimOutcome, Complete, ErrorKind, Fenced, Grant, StoreError};
use oncekey::transaction::{Admitted, Prepared, business_error, check_completed, store_error};
use oncekey::{Fingerprint, Idempotency, Key, Outcome, RecordError, RunError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::driver::{self, Failed};
use crate::settle::{SAVEPOINT, Undone, undo};
use crate::sql::fault::{Purpose, not_in_transaction, rolled_back};
use crate::sql::settle::ended_by_business;
use crate::sql::{Call, MARK, Terms, answer};
use crate::store::{CLAIM, PostgresStore, Shared, one};

pub(crate) const RUN: Purpose = Purpose::write("run in a transaction");

impl PostgresStore {
    /// Runs `business` in one transaction with the claim and the completion of `key`: its writes and the
    /// record of its result commit together, or not at all.
    ///
    /// For business tables in the same database. The store begins the transaction, at READ COMMITTED, and
    /// commits it. `business` gets it, may borrow from its surroundings, and must not end it. A duplicate
    /// that comes meanwhile waits for the row, for [`lock_timeout`] at most, and gets the result. What
    /// takes longer than that belongs before the transaction: it holds a connection and keeps vacuum from
    /// its work.
    ///
    /// ```no_run
    /// use oncekey::{Fingerprint, Idempotency, Key, Scope};
    /// use oncekey_postgres::{PostgresStore, tokio_postgres};
    ///
    /// # async fn demo(store: PostgresStore) -> Result<(), Box<dyn std::error::Error>> {
    /// let idempotency = Idempotency::at_most_once(store.clone());
    /// let key = Key::new(&Scope::new("tenant-42", "POST /payments")?, "order-17")?;
    /// let fingerprint = Fingerprint::of("100 EUR");
    ///
    /// let amount = 100_i64;
    /// let outcome = store
    ///     .run_in_transaction(&idempotency, &key, &fingerprint, async |tx| {
    ///         let sql = "INSERT INTO payments (amount) VALUES ($1) RETURNING id";
    ///         let row = tx.query_one(sql, &[&amount]).await?;
    ///         Ok::<i64, tokio_postgres::Error>(row.get(0))
    ///     })
    ///     .await?;
    /// println!("payment {}", outcome.value());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Dropped: everything happened, or nothing; the transaction is not left open. Run again with the
    /// same key to find out: it replays what happened, or makes it happen.
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
    ///   the result cannot be encoded or a deferred constraint is violated; of other kinds as for
    ///   [`claim`](oncekey::store::Store::claim).
    /// - [`NotReplayable`](RunError::NotReplayable) and [`Codec`](RunError::Codec): done earlier, and its
    ///   result was not kept or is not a `T`.
    ///
    /// [`lock_timeout`]: crate::PostgresStoreBuilder::lock_timeout
    pub async fn run_in_transaction<T, E, F>(
        &self,
        idempotency: &Idempotency,
        key: &Key,
        fingerprint: &Fingerprint,
        business: F,
    ) -> Result<Outcome<T>, RunError<E>>
    where
        T: Serialize + DeserializeOwned,
        F: AsyncFnOnce(&mut Transaction<'_>) -> Result<T, E>,
    {
        let prepared = idempotency.prepare(key, fingerprint).map_err(RunError::Store)?;
        let Shared { pool, tables, terms, turns, lock_timeout, .. } = &*self.shared;
        let connections = pool.status().max_size;
        let mut waiting = turns.wait_for(prepared.key(), *lock_timeout, connections);
        loop {
            let mut client = driver::connection(pool, RUN).await.map_err(RunError::Store)?;
            // Dropping it, on every way out but a commit, rolls it back.
            let transaction = client
                .build_transaction()
                .isolation_level(IsolationLevel::ReadCommitted)
                .start()
                .await
                .map_err(|error| RunError::Store(before_commit(error)))?;
            let terms = waiting.terms(terms);
            let call = tables.claim(prepared.key(), prepared.claim(), &terms);
            // Both are sent at once. Whoever ends the transaction ends the savepoint, too.
            let (begun, claimed) = join!(
                transaction.batch_execute(SAVEPOINT),
                self.claim_on(&transaction, &call, &prepared)
            );
            let claimed = claimed.map_err(|error| RunError::Store(rolled_back(error)))?;
            let Claimed::Told(outcome, xact) = claimed else {
                // Others need the connection more.
                drop(transaction);
                drop(client);
                if waiting.again().await {
                    continue;
                }
                return match prepared.admit(ClaimOutcome::Busy { retry_after: *lock_timeout })? {
                    Admitted::Replay(outcome) => Ok(outcome),
                    Admitted::Run { .. } => Err(RunError::LeaseLost),
                };
            };
            begun.map_err(|error| RunError::Store(before_commit(error)))?;
            let (grant, number, took_over) = match prepared.admit(outcome)? {
                Admitted::Run { grant, number, took_over } => (grant, number, took_over),
                Admitted::Replay(outcome) => return Ok(outcome),
            };
            drop(waiting);
            let running = Running { grant, took_over, xact: xact.as_deref() };
            let ended = self.run_claimed(transaction, &prepared, &running, business).await;
            // What became of it is asked on another connection, which may be the only one.
            drop(client);
            let ended = match ended {
                Ended::Committed(value) => Ok(value),
                Ended::RolledBack(error) => Err(error),
                Ended::InDoubt(value, error) => {
                    let settled = self.settle_commit(&prepared, error, running.xact).await;
                    settled.map(|()| value).map_err(store_error)
                }
                Ended::Lost(error, failed) => {
                    let settled = self.settle_lost(&prepared, failed, running.xact).await;
                    Err(settled.map_or_else(store_error, |()| error))
                }
            };
            return match ended {
                Ok(value) => Ok(prepared.committed(number, value)),
                Err(error) => Err(prepared.failed(number, error)),
            };
        }
    }

    /// What comes after the claim.
    async fn run_claimed<T, E, F>(
        &self,
        mut transaction: Transaction<'_>,
        prepared: &Prepared,
        running: &Running<'_>,
        business: F,
    ) -> Ended<T, E>
    where
        T: Serialize,
        F: AsyncFnOnce(&mut Transaction<'_>) -> Result<T, E>,
    {
        let error = match business(&mut transaction).await {
            Ok(value) => match self.complete_on(&transaction, prepared, running, &value).await {
                Ok(()) => {
                    return match transaction.commit().await {
                        Ok(()) => Ended::Committed(value),
                        Err(error) => Ended::InDoubt(value, error),
                    };
                }
                Err(RecordError::Store(error)) => store_error(error),
                Err(_) => RunError::LeaseLost,
            },
            Err(error) => business_error(running.took_over, error),
        };
        match undo(transaction).await {
            Undone::RolledBack => Ended::RolledBack(error),
            Undone::EndedBefore => Ended::RolledBack(RunError::InDoubt(ended_by_business(RUN))),
            Undone::Unanswered(failed) => Ended::Lost(error, failed),
        }
    }

    /// Claims a key in a transaction of your own: the first of two steps around your own writes.
    ///
    /// Prepare the run with [`Idempotency::prepare`]. If this returns [`Admitted::Run`], do your writes
    /// and call [`complete_in`](Self::complete_in), in the same transaction or, before the lease ends, in
    /// a later one; in every other case roll back. It waits for the key's row as long as the
    /// transaction's `lock_timeout` says. Any isolation level will do; above READ COMMITTED a claim that
    /// meets another fails, and the transaction has to begin anew.
    ///
    /// ```no_run
    /// use oncekey::transaction::Admitted;
    /// use oncekey::{Fingerprint, Idempotency, Key, Scope};
    /// use oncekey_postgres::{PostgresStore, tokio_postgres::Client};
    ///
    /// # async fn demo(
    /// #     store: PostgresStore, mut client: Client,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let idempotency = Idempotency::at_most_once(store.clone());
    /// let key = Key::new(&Scope::new("tenant-42", "POST /payments")?, "order-17")?;
    /// let prepared = idempotency.prepare(&key, &Fingerprint::of("100 EUR"))?;
    ///
    /// let tx = client.transaction().await?;
    /// let outcome = match store.claim_in::<i64>(&tx, &prepared).await? {
    ///     Admitted::Replay(outcome) => outcome,
    ///     Admitted::Run { grant, number, .. } => {
    ///         let sql = "INSERT INTO payments (amount) VALUES (100) RETURNING id";
    ///         let receipt: i64 = tx.query_one(sql, &[]).await?.get(0);
    ///         store.complete_in(&tx, &prepared, grant, &receipt).await?;
    ///         tx.commit().await?;
    ///         prepared.committed(number, receipt)
    ///     }
    /// };
    /// println!("payment {}", outcome.value());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A commit that fails may have happened: [get](oncekey::store::Store::get) the key. Completed by `grant.attempt`
    /// means that it did. Never settle it by running again.
    ///
    /// # Cancel safety
    /// Dropped: roll back.
    ///
    /// # Errors
    /// As [`run_in_transaction`](Self::run_in_transaction), without `NotStarted`; and `Misconfigured`, with
    /// nothing done, if the transaction was ended already. After [`Store`](RunError::Store) the transaction
    /// can only roll back.
    pub async fn claim_in<T: DeserializeOwned>(
        &self,
        transaction: &tokio_postgres::Transaction<'_>,
        prepared: &Prepared,
    ) -> Result<Admitted<T>, RunError<Infallible>> {
        let terms = self.callers_terms();
        let call = self.shared.tables.claim_in(prepared.key(), prepared.claim(), &terms);
        // Both are sent at once. If the mark fails, so does the other, or finds none.
        let (_, claimed) =
            join!(transaction.batch_execute(MARK), self.claim_on(transaction, &call, prepared));
        prepared.admit(match claimed.map_err(|error| RunError::Store(rolled_back(error)))? {
            Claimed::Told(outcome, _) => outcome,
            // Whoever has the row is at work on the key.
            Claimed::Locked => ClaimOutcome::Busy { retry_after: self.shared.lock_timeout },
        })
    }

    /// Completes a key in a transaction of your own, so that your writes and the result commit together.
    ///
    /// If it is refused, the server fails the transaction *at once*: your writes belong to an owner that
    /// was replaced. What was written can then only roll back, also if the refusal is ignored. (A later
    /// `commit` of tokio-postgres returns no error then, since the server answers a COMMIT of a failed
    /// transaction by rolling it back: heed this result, not that one.)
    ///
    /// See [`claim_in`](Self::claim_in) for an example.
    ///
    /// # Cancel safety
    /// Dropped: roll back. A refusal stands even then.
    ///
    /// # Errors
    /// - [`Lost`](RecordError::Lost), [`Gone`](RecordError::Gone), [`Conflict`](RecordError::Conflict):
    ///   the key is no longer this attempt's. Rolled back.
    /// - [`Store`](RecordError::Store): as for [`complete`](oncekey::store::Store::complete), and
    ///   `Misconfigured` if `value` cannot be encoded or the transaction was ended already. Roll back.
    pub async fn complete_in<T: Serialize>(
        &self,
        transaction: &tokio_postgres::Transaction<'_>,
        prepared: &Prepared,
        grant: Grant,
        value: &T,
    ) -> Result<(), RecordError> {
        let terms = self.callers_terms();
        let command = encode(prepared, grant, value).map_err(RecordError::Store)?;
        let (_, completed) = join!(
            transaction.batch_execute(MARK),
            self.complete_with(transaction, prepared, &command, None, &terms)
        );
        completed
    }

    fn callers_terms(&self) -> Terms {
        Terms { patience: None, ..self.shared.terms.clone() }
    }

    async fn claim_on(
        &self,
        transaction: &tokio_postgres::Transaction<'_>,
        call: &Call<'_>,
        prepared: &Prepared,
    ) -> Result<Claimed, StoreError> {
        match driver::query(transaction.client(), call).await {
            Ok(rows) if rows.is_empty() => Err(not_in_transaction(CLAIM.operation())),
            Ok(rows) => {
                let (outcome, xact) = answer::claim(CLAIM, prepared.claim(), one(CLAIM, &rows)?)?;
                Ok(Claimed::Told(outcome, xact))
            }
            Err(Failed::Server(error)) if error.is_lock_timeout() => Ok(Claimed::Locked),
            Err(failed) => Err(failed.into_error(CLAIM)),
        }
    }

    async fn complete_on<T: Serialize>(
        &self,
        transaction: &tokio_postgres::Transaction<'_>,
        prepared: &Prepared,
        running: &Running<'_>,
        value: &T,
    ) -> Result<(), RecordError> {
        let command = encode(prepared, running.grant, value).map_err(RecordError::Store)?;
        let terms = &self.shared.terms;
        self.complete_with(transaction, prepared, &command, running.xact, terms).await
    }

    async fn complete_with(
        &self,
        transaction: &tokio_postgres::Transaction<'_>,
        prepared: &Prepared,
        command: &Complete,
        xact: Option<&str>,
        terms: &Terms,
    ) -> Result<(), RecordError> {
        let purpose =
            Purpose::completing("complete", &command.completion).map_err(RecordError::Store)?;
        let call = self.shared.tables.complete_in(prepared.key(), command, xact, terms);
        let fenced = match driver::query(transaction.client(), &call).await {
            Ok(rows) if rows.is_empty() => {
                return Err(RecordError::Store(match xact {
                    Some(_) => ended_by_business(RUN),
                    None => not_in_transaction(purpose.operation()),
                }));
            }
            Ok(_) => Fenced::Applied,
            Err(Failed::Server(error)) => match driver::refusal(&error) {
                Some(refusal) => answer::refusal(purpose, refusal).map_err(RecordError::Store)?,
                None => return Err(RecordError::Store(rolled_back(purpose.refused(error)))),
            },
            Err(failed) => {
                return Err(RecordError::Store(rolled_back(failed.into_error(purpose))));
            }
        };
        check_completed(fenced)
    }
}

enum Claimed {
    /// With the transaction, as the server knows it.
    Told(ClaimOutcome, Option<String>),
    /// The row was not had in time.
    Locked,
}

/// A run that has its grant.
struct Running<'a> {
    grant: Grant,
    took_over: bool,
    /// Its transaction, as the server knows it.
    xact: Option<&'a str>,
}

/// How a transaction ended that had its grant.
enum Ended<T, E> {
    Committed(T),
    /// The commit failed.
    InDoubt(T, tokio_postgres::Error),
    /// For this reason, or else it was ended by somebody else and this tells so.
    RolledBack(RunError<E>),
    /// It was to be rolled back for this reason, and the connection was lost.
    Lost(RunError<E>, Failed),
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

fn before_commit(error: tokio_postgres::Error) -> StoreError {
    rolled_back(Failed::from(error).into_error(RUN))
}
