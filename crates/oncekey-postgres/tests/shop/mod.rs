//! A store, and a business table beside its own.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use oncekey::{Fingerprint, Idempotency, Key, Outcome, RunError, Scope};
use oncekey_conformance::Fixture;
use oncekey_postgres::deadpool_postgres::{Object, Transaction};
use oncekey_postgres::{PostgresStore, tokio_postgres};

use crate::postgres_fixture::{PostgresFixture, connection};

pub struct Shop {
    pub fixture: PostgresFixture,
    pub store: PostgresStore,
    pub idempotency: Idempotency,
    pub table: String,
}

impl Shop {
    pub async fn new() -> Self {
        Self::with(PostgresFixture::create().await).await
    }

    pub async fn with(fixture: PostgresFixture) -> Self {
        let store = fixture.store();
        let table = format!("\"{}\".payments", fixture.schema);
        let sql = format!("CREATE TABLE {table} (id serial, amount bigint)");
        connection(&fixture.direct).await.batch_execute(&sql).await.unwrap();
        let idempotency = Idempotency::at_least_once(store.clone());
        Self { fixture, store, idempotency, table }
    }

    pub async fn pay(
        &self,
        tx: &Transaction<'_>,
        amount: i64,
    ) -> Result<i64, tokio_postgres::Error> {
        let sql = format!("INSERT INTO {} (amount) VALUES ({amount})", self.table);
        tx.batch_execute(&sql).await?;
        Ok(amount)
    }

    /// The same in a transaction of the driver's own kind.
    pub async fn pay_in(&self, tx: &tokio_postgres::Transaction<'_>, amount: i64) -> i64 {
        let sql = format!("INSERT INTO {} (amount) VALUES ({amount})", self.table);
        tx.batch_execute(&sql).await.unwrap();
        amount
    }

    pub async fn payments(&self) -> i64 {
        let sql = format!("SELECT count(*) FROM {}", self.table);
        connection(&self.fixture.direct).await.query_one(&sql, &[]).await.unwrap().get(0)
    }

    /// Runs on a key of its own.
    pub async fn run(&self, id: &str) -> Result<Outcome<i64>, RunError<tokio_postgres::Error>> {
        let business = async |tx: &mut Transaction<'_>| self.pay(tx, 100).await;
        self.store.run_in_transaction(&self.idempotency, &key(id), &request(), business).await
    }

    pub async fn own_connection(&self) -> Object {
        connection(&self.fixture.config).await
    }
}

pub fn key(id: &str) -> Key {
    Key::new(&Scope::new("tenant", "pay").unwrap(), id).unwrap()
}

pub fn request() -> Fingerprint {
    Fingerprint::of("100 EUR")
}
