//! Effect and record in one transaction.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod postgres_fixture;
mod shop;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oncekey::store::{ErrorKind, Evict, Expected, Fenced, State, Store};
use oncekey::transaction::Admitted;
use oncekey::{Fingerprint, RecordError, RunError};
use oncekey_conformance::Fixture;
use oncekey_postgres::deadpool_postgres::Transaction;
use oncekey_postgres::{PostgresStore, tokio_postgres};
use oncekey_testkit::{Lose, Proxy};

use postgres_fixture::{PostgresFixture, block_on, connection, pool, server};
use shop::{Shop, key, request};

#[test]
fn an_effect_happens_once_and_is_replayed() {
    block_on(async {
        let shop = Shop::new().await;
        for replay in [false, true, true] {
            let outcome = shop.run("order").await.unwrap();
            assert_eq!((*outcome.value(), outcome.is_replay()), (100, replay));
        }
        assert_eq!(shop.payments().await, 1);
        let other = Fingerprint::of("200 EUR");
        let refused = shop
            .store
            .run_in_transaction(&shop.idempotency, &key("order"), &other, async |tx| {
                shop.pay(tx, 200).await
            })
            .await;
        assert!(matches!(refused, Err(RunError::Mismatch)), "{refused:?}");
    });
}

/// The future is spawned, and its closure borrows from where it was made.
#[test]
fn two_workers_have_one_effect() {
    #[allow(clippy::manual_async_fn, reason = "that the future is `Send` is what is tested")]
    fn handler(shop: &'static Shop, amount: i64) -> impl Future<Output = bool> + Send + 'static {
        async move {
            let asked = String::from("borrowed");
            let key = key("order");
            let outcome = shop
                .store
                .run_in_transaction(&shop.idempotency, &key, &request(), async |tx| {
                    let paid = shop.pay(tx, amount).await?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    assert_eq!(asked.len(), 8);
                    Ok::<_, tokio_postgres::Error>(paid)
                })
                .await;
            outcome.unwrap().is_replay()
        }
    }

    block_on(async {
        let shop: &'static Shop = Box::leak(Box::new(Shop::new().await));
        let workers: Vec<_> = (0..4).map(|_| tokio::spawn(handler(shop, 100))).collect();
        let mut executed = 0;
        for worker in workers {
            executed += usize::from(!worker.await.unwrap());
        }
        assert_eq!((executed, shop.payments().await), (1, 1));
    });
}

#[test]
fn an_error_rolls_everything_back_and_leaves_the_key_free() {
    block_on(async {
        let shop = Shop::new().await;
        let failed = shop
            .store
            .run_in_transaction(&shop.idempotency, &key("order"), &request(), async |tx| {
                shop.pay(tx, 100).await.unwrap();
                Err::<i64, _>("no stock")
            })
            .await;
        assert!(matches!(failed, Err(RunError::NotStarted("no stock"))), "{failed:?}");
        assert_eq!(shop.payments().await, 0);
        assert_eq!(shop.store.get(&key("order")).await.unwrap(), None);
        assert!(!shop.run("order").await.unwrap().is_replay());
    });
}

#[test]
fn a_dropped_run_leaves_no_transaction_open() {
    block_on(async {
        let shop = Shop::new().await;
        let store = PostgresStore::builder(pool(&shop.fixture.config, 1))
            .schema(&shop.fixture.schema)
            .build()
            .unwrap();
        let order = key("order");
        for millis in [0, 1, 2, 4, 8, 16, 30] {
            let request = request();
            let run = store.run_in_transaction(&shop.idempotency, &order, &request, async |tx| {
                shop.pay(tx, 100).await?;
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok::<_, tokio_postgres::Error>(100)
            });
            assert!(tokio::time::timeout(Duration::from_millis(millis), run).await.is_err());
            assert_eq!(store.get(&order).await.unwrap(), None);
        }
        assert_eq!(shop.payments().await, 0);
    });
}

#[test]
fn the_two_steps_commit_with_the_callers_transaction() {
    block_on(async {
        let shop = Shop::new().await;
        let mut client = shop.own_connection().await;
        for commit in [false, true] {
            let prepared = shop.idempotency.prepare(&key("order"), &request()).unwrap();
            let tx = client.transaction().await.unwrap();
            let admitted = shop.store.claim_in::<i64>(&tx, &prepared).await.unwrap();
            let Admitted::Run { grant, number, .. } = admitted else { panic!("{admitted:?}") };
            let paid = shop.pay(&tx, 100).await.unwrap();
            shop.store.complete_in(&tx, &prepared, grant, &paid).await.unwrap();
            if commit {
                tx.commit().await.unwrap();
                assert!(!prepared.committed(number, paid).is_replay());
            } else {
                tx.rollback().await.unwrap();
                assert_eq!(shop.store.get(&key("order")).await.unwrap(), None);
            }
        }
        assert_eq!(shop.payments().await, 1);
        let tx = client.transaction().await.unwrap();
        let prepared = shop.idempotency.prepare(&key("order"), &request()).unwrap();
        let replayed = shop.store.claim_in::<i64>(&tx, &prepared).await.unwrap();
        assert!(matches!(replayed, Admitted::Replay(outcome) if *outcome.value() == 100));
    });
}

/// An owner that was replaced writes, is refused, ignores that and commits: nothing of it stays.
#[test]
fn a_stale_owners_writes_roll_back_even_if_it_ignores_the_refusal() {
    block_on(async {
        let shop = Shop::new().await;
        let mut client = shop.own_connection().await;
        let prepared = shop.idempotency.prepare(&key("order"), &request()).unwrap();
        let tx = client.transaction().await.unwrap();
        let Admitted::Run { grant, .. } = shop.store.claim_in::<i64>(&tx, &prepared).await.unwrap()
        else {
            panic!("the key is new")
        };
        tx.commit().await.unwrap();
        let evict = Evict { expected: Expected::Any, force: true };
        for id in ["gone", "lost"] {
            assert_eq!(
                shop.store.evict(&key("order"), &evict).await.unwrap(),
                Fenced::Applied,
                "{id}"
            );
            if id == "lost" {
                shop.run("order").await.unwrap();
            }
            let tx = client.transaction().await.unwrap();
            shop.pay(&tx, 666).await.unwrap();
            let refused = shop.store.complete_in(&tx, &prepared, grant, &666).await.unwrap_err();
            match id {
                "gone" => assert!(matches!(refused, RecordError::Gone), "{refused:?}"),
                _ => assert!(matches!(refused, RecordError::Lost), "{refused:?}"),
            }
            let _ignored = tx.commit().await;
            if id == "gone" {
                shop.run("order").await.unwrap();
            }
        }
        let sql = format!("SELECT count(*) FROM {} WHERE amount = 666", shop.table);
        let stale: i64 = client.query_one(&sql, &[]).await.unwrap().get(0);
        assert_eq!(stale, 0);
    });
}

/// Outside of one, a step would commit by itself. Nothing is written then.
#[test]
fn the_two_steps_are_refused_outside_of_a_transaction() {
    block_on(async {
        let shop = Shop::new().await;
        let mut client = shop.own_connection().await;
        let prepared = shop.idempotency.prepare(&key("order"), &request()).unwrap();
        for end in ["COMMIT", "ROLLBACK"] {
            let tx = client.transaction().await.unwrap();
            tx.batch_execute(end).await.unwrap();
            let refused = shop.store.claim_in::<i64>(&tx, &prepared).await;
            let Err(RunError::Store(error)) = refused else { panic!("{end}: {refused:?}") };
            assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
            assert!(error.to_string().contains("begin"), "{error}");
            assert_eq!(shop.store.get(&key("order")).await.unwrap(), None);
        }

        let tx = client.transaction().await.unwrap();
        let admitted = shop.store.claim_in::<i64>(&tx, &prepared).await.unwrap();
        let Admitted::Run { grant, .. } = admitted else { panic!("{admitted:?}") };
        shop.pay(&tx, 100).await.unwrap();
        tx.batch_execute("COMMIT").await.unwrap();
        let refused = shop.store.complete_in(&tx, &prepared, grant, &100).await.unwrap_err();
        let RecordError::Store(error) = refused else { panic!("{refused:?}") };
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
        let seen = shop.store.get(&key("order")).await.unwrap().unwrap();
        assert_eq!(seen.state, State::Live);
    });
}

#[test]
fn business_may_use_savepoints() {
    block_on(async {
        let shop = Shop::new().await;
        let paid = shop
            .store
            .run_in_transaction(&shop.idempotency, &key("order"), &request(), async |tx| {
                let attempt = tx.transaction().await?;
                assert!(attempt.execute("SELECT 1 / 0", &[]).await.is_err());
                attempt.rollback().await?;
                shop.pay(tx, 100).await
            })
            .await;
        assert_eq!(*paid.unwrap().value(), 100);
        assert_eq!(shop.payments().await, 1);
    });
}

/// The connection breaks while it commits. What became of it is read, and business does not run again.
#[test]
fn an_unknown_commit_is_settled_by_reading() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let proxy = Proxy::start(server());
        let config = proxy.connection_string().parse().unwrap();
        let shop = Shop::with(PostgresFixture { config, watch: false, ..fixture }).await;
        let runs = AtomicUsize::new(0);
        let run = async |id: &str| {
            let business = async |tx: &mut Transaction<'_>| {
                runs.fetch_add(1, Ordering::Relaxed);
                shop.pay(tx, 100).await
            };
            let key = key(id);
            shop.store.run_in_transaction(&shop.idempotency, &key, &request(), business).await
        };

        proxy.lose(Lose::Answer, "COMMIT\0");
        let outcome = run("committed").await.unwrap();
        assert!(!outcome.is_replay());
        assert_eq!((runs.load(Ordering::Relaxed), shop.payments().await), (1, 1));

        proxy.lose(Lose::Request, "COMMIT\0");
        let failed = run("not committed").await;
        let Err(RunError::Store(error)) = failed else { panic!("{failed:?}") };
        // The server knows that it did not commit.
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!((runs.load(Ordering::Relaxed), shop.payments().await), (2, 1));
        assert_eq!(shop.store.get(&key("not committed")).await.unwrap(), None);

        proxy.lose(Lose::Answer, "oncekey_v1_complete");
        let failed = run("not completed").await;
        let Err(RunError::Store(error)) = failed else { panic!("{failed:?}") };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(shop.payments().await, 1);
        assert!(!run("not completed").await.unwrap().is_replay());
        assert_eq!(shop.payments().await, 2);
    });
}

/// The session is terminated while a slow commit is under way.
#[test]
fn a_commit_that_is_terminated_is_not_taken_for_done() {
    block_on(async {
        let shop = Shop::new().await;
        let direct = connection(&shop.fixture.direct).await;
        let schema = &shop.fixture.schema;
        direct
            .batch_execute(&format!(
                "CREATE FUNCTION \"{schema}\".slow() RETURNS trigger LANGUAGE plpgsql AS \
                 'BEGIN PERFORM pg_sleep(30); RETURN NULL; END'; \
                 CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON {} DEFERRABLE INITIALLY DEFERRED \
                 FOR EACH ROW EXECUTE FUNCTION \"{schema}\".slow()",
                shop.table
            ))
            .await
            .unwrap();
        let terminate = async {
            let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                       WHERE query = 'COMMIT' AND wait_event = 'PgSleep'";
            while direct.query(sql, &[]).await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let (failed, ()) = tokio::join!(shop.run("order"), terminate);
        let Err(RunError::Store(error)) = failed else { panic!("{failed:?}") };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(shop.payments().await, 0);
        assert_eq!(shop.store.get(&key("order")).await.unwrap(), None);
    });
}

#[test]
fn a_violated_deferred_constraint_is_not_an_unknown_outcome() {
    block_on(async {
        let shop = Shop::new().await;
        let sql =
            format!("ALTER TABLE {} ADD UNIQUE (amount) DEFERRABLE INITIALLY DEFERRED", shop.table);
        connection(&shop.fixture.direct).await.batch_execute(&sql).await.unwrap();
        shop.run("first").await.unwrap();
        let failed = shop.run("second").await;
        let Err(RunError::Store(error)) = failed else { panic!("{failed:?}") };
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
        assert_eq!(shop.store.get(&key("second")).await.unwrap(), None);
    });
}

/// A completed key reads as usual, whoever completed it.
#[test]
fn what_a_transaction_completed_is_a_record_like_others() {
    block_on(async {
        let shop = Shop::new().await;
        shop.run("order").await.unwrap();
        let seen = shop.store.get(&key("order")).await.unwrap().unwrap();
        assert_eq!((seen.state, seen.record.number), (State::Completed, 1));
    });
}
