//! A connection of the pool for one transaction: given back when that has ended, closed otherwise.

use oncekey::store::StoreError;
use oncekey_postgres::sql::fault::{Purpose, rolled_back};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{Postgres, postgres};

use crate::driver::{self, Failed};

/// An open transaction.
///
/// The pool's own transactions are not used: one whose `begin` was cancelled goes back to the pool open, and the
/// next caller's writes into it are rolled back or committed with somebody else's.
pub(crate) struct Transaction {
    /// There until the transaction has ended in good order.
    connection: Option<PoolConnection<Postgres>>,
}

impl Transaction {
    pub(crate) async fn begin(pool: &PgPool, purpose: Purpose) -> Result<Self, StoreError> {
        let connection = pool.acquire().await.map_err(|e| driver::not_connected(purpose, e))?;
        let mut transaction = Self { connection: Some(connection) };
        let begun =
            driver::execute(transaction.get(purpose)?, "BEGIN ISOLATION LEVEL READ COMMITTED")
                .await;
        begun.map_err(|failed| rolled_back(failed.into_error(purpose)))?;
        Ok(transaction)
    }

    pub(crate) fn get(&mut self, purpose: Purpose) -> Result<&mut PgConnection, StoreError> {
        // Whoever ends it takes it by value, so that it is there.
        self.connection.as_deref_mut().ok_or_else(|| purpose.unsent("the transaction has ended"))
    }

    /// Rolls back, so that the connection can serve again.
    pub(crate) async fn rollback(mut self) {
        if let Some(connection) = self.connection.as_deref_mut()
            && driver::execute(connection, "ROLLBACK").await.is_ok()
        {
            self.connection.take();
        }
    }

    pub(crate) async fn commit(mut self) -> Result<(), Failed> {
        if let Some(connection) = self.connection.as_deref_mut() {
            driver::execute(connection, "COMMIT").await?;
        }
        self.connection.take();
        Ok(())
    }
}

impl Drop for Transaction {
    /// Closes the connection, upon which the server rolls back.
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop::<postgres::PgConnection>(connection.detach());
        }
    }
}
