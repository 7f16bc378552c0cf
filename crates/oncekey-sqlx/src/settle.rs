//! What became of a transaction whose connection was lost.

use std::time::Duration;

use oncekey::store::{ErrorKind, Status, StoreError};
use oncekey::transaction::Prepared;
use oncekey_postgres::sql::fault::{Purpose, rolled_back};
use oncekey_postgres::sql::{Call, answer};
use sqlx::postgres::PgPool;

use crate::connection::Guarded;
use crate::driver::{self, Failed, one};
use crate::effects::SqlxPostgres;
use crate::run::{RUN, ended_by_business};

const SETTLE: Purpose = Purpose::read("read what became of a commit");

/// How often, and how long apart, a commit of unknown outcome is asked about while it is under way.
const ASKED: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

impl SqlxPostgres {
    /// Whether a commit that failed happened: found out by reading, never by running again.
    pub(crate) async fn settle_commit(
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
                Ok(Became::Completed) => return Ok(()),
                Ok(Became::RolledBack) => return Err(rolled_back(error)),
                // It is still at it, or the server may be about to come back.
                Ok(Became::Committed | Became::Unknown) => {}
                Err(error) if error.is_retryable() => {}
                Err(_) => break,
            }
        }
        Err(error)
    }

    /// Whether a transaction that was never told to commit is rolled back.
    pub(crate) async fn settle_lost(
        &self,
        pool: &PgPool,
        prepared: &Prepared,
        failed: Failed,
        xact: Option<&str>,
    ) -> Result<(), StoreError> {
        for asked in 0..ASKED {
            if asked > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            match self.became(pool, prepared, xact).await {
                Ok(Became::RolledBack) => return Ok(()),
                Ok(Became::Completed | Became::Committed) => return Err(ended_by_business()),
                Ok(Became::Unknown) => {}
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
            _ if is_completed => Became::Completed,
            Some("aborted") => Became::RolledBack,
            Some("committed") => Became::Committed,
            _ => Became::Unknown,
        })
    }
}

enum Became {
    Completed,
    /// By what the server says of its number, which after a crash may be another's.
    Committed,
    RolledBack,
    Unknown,
}
