//! Effects under faults: sessions that are terminated and servers that crash at any moment of a transaction. Each
//! effect is there once in the end, and is not there where it was said that it is not.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod postgres_fixture;
mod shop;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use oncekey::RunError;
use oncekey::runtime::{ProcessRandom, Random};
use oncekey_conformance::Fixture;
use oncekey_postgres::deadpool_postgres::{Object, Transaction};
use oncekey_postgres::tokio_postgres;
use tokio::task::block_in_place;
use tokio::time::sleep;

use postgres_fixture::{PostgresFixture, block_on, connection, pool};
use shop::{Shop, key, request};

const CLIENTS: i64 = 6;

#[derive(Default)]
struct Load {
    stop: AtomicBool,
    runs: AtomicUsize,
    failed: AtomicUsize,
    unknown: AtomicUsize,
}

impl Load {
    /// Pays one order after the other, each until it is paid.
    async fn run(self: Arc<Self>, shop: Arc<Shop>, client: i64) -> i64 {
        let mut orders = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let order = orders * CLIENTS + client;
            while !self.pay(&shop, order).await {
                sleep(Duration::from_millis(5)).await;
            }
            orders += 1;
        }
        orders
    }

    async fn pay(&self, shop: &Shop, order: i64) -> bool {
        let business = async |tx: &mut Transaction<'_>| {
            let paid = shop.pay(tx, order).await?;
            tx.batch_execute("SELECT 1").await?;
            Ok::<_, tokio_postgres::Error>(paid)
        };
        let key = key(&order.to_string());
        let request = request();
        let run = shop.store.run_in_transaction(&shop.idempotency, &key, &request, business);
        match run.await {
            Ok(outcome) => {
                assert_eq!(*outcome.value(), order);
                self.runs.fetch_add(1, Ordering::Relaxed);
                return true;
            }
            Err(RunError::InDoubt(_)) => {
                self.unknown.fetch_add(1, Ordering::Relaxed);
            }
            // Nobody else pays this order, so that this stays true.
            Err(RunError::NotStarted(_) | RunError::Store(_) | RunError::Busy { .. }) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                assert_eq!(paid(shop, order).await, 0, "order {order} was said not to be paid");
            }
            Err(other) => panic!("{other:?}"),
        }
        false
    }
}

/// How often an order is paid, as soon as somebody can tell.
async fn paid(shop: &Shop, order: i64) -> i64 {
    let sql = format!("SELECT count(*) FROM {} WHERE amount = $1", shop.table);
    let pool = pool(&shop.fixture.direct, 1);
    loop {
        let client: Result<Object, _> = pool.get().await;
        if let Ok(client) = client
            && let Ok(row) = client.query_one(&sql, &[&order]).await
        {
            return row.get(0);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn each_is_paid_once(shop: Arc<Shop>, faults: impl Future<Output = ()>) {
    let load = Arc::<Load>::default();
    let clients: Vec<_> =
        (0..CLIENTS).map(|client| tokio::spawn(load.clone().run(shop.clone(), client))).collect();
    faults.await;
    load.stop.store(true, Ordering::Relaxed);
    let mut orders = 0;
    for client in clients {
        orders += client.await.unwrap();
    }
    println!(
        "{orders} orders, {:?} failed and {:?} unknown before they were paid",
        load.failed, load.unknown
    );
    assert!(load.failed.load(Ordering::Relaxed) > 0, "no transaction was hit");
    let sql = format!("SELECT count(*), count(DISTINCT amount) FROM {}", shop.table);
    let row = connection(&shop.fixture.direct).await.query_one(&sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (orders, orders));
}

/// Also with a pool of one connection, which is then the one to ask what became of the other.
#[test]
fn sessions_that_are_terminated_at_any_moment() {
    block_on(async {
        for pool_size in [4, 1] {
            let fixture = PostgresFixture::create().await;
            let mut config = fixture.config.clone();
            config.application_name(&fixture.schema);
            let fixture = PostgresFixture { config, pool_size, ..fixture };
            let shop = Arc::new(Shop::with(fixture).await);
            let direct = connection(&shop.fixture.direct).await;
            let faults = async {
                let random = ProcessRandom::new();
                for _ in 0..150 {
                    let micros = u64::try_from(random.next() % 20_000).unwrap();
                    sleep(Duration::from_micros(micros)).await;
                    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                               WHERE application_name = $1 \
                               ORDER BY (state LIKE '%active%' OR state LIKE '%transaction%') DESC, \
                               random() LIMIT 1";
                    direct.query(sql, &[&shop.fixture.schema]).await.unwrap();
                }
            };
            each_is_paid_once(shop.clone(), faults).await;
        }
    });
}

#[test]
fn a_server_that_crashes_at_any_moment() {
    block_on(async {
        let shop = Arc::new(Shop::with(PostgresFixture::alone().await).await);
        let faults = async {
            for round in 0..4 {
                sleep(Duration::from_millis(300)).await;
                let server = shop.fixture.own.as_ref().unwrap();
                block_in_place(|| if round % 2 == 0 { server.crash() } else { server.restart() });
            }
            sleep(Duration::from_millis(300)).await;
        };
        each_is_paid_once(shop.clone(), faults).await;
    });
}
