//! Making the schema, and checking it: [`PostgresStore::migrate`] and [`PostgresStore::check`].

use deadpool_postgres::tokio_postgres::{self, IsolationLevel, Row};
use oncekey::store::StoreError;

use crate::driver::{self, Failed};
use crate::sql::fault::Purpose;
use crate::sql::{self, Call, Finding, Tables};
use crate::store::PostgresStore;

const CHECK: Purpose = Purpose::read("check the schema");
const MIGRATE: Purpose = Purpose::read("migrate the schema");

/// Taken for as long as a migration runs, so that of several processes one makes the tables.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('oncekey ' || $1, 0))";

impl PostgresStore {
    /// Makes the tables and functions, or brings them up to date, in one transaction.
    ///
    /// Safe to repeat, and to call from several processes at once. The schema is made if it is not there.
    /// The role needs the right to create in it; every other call gets by with USAGE on the schema,
    /// SELECT, INSERT, UPDATE and DELETE on the tables, and EXECUTE on the functions.
    ///
    /// # Cancel safety
    /// Dropped: all of it was done, or nothing.
    ///
    /// # Errors
    /// - [`Misconfigured`](oncekey::store::ErrorKind::Misconfigured): something else has the name of the
    ///   table, the schema is of a newer version, or the role may not create tables. The message says how
    ///   to mend it.
    /// - [`Unavailable`](oncekey::store::ErrorKind::Unavailable),
    ///   [`Timeout`](oncekey::store::ErrorKind::Timeout): the server could not be reached, or did not
    ///   answer. Migrate again.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let tables = &self.shared.tables;
        let failed = |error: tokio_postgres::Error| Failed::from(error).into_error(MIGRATE);
        let mut client = driver::connection(&self.shared.pool, MIGRATE).await?;
        let transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::ReadCommitted)
            .start()
            .await
            .map_err(failed)?;
        let params = vec![sql::Param::Text(Some(tables.table()))];
        let lock = Call { text: LOCK, params };
        driver::query(transaction.client(), &lock).await.map_err(|e| e.into_error(MIGRATE))?;
        let (probed, finding) = find(transaction.client(), tables, MIGRATE).await?;
        match finding {
            Finding::Nothing if Tables::has_schema(&probed) => {
                transaction.batch_execute(&tables.ddl_within_schema()).await.map_err(failed)?;
            }
            Finding::Nothing => transaction.batch_execute(&tables.ddl()).await.map_err(failed)?,
            other => tables.expect_version(other)?,
        }
        transaction.commit().await.map_err(failed)
    }

    /// Whether the tables and functions are those of this build, and the server is one that it supports.
    /// Worth a call when a service starts: it says what is wrong, and how to mend it.
    ///
    /// # Cancel safety
    /// Changes nothing.
    ///
    /// # Errors
    /// - [`Misconfigured`](oncekey::store::ErrorKind::Misconfigured): they are not there, have another
    ///   version, lack something, the role lacks a right, or the server is older than version 14.
    /// - [`Unavailable`](oncekey::store::ErrorKind::Unavailable),
    ///   [`Timeout`](oncekey::store::ErrorKind::Timeout): the server could not be reached, did not
    ///   answer, or takes no writes.
    pub async fn check(&self) -> Result<(), StoreError> {
        let tables = &self.shared.tables;
        let client = driver::connection(&self.shared.pool, CHECK).await?;
        let (_, finding) = find(&client, tables, CHECK).await?;
        tables.expect_version(finding)?;
        tables.compare(&read(&client, &tables.shape(), CHECK).await?)
    }
}

async fn find(
    client: &tokio_postgres::Client,
    tables: &Tables,
    purpose: Purpose,
) -> Result<(String, Finding), StoreError> {
    let probed = read(client, &tables.probe(), purpose).await?;
    let finding = match Tables::found(&probed) {
        Some(finding) => finding,
        None => match read(client, &tables.version(), purpose).await?.parse() {
            Ok(version) => Finding::Version(version),
            Err(_) => Finding::Foreign,
        },
    };
    Ok((probed, finding))
}

/// The one text that `text` reads; empty for null.
async fn read(
    client: &tokio_postgres::Client,
    text: &str,
    purpose: Purpose,
) -> Result<String, StoreError> {
    let call = Call { text, params: Vec::new() };
    let rows = driver::query(client, &call).await.map_err(|e| e.into_error(purpose))?;
    let text = rows.first().and_then(|row: &Row| sql::answer::Row::text(row, 0));
    Ok(text.unwrap_or_default().to_owned())
}
