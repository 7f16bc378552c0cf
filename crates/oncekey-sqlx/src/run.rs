//! A run inside one transaction: begin, claim, business, completion, end.

use oncekey::store::{ClaimOutcome, Complete, ErrorKind, Fenced, Grant, StoreError};
use oncekey::transaction::{Admitted, Prepared, business_error, check_completed, store_error};
use oncekey::{Outcome, RecordError, RunError};
use oncekey_postgres::sql::fault::{Purpose, REFUSED, not_in_transaction, rolled_back};
use oncekey_postgres::sql::settle::ended_by_business;
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

impl SqlxPostgres {
    /// Begins, runs, and ends. The transaction is one of sqlx, which so knows that a `begin` of `business` is a
    /// savepoint.
    pub(crate) async fn run_on<T, E, F>(
        &self,
        connection: &mut PgConnection,
        prepared: &Prepared,
        terms: &Terms,
        business: F,
    ) -> Ran<T, E, F>
    where
        T: Serialize + DeserializeOwned,
        F: AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    {
        let mut transaction = match connection.begin_with(BEGIN).await {
            Ok(transaction) => transaction,
            Err(error) => {
                let error = rolled_back(Failed::from(error).into_error(RUN));
                return Ran::Refused { told: Err(RunError::Store(error)), in_order: false };
            }
        };
        let call = self.tables.claim(prepared.key(), prepared.claim(), terms);
        let told = match self.claim_on(&mut transaction, &call, prepared).await {
            Ok(Claimed::Told(outcome, xact)) => match prepared.admit(outcome) {
                Ok(Admitted::Run { grant, number, took_over }) => {
                    let running = Running { grant, number, took_over, xact };
                    let ended = self.run_in(transaction, prepared, &running, business).await;
                    // Sqlx ends one of several transactions within each other, and calls that a commit.
                    if connection.is_in_transaction() {
                        return Ran::Ended(running, left_open(connection, ended).await);
                    }
                    return Ran::Ended(running, ended);
                }
                Ok(Admitted::Replay(outcome)) => Ok(outcome),
                Err(error) => Err(error),
            },
            Ok(Claimed::Locked) => {
                let in_order = transaction.rollback().await.is_ok();
                return Ran::Locked { business, in_order };
            }
            Err(error) => Err(RunError::Store(rolled_back(error))),
        };
        Ran::Refused { told, in_order: transaction.rollback().await.is_ok() }
    }

    /// What comes after the claim.
    async fn run_in<T, E, F>(
        &self,
        mut transaction: Transaction<'_, Postgres>,
        prepared: &Prepared,
        running: &Running,
        business: F,
    ) -> Ended<T, E>
    where
        T: Serialize,
        F: AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    {
        let error = match business(&mut transaction).await {
            Ok(value) => match self.complete(&mut transaction, prepared, running, &value).await {
                Ok(()) => {
                    return match transaction.commit().await {
                        Ok(()) => Ended::Committed(value),
                        Err(error) => Ended::InDoubt(value, Failed::from(error)),
                    };
                }
                Err(RecordError::Store(error)) => store_error(error),
                Err(_) => RunError::LeaseLost,
            },
            Err(error) => business_error(running.took_over, error),
        };
        // Whoever ends the transaction ends the savepoint, too.
        let error = match driver::execute(&mut transaction, ROLL_BACK_TO).await {
            Ok(()) => error,
            Err(Failed::Server(ended)) if ended.is_no_savepoint() => {
                RunError::InDoubt(ended_by_business(RUN))
            }
            Err(failed) => return Ended::Lost(error, failed),
        };
        Ended::RolledBack { error, in_order: transaction.rollback().await.is_ok() }
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
    ) -> Result<Claimed, StoreError> {
        match driver::query(connection, call).await {
            Ok(Some(row)) => {
                let (outcome, xact) = answer::claim(CLAIM, prepared.claim(), &row)?;
                Ok(Claimed::Told(outcome, xact))
            }
            Ok(None) => Err(not_in_transaction(CLAIM.operation())),
            Err(Failed::Server(error)) if error.is_lock_timeout() => Ok(Claimed::Locked),
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
                    Some(_) => ended_by_business(RUN),
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
    took_over: bool,
    /// The transaction, as the server knows it.
    pub(crate) xact: Option<String>,
}

pub(crate) enum Claimed {
    /// With the transaction, as the server knows it.
    Told(ClaimOutcome, Option<String>),
    /// The row was not had in time.
    Locked,
}

/// What came of a try to run. `in_order`: the connection can serve again.
pub(crate) enum Ran<T, E, F> {
    Ended(Running, Ended<T, E>),
    /// There is nothing to run.
    Refused {
        told: Result<Outcome<T>, RunError<E>>,
        in_order: bool,
    },
    /// The row was not had in time.
    Locked {
        business: F,
        in_order: bool,
    },
}

/// How a transaction ended that had its grant.
pub(crate) enum Ended<T, E> {
    Committed(T),
    /// The commit failed.
    InDoubt(T, Failed),
    /// It was to be rolled back for this reason, and the connection was lost.
    Lost(RunError<E>, Failed),
    /// For this reason, or else it was ended by somebody else and this tells so.
    RolledBack {
        error: RunError<E>,
        in_order: bool,
    },
}

/// Rolls back what is open after the end, since `business` left a transaction of its own open.
async fn left_open<T, E>(connection: &mut PgConnection, ended: Ended<T, E>) -> Ended<T, E> {
    let error = match ended {
        Ended::Committed(_) => RunError::Store(
            StoreError::new(ErrorKind::Misconfigured, RUN.operation()).with_message(
                "the closure left a transaction of its own open, and everything was rolled back; \
                 commit it, or let it be dropped",
            ),
        ),
        Ended::RolledBack { error, .. } => error,
        lost => return lost,
    };
    // Whether it is answered or not, nothing is committed: the connection is closed.
    let _ = driver::execute(connection, "ROLLBACK").await;
    Ended::RolledBack { error, in_order: false }
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
