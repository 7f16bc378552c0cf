//! Effect and record in one transaction: [`SqliteStore::run_in_transaction`], and the two steps of it
//! on a transaction of the caller's own.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use futures::channel::oneshot;
use oncekey::store::{ErrorKind, Fenced, Grant, StoreError};
use oncekey::transaction::{Admitted, Prepared, business_error, check_completed, store_error};
use oncekey::{Fingerprint, Idempotency, Key, Outcome, RecordError, RunError};
use rusqlite::{Transaction, TransactionBehavior};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::busy;
use crate::commit::{Uncommitted, is_without_room};
use crate::error::{NoRoom, Purpose, misconfigured};
use crate::session::Session;
use crate::store::{SqliteStore, ended};
use crate::writer::{Task, Writer};

const CLAIM: Purpose = Purpose::when_full("claim", NoRoom::Key);
const COMPLETE: Purpose = Purpose::when_full("complete", NoRoom::Content);
pub(crate) const RUN: Purpose = Purpose::when_full("run in a transaction", NoRoom::Key);

/// Whoever ends the transaction ends this too, so that it is noticed.
const SAVEPOINT: &str = "SAVEPOINT oncekey_business";
const RELEASE: &str = "RELEASE oncekey_business";
const ROLL_BACK_TO: &str = "ROLLBACK TO oncekey_business";

impl SqliteStore {
    /// Runs `business` in one transaction with the claim and the completion of `key`: its writes and
    /// the record of its result commit together, or not at all.
    ///
    /// For business tables in the same file: what is written to an attached database commits apart from
    /// it. `business` gets the transaction, must not end it, and runs on the thread that writes: while it
    /// runs, all other calls of this store wait, also the renewals of other keys' leases. Keep it to
    /// statements on this database; what takes longer than a small part of a lease belongs before it.
    /// Duplicates that come meanwhile wait, and get its result.
    ///
    /// ```
    /// use oncekey::{Fingerprint, Idempotency, Key, Scope};
    /// use oncekey_sqlite::{SqliteStore, rusqlite};
    ///
    /// # futures::executor::block_on(async {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.sqlite3");
    /// # rusqlite::Connection::open(&path)?.execute_batch("CREATE TABLE payments (amount)")?;
    /// let store = SqliteStore::open(&path)?;
    /// let idempotency = Idempotency::at_most_once(store.clone());
    /// let key = Key::new(&Scope::new("tenant-42", "POST /payments")?, "order-17")?;
    /// let fingerprint = Fingerprint::of("100 EUR");
    ///
    /// let amount = 100;
    /// let outcome = store
    ///     .run_in_transaction(&idempotency, &key, &fingerprint, move |tx| {
    ///         tx.execute("INSERT INTO payments VALUES (?1)", [amount])?;
    ///         Ok::<_, rusqlite::Error>(tx.last_insert_rowid())
    ///     })
    ///     .await?;
    /// assert_eq!(*outcome.value(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Cancel safety
    /// Dropped: everything happened, or nothing; the transaction is not left open. Run again with the
    /// same key to find out: it replays what happened, or makes it happen.
    ///
    /// # Panics
    /// With whatever `business` panics with; everything is rolled back first.
    ///
    /// # Errors
    /// - The refusals: `Busy`, `Mismatch`, `Interrupted`, `Retired`. A key that was claimed by other
    ///   means and interrupted is taken over by an engine that runs at least once, and refused by the
    ///   others.
    /// - [`NotStarted`](RunError::NotStarted): `business` returned an error. Everything was rolled back,
    ///   and the key is as free as before. [`Unknown`](RunError::Unknown) if it had taken over from an
    ///   interrupted attempt: what that one did is as unknown as before.
    /// - [`LeaseLost`](RunError::LeaseLost): `business` itself took the key away. Rolled back.
    /// - [`InDoubt`](RunError::InDoubt): the commit failed and reading the key did not show that it happened;
    ///   or `business` ended the transaction itself, whatever it returned.
    /// - [`Store`](RunError::Store): it did not run, or was rolled back. Of kind `Misconfigured`, also when
    ///   `business` left a deferred constraint violated or its result cannot be encoded; of other kinds as
    ///   for [`claim`](oncekey::store::Store::claim).
    /// - [`NotReplayable`](RunError::NotReplayable) and [`Codec`](RunError::Codec): done earlier, and its
    ///   result was not kept or is not a `T`.
    pub async fn run_in_transaction<T, E, F>(
        &self,
        idempotency: &Idempotency,
        key: &Key,
        fingerprint: &Fingerprint,
        business: F,
    ) -> Result<Outcome<T>, RunError<E>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        E: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        let prepared = idempotency.prepare(key, fingerprint).map_err(RunError::Store)?;
        let (reply, answer) = oneshot::channel();
        let work = move |writer: &mut Writer| {
            if reply.is_canceled() {
                return;
            }
            // A panic must end neither the thread nor the transactions of others.
            let run = || writer.run_alone(&prepared, business);
            let result = catch_unwind(AssertUnwindSafe(run));
            let _ = reply.send(result);
        };
        self.send(RUN, Task::Alone(Box::new(work))).map_err(RunError::Store)?;
        match answer.await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => Err(store_error(ended(RUN))),
        }
    }

    /// Claims a key in a transaction of your own: the first of two steps around your own writes.
    ///
    /// The transaction must be on the store's file; begin it with
    /// [`TransactionBehavior::Immediate`], so that it waits for other writers. Prepare the run with
    /// [`Idempotency::prepare`]. If this returns [`Admitted::Run`], do your writes and call
    /// [`complete_in`](Self::complete_in), in the same transaction or, before the lease ends, in a later
    /// one; in every other case roll back.
    ///
    /// ```
    /// use oncekey::transaction::Admitted;
    /// use oncekey::{Fingerprint, Idempotency, Key, Scope};
    /// use oncekey_sqlite::{SqliteStore, rusqlite};
    /// use rusqlite::TransactionBehavior;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.sqlite3");
    /// # rusqlite::Connection::open(&path)?.execute_batch("CREATE TABLE payments (amount)")?;
    /// let store = SqliteStore::open(&path)?;
    /// let idempotency = Idempotency::at_most_once(store.clone());
    /// let key = Key::new(&Scope::new("tenant-42", "POST /payments")?, "order-17")?;
    ///
    /// let mut connection = rusqlite::Connection::open(&path)?;
    /// let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    /// let prepared = idempotency.prepare(&key, &Fingerprint::of("100 EUR"))?;
    /// let outcome = match store.claim_in::<i64>(&tx, &prepared)? {
    ///     Admitted::Replay(outcome) => outcome,
    ///     Admitted::Run { grant, number, .. } => {
    ///         tx.execute("INSERT INTO payments VALUES (100)", [])?;
    ///         let receipt = tx.last_insert_rowid();
    ///         store.complete_in(&tx, &prepared, grant, &receipt)?;
    ///         tx.commit()?;
    ///         prepared.committed(number, receipt)
    ///     }
    /// };
    /// assert_eq!(*outcome.value(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A commit that fails may have happened: [get](oncekey::store::Store::get) the key. Completed by
    /// `grant.attempt` means that it did. Never settle it by running again.
    ///
    /// # Errors
    /// As [`run_in_transaction`](Self::run_in_transaction), without `NotStarted`. Nothing was written.
    pub fn claim_in<T: DeserializeOwned>(
        &self,
        transaction: &Transaction<'_>,
        prepared: &Prepared,
    ) -> Result<Admitted<T>, RunError<Infallible>> {
        let outcome = self
            .session_in(CLAIM, transaction)
            .and_then(|mut session| {
                let outcome = session.claim(CLAIM, prepared.key(), prepared.claim())?;
                session.finish().map_err(|error| CLAIM.failed(error))?;
                Ok(outcome)
            })
            .map_err(RunError::Store)?;
        prepared.admit(outcome)
    }

    /// Completes a key in a transaction of your own, so that your writes and the result commit together.
    ///
    /// If it is refused, the transaction is *rolled back at once*: your writes belong to an owner that
    /// was replaced. A later commit of it then fails, also if the refusal is ignored. Make this the last
    /// thing before the commit: what is written to the connection after a refusal is in no transaction.
    ///
    /// See [`claim_in`](Self::claim_in) for an example.
    ///
    /// # Errors
    /// - [`Lost`](RecordError::Lost), [`Gone`](RecordError::Gone), [`Conflict`](RecordError::Conflict):
    ///   the key is no longer this attempt's. Rolled back.
    /// - [`Store`](RecordError::Store): as for [`complete`](oncekey::store::Store::complete), and
    ///   `Misconfigured` if `value` cannot be encoded. Rolled back.
    pub fn complete_in<T: Serialize>(
        &self,
        transaction: &Transaction<'_>,
        prepared: &Prepared,
        grant: Grant,
        value: &T,
    ) -> Result<(), RecordError> {
        let completed = self
            .session_in(COMPLETE, transaction)
            .and_then(|mut session| complete(&mut session, prepared, grant, value))
            .map_err(RecordError::Store)
            .and_then(check_completed);
        if completed.is_err() && !transaction.is_autocommit() {
            // If this fails, so does every commit after it.
            let _ = transaction.execute_batch("ROLLBACK");
        }
        completed
    }

    /// The commands on the caller's transaction, which has the write lock from here on.
    fn session_in<'a>(
        &'a self,
        purpose: Purpose,
        transaction: &'a Transaction<'_>,
    ) -> Result<Session<'a>, StoreError> {
        if transaction.is_autocommit() {
            let message = "the transaction was ended already; begin a new one";
            return Err(misconfigured(purpose.operation, message));
        }
        let shared = &*self.shared;
        // Before time is read: a transaction that was begun as a reader has no lock yet.
        transaction
            .prepare_cached(&shared.schema.lock)
            .and_then(|mut statement| statement.execute([]))
            .map_err(|error| purpose.failed(error))?;
        shared.schema.check_version(transaction)?;
        Ok(Session::new(transaction, &shared.schema, &*shared.clock))
    }
}

fn complete<T: Serialize>(
    session: &mut Session<'_>,
    prepared: &Prepared,
    grant: Grant,
    value: &T,
) -> Result<Fenced, StoreError> {
    let command = prepared.complete(grant, value).map_err(|error| {
        let message = "the result cannot be encoded; everything was rolled back";
        misconfigured(COMPLETE.operation, message).with_source(error)
    })?;
    session.apply(COMPLETE, prepared.key(), &command)
}

impl Writer {
    /// The whole run, in a transaction of its own.
    pub(crate) fn run_alone<T, E, F>(
        &mut self,
        prepared: &Prepared,
        business: F,
    ) -> Result<Outcome<T>, RunError<E>>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce(&Transaction<'_>) -> Result<T, E>,
    {
        self.file.check().map_err(|error| RunError::Store(RUN.failed(error)))?;
        busy::allow(self.busy_timeout);
        // Dropping it, on every way out but the last, rolls it back.
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| RunError::Store(CLAIM.failed(error)))?;
        let mut session = Session::new(&transaction, &self.schema, &*self.clock);
        let claimed =
            session.claim(CLAIM, prepared.key(), prepared.claim()).map_err(RunError::Store)?;
        let (grant, number, took_over) = match prepared.admit(claimed)? {
            Admitted::Run { grant, number, took_over } => (grant, number, took_over),
            Admitted::Replay(outcome) => return Ok(outcome),
        };

        let run = RUN.on_known_key(session.knew_key());
        let done = in_savepoint(&transaction, run, took_over, business).and_then(|value| {
            let fenced = complete(&mut session, prepared, grant, &value).map_err(store_error)?;
            check_completed(fenced).map_err(|_| RunError::LeaseLost)?;
            Ok(value)
        });
        let ended = match done {
            Ok(value) => {
                // Not the transaction's own, which rolls back what it could not commit before that can be
                // looked at.
                let committed = session.commit();
                drop(transaction);
                match committed {
                    Ok(()) => Ok(value),
                    Err(Uncommitted::NotApplied(error)) => {
                        if is_without_room(&error) {
                            self.reuse_the_log();
                        }
                        Err(RunError::Store(run.not_committed(error)))
                    }
                    Err(Uncommitted::Unknown(error)) => self.settle(prepared, value, error),
                }
            }
            Err(error) => Err(error),
        };
        match ended {
            Ok(value) => Ok(prepared.committed(number, value)),
            Err(error) => Err(prepared.failed(number, error)),
        }
    }
}

/// Runs the closure, between the claim and the completion.
fn in_savepoint<T, E>(
    transaction: &Transaction<'_>,
    run: Purpose,
    took_over: bool,
    business: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
) -> Result<T, RunError<E>> {
    transaction.execute_batch(SAVEPOINT).map_err(|error| RunError::Store(run.failed(error)))?;
    let done = business(transaction);
    let is_ours = transaction.execute_batch(if done.is_ok() { RELEASE } else { ROLL_BACK_TO });
    is_ours.map_err(|error| store_error(ended_by_business(run, error)))?;
    done.map_err(|error| business_error(took_over, error))
}

/// The savepoint of the closure could not be ended.
fn ended_by_business(run: Purpose, error: rusqlite::Error) -> StoreError {
    // It was there, so the transaction was too.
    if is_without_room(&error) {
        return run.failed(error);
    }
    StoreError::new(ErrorKind::OutcomeUnknown, RUN.operation)
        .with_message(
            "the closure ended the transaction itself, or a statement in it did, so what it wrote may be \
             committed without a result; leave BEGIN, COMMIT and ROLLBACK to the store",
        )
        .with_source(error)
}
