//! A store, and a business table beside its own.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use oncekey::{Fingerprint, Idempotency, Key, Outcome, RunError, Scope};
use oncekey_postgres::PostgresStore;
use oncekey_postgres::deadpool_postgres::{Manager, Pool};
use oncekey_postgres::tokio_postgres::NoTls;
use oncekey_sqlx::{SqlxPostgres, sqlx};
use oncekey_testkit::Postgres;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Row};
use tokio::runtime::Runtime;

pub static SERVER: LazyLock<Postgres> = LazyLock::new(Postgres::start);
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// A shop with a schema of its own, and the ways to its database.
pub struct Shop {
    pub schema: String,
    pub effects: SqlxPostgres,
    pub store: PostgresStore,
    pub idempotency: Idempotency,
    pub pool: PgPool,
}

impl Shop {
    pub async fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let schema = format!("shop_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let config = SERVER.connection_string().parse().unwrap();
        let driver = Pool::builder(Manager::new(config, NoTls)).max_size(4).build().unwrap();
        let store = PostgresStore::builder(driver).schema(&schema).build().unwrap();
        let effects = SqlxPostgres::on(&schema, "oncekey").unwrap();
        let effects = effects.lock_timeout(Duration::from_secs(600));
        let pool = pool(SERVER.host(), 6).await;
        let sql = format!(
            "BEGIN; {}; CREATE TABLE {schema}.payments (amount bigint); COMMIT",
            effects.ddl()
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
        store.check().await.unwrap();
        let idempotency = Idempotency::at_least_once(store.clone());
        Self { schema, effects, store, idempotency, pool }
    }

    pub async fn pay(
        &self,
        connection: &mut PgConnection,
        amount: i64,
    ) -> Result<i64, sqlx::Error> {
        // Nothing is prepared, which a pgbouncer would not know again.
        let sql =
            format!("INSERT INTO {}.payments VALUES ({amount}) RETURNING amount", self.schema);
        let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(connection).await?;
        Ok(row.get(0))
    }

    pub async fn run(&self, id: &str) -> Result<Outcome<i64>, RunError<sqlx::Error>> {
        self.run_as(&self.pool, id, async |tx| self.pay(tx, 100).await).await
    }

    pub async fn run_as<E, F>(
        &self,
        pool: &PgPool,
        id: &str,
        business: F,
    ) -> Result<Outcome<i64>, RunError<E>>
    where
        F: AsyncFnOnce(&mut PgConnection) -> Result<i64, E>,
    {
        let (key, request) = (key(id), request());
        let Self { effects, idempotency, .. } = self;
        effects.run_in_transaction(pool, idempotency, &key, &request, business).await
    }

    pub async fn payments(&self) -> Vec<i64> {
        let sql = format!("SELECT amount FROM {}.payments ORDER BY amount", self.schema);
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&self.pool).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// How many of the pool's connections are in a transaction.
    pub async fn open_transactions(&self) -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' \
                   AND query LIKE $1";
        let own = format!("%{}%", self.schema);
        sqlx::query_scalar(sql).bind(own).fetch_one(&self.pool).await.unwrap()
    }
}

pub async fn pool(host: &std::path::Path, size: u32) -> PgPool {
    pool_at(host, Postgres::PORT, size).await
}

pub async fn pool_at(host: &std::path::Path, port: u16, size: u32) -> PgPool {
    let options = PgConnectOptions::new_without_pgpass()
        .socket(host)
        .port(port)
        .username(Postgres::USER)
        .database(Postgres::USER);
    PgPoolOptions::new().max_connections(size).connect_with(options).await.unwrap()
}

pub fn key(id: &str) -> Key {
    Key::new(&Scope::new("tenant", "pay").unwrap(), id).unwrap()
}

pub fn request() -> Fingerprint {
    Fingerprint::of("100 EUR")
}
