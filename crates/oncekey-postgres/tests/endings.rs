//! Business that ends the transaction which it was lent, or whose connection is lost: it is never said that
//! nothing was done where something may have been.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod postgres_fixture;
mod shop;

use std::collections::HashMap;
use std::time::Duration;

use oncekey::store::{ErrorKind, Status, Store};
use oncekey::{Failure, Idempotency, RunError};
use oncekey_conformance::Fixture;
use oncekey_postgres::deadpool_postgres::Transaction;
use oncekey_testkit::{Lose, Pgbouncer, PoolMode, Proxy};
use tokio::time::timeout;

use postgres_fixture::{PostgresFixture, block_on, connection, server};
use shop::{Shop, key, request};

/// For what has to come by itself.
const PATIENCE: Duration = Duration::from_secs(40);

/// Each ends the transaction, by whatever name.
const ENDS: [&str; 9] = [
    "COMMIT",
    "ROLLBACK",
    "COMMIT; BEGIN",
    "ROLLBACK; BEGIN",
    "COMMIT AND CHAIN",
    "ROLLBACK AND CHAIN",
    "COMMIT; BEGIN; SAVEPOINT mine",
    "COMMIT; BEGIN; SELECT 1 / 0",
    "COMMIT; SELECT 1 / 0",
];

/// How business goes on after that.
#[derive(Debug, Clone, Copy)]
enum Returns {
    Value,
    Error,
    /// What cannot be encoded.
    Nonsense,
}

async fn is_found_out(shop: &Shop, end: &str, returns: Returns) {
    let id = format!("{end} {returns:?}");
    let run = shop
        .store
        .run_in_transaction(&shop.idempotency, &key(&id), &request(), async |tx| {
            shop.pay(tx, 1).await.unwrap();
            let _ignored = tx.batch_execute(end).await;
            match returns {
                Returns::Value => Ok(HashMap::new()),
                Returns::Error => Err("no stock"),
                Returns::Nonsense => Ok(HashMap::from([((1, 2), 3)])),
            }
        })
        .await;
    match run {
        Err(RunError::InDoubt(error)) => {
            assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{id}: {error}");
            assert!(error.to_string().contains("COMMIT"), "{id}: {error}");
        }
        other => panic!("{id}: {other:?}"),
    }
    let seen = shop.store.get(&key(&id)).await.unwrap();
    let is_completed =
        seen.is_some_and(|seen| matches!(seen.record.status, Status::Completed { .. }));
    assert!(!is_completed, "{id}");
}

#[test]
fn business_that_ends_the_transaction_is_found_out() {
    block_on(async {
        let shop = Shop::new().await;
        for end in ENDS {
            for returns in [Returns::Value, Returns::Error, Returns::Nonsense] {
                is_found_out(&shop, end, returns).await;
            }
        }
        // Half of them are durable indeed.
        assert!(shop.payments().await > 0);
        assert!(!shop.run("order").await.unwrap().is_replay());
    });
}

#[test]
fn business_that_ends_the_transaction_is_found_out_behind_pgbouncer() {
    let pgbouncer = Pgbouncer::start(server(), PoolMode::Transaction, 3);
    let config = pgbouncer.connection_string().parse().unwrap();
    block_on(async {
        let direct = server().connection_string().parse().unwrap();
        let shop = Shop::with(PostgresFixture::on(config, direct, 4).await).await;
        for end in ENDS {
            for returns in [Returns::Value, Returns::Error, Returns::Nonsense] {
                is_found_out(&shop, end, returns).await;
            }
        }
        assert!(!shop.run("order").await.unwrap().is_replay());
    });
}

/// In whatever state it leaves the transaction, if it leaves it open, an error is not taken for more than it
/// is: nothing was done.
#[test]
fn business_that_fails_without_ending_the_transaction_did_nothing() {
    block_on(async {
        let shop = Shop::new().await;
        for sql in ["SELECT 1", "SELECT 1 / 0", "SAVEPOINT mine", "SAVEPOINT mine; SELECT 1 / 0"] {
            let run = shop
                .store
                .run_in_transaction(&shop.idempotency, &key(sql), &request(), async |tx| {
                    shop.pay(tx, 1).await.unwrap();
                    let _ignored = tx.batch_execute(sql).await;
                    Err::<i64, _>("no stock")
                })
                .await;
            assert!(matches!(run, Err(RunError::NotStarted("no stock"))), "{sql}: {run:?}");
            // At once, and not when the connection is used again.
            assert_eq!(shop.store.get(&key(sql)).await.unwrap(), None, "{sql}");
            assert!(!shop.run(sql).await.unwrap().is_replay());
        }
        assert_eq!(shop.payments().await, 4);
    });
}

/// Unlike other drivers', the commit of this one ends all of them, and is what it says.
#[test]
fn a_transaction_of_its_own_that_business_leaves_open_is_committed_with_the_rest() {
    block_on(async {
        let shop = Shop::new().await;
        for fails in [true, false] {
            let business = async |tx: &mut Transaction<'_>| {
                let inner = tx.transaction().await.unwrap();
                shop.pay(&inner, 1).await.unwrap();
                std::mem::forget(inner);
                if fails { Err("no stock") } else { Ok(1_i64) }
            };
            let key = key("order");
            let run =
                shop.store.run_in_transaction(&shop.idempotency, &key, &request(), business).await;
            match run {
                Err(RunError::NotStarted("no stock")) if fails => {}
                Ok(outcome) if !fails => assert!(!outcome.is_replay()),
                other => panic!("{other:?}"),
            }
            assert_eq!(shop.payments().await, i64::from(!fails));
        }
        assert!(shop.run("order").await.unwrap().is_replay());
        let sql = "SELECT count(*) FROM pg_stat_activity \
                   WHERE state LIKE 'idle in transaction%' AND query LIKE $1";
        let own = format!("%{}%", shop.fixture.schema);
        let open = connection(&shop.fixture.direct).await.query_one(sql, &[&own]).await.unwrap();
        assert_eq!(open.get::<_, i64>(0), 0);
    });
}

/// The server knows what became of the transaction when its session is gone.
#[test]
fn a_lost_connection_is_told_apart_from_a_commit_and_a_lost_connection() {
    block_on(async {
        let shop = Shop::new().await;
        let direct = connection(&shop.fixture.direct).await;
        for end in ["SELECT 1", "COMMIT"] {
            for fails in [false, true] {
                let id = format!("{end} {fails}");
                let business = async |tx: &mut Transaction<'_>| {
                    shop.pay(tx, 1).await.unwrap();
                    let id: i32 =
                        tx.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
                    tx.batch_execute(end).await.unwrap();
                    direct.query("SELECT pg_terminate_backend($1)", &[&id]).await.unwrap();
                    if fails { Err("no stock") } else { Ok(1) }
                };
                let key = key(&id);
                let run = shop
                    .store
                    .run_in_transaction(&shop.idempotency, &key, &request(), business)
                    .await;
                match (end, run) {
                    ("COMMIT", Err(RunError::InDoubt(error))) => {
                        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{id}: {error}");
                    }
                    ("SELECT 1", Err(RunError::Store(error))) if !fails => {
                        assert_eq!(error.kind(), ErrorKind::Unavailable, "{id}: {error}");
                    }
                    ("SELECT 1", Err(RunError::NotStarted("no stock"))) if fails => {}
                    (_, other) => panic!("{id}: {other:?}"),
                }
            }
        }
        assert_eq!(shop.payments().await, 2);
    });
}

/// The server crashes and is gone for good: nobody knows, and nobody says that nothing was done.
#[test]
fn where_nobody_can_be_asked_the_outcome_is_unknown() {
    block_on(async {
        let shop = Shop::with(PostgresFixture::alone().await).await;
        let run = shop
            .store
            .run_in_transaction(&shop.idempotency, &key("order"), &request(), async |tx| {
                shop.pay(tx, 1).await.unwrap();
                tokio::task::block_in_place(|| shop.fixture.own.as_ref().unwrap().kill());
                Err::<i64, _>("no stock")
            })
            .await;
        let Err(RunError::InDoubt(error)) = run else { panic!("{run:?}") };
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    });
}

/// From the commit on the network swallows everything, on connections that stay open: nobody can be asked. When
/// it is back, no connection is in use on which an answer is missing.
#[test]
fn where_nobody_answers_the_outcome_is_unknown() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let proxy = Proxy::start(server());
        let config = proxy.connection_string().parse().unwrap();
        let fixture = PostgresFixture { config, watch: false, pool_size: 2, ..fixture };
        let shop = Shop::with(fixture).await;
        // So that the connection that looks is there already.
        let other = shop.store.pool().get().await.unwrap();
        shop.run("before").await.unwrap();
        drop(other);

        let business = async |tx: &mut Transaction<'_>| {
            let paid = shop.pay(tx, 1).await;
            proxy.lose_and_swallow(Lose::Answer, "COMMIT\0");
            paid
        };
        let (key, request) = (key("order"), request());
        let run = shop.store.run_in_transaction(&shop.idempotency, &key, &request, business);
        let run = timeout(PATIENCE, run).await.expect("it asks no longer");
        let Err(RunError::InDoubt(error)) = run else { panic!("{run:?}") };
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");

        proxy.black_hole(false);
        let again = timeout(PATIENCE, shop.run("order")).await.expect("it is answered");
        assert!(again.unwrap().is_replay());
        assert_eq!(shop.payments().await, 2);
    });
}

/// The same for a transaction whose session is gone before it was told to commit.
#[test]
fn where_nobody_answers_it_is_not_said_to_be_rolled_back() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let proxy = Proxy::start(server());
        let config = proxy.connection_string().parse().unwrap();
        let fixture = PostgresFixture { config, watch: false, ..fixture };
        let shop = Shop::with(fixture).await;
        let business = async |tx: &mut Transaction<'_>| {
            shop.pay(tx, 1).await.unwrap();
            proxy.lose_and_swallow(Lose::Answer, "SELECT 'the last'");
            tx.batch_execute("SELECT 'the last'").await.unwrap_err();
            Err::<i64, _>("no stock")
        };
        let (key, request) = (key("order"), request());
        let run = shop.store.run_in_transaction(&shop.idempotency, &key, &request, business);
        let run = timeout(PATIENCE, run).await.expect("it asks no longer");
        let Err(RunError::InDoubt(error)) = run else { panic!("{run:?}") };
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
        proxy.black_hole(false);
        assert!(!timeout(PATIENCE, shop.run("order")).await.unwrap().unwrap().is_replay());
        assert_eq!(shop.payments().await, 1);
    });
}

/// To roll back a takeover says nothing of the attempt that it took over from.
#[test]
fn business_that_fails_after_a_takeover_leaves_the_key_interrupted() {
    block_on(async {
        let shop = Shop::new().await;
        let (key, request) = (key("order"), request());
        let timed_out = |_| async { Err::<i64, _>(Failure::Unknown("timed out")) };
        let run = shop.idempotency.run_classified(&key, &request, timed_out).await;
        assert!(matches!(run, Err(RunError::Unknown("timed out"))), "{run:?}");

        let careful = Idempotency::at_most_once(shop.store.clone());
        for (idempotency, takes_over) in [(&shop.idempotency, true), (&careful, false)] {
            let business = async |_: &mut Transaction<'_>| Err::<i64, _>("no stock");
            let run = shop.store.run_in_transaction(idempotency, &key, &request, business).await;
            match run {
                Err(RunError::Unknown("no stock")) if takes_over => {}
                Err(RunError::Interrupted) if !takes_over => {}
                other => panic!("{takes_over}: {other:?}"),
            }
        }
        assert!(!shop.run("order").await.unwrap().is_replay());
    });
}
