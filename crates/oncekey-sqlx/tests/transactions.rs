//! Writes by sqlx and the record of their result commit together or not at all, on a real server.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use oncekey::store::{ErrorKind, Evict, Expected, Fenced, Store};
use oncekey::transaction::Admitted;
use oncekey::{Fingerprint, Idempotency, Key, Outcome, RecordError, RunError, Scope};
use oncekey_postgres::PostgresStore;
use oncekey_postgres::deadpool_postgres::{Manager, Pool};
use oncekey_postgres::tokio_postgres::NoTls;
use oncekey_sqlx::{SqlxPostgres, sqlx};
use oncekey_testkit::{Lose, Postgres, Proxy};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Row};
use tokio::runtime::Runtime;

static SERVER: LazyLock<Postgres> = LazyLock::new(Postgres::start);
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// A shop with a schema of its own, and the ways to its database.
struct Shop {
    schema: String,
    effects: SqlxPostgres,
    store: PostgresStore,
    idempotency: Idempotency,
    pool: PgPool,
}

impl Shop {
    async fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let schema = format!("shop_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let config = SERVER.connection_string().parse().unwrap();
        let driver = Pool::builder(Manager::new(config, NoTls)).max_size(4).build().unwrap();
        let store = PostgresStore::builder(driver).schema(&schema).build().unwrap();
        let effects = SqlxPostgres::on(&schema, "oncekey").unwrap();
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

    async fn pay(&self, connection: &mut PgConnection, amount: i64) -> Result<i64, sqlx::Error> {
        let sql = format!("INSERT INTO {}.payments VALUES ($1) RETURNING amount", self.schema);
        sqlx::query_scalar(AssertSqlSafe(sql)).bind(amount).fetch_one(connection).await
    }

    async fn run(&self, id: &str) -> Result<Outcome<i64>, RunError<sqlx::Error>> {
        self.run_as(&self.pool, id, async |tx| self.pay(tx, 100).await).await
    }

    async fn run_as<E, F>(
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

    async fn payments(&self) -> Vec<i64> {
        let sql = format!("SELECT amount FROM {}.payments ORDER BY amount", self.schema);
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&self.pool).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// How many of the pool's connections are in a transaction.
    async fn open_transactions(&self) -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' \
                   AND query LIKE $1";
        let own = format!("%{}%", self.schema);
        sqlx::query_scalar(sql).bind(own).fetch_one(&self.pool).await.unwrap()
    }
}

async fn pool(host: &std::path::Path, size: u32) -> PgPool {
    let options = PgConnectOptions::new_without_pgpass()
        .socket(host)
        .port(Postgres::PORT)
        .username(Postgres::USER)
        .database(Postgres::USER);
    PgPoolOptions::new().max_connections(size).connect_with(options).await.unwrap()
}

fn key(id: &str) -> Key {
    Key::new(&Scope::new("tenant", "pay").unwrap(), id).unwrap()
}

fn request() -> Fingerprint {
    Fingerprint::of("100 EUR")
}

#[test]
fn an_effect_happens_once_and_is_replayed() {
    RUNTIME.block_on(async {
        let shop = Shop::new().await;
        assert!(!shop.run("order").await.unwrap().is_replay());
        assert!(shop.run("order").await.unwrap().is_replay());
        assert_eq!(shop.payments().await, [100]);
        // What is recorded is a record like others, for the other driver too.
        let (order, request) = (key("order"), request());
        let operation = |_| async { Err::<i64, ()>(()) };
        let replayed = shop.idempotency.run(&order, &request, operation).await.unwrap();
        assert_eq!(*replayed.value(), 100);
        let prepared =
            shop.idempotency.prepare(&key("order"), &Fingerprint::of("200 EUR")).unwrap();
        let mut tx = shop.pool.begin().await.unwrap();
        let refused = shop.effects.claim_in::<i64>(&mut tx, &prepared).await;
        assert!(matches!(refused, Err(RunError::Mismatch)));
    });
}

#[test]
fn of_many_workers_one_has_the_effect() {
    RUNTIME.block_on(async {
        let shop = std::sync::Arc::new(Shop::new().await);
        let runs = (0..20).map(|_| {
            let shop = shop.clone();
            // Spawned: the future can be sent to another thread.
            tokio::spawn(async move { shop.run("order").await.unwrap().is_replay() })
        });
        let replays = join_all(runs).await.into_iter().filter(|replay| *replay.as_ref().unwrap());
        assert_eq!(replays.count(), 19);
        assert_eq!(shop.payments().await, [100]);
    });
}

#[test]
fn an_error_rolls_everything_back_and_leaves_the_key_free() {
    RUNTIME.block_on(async {
        let shop = Shop::new().await;
        let business = async |tx: &mut PgConnection| {
            shop.pay(tx, 666).await.unwrap();
            Err::<i64, _>("no money")
        };
        let run = shop.run_as(&shop.pool, "order", business);
        assert!(matches!(run.await, Err(RunError::NotStarted("no money"))));
        assert_eq!(shop.store.get(&key("order")).await.unwrap(), None);
        assert!(!shop.run("order").await.unwrap().is_replay());
        assert_eq!(shop.payments().await, [100]);
    });
}

/// Dropped after each number of polls: everything happened or nothing, and the pool is as good as before.
#[test]
fn a_dropped_run_leaves_no_transaction_open() {
    RUNTIME.block_on(async {
        let shop = Shop::new().await;
        let mut dropped = 0;
        for polls in 0..60 {
            let id = format!("order {polls}");
            let mut run = Box::pin(shop.run(&id));
            let mut finished = false;
            for _ in 0..polls {
                if let Some(outcome) = (&mut run).now_or_never() {
                    outcome.unwrap();
                    finished = true;
                    break;
                }
                tokio::time::sleep(Duration::from_micros(50)).await;
            }
            drop(run);
            dropped += usize::from(!finished);
            shop.run(&id).await.unwrap();
        }
        assert!(dropped > 1, "{dropped} runs were under way when they were dropped");
        assert_eq!(shop.payments().await, [100; 60]);
        assert_eq!(shop.open_transactions().await, 0);
    });
}

/// The session is terminated while the business writes are done, and then everything happens once.
#[test]
fn a_session_that_is_killed_in_mid_transaction_leaves_nothing() {
    RUNTIME.block_on(async {
        let shop = Shop::new().await;
        let business = async |tx: &mut PgConnection| {
            shop.pay(tx, 666).await?;
            let id: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await?;
            let kill = sqlx::query("SELECT pg_terminate_backend($1)").bind(id);
            kill.execute(&shop.pool).await?;
            // Whether it notices or not.
            Ok::<i64, sqlx::Error>(666)
        };
        let run = shop.run_as(&shop.pool, "order", business);
        let Err(RunError::Store(error)) = run.await else { panic!("it was killed") };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(shop.payments().await.is_empty());
        assert!(!shop.run("order").await.unwrap().is_replay());
        assert_eq!(shop.payments().await, [100]);
    });
}

/// The answer to the COMMIT is lost, or the COMMIT itself: found out by reading.
#[test]
fn an_unknown_commit_is_settled_by_reading() {
    RUNTIME.block_on(async {
        let shop = Shop::new().await;
        let proxy = Proxy::start(&SERVER);
        let through = pool(proxy.host(), 4).await;
        for (id, lose) in [("answer", Lose::Answer), ("request", Lose::Request)] {
            let business = async |tx: &mut PgConnection| {
                let paid = shop.pay(tx, 100).await;
                proxy.lose(lose, "COMMIT");
                paid
            };
            let run = shop.run_as(&through, id, business).await;
            match lose {
                Lose::Answer => assert!(!run.unwrap().is_replay()),
                _ => {
                    let Err(RunError::Store(error)) = run else { panic!("it did not commit") };
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                }
            }
        }
        assert_eq!(shop.payments().await, [100]);
    });
}

/// The two steps in the caller's own transaction. An owner that was replaced writes, is refused, ignores
/// that and commits: nothing of it stays.
#[test]
fn the_two_steps_commit_with_the_callers_transaction() {
    RUNTIME.block_on(async {
        let shop = Shop::new().await;
        let prepared = shop.idempotency.prepare(&key("order"), &request()).unwrap();
        for commit in [false, true] {
            let mut tx = shop.pool.begin().await.unwrap();
            let admitted = shop.effects.claim_in::<i64>(&mut tx, &prepared).await.unwrap();
            let Admitted::Run { grant, .. } = admitted else { panic!("{admitted:?}") };
            let paid = shop.pay(&mut tx, 100).await.unwrap();
            shop.effects.complete_in(&mut tx, &prepared, grant, &paid).await.unwrap();
            if commit { tx.commit().await.unwrap() } else { tx.rollback().await.unwrap() }
        }
        assert_eq!(shop.payments().await, [100]);

        let stale = shop.idempotency.prepare(&key("stale"), &request()).unwrap();
        let mut tx = shop.pool.begin().await.unwrap();
        let admitted = shop.effects.claim_in::<i64>(&mut tx, &stale).await.unwrap();
        let Admitted::Run { grant, .. } = admitted else { panic!("{admitted:?}") };
        tx.commit().await.unwrap();
        let evict = Evict { expected: Expected::Any, force: true };
        assert_eq!(shop.store.evict(&key("stale"), &evict).await.unwrap(), Fenced::Applied);
        shop.run("stale").await.unwrap();
        let mut tx = shop.pool.begin().await.unwrap();
        shop.pay(&mut tx, 666).await.unwrap();
        let refused = shop.effects.complete_in(&mut tx, &stale, grant, &666).await.unwrap_err();
        assert!(matches!(refused, RecordError::Lost), "{refused:?}");
        let _ignored = tx.commit().await;
        assert_eq!(shop.payments().await, [100, 100]);
    });
}

/// Outside of a transaction, a step would commit by itself. Nothing is written then. One that was not begun
/// by sqlx is as good as one that was.
#[test]
fn the_two_steps_are_refused_outside_of_a_transaction() {
    RUNTIME.block_on(async {
        let shop = Shop::new().await;
        let prepared = shop.idempotency.prepare(&key("order"), &request()).unwrap();
        let mut connection = shop.pool.acquire().await.unwrap();
        let refused = shop.effects.claim_in::<i64>(&mut connection, &prepared).await;
        let Err(RunError::Store(error)) = refused else { panic!("{refused:?}") };
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
        assert!(error.to_string().contains("begin"), "{error}");
        assert_eq!(shop.store.get(&key("order")).await.unwrap(), None);

        let mut tx = shop.pool.begin().await.unwrap();
        sqlx::raw_sql("COMMIT").execute(&mut *tx).await.unwrap();
        let refused = shop.effects.claim_in::<i64>(&mut tx, &prepared).await;
        assert!(matches!(refused, Err(RunError::Store(_))), "{refused:?}");
        assert_eq!(shop.store.get(&key("order")).await.unwrap(), None);
        drop(tx);

        sqlx::raw_sql("BEGIN").execute(&mut *connection).await.unwrap();
        let admitted = shop.effects.claim_in::<i64>(&mut connection, &prepared).await.unwrap();
        let Admitted::Run { grant, .. } = admitted else { panic!("{admitted:?}") };
        shop.pay(&mut connection, 100).await.unwrap();
        sqlx::raw_sql("COMMIT").execute(&mut *connection).await.unwrap();
        let refused = shop.effects.complete_in(&mut connection, &prepared, grant, &100).await;
        let Err(RecordError::Store(error)) = refused else { panic!("{refused:?}") };
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
        let seen = shop.store.get(&key("order")).await.unwrap().unwrap();
        assert_eq!(seen.state, oncekey::store::State::Live);
        sqlx::raw_sql("BEGIN").execute(&mut *connection).await.unwrap();
        shop.effects.complete_in(&mut connection, &prepared, grant, &100).await.unwrap();
        sqlx::raw_sql("COMMIT").execute(&mut *connection).await.unwrap();
        assert!(shop.run("order").await.unwrap().is_replay());
    });
}

/// By whatever name it ends it, and whatever it returns then.
#[test]
fn business_that_ends_the_transaction_is_found_out() {
    RUNTIME.block_on(async {
        let shop = Shop::new().await;
        for end in [
            "COMMIT",
            "ROLLBACK",
            "COMMIT; BEGIN",
            "ROLLBACK; BEGIN",
            "COMMIT AND CHAIN",
            "COMMIT; BEGIN; SELECT 1 / 0",
            "COMMIT; SELECT 1 / 0",
        ] {
            for fails in [false, true] {
                let id = format!("{end} {fails}");
                let business = async |tx: &mut PgConnection| {
                    shop.pay(tx, 1).await.unwrap();
                    let _ignored = sqlx::raw_sql(end).execute(tx).await;
                    if fails { Err("no stock") } else { Ok(1) }
                };
                let run = shop.run_as(&shop.pool, &id, business).await;
                let Err(RunError::Store(error)) = run else { panic!("{id}: {run:?}") };
                assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{id}: {error}");
                assert!(error.to_string().contains("COMMIT"), "{id}: {error}");
            }
        }
        assert!(!shop.run("order").await.unwrap().is_replay());
        assert_eq!(shop.open_transactions().await, 0);
    });
}

/// In whatever state it leaves the transaction, if it leaves it open: nothing was done.
#[test]
fn business_that_fails_without_ending_the_transaction_did_nothing() {
    RUNTIME.block_on(async {
        let shop = Shop::new().await;
        for sql in ["SELECT 1", "SELECT 1 / 0", "SAVEPOINT mine; SELECT 1 / 0"] {
            let business = async |tx: &mut PgConnection| {
                shop.pay(tx, 1).await.unwrap();
                let _ignored = sqlx::raw_sql(sql).execute(tx).await;
                Err("no stock")
            };
            let run = shop.run_as(&shop.pool, sql, business).await;
            assert!(matches!(run, Err(RunError::NotStarted("no stock"))), "{sql}: {run:?}");
            assert!(!shop.run(sql).await.unwrap().is_replay());
        }
        assert_eq!(shop.payments().await, [100; 3]);
    });
}

/// The session is gone after a COMMIT by hand, or without one: the server knows which.
#[test]
fn a_lost_connection_is_told_apart_from_a_commit_and_a_lost_connection() {
    RUNTIME.block_on(async {
        let shop = Shop::new().await;
        for end in ["SELECT 1", "COMMIT"] {
            let business = async |tx: &mut PgConnection| {
                shop.pay(tx, 1).await.unwrap();
                let id = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await;
                let id: i32 = id.unwrap();
                sqlx::raw_sql(end).execute(tx).await.unwrap();
                let kill = sqlx::query("SELECT pg_terminate_backend($1)").bind(id);
                kill.execute(&shop.pool).await.unwrap();
                Err("no stock")
            };
            match (end, shop.run_as(&shop.pool, end, business).await) {
                ("SELECT 1", Err(RunError::NotStarted("no stock"))) => {}
                ("COMMIT", Err(RunError::Store(error))) => {
                    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
                }
                (_, other) => panic!("{end}: {other:?}"),
            }
        }
        assert_eq!(shop.payments().await, [1]);
    });
}

/// A helper that begins and ends for itself must not end what it is in.
#[test]
fn a_begin_of_the_business_is_a_savepoint() {
    use sqlx::Connection as _;
    RUNTIME.block_on(async {
        let shop = Shop::new().await;
        let failed = shop
            .run_as(&shop.pool, "a", async |tx| {
                let mut inner = tx.begin().await?;
                shop.pay(&mut inner, 100).await?;
                inner.commit().await?;
                Err(sqlx::Error::RowNotFound)
            })
            .await;
        assert!(matches!(failed, Err(RunError::NotStarted(_))), "{failed:?}");
        assert_eq!(shop.payments().await, [0; 0], "it was rolled back with all the rest");

        for is_replay in [false, true] {
            let ran = shop
                .run_as(&shop.pool, "b", async |tx| {
                    let mut inner = tx.begin().await?;
                    shop.pay(&mut inner, 1).await?;
                    inner.rollback().await?;
                    let mut inner = tx.begin().await?;
                    shop.pay(&mut inner, 50).await?;
                    inner.commit().await?;
                    shop.pay(tx, 50).await
                })
                .await;
            assert_eq!(ran.unwrap().is_replay(), is_replay);
            assert_eq!(shop.payments().await, [50, 50]);
        }
    });
}
