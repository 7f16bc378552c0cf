//! Lifecycles (claim and complete) on the store in SQLite, beside bare statements in the same file
//! system: one by one, which pays for two commits each, and in batches of 100, which is the limit of
//! what sharing commits can give.
//!
//! `cargo bench -p oncekey-benches --bench sqlite`

#![allow(missing_docs, reason = "the macros of the harness make public items")]
#![allow(clippy::unwrap_used, reason = "a bench may stop at the first surprise")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use oncekey::{Failure, Fingerprint, Idempotency, Key, Scope};
use oncekey_sqlite::SqliteStore;
use oncekey_sqlite::rusqlite::{Connection, TransactionBehavior, params};

const VALUE: [u8; 64] = [b'v'; 64];
const CLAIM: &str =
    "INSERT INTO bare VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6, NULL) ON CONFLICT DO NOTHING";
const COMPLETE: &str =
    "UPDATE bare SET status = 2, value = ?2, forget_at = ?3 WHERE key = ?1 AND attempt = ?4";

/// Numbers keys, so that each is fresh in its file.
static NEXT: AtomicU64 = AtomicU64::new(0);

fn key() -> Key {
    let scope = Scope::new("tenant-42", "POST /payments").unwrap();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Key::new(&scope, format!("8e03978e-40d5-43dd-bc93-{number:012}")).unwrap()
}

fn bare_connection(folder: &tempfile::TempDir) -> Connection {
    let connection = Connection::open(folder.path().join("bare.sqlite3")).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE IF NOT EXISTS bare (
                 key BLOB PRIMARY KEY, attempt BLOB, fingerprint BLOB, token INTEGER,
                 status INTEGER, deadline INTEGER, forget_at INTEGER, value BLOB
             ) STRICT;",
        )
        .unwrap();
    connection
}

fn claim(connection: &Connection, key: &Key) {
    let mut statement = connection.prepare_cached(CLAIM).unwrap();
    let values = params![key.as_bytes(), &[1_u8; 16], &[7_u8; 32], 1, 2, 3];
    assert_eq!(statement.execute(values).unwrap(), 1);
}

fn complete(connection: &Connection, key: &Key) {
    let mut statement = connection.prepare_cached(COMPLETE).unwrap();
    let values = params![key.as_bytes(), &VALUE, 4, &[1_u8; 16]];
    assert_eq!(statement.execute(values).unwrap(), 1);
}

async fn run(idempotency: &Idempotency, key: &Key) {
    let fingerprint = Fingerprint::from_digest(1, [7; 32]);
    let operation = |_| async { Ok::<_, Failure<()>>(Bytes::from_static(&VALUE)) };
    idempotency.run_bytes(key, &fingerprint, operation).await.unwrap();
}

fn lifecycles(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let mut connection = bare_connection(&folder);
    let mut group = criterion.benchmark_group("sqlite/lifecycle");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    group.bench_function("bare, one by one", |bencher| {
        bencher.iter(|| {
            let key = key();
            claim(&connection, &key);
            complete(&connection, &key);
        });
    });
    group.throughput(Throughput::Elements(100));
    group.bench_function("bare, batches of 100", |bencher| {
        bencher.iter(|| {
            let keys: Vec<_> = (0..100).map(|_| key()).collect();
            for verb in [claim, complete] {
                let behavior = TransactionBehavior::Immediate;
                let transaction = connection.transaction_with_behavior(behavior).unwrap();
                keys.iter().for_each(|key| verb(&transaction, key));
                transaction.commit().unwrap();
            }
        });
    });
    group.throughput(Throughput::Elements(1));
    let store = SqliteStore::open(folder.path().join("oncekey.sqlite3")).unwrap();
    let idempotency = Idempotency::at_least_once(store);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    for tasks in [1_u64, 64, 256] {
        group.bench_function(BenchmarkId::new("oncekey, tasks", tasks), |bencher| {
            bencher.iter_custom(|iterations| by_tasks(&runtime, &idempotency, tasks, iterations));
        });
    }
    let done = key();
    runtime.block_on(run(&idempotency, &done));
    group.bench_function("oncekey, replay", |bencher| {
        bencher.iter(|| runtime.block_on(run(&idempotency, &done)));
    });
    group.finish();
}

/// At least a few lifecycles a task, so that the tasks meet.
fn by_tasks(
    runtime: &tokio::runtime::Runtime,
    idempotency: &Idempotency,
    tasks: u64,
    iterations: u64,
) -> Duration {
    let total = iterations.max(tasks * 8);
    let left = Arc::new(AtomicU64::new(total));
    let start = Instant::now();
    let workers: Vec<_> = (0..tasks)
        .map(|_| {
            let (idempotency, left) = (idempotency.clone(), Arc::clone(&left));
            runtime.spawn(async move {
                let take = |left: u64| left.checked_sub(1);
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                    run(&idempotency, &key()).await;
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for worker in workers {
            worker.await.unwrap();
        }
    });
    let per_lifecycle = start.elapsed().as_secs_f64() / total as f64;
    Duration::from_secs_f64(per_lifecycle * iterations as f64)
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    targets = lifecycles
}
criterion_main!(benches);
