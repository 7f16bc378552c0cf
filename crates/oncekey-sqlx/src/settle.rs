//! What became of a transaction whose connection was lost.

use oncekey::store::StoreError;
use oncekey::transaction::Prepared;
use oncekey_postgres::sql::Call;
use oncekey_postgres::sql::settle::{self, Became, SETTLE};
use sqlx::postgres::PgPool;

use crate::connection::Guarded;
use crate::driver::{self, Failed, one};
use crate::effects::SqlxPostgres;
use crate::run::RUN;

impl SqlxPostgres {
    /// Whether a commit that failed happened.
    pub(crate) async fn settle_commit(
        &self,
        pool: &PgPool,
        prepared: &Prepared,
        failed: Failed,
        xact: Option<&str>,
    ) -> Result<(), StoreError> {
        let error = match failed {
            Failed::Server(error) => RUN.commit_refused(error),
            failed => failed.into_error(RUN),
        };
        settle::commit(error, || self.became(pool, prepared, xact)).await
    }

    /// Whether a transaction that was never told to commit is rolled back.
    pub(crate) async fn settle_lost(
        &self,
        pool: &PgPool,
        prepared: &Prepared,
        failed: Failed,
        xact: Option<&str>,
    ) -> Result<(), StoreError> {
        let error = failed.into_error(RUN);
        settle::lost(RUN, error, || self.became(pool, prepared, xact)).await
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
        let call = Call::status_of(xact);
        let status = one(SETTLE, driver::query(connection, &call).await.map_err(failed)?)?;
        let call = self.tables.get(prepared.key());
        let record = driver::query(connection, &call).await.map_err(failed)?;
        if driver::execute(connection, "ROLLBACK").await.is_ok() {
            guarded.give_back();
        }
        Became::read(prepared, &status, record.as_ref())
    }
}
