//! A run inside one transaction: begin, claim, business, completion, end.

use std::time::Duration;

use oncekey::store::{ClaimOutcome, Complete, ErrorKind, Fenced, Grant, StoreError};
use oncekey::transaction::{Admitted, Prepared, check_completed};
use oncekey::{Outcome, RecordError, RunError};
use oncekey_postgres::sql::fault::{Purpose, REFUSED, not_in_transaction, rolled_back};
use oncekey_postgres::sql::{Call, Terms, answer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Postgres, Transaction};

use crate::driver::{self, Failed};
use crate::effects::SqlxPostgres;

const CLAIM: Purpose = Purpose::new_key("claim");
pub(crate) const RUN: Purpose = Purpose::write("run in a transaction");

/// With a mark that can be found also after a statement failed.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SAVEPOINT oncekey_business";
const ROLL_BACK_TO: &str = "ROLLBACK TO SAVEPOINT oncekey_business";

/// How long a key's row is waited for, where the caller's transaction does not say.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

impl SqlxPostgres {
    /// Begins, runs, and ends. The transaction is one of sqlx, which so knows that a `begin` of `business` is a
    /// savepoint.
    pub(crate) async fn run_on<T, E, F>(
        &self,
        connection: &mut PgConnection,
        prepared: &Prepared,
        business: F,
    ) -> Ended<T, E>
    where
        T: Serialize + DeserializeOwned,
        F: AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    {
        let mut transaction = match connection.begin_with(BEGIN).await {
            Ok(transaction) => transaction,
            Err(error) => {
                let error = rolled_back(Failed::from(error).into_error(RUN));
                return Ended::RolledBack { ran: Err(RunError::Store(error)), in_order: false };
            }
        };
        let call = self.tables.claim(prepared.key(), prepared.claim(), &self.terms);
        let claimed = self.claim_on(&mut transaction, &call, prepared).await;
        let admitted = match claimed {
            Ok((outcome, xact)) => prepared.admit(outcome).map(|admitted| (admitted, xact)),
            Err(error) => Err(RunError::Store(rolled_back(error))),
        };
        let ran = match admitted {
            Ok((Admitted::Run { grant, number }, xact)) => {
                let running = Running { grant, number, xact };
                return self.run_in(transaction, prepared, running, business).await;
            }
            Ok((Admitted::Replay(outcome), _)) => Ok(outcome),
            Err(error) => Err(error),
        };
        Ended::RolledBack { ran, in_order: transaction.rollback().await.is_ok() }
    }

    /// What comes after the claim.
    async fn run_in<T, E, F>(
        &self,
        mut transaction: Transaction<'_, Postgres>,
        prepared: &Prepared,
        running: Running,
        business: F,
    ) -> Ended<T, E>
    where
        T: Serialize + DeserializeOwned,
        F: AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    {
        let error = match business(&mut transaction).await {
            Ok(value) => match self.complete(&mut transaction, prepared, &running, &value).await {
                Ok(()) => {
                    return match transaction.commit().await {
                        Ok(()) => Ended::Committed { running, value },
                        Err(error) => {
                            Ended::InDoubt { running, value, failed: Failed::from(error) }
                        }
                    };
                }
                Err(RecordError::Store(error)) => RunError::Store(error),
                Err(_) => RunError::LeaseLost,
            },
            Err(error) => RunError::NotStarted(error),
        };
        // Whoever ends the transaction ends the savepoint, too.
        match driver::execute(&mut transaction, ROLL_BACK_TO).await {
            Ok(()) => {
                let in_order = transaction.rollback().await.is_ok();
                Ended::RolledBack { ran: Err(error), in_order }
            }
            Err(Failed::Server(ended)) if ended.is_no_savepoint() => {
                let ran = Err(RunError::Store(ended_by_business()));
                Ended::RolledBack { ran, in_order: transaction.rollback().await.is_ok() }
            }
            Err(failed) => Ended::Lost { running, error, failed },
        }
    }

    async fn complete<T: Serialize>(
        &self,
        connection: &mut PgConnection,
        prepared: &Prepared,
        running: &Running,
        value: &T,
    ) -> Result<(), RecordError> {
        let command = encode(prepared, running.grant, value).map_err(RecordError::Store)?;
        let (xact, terms) = (running.xact.as_deref(), &self.terms);
        self.complete_on(connection, prepared, &command, xact, terms).await
    }

    pub(crate) async fn claim_on(
        &self,
        connection: &mut PgConnection,
        call: &Call<'_>,
        prepared: &Prepared,
    ) -> Result<(ClaimOutcome, Option<String>), StoreError> {
        match driver::query(connection, call).await {
            Ok(Some(row)) => answer::claim(CLAIM, prepared.claim(), &row),
            Ok(None) => Err(not_in_transaction(CLAIM.operation())),
            // Whoever has the row is at work on the key.
            Err(Failed::Server(error)) if error.is_lock_timeout() => {
                Ok((ClaimOutcome::Busy { retry_after: LOCK_TIMEOUT }, None))
            }
            Err(failed) => Err(failed.into_error(CLAIM)),
        }
    }

    pub(crate) async fn complete_on(
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
            Ok(None) => {
                return Err(RecordError::Store(match xact {
                    Some(_) => ended_by_business(),
                    None => not_in_transaction(purpose.operation()),
                }));
            }
            Err(Failed::Server(error)) if error.sqlstate() == REFUSED => {
                answer::refusal(purpose, error.message()).map_err(RecordError::Store)?
            }
            Err(failed) => {
                return Err(RecordError::Store(rolled_back(failed.into_error(purpose))));
            }
        };
        check_completed(fenced)
    }
}

/// A run that has its grant.
pub(crate) struct Running {
    grant: Grant,
    pub(crate) number: u32,
    /// The transaction, as the server knows it.
    pub(crate) xact: Option<String>,
}

/// How a run and its transaction ended.
pub(crate) enum Ended<T, E> {
    Committed {
        running: Running,
        value: T,
    },
    /// The commit was not answered.
    InDoubt {
        running: Running,
        value: T,
        failed: Failed,
    },
    /// It was to be rolled back, because of `error`, and the connection was lost.
    Lost {
        running: Running,
        error: RunError<E>,
        failed: Failed,
    },
    /// Nothing is under way any more. `in_order`: the connection can serve again.
    RolledBack {
        ran: Result<Outcome<T>, RunError<E>>,
        in_order: bool,
    },
}

pub(crate) fn encode<T: Serialize>(
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

pub(crate) fn ended_by_business() -> StoreError {
    StoreError::new(ErrorKind::OutcomeUnknown, RUN.operation()).with_message(
        "the closure ended the transaction itself, so what it wrote may be committed without a result; \
         it must leave BEGIN, COMMIT and ROLLBACK to the caller",
    )
}
