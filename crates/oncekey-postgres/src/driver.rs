//! Calls through tokio-postgres: one statement, one round trip, no prepared statement.

use std::pin::pin;
use std::time::Duration;

use deadpool_postgres::tokio_postgres::types::private::BytesMut;
use deadpool_postgres::tokio_postgres::types::{IsNull, ToSql, Type};
use deadpool_postgres::tokio_postgres::{self, Client, Row, error::Severity};
use deadpool_postgres::{Object, Pool, PoolError};
use futures::future::{Either, select};
use oncekey::store::{ErrorKind, StoreError};

use crate::ServerError;
use crate::sql::fault::Purpose;
use crate::sql::{self, Call, Param};
use crate::store::Shared;

/// How often a statement is sent again that met others' transactions and did nothing. Each time one of
/// the others came through.
const MOST_CONFLICTS: usize = 100;

const SILENT: &str = "the server was silent for a long time, and its connection was closed";

/// A connection from the pool.
pub(crate) async fn connection(pool: &Pool, purpose: Purpose) -> Result<Object, StoreError> {
    pool.get().await.map_err(|error| not_connected(purpose, error))
}

/// A connection that is closed unless it is given back: whoever gives up on it leaves it to nobody else.
pub(crate) struct Guarded(Option<Object>);

impl Guarded {
    pub(crate) async fn connection(pool: &Pool, purpose: Purpose) -> Result<Self, StoreError> {
        Ok(Self(Some(connection(pool, purpose).await?)))
    }

    pub(crate) fn get(&self, purpose: Purpose) -> Result<&Client, StoreError> {
        // Whoever gives it back takes it by value, so that it is there.
        self.0.as_deref().map(|client| &**client).ok_or_else(|| purpose.unsent("it was given back"))
    }

    pub(crate) fn give_back(mut self) {
        self.0.take();
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(Object::take(connection));
        }
    }
}

/// Sends `call` on a connection of the pool, and again for as long as it does nothing but conflict.
///
/// The connection is taken anew each time, and given back before the answer is looked at. Dropped, the
/// statement comes to its end on the server, and the connection is good for the next.
pub(crate) async fn send(
    shared: &Shared,
    purpose: Purpose,
    call: &Call<'_>,
) -> Result<Vec<Row>, Failed> {
    send_within(shared, purpose, call, None).await
}

/// The same, with a limit for each time.
pub(crate) async fn send_within(
    shared: &Shared,
    purpose: Purpose,
    call: &Call<'_>,
    limit: Option<Duration>,
) -> Result<Vec<Row>, Failed> {
    let mut conflicts = 0;
    loop {
        match send_once(shared, purpose, call, limit).await {
            Err(Failed::Server(error)) if error.is_conflict() && conflicts < MOST_CONFLICTS => {
                conflicts += 1;
            }
            result => return result,
        }
    }
}

/// Sends `call` once, on a connection of the pool. When that has not answered for as long as `limit` says, it is
/// dead, and is closed.
pub(crate) async fn send_once(
    shared: &Shared,
    purpose: Purpose,
    call: &Call<'_>,
    limit: Option<Duration>,
) -> Result<Vec<Row>, Failed> {
    let client = connection(&shared.pool, purpose).await.map_err(Failed::Unsent)?;
    let Some(limit) = limit else {
        return send_on(&client, shared, purpose, call, &mut false).await;
    };
    let mut is_sent = false;
    let answer = {
        let answer = pin!(send_on(&client, shared, purpose, call, &mut is_sent));
        match select(answer, sql::sleep(limit)).await {
            Either::Left((answer, _)) => Some(answer),
            Either::Right(_) => None,
        }
    };
    answer.unwrap_or_else(|| {
        drop(Object::take(client));
        Err(Failed::Silent { is_sent })
    })
}

async fn send_on(
    client: &Object,
    shared: &Shared,
    purpose: Purpose,
    call: &Call<'_>,
    is_sent: &mut bool,
) -> Result<Vec<Row>, Failed> {
    if !shared.prepared_statements {
        *is_sent = true;
        return query(client, call).await;
    }
    let types: Vec<_> = call.params.iter().map(Param::type_of).collect();
    let statement = match client.prepare_typed_cached(call.text, &types).await.map_err(Failed::from)
    {
        Ok(statement) => statement,
        // It was only prepared: nothing was done.
        Err(Failed::Unanswered(error)) => return Err(Failed::Unsent(purpose.unsent(error))),
        Err(failed) => return Err(failed),
    };
    *is_sent = true;
    let params: Vec<_> = call.params.iter().map(|param| param as &(dyn ToSql + Sync)).collect();
    client.query(&statement, &params).await.map_err(Failed::from)
}

/// Sends `call` once, on this connection and in its transaction, if it has one.
pub(crate) async fn query(client: &Client, call: &Call<'_>) -> Result<Vec<Row>, Failed> {
    let params: Vec<(&(dyn ToSql + Sync), Type)> =
        call.params.iter().map(|param| (param as &(dyn ToSql + Sync), param.type_of())).collect();
    client.query_typed(call.text, &params).await.map_err(Failed::from)
}

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// It was not sent.
    Unsent(StoreError),
    /// The server refused it.
    Server(ServerError),
    /// Its answer did not come.
    Unanswered(tokio_postgres::Error),
    /// Nor any sign that the connection is lost.
    Silent { is_sent: bool },
}

impl Failed {
    pub(crate) fn into_error(self, purpose: Purpose) -> StoreError {
        match self {
            Self::Unsent(error) => error,
            Self::Server(error) => purpose.refused(error),
            Self::Unanswered(error) => purpose.unanswered(error),
            Self::Silent { is_sent: true } => purpose.unanswered(SILENT),
            Self::Silent { is_sent: false } => purpose.unsent(SILENT),
        }
    }
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        server_error(&error).map_or(Self::Unanswered(error), Self::Server)
    }
}

/// What the server said. The driver's own error also shows details, and they contain keys.
pub(crate) fn server_error(error: &tokio_postgres::Error) -> Option<ServerError> {
    error.as_db_error().map(|error| {
        // A pooler that speaks for itself gives it only in words.
        let fatal = match error.parsed_severity() {
            Some(severity) => matches!(severity, Severity::Fatal | Severity::Panic),
            None => matches!(error.severity(), "FATAL" | "PANIC"),
        };
        ServerError::new(error.code().code(), error.message(), fatal)
    })
}

/// The error of a pool that has no connection to give.
fn not_connected(purpose: Purpose, error: PoolError) -> StoreError {
    let unavailable = |message: &'static str| {
        StoreError::new(ErrorKind::Unavailable, purpose.operation()).with_message(message)
    };
    match error {
        PoolError::Backend(error) => match server_error(&error) {
            Some(error) => purpose.turned_away(error),
            None => purpose.unsent(error),
        },
        PoolError::Timeout(_) => StoreError::new(ErrorKind::Timeout, purpose.operation())
            .with_message("the pool had no connection to give in time; make it larger")
            .with_source(error),
        PoolError::Closed => unavailable("the pool is closed"),
        PoolError::NoRuntimeSpecified => {
            StoreError::new(ErrorKind::Misconfigured, purpose.operation())
                .with_message("a pool with timeouts needs its `runtime` to be set")
        }
        PoolError::PostCreateHook(_) => unavailable("a hook of the pool refused the connection"),
    }
}

impl Param<'_> {
    fn type_of(&self) -> Type {
        match self {
            Self::Bytes(_) | Self::Digest(_) => Type::BYTEA,
            Self::Int(_) => Type::INT8,
            Self::Bool(_) => Type::BOOL,
            Self::Text(_) | Self::List(_) => Type::TEXT,
            Self::ManyBytes(_) => Type::BYTEA_ARRAY,
            Self::ManyInts(_) => Type::INT8_ARRAY,
        }
    }
}

impl ToSql for Param<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Bytes(value) => value.to_sql(kind, out),
            Self::Digest(value) => value.as_ref().map(|digest| &digest[..]).to_sql(kind, out),
            Self::Int(value) => value.to_sql(kind, out),
            Self::Bool(value) => value.to_sql(kind, out),
            Self::Text(value) => value.to_sql(kind, out),
            Self::List(value) => value.to_sql(kind, out),
            Self::ManyBytes(values) => values.to_sql(kind, out),
            Self::ManyInts(values) => values.to_sql(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.to_sql(kind, out)
    }
}

impl sql::answer::Row for Row {
    fn bytes(&self, index: usize) -> Option<&[u8]> {
        self.try_get(index).ok()?
    }

    fn int(&self, index: usize) -> Option<i64> {
        self.try_get(index).ok()?
    }

    fn text(&self, index: usize) -> Option<&str> {
        self.try_get(index).ok()?
    }
}

/// The outcome that a completion was refused with, if that is what failed.
pub(crate) fn refusal(error: &ServerError) -> Option<&str> {
    (error.sqlstate() == sql::fault::REFUSED).then(|| error.message())
}
