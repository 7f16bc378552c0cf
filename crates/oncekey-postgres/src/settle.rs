//! What became of a transaction: of one that is to be rolled back, and of one whose connection was lost.

use std::time::Duration;

use deadpool_postgres::Transaction;
use deadpool_postgres::tokio_postgres;
use oncekey::store::{ErrorKind, Status, Store, StoreError};
use oncekey::transaction::Prepared;

use crate::driver::{self, Failed};
use crate::sql::fault::{Purpose, rolled_back};
use crate::sql::{Call, answer};
use crate::store::{PostgresStore, one};
use crate::transaction::RUN;

const SETTLE: Purpose = Purpose::read("read what became of a commit");

/// How often, and how long apart, a commit of unknown outcome is asked about while it is under way.
const ASKED: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// A mark in the transaction that can be found also after a statement in it failed.
pub(crate) const SAVEPOINT: &str = "SAVEPOINT oncekey_business";
const ROLL_BACK_TO: &str = "ROLLBACK TO SAVEPOINT oncekey_business";

/// What became of a transaction that was to be undone.
pub(crate) enum Undone {
    RolledBack,
    /// Somebody had ended it before.
    EndedBefore,
    Unanswered(Failed),
}

/// Rolls back a transaction with the [`SAVEPOINT`] in it, unless it is another one by now.
pub(crate) async fn undo(transaction: Transaction<'_>) -> Undone {
    match transaction.batch_execute(ROLL_BACK_TO).await.map_err(Failed::from) {
        // If this is not answered, the connection is lost, and then the server rolls back.
        Ok(()) => drop(transaction.rollback().await),
        Err(Failed::Server(error)) if error.is_no_savepoint() => return Undone::EndedBefore,
        Err(failed) => return Undone::Unanswered(failed),
    }
    Undone::RolledBack
}

pub(crate) fn ended_by_business() -> StoreError {
    StoreError::new(ErrorKind::OutcomeUnknown, RUN.operation()).with_message(
        "the closure ended the transaction itself, so what it wrote may be committed without a result; \
         it must leave BEGIN, COMMIT and ROLLBACK to the store",
    )
}

impl PostgresStore {
    /// Whether a transaction that was never told to commit is rolled back, when its connection is lost.
    pub(crate) async fn settle_lost(
        &self,
        failed: Failed,
        xact: Option<&str>,
    ) -> Result<(), StoreError> {
        for asked in 0..ASKED {
            if asked > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            match self.status_of(xact).await {
                Ok(XactStatus::Aborted) => return Ok(()),
                Ok(XactStatus::Committed) => return Err(ended_by_business()),
                Ok(XactStatus::Unknown) => {}
                Err(error) if error.is_retryable() => {}
                Err(_) => break,
            }
        }
        Err(StoreError::new(ErrorKind::OutcomeUnknown, RUN.operation())
            .with_message(
                "the connection was lost, and the server did not tell whether it rolled the \
                 transaction back; run again with the same key",
            )
            .with_source(failed.into_error(RUN)))
    }

    /// Whether a commit that failed happened: found out by reading, never by running again.
    pub(crate) async fn settle_commit(
        &self,
        prepared: &Prepared,
        error: tokio_postgres::Error,
        xact: Option<&str>,
    ) -> Result<(), StoreError> {
        let error = match Failed::from(error) {
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
            match self.is_completed_by(prepared).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // The server may be about to come back.
                Err(error) if error.is_retryable() => continue,
                Err(_) => break,
            }
            // Not there yet, or never: only the server knows whether it is still at it.
            if let Ok(XactStatus::Aborted) = self.status_of(xact).await {
                return Err(rolled_back(error));
            }
        }
        Err(error)
    }

    async fn is_completed_by(&self, prepared: &Prepared) -> Result<bool, StoreError> {
        let observed = self.get(prepared.key()).await?;
        Ok(observed.is_some_and(|observed| {
            observed.record.attempt == prepared.claim().attempt
                && matches!(observed.record.status, Status::Completed { .. })
        }))
    }

    async fn status_of(&self, xact: Option<&str>) -> Result<XactStatus, StoreError> {
        let rows = driver::send(&self.shared, SETTLE, &Call::status_of(xact)).await;
        let rows = rows.map_err(|failed| failed.into_error(SETTLE))?;
        Ok(match answer::Row::text(one(SETTLE, &rows)?, 0) {
            Some("aborted") => XactStatus::Aborted,
            Some("committed") => XactStatus::Committed,
            _ => XactStatus::Unknown,
        })
    }
}

enum XactStatus {
    Aborted,
    Committed,
    /// Under way, or too long ago.
    Unknown,
}
