//! What became of a transaction: of one that is to be rolled back, and of one whose connection was lost.

use deadpool_postgres::{Transaction, tokio_postgres};
use futures::join;
use oncekey::store::StoreError;
use oncekey::transaction::Prepared;

use crate::driver::{self, Failed, Guarded};
use crate::sql::Call;
use crate::sql::settle::{self, Became, SETTLE};
use crate::store::{PostgresStore, Shared, one};
use crate::transaction::RUN;

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

impl PostgresStore {
    /// Whether a commit that failed happened.
    pub(crate) async fn settle_commit(
        &self,
        prepared: &Prepared,
        error: tokio_postgres::Error,
        xact: Option<&str>,
    ) -> Result<(), StoreError> {
        let error = match Failed::from(error) {
            Failed::Server(error) => RUN.commit_refused(error),
            failed => failed.into_error(RUN),
        };
        settle::commit(error, || self.became(prepared, xact)).await
    }

    /// Whether a transaction that was never told to commit is rolled back, when its connection is lost.
    pub(crate) async fn settle_lost(
        &self,
        prepared: &Prepared,
        failed: Failed,
        xact: Option<&str>,
    ) -> Result<(), StoreError> {
        let error = failed.into_error(RUN);
        settle::lost(RUN, error, || self.became(prepared, xact)).await
    }

    async fn became(&self, prepared: &Prepared, xact: Option<&str>) -> Result<Became, StoreError> {
        let Shared { pool, tables, .. } = &*self.shared;
        let guarded = Guarded::connection(pool, SETTLE).await?;
        let client = guarded.get(SETTLE)?;
        let (status, record) = (Call::status_of(xact), tables.get(prepared.key()));
        // Both are sent at once, and answered one after the other.
        let (status, record) =
            join!(driver::query(client, &status), driver::query(client, &record));
        guarded.give_back();
        let failed = |failed: Failed| failed.into_error(SETTLE);
        let (status, record) = (status.map_err(failed)?, record.map_err(failed)?);
        Became::read(prepared, one(SETTLE, &status)?, record.first())
    }
}
