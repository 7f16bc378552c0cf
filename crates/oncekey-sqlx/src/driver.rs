//! Calls through sqlx, each in a transaction that is open.

use oncekey::store::{ErrorKind, StoreError};
use oncekey_postgres::ServerError;
use oncekey_postgres::sql::fault::Purpose;
use oncekey_postgres::sql::{Call, Param, answer};
use sqlx::postgres::{PgConnection, PgDatabaseError, PgRow, PgSeverity};
use sqlx::{AssertSqlSafe, Row as _};

/// Sends `call` in the transaction of `connection`.
///
/// Nothing is prepared by name, which a pgbouncer in transaction mode would not know again. The two round
/// trips that this takes reach the same server, since they are in one transaction.
pub(crate) async fn query(
    connection: &mut PgConnection,
    call: &Call<'_>,
) -> Result<Option<Answer>, Failed> {
    // The text is made by the schema, from names that it has checked; what varies is bound.
    let mut query = sqlx::query(AssertSqlSafe(call.text)).persistent(false);
    for param in &call.params {
        query = match param {
            Param::Bytes(value) => query.bind(*value),
            Param::Digest(value) => query.bind(value.as_ref().map(|digest| &digest[..])),
            Param::Int(value) => query.bind(*value),
            Param::Bool(value) => query.bind(*value),
            Param::Text(value) => query.bind(*value),
            Param::List(value) => query.bind(value.as_str()),
            Param::ManyBytes(values) => query.bind(&values[..]),
            Param::ManyInts(values) => query.bind(&values[..]),
        };
    }
    let row = query.fetch_optional(connection).await?;
    Ok(row.map(Answer))
}

/// The row of a statement that always answers with one.
pub(crate) fn one(purpose: Purpose, row: Option<Answer>) -> Result<Answer, StoreError> {
    row.ok_or_else(|| {
        StoreError::new(ErrorKind::Misconfigured, purpose.operation())
            .with_message("a function of the schema gave no answer")
    })
}

/// Sends one of BEGIN, COMMIT and ROLLBACK.
pub(crate) async fn execute(
    connection: &mut PgConnection,
    text: &'static str,
) -> Result<(), Failed> {
    sqlx::raw_sql(text).execute(connection).await?;
    Ok(())
}

/// A row of an answer.
pub(crate) struct Answer(PgRow);

impl answer::Row for Answer {
    fn bytes(&self, index: usize) -> Option<&[u8]> {
        self.0.try_get(index).ok()?
    }

    fn int(&self, index: usize) -> Option<i64> {
        self.0.try_get(index).ok()?
    }

    fn text(&self, index: usize) -> Option<&str> {
        self.0.try_get(index).ok()?
    }
}

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The server refused it.
    Server(ServerError),
    /// Its answer did not come.
    Unanswered(sqlx::Error),
}

impl Failed {
    pub(crate) fn into_error(self, purpose: Purpose) -> StoreError {
        match self {
            Self::Server(error) => purpose.refused(error),
            Self::Unanswered(error) => purpose.unanswered(error),
        }
    }
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        server_error(&error).map_or(Self::Unanswered(error), Self::Server)
    }
}

/// What the server said. The driver's own error also has details, and they contain keys.
fn server_error(error: &sqlx::Error) -> Option<ServerError> {
    let error = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
    let fatal = matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic);
    Some(ServerError::new(error.code(), error.message(), fatal))
}

/// The error of a pool that has no connection to give.
pub(crate) fn not_connected(purpose: Purpose, error: sqlx::Error) -> StoreError {
    if let Some(error) = server_error(&error) {
        return purpose.turned_away(error);
    }
    match error {
        sqlx::Error::PoolTimedOut => StoreError::new(ErrorKind::Timeout, purpose.operation())
            .with_message("the pool had no connection to give in time; make it larger")
            .with_source(error),
        error => purpose.unsent(error),
    }
}
