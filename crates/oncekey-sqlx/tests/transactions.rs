//! Writes by sqlx and the record of their result commit together or not at all, on a real server.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod shop;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use oncekey::store::{ErrorKind, Evict, Expected, Fenced, State, Store};
use oncekey::transaction::Admitted;
use oncekey::{Fingerprint, RecordError, RunError};
use oncekey_sqlx::sqlx;
use sqlx::postgres::PgConnection;

use shop::{RUNTIME, SERVER, Shop, key, pool, request};

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
        let shop = Arc::new(Shop::new().await);
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

/// More duplicates than the pool has connections wait for one that is at work: others do not wait for them.
#[test]
fn duplicates_that_wait_leave_the_pool_to_others() {
    RUNTIME.block_on(async {
        let shop = Arc::new(Shop::new().await);
        let prepared = shop.idempotency.prepare(&key("hot"), &request()).unwrap();
        let other = pool(SERVER.host(), 2).await;
        let mut tx = other.begin().await.unwrap();
        let admitted = shop.effects.claim_in::<i64>(&mut tx, &prepared).await.unwrap();
        let Admitted::Run { grant, .. } = admitted else { panic!("{admitted:?}") };
        let runs: Vec<_> = (0..12)
            .map(|_| {
                let shop = shop.clone();
                tokio::spawn(async move { shop.run("hot").await.unwrap().is_replay() })
            })
            .collect();
        let mut seen = 0;
        while seen < 10 {
            let sql = "SELECT count(*) FROM pg_stat_activity \
                       WHERE wait_event_type = 'Lock' AND query LIKE $1";
            let own = format!("%{}%", shop.schema);
            let waiting = sqlx::query_scalar(sql).bind(own).fetch_one(&other).await;
            let waiting: i64 = waiting.unwrap();
            seen += usize::from(waiting == 1);
            assert!(runs.iter().all(|run| !run.is_finished()), "{waiting} wait at once");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!shop.run("other").await.unwrap().is_replay());
        assert!(runs.iter().all(|run| !run.is_finished()));
        shop.effects.complete_in(&mut tx, &prepared, grant, &100).await.unwrap();
        tx.commit().await.unwrap();
        for run in runs {
            assert!(run.await.unwrap());
        }
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
        assert_eq!(seen.state, State::Live);
        sqlx::raw_sql("BEGIN").execute(&mut *connection).await.unwrap();
        shop.effects.complete_in(&mut connection, &prepared, grant, &100).await.unwrap();
        sqlx::raw_sql("COMMIT").execute(&mut *connection).await.unwrap();
        assert!(shop.run("order").await.unwrap().is_replay());
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
