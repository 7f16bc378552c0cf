//! A connection of the pool for one transaction: given back when that has ended, closed otherwise.

use oncekey::store::StoreError;
use oncekey_postgres::sql::fault::Purpose;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{Postgres, postgres};

use crate::driver;

/// A connection that goes back to the pool only if it is told to.
///
/// The pool's own transactions are not used: one whose `begin` was cancelled goes back to the pool open, and the
/// next caller's writes into it are rolled back or committed with somebody else's.
pub(crate) struct Guarded {
    /// There until it is given back.
    connection: Option<PoolConnection<Postgres>>,
}

impl Guarded {
    pub(crate) async fn acquire(pool: &PgPool, purpose: Purpose) -> Result<Self, StoreError> {
        let connection = pool.acquire().await.map_err(|e| driver::not_connected(purpose, e))?;
        Ok(Self { connection: Some(connection) })
    }

    pub(crate) fn get(&mut self, purpose: Purpose) -> Result<&mut PgConnection, StoreError> {
        // Whoever gives it back takes it by value, so that it is there.
        self.connection.as_deref_mut().ok_or_else(|| purpose.unsent("the transaction has ended"))
    }

    /// Gives it back if its transaction has ended in order, so that it can serve again.
    pub(crate) fn close(self, in_order: bool) {
        if in_order {
            self.give_back();
        }
    }

    /// Its transaction has ended, so it can serve again.
    pub(crate) fn give_back(mut self) {
        self.connection.take();
    }
}

impl Drop for Guarded {
    /// Closes the connection, upon which the server rolls back.
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop::<postgres::PgConnection>(connection.detach());
        }
    }
}
