//! Whether the table in PostgreSQL stays as large as what it remembers, over a million lifecycles whose
//! results are kept for four seconds and then purged. Prints sizes and dead rows as it goes.
//!
//! `cargo bench -p oncekey-benches --bench postgres_bloat [LIFECYCLES]`

#![allow(clippy::unwrap_used, reason = "a bench may stop at the first surprise")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use oncekey::store::Store;
use oncekey::{Failure, Fingerprint, Idempotency, Key, Scope};
use oncekey_postgres::PostgresStore;
use oncekey_postgres::deadpool_postgres::{Manager, Pool};
use oncekey_postgres::tokio_postgres::NoTls;
use oncekey_testkit::{Durability, Postgres};

const TASKS: u64 = 64;
const KEPT: Duration = Duration::from_secs(4);
const VALUE: [u8; 64] = [b'v'; 64];
const SIZES: &str = "SELECT pg_relation_size(relid) / 1024, pg_indexes_size(relid) / 1024, n_live_tup, \
                     n_dead_tup, n_tup_upd, n_tup_hot_upd, autovacuum_count \
                     FROM pg_stat_user_tables WHERE relname = 'oncekey'";

#[tokio::main(worker_threads = 2)]
async fn main() {
    let given = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let total: u64 = given.unwrap_or(1_000_000);
    // As often as a busy server would, for the few minutes that this takes.
    let settings = ["autovacuum_naptime=5s", "max_wal_size=1GB"];
    let server = Postgres::start_with(Durability::ProcessCrash, &settings);
    let config = server.connection_string().parse().unwrap();
    let pool = Pool::builder(Manager::new(config, NoTls)).max_size(16).build().unwrap();
    let store = PostgresStore::new(pool.clone());
    store.migrate().await.unwrap();

    let purger = store.clone();
    let purging = tokio::spawn(async move {
        loop {
            purger.purge(20_000).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let idempotency = Idempotency::at_least_once(store).lease(KEPT / 2).retention(KEPT);
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let workers: Vec<_> = (0..TASKS)
        .map(|_| {
            let (idempotency, next) = (idempotency.clone(), Arc::clone(&next));
            tokio::spawn(async move { work(&idempotency, &next, total).await })
        })
        .collect();

    println!(
        "lifecycles  seconds  table KiB  indexes KiB  live rows  dead rows  updates in place  vacuums"
    );
    let mut shown = 0;
    while shown < total {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let done = next.load(Ordering::Relaxed).min(total);
        if done < shown + (total / 10).max(1) && done < total {
            continue;
        }
        shown = done;
        let row = pool.get().await.unwrap().query_one(SIZES, &[]).await.unwrap();
        let number = |column| row.get::<_, i64>(column);
        println!(
            "{done:>10}  {:>7.1}  {:>9}  {:>11}  {:>9}  {:>9}  {:>15.1}%  {:>7}",
            start.elapsed().as_secs_f64(),
            number(0),
            number(1),
            number(2),
            number(3),
            number(5) as f64 * 100.0 / number(4).max(1) as f64,
            number(6),
        );
    }
    for worker in workers {
        worker.await.unwrap();
    }
    purging.abort();
}

async fn work(idempotency: &Idempotency, next: &AtomicU64, total: u64) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= total {
            return;
        }
        let scope = Scope::new("tenant-42", "POST /payments").unwrap();
        let key = Key::new(&scope, format!("8e03978e-40d5-43dd-bc93-{number:012}")).unwrap();
        let fingerprint = Fingerprint::from_digest(1, [7; 32]);
        let operation = |_| async { Ok::<_, Failure<()>>(Bytes::from_static(&VALUE)) };
        idempotency.run_bytes(&key, &fingerprint, operation).await.unwrap();
    }
}
