//! How a transaction ends: by a session that is killed, by an answer that is lost, and by business that ends it
//! itself. It is never said that nothing was done where something may have been.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod shop;

use std::time::Duration;

use futures::FutureExt;
use oncekey::store::ErrorKind;
use oncekey::{Failure, RunError};
use oncekey_sqlx::sqlx;
use oncekey_testkit::{Lose, Pgbouncer, PoolMode, Proxy};
use sqlx::Connection as _;
use sqlx::postgres::{PgConnection, PgPool};
use tokio::time::timeout;

use shop::{RUNTIME, SERVER, Shop, pool, pool_at};

/// For what has to come by itself.
const PATIENCE: Duration = Duration::from_secs(40);

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

/// By whatever name it ends it, and whatever it returns then.
async fn is_found_out(shop: &Shop, pool: &PgPool, round: &str) {
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
            let id = format!("{round} {end} {fails}");
            let business = async |tx: &mut PgConnection| {
                shop.pay(tx, 1).await.unwrap();
                let _ignored = sqlx::raw_sql(end).execute(tx).await;
                if fails { Err("no stock") } else { Ok(1) }
            };
            let run = shop.run_as(pool, &id, business).await;
            let Err(RunError::InDoubt(error)) = run else { panic!("{id}: {run:?}") };
            assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{id}: {error}");
            assert!(error.to_string().contains("COMMIT"), "{id}: {error}");
        }
    }
    let ran = shop.run_as(pool, round, async |tx| shop.pay(tx, 100).await).await;
    assert!(!ran.unwrap().is_replay());
    let ran = shop.run_as(pool, round, async |tx| shop.pay(tx, 100).await).await;
    assert!(ran.unwrap().is_replay());
    assert_eq!(shop.open_transactions().await, 0);
}

#[test]
fn business_that_ends_the_transaction_is_found_out() {
    RUNTIME.block_on(async {
        let shop = Shop::new().await;
        is_found_out(&shop, &shop.pool, "direct").await;
    });
}

#[test]
fn business_that_ends_the_transaction_is_found_out_behind_pgbouncer() {
    RUNTIME.block_on(async {
        let shop = Shop::new().await;
        let pgbouncer = Pgbouncer::start(&SERVER, PoolMode::Transaction, 3);
        let pool = pool_at(pgbouncer.host(), Pgbouncer::PORT, 4).await;
        is_found_out(&shop, &pool, "behind").await;
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

/// A transaction of its own that it leaves open would take the commit for its own: nothing would be committed,
/// and the connection would go back to the pool with all of it open.
#[test]
fn business_that_leaves_a_transaction_of_its_own_open_is_found_out() {
    RUNTIME.block_on(async {
        let shop = Shop::new().await;
        for fails in [false, true] {
            let id = format!("order {fails}");
            let business = async |tx: &mut PgConnection| {
                let mut inner = tx.begin().await.unwrap();
                shop.pay(&mut inner, 1).await.unwrap();
                std::mem::forget(inner);
                if fails { Err("no stock") } else { Ok(1) }
            };
            match shop.run_as(&shop.pool, &id, business).await {
                Err(RunError::NotStarted("no stock")) if fails => {}
                Err(RunError::Store(error)) if !fails => {
                    assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
                    assert!(error.to_string().contains("rolled back"), "{error}");
                }
                other => panic!("{id}: {other:?}"),
            }
            assert!(!shop.run(&id).await.unwrap().is_replay());
        }
        assert_eq!(shop.payments().await, [100, 100]);
        assert_eq!(shop.open_transactions().await, 0);
    });
}

/// A `begin` of sqlx 0.9.0 that is dropped before it is answered ends the transaction around it: what comes after
/// it is committed by itself.
#[test]
fn business_that_drops_a_begin_is_found_out() {
    RUNTIME.block_on(async {
        let shop = Shop::new().await;
        for fails in [false, true] {
            let id = format!("order {fails}");
            let business = async |tx: &mut PgConnection| {
                shop.pay(tx, 1).await.unwrap();
                assert!(tx.begin().now_or_never().is_none());
                shop.pay(tx, 2).await.unwrap();
                if fails { Err("no stock") } else { Ok(1) }
            };
            let run = shop.run_as(&shop.pool, &id, business).await;
            let Err(RunError::InDoubt(error)) = run else { panic!("{id}: {run:?}") };
            assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{id}: {error}");
            assert!(!shop.run(&id).await.unwrap().is_replay());
        }
        assert_eq!(shop.payments().await, [2, 2, 100, 100]);
        assert_eq!(shop.open_transactions().await, 0);
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
                ("COMMIT", Err(RunError::InDoubt(error))) => {
                    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
                }
                (_, other) => panic!("{end}: {other:?}"),
            }
        }
        assert_eq!(shop.payments().await, [1]);
    });
}

/// From the commit on the network swallows everything, on connections that stay open: nobody can be asked. When
/// it is back, no connection is in use on which an answer is missing.
#[test]
fn where_nobody_answers_the_outcome_is_unknown() {
    RUNTIME.block_on(async {
        let shop = Shop::new().await;
        let proxy = Proxy::start(&SERVER);
        let through = pool(proxy.host(), 2).await;
        // So that the connection that looks is there already.
        drop((through.acquire().await.unwrap(), through.acquire().await.unwrap()));
        let business = async |tx: &mut PgConnection| {
            let paid = shop.pay(tx, 100).await;
            proxy.lose_and_swallow(Lose::Answer, "COMMIT");
            paid
        };
        let run = timeout(PATIENCE, shop.run_as(&through, "order", business)).await;
        let run = run.expect("it asks no longer");
        let Err(RunError::InDoubt(error)) = run else { panic!("{run:?}") };
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");

        proxy.black_hole(false);
        let business = async |tx: &mut PgConnection| shop.pay(tx, 100).await;
        let again = timeout(PATIENCE, shop.run_as(&through, "order", business)).await;
        assert!(again.expect("it is answered").unwrap().is_replay());
        assert_eq!(shop.payments().await, [100]);
    });
}

/// To roll back a takeover says nothing of the attempt that it took over from.
#[test]
fn business_that_fails_after_a_takeover_leaves_the_key_interrupted() {
    RUNTIME.block_on(async {
        let shop = Shop::new().await;
        let timed_out = |_| async { Err::<i64, _>(Failure::Unknown("timed out")) };
        let (key, request) = (shop::key("order"), shop::request());
        let run = shop.idempotency.run_classified(&key, &request, timed_out).await;
        assert!(matches!(run, Err(RunError::Unknown("timed out"))), "{run:?}");

        let business = async |_: &mut PgConnection| Err::<i64, _>("no stock");
        let run = shop.run_as(&shop.pool, "order", business).await;
        assert!(matches!(run, Err(RunError::Unknown("no stock"))), "{run:?}");
        assert!(!shop.run("order").await.unwrap().is_replay());
    });
}
