//! Lifecycles (claim and complete) on the store in Redis and Valkey, beside what the same client does in two
//! bare commands, and in two bare scripts, on one connection. Each server is started for the bench.
//!
//! `cargo bench -p oncekey-benches --bench redis`

#![allow(missing_docs, reason = "the macros of the harness make public items")]
#![allow(clippy::unwrap_used, reason = "a bench may stop at the first surprise")]

mod redis_subjects;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group,
    criterion_main, measurement::WallTime,
};
use oncekey::{Failure, Fingerprint, Idempotency, Key, Scope};
use oncekey_redis::redis::aio::MultiplexedConnection;
use oncekey_redis::redis::{AsyncConnectionConfig, Client};
use oncekey_redis::{RedisStore, RedisStoreBuilder};
use oncekey_testkit::{Flavor, Redis};
use tokio::runtime::Runtime;

use redis_subjects::{Commands, Scripts, Subject, batch, by_tasks};

const TASKS: [u64; 4] = [1, 64, 256, 512];
const VALUE: [u8; 64] = [b'v'; 64];

/// Numbers keys, so that each is fresh.
static NEXT: AtomicU64 = AtomicU64::new(0);

fn key() -> Key {
    let scope = Scope::new("tenant-42", "POST /payments").unwrap();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Key::new(&scope, format!("8e03978e-40d5-43dd-bc93-{number:012}")).unwrap()
}

#[derive(Clone)]
struct Engine(Idempotency);

impl Subject<Key> for Engine {
    async fn run(&self, key: &Key) {
        let fingerprint = Fingerprint::from_digest(1, [7; 32]);
        let operation = |_| async { Ok::<_, Failure<()>>(Bytes::from_static(&VALUE)) };
        self.0.run_bytes(key, &fingerprint, operation).await.unwrap();
    }
}

async fn connect(server: &Redis) -> MultiplexedConnection {
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(Some(Duration::from_secs(5)))
        .set_pipeline_buffer_size(1024);
    let client = Client::open(server.url()).unwrap();
    client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
}

fn on(builder: RedisStoreBuilder) -> Engine {
    Engine(Idempotency::at_least_once(builder.build().unwrap()))
}

fn lifecycles(criterion: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (flavor, name) in [(Flavor::Redis, "redis"), (Flavor::Valkey, "valkey")] {
        if !flavor.is_there() {
            println!("skipped: {name} is not on this machine");
            continue;
        }
        let server = Redis::start_with(flavor, &["--save", ""]);
        let connection = runtime.block_on(connect(&server));
        let commands = Commands(connection.clone());
        let scripts = Scripts::new(connection.clone());
        let store = on(RedisStore::builder(connection.clone()));
        let by_scripts = on(RedisStore::builder(connection).scripts_only(true));
        let mut group = criterion.benchmark_group(format!("{name}/lifecycle"));
        for tasks in TASKS {
            bench(&mut group, &runtime, "bare commands, tasks", tasks, &commands, &key);
            bench(&mut group, &runtime, "bare scripts, tasks", tasks, &scripts, &key);
            bench(&mut group, &runtime, "oncekey, tasks", tasks, &store, &key);
            bench(
                &mut group,
                &runtime,
                "oncekey by scripts alone, tasks",
                tasks,
                &by_scripts,
                &key,
            );
            server.ask(&["FLUSHALL"]);
        }
        group.finish();

        let mut group = criterion.benchmark_group(format!("{name}/replay"));
        let done = key();
        runtime.block_on(store.run(&done));
        for tasks in TASKS {
            bench(&mut group, &runtime, "oncekey, tasks", tasks, &store, &|| done.clone());
        }
        group.finish();
    }
}

/// What criterion calls an iteration is a batch; its elements are lifecycles.
fn bench(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runtime: &Runtime,
    name: &str,
    tasks: u64,
    subject: &impl Subject<Key>,
    key: &impl Fn() -> Key,
) {
    group.throughput(Throughput::Elements(batch(tasks)));
    group.sample_size(20).sampling_mode(SamplingMode::Flat);
    group.bench_function(BenchmarkId::new(name, tasks), |bencher| {
        bencher.iter_custom(|batches| by_tasks(runtime, subject, tasks, batches, key));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2));
    targets = lifecycles
}
criterion_main!(benches);
