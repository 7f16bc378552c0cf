//! Many duplicates of a request that is at work inside a transaction: they wait for it, and others do not
//! wait for them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod postgres_fixture;
mod shop;

use std::sync::Arc;
use std::time::Duration;

use oncekey::Idempotency;
use oncekey::runtime::{ProcessRandom, Random};
use oncekey::store::{AttemptId, Claim, ClaimOutcome, OnInterrupted, OnRetired, Store};
use oncekey::transaction::Admitted;
use oncekey_conformance::Fixture;
use oncekey_postgres::PostgresStore;
use tokio::time::{sleep, timeout};

use postgres_fixture::{PostgresFixture, block_on, connection, pool};
use shop::{Shop, key, request};

const CONNECTIONS: usize = 4;
const DUPLICATES: usize = 16;
const LONG: Duration = Duration::from_secs(3600);
/// For what has to come while somebody else waits.
const PATIENCE: Duration = Duration::from_secs(30);

fn claim() -> Claim {
    Claim {
        attempt: AttemptId::from_bytes(ProcessRandom::new().next().to_be_bytes()),
        fingerprint: request(),
        lease: LONG,
        hold: LONG,
        on_interrupted: OnInterrupted::TakeOver,
        on_retired: OnRetired::Forget,
    }
}

/// Sessions of this fixture that wait for a lock.
async fn waiting(shop: &Shop) -> i64 {
    let sql =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1";
    let own = format!("%{}%", shop.fixture.schema);
    connection(&shop.fixture.direct).await.query_one(sql, &[&own]).await.unwrap().get(0)
}

/// Claims and runs in transactions, in one process, with a pool that is smaller than their number.
#[test]
fn duplicates_that_wait_leave_the_pool_to_others() {
    block_on(async {
        for batching in [true, false] {
            let fixture = PostgresFixture::create().await;
            let store = PostgresStore::builder(pool(&fixture.config, CONNECTIONS))
                .schema(&fixture.schema)
                .lock_timeout(LONG)
                .batching(batching)
                .build()
                .unwrap();
            let idempotency = Idempotency::at_least_once(store.clone());
            let shop = Shop { store, idempotency, ..Shop::with(fixture).await };
            let shop = Arc::new(shop);
            let mut holder = shop.own_connection().await;
            let tx = holder.transaction().await.unwrap();
            let prepared = shop.idempotency.prepare(&key("hot"), &request()).unwrap();
            let admitted = shop.store.claim_in::<i64>(&tx, &prepared).await.unwrap();
            let Admitted::Run { grant, .. } = admitted else { panic!("{admitted:?}") };

            let claims: Vec<_> = (0..DUPLICATES)
                .map(|_| {
                    let store = shop.store.clone();
                    tokio::spawn(async move { store.claim(&key("hot"), &claim()).await.unwrap() })
                })
                .collect();
            let runs: Vec<_> = (0..DUPLICATES)
                .map(|_| {
                    let shop = shop.clone();
                    tokio::spawn(async move { shop.run("hot").await.unwrap().is_replay() })
                })
                .collect();
            // Once all have had a glance, one of them waits there, and goes on to.
            let alone = async {
                let mut seen = 0;
                while seen < 20 {
                    seen += usize::from(waiting(&shop).await == 1);
                    sleep(Duration::from_millis(10)).await;
                }
            };
            timeout(PATIENCE, alone).await.expect("one connection waits for the row of one key");
            for other in 0..20 {
                let id = format!("other {other}");
                assert!(!timeout(PATIENCE, shop.run(&id)).await.unwrap().unwrap().is_replay());
                let id = key(&format!("{id}, too"));
                let outcome = timeout(PATIENCE, shop.store.claim(&id, &claim())).await.unwrap();
                assert!(matches!(outcome, Ok(ClaimOutcome::Acquired { .. })), "{outcome:?}");
            }
            assert!(claims.iter().all(|claim| !claim.is_finished()));
            assert!(runs.iter().all(|run| !run.is_finished()));

            let paid = shop.pay_in(&tx, 100).await;
            shop.store.complete_in(&tx, &prepared, grant, &paid).await.unwrap();
            tx.commit().await.unwrap();
            for claim in claims {
                assert!(matches!(claim.await.unwrap(), ClaimOutcome::Replay(_)));
            }
            for run in runs {
                assert!(run.await.unwrap());
            }
            assert_eq!(shop.payments().await, 21);
        }
    });
}

/// With one connection, a wait in one process for a row of another keeps nobody else from it for long.
#[test]
fn a_pool_of_one_is_not_held_by_who_waits() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let store = PostgresStore::builder(pool(&fixture.config, 1))
            .schema(&fixture.schema)
            .lock_timeout(LONG)
            .build()
            .unwrap();
        let shop = Shop::with(fixture).await;
        let mut holder = shop.own_connection().await;
        let tx = holder.transaction().await.unwrap();
        let prepared = shop.idempotency.prepare(&key("hot"), &request()).unwrap();
        shop.store.claim_in::<i64>(&tx, &prepared).await.unwrap();
        let waiter = {
            let store = store.clone();
            tokio::spawn(async move { store.claim(&key("hot"), &claim()).await.unwrap() })
        };
        while waiting(&shop).await == 0 {
            sleep(Duration::from_millis(10)).await;
        }
        let outcome = timeout(PATIENCE, store.claim(&key("other"), &claim())).await.unwrap();
        assert!(matches!(outcome, Ok(ClaimOutcome::Acquired { .. })), "{outcome:?}");
        assert!(!waiter.is_finished());
        tx.rollback().await.unwrap();
        let outcome = waiter.await.unwrap();
        let ClaimOutcome::Acquired { lease_left, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(lease_left, LONG, "it is whole");
    });
}
