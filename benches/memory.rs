//! A run on the store in memory, beside a bare sharded map.
//!
//! `cargo bench -p oncekey-benches --bench memory`

#![allow(missing_docs, reason = "the macros of the harness make public items")]
#![allow(clippy::unwrap_used, reason = "a bench may stop at the first surprise")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::executor::block_on;
use oncekey::{Failure, Fingerprint, Idempotency, Key, Scope};
use oncekey_benches::BareMap;
use oncekey_memory::MemoryStore;

/// Keys per store: every chunk starts with an empty one, so that memory stays bounded.
const CHUNK: usize = 50_000;
const VALUE: [u8; 64] = [b'v'; 64];

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("8e03978e-40d5-43dd-bc93-{number:012}")).collect()
}

fn engine() -> Idempotency {
    Idempotency::at_least_once(MemoryStore::new())
}

async fn run_bytes(idempotency: &Idempotency, scope: &Scope, id: &str, fingerprint: &Fingerprint) {
    let key = Key::new(scope, id).unwrap();
    let value = Bytes::from_static(&VALUE);
    let run = idempotency.run_bytes(&key, fingerprint, |_| async { Ok::<_, Failure<()>>(value) });
    black_box(run.await.unwrap());
}

async fn run_json(idempotency: &Idempotency, scope: &Scope, id: &str, fingerprint: &Fingerprint) {
    let key = Key::new(scope, id).unwrap();
    let operation = |_| async {
        Ok::<_, ()>("a receipt of sixty-four bytes, give or take a few of them, yes".to_owned())
    };
    black_box(idempotency.run(&key, fingerprint, operation).await.unwrap());
}

/// Times `lifecycle` over `iterations` ids, on a new `subject` for every chunk.
fn over_chunks<S>(
    iterations: u64,
    ids: &[String],
    subject: impl Fn() -> S,
    lifecycle: impl Fn(&S, &str),
) -> Duration {
    let mut left = usize::try_from(iterations).unwrap();
    let mut elapsed = Duration::ZERO;
    while left > 0 {
        let count = left.min(ids.len());
        let subject = subject();
        let start = Instant::now();
        for id in &ids[..count] {
            lifecycle(&subject, id);
        }
        elapsed += start.elapsed();
        left -= count;
    }
    elapsed
}

fn one_task(criterion: &mut Criterion) {
    let ids = ids(CHUNK);
    let scope = Scope::new("tenant-42", "POST /payments").unwrap();
    let fingerprint = Fingerprint::of("100 EUR");

    let mut group = criterion.benchmark_group("memory/one task/fresh key");
    group.throughput(Throughput::Elements(1));
    group.bench_function("bare insert + update", |bencher| {
        bencher.iter_custom(|iterations| {
            over_chunks(iterations, &ids, BareMap::default, |map, id| {
                map.insert(id.as_bytes(), fingerprint);
                map.update(id.as_bytes(), Bytes::copy_from_slice(&VALUE));
            })
        });
    });
    group.bench_function("run_bytes", |bencher| {
        bencher.iter_custom(|iterations| {
            over_chunks(iterations, &ids, engine, |engine, id| {
                block_on(run_bytes(engine, &scope, id, &fingerprint));
            })
        });
    });
    group.bench_function("run", |bencher| {
        bencher.iter_custom(|iterations| {
            over_chunks(iterations, &ids, engine, |engine, id| {
                block_on(run_json(engine, &scope, id, &fingerprint));
            })
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("memory/one task/replay");
    group.throughput(Throughput::Elements(1));
    let map = BareMap::default();
    let engine = engine();
    for id in &ids {
        map.insert(id.as_bytes(), fingerprint);
        map.update(id.as_bytes(), Bytes::copy_from_slice(&VALUE));
        block_on(run_bytes(&engine, &scope, id, &fingerprint));
    }
    let mut turn = ids.iter().cycle();
    group.bench_function("bare lookup", |bencher| {
        bencher.iter(|| map.lookup(turn.next().unwrap().as_bytes()));
    });
    let keys: Vec<_> = ids.iter().map(|id| Key::new(&scope, id).unwrap()).collect();
    let mut turn = keys.iter().cycle();
    group.bench_function("run_bytes", |bencher| {
        bencher.iter(|| {
            let operation = |_| async { Err(Failure::Unknown(())) };
            let run = engine.run_bytes(turn.next().unwrap(), &fingerprint, operation);
            block_on(run).unwrap()
        });
    });
    group.finish();
}

/// Lifecycles of fresh keys by many tasks on two threads.
fn many_tasks(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let ids: Arc<[String]> = ids(CHUNK).into();
    let scope = Scope::new("tenant-42", "POST /payments").unwrap();
    let fingerprint = Fingerprint::of("100 EUR");
    let mut group = criterion.benchmark_group("memory/many tasks/fresh key");
    group.throughput(Throughput::Elements(1));
    for tasks in [1, 16, 256] {
        group.bench_function(BenchmarkId::new("run_bytes", tasks), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut left = usize::try_from(iterations).unwrap();
                let mut elapsed = Duration::ZERO;
                while left > 0 {
                    let count = left.min(ids.len());
                    let engine = engine();
                    let next = Arc::new(AtomicUsize::new(0));
                    let start = Instant::now();
                    let workers: Vec<_> = (0..tasks)
                        .map(|_| {
                            let (engine, scope) = (engine.clone(), scope.clone());
                            let (ids, next) = (Arc::clone(&ids), Arc::clone(&next));
                            runtime.spawn(async move {
                                loop {
                                    let index = next.fetch_add(1, Ordering::Relaxed);
                                    if index >= count {
                                        return;
                                    }
                                    run_bytes(&engine, &scope, &ids[index], &fingerprint).await;
                                    // Lets the other tasks in, as any real operation would.
                                    if index % 16 == 0 {
                                        tokio::task::yield_now().await;
                                    }
                                }
                            })
                        })
                        .collect();
                    runtime.block_on(async {
                        for worker in workers {
                            worker.await.unwrap();
                        }
                    });
                    elapsed += start.elapsed();
                    left -= count;
                }
                elapsed
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    targets = one_task, many_tasks
}
criterion_main!(benches);
