//! A run inside one transaction: begin, claim, business, completion, end.

use std::time::Duration;

use oncekey::store::{ClaimOutcome, Complete, ErrorKind, Fenced, Grant, StoreError};
use oncekey::transaction::{Admitted, Prepared, check_completed};
use oncekey::{Outcome, RecordError, RunError};
use oncekey_postgres::sql::fault::{Purpose, REFUSED, rolled_back};
use oncekey_postgres::sql::{Terms, answer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use crate::driver::{self, Failed, one};
use crate::effects::SqlxPostgres;

const CLAIM: Purpose = Purpose::new_key("claim");
pub(crate) const RUN: Purpose = Purpose::write("run in a transaction");

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

    pub(crate) async fn claim_on(
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
}

/// How a run and its transaction ended.
pub(crate) enum Ended<T, E> {
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

fn ended_by_business() -> StoreError {
    StoreError::new(ErrorKind::OutcomeUnknown, RUN.operation()).with_message(
        "the closure ended the transaction itself, so what it wrote may be committed without a result; \
         it must leave BEGIN, COMMIT and ROLLBACK to the caller",
    )
}
