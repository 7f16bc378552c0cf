//! Lifecycles (claim and complete) on the store in Redis and Valkey, beside what the same client does in two
//! bare commands, and in two bare scripts, on one connection. Each server is started for the bench.
//!
//! `cargo bench -p oncekey-benches --bench redis`

#![allow(missing_docs, reason = "the macros of the harness make public items")]
#![allow(clippy::unwrap_used, reason = "a bench may stop at the first surprise")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
    measurement::WallTime,
};
use oncekey::{Failure, Fingerprint, Idempotency, Key, Scope};
use oncekey_redis::redis::aio::MultiplexedConnection;
use oncekey_redis::redis::{self, AsyncConnectionConfig, Client, Script, Value};
use oncekey_redis::{RedisStore, RedisStoreBuilder};
use oncekey_testkit::{Flavor, Redis};
use tokio::runtime::Runtime;

const TASKS: [u64; 4] = [1, 64, 256, 512];
const VALUE: [u8; 64] = [b'v'; 64];
/// As long as the records of the store.
const IN_PROGRESS: [u8; 88] = [b'p'; 88];
const COMPLETED: [u8; 152] = [b'c'; 152];
const TTL: u64 = 86_400_000;

/// Numbers keys, so that each is fresh.
static NEXT: AtomicU64 = AtomicU64::new(0);

fn key() -> Key {
    let scope = Scope::new("tenant-42", "POST /payments").unwrap();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Key::new(&scope, format!("8e03978e-40d5-43dd-bc93-{number:012}")).unwrap()
}

/// A lifecycle, of whatever kind.
trait Subject: Clone + Send + Sync + 'static {
    fn run(&self, key: Key) -> impl Future<Output = ()> + Send;
}

/// `SET NX GET PX`, then `SET XX PX`.
#[derive(Clone)]
struct Commands(MultiplexedConnection);

impl Subject for Commands {
    async fn run(&self, key: Key) {
        let mut connection = self.0.clone();
        let mut set = redis::cmd("SET");
        set.arg(key.as_bytes()).arg(&IN_PROGRESS).arg("NX").arg("GET").arg("PX").arg(TTL);
        assert_eq!(set.query_async::<Value>(&mut connection).await.unwrap(), Value::Nil);
        let mut set = redis::cmd("SET");
        set.arg(key.as_bytes()).arg(&COMPLETED).arg("XX").arg("PX").arg(TTL);
        assert_eq!(set.query_async::<Value>(&mut connection).await.unwrap(), Value::Okay);
    }
}

/// The same two commands, each in a script.
#[derive(Clone)]
struct Scripts {
    connection: MultiplexedConnection,
    claim: Arc<Script>,
    complete: Arc<Script>,
}

impl Scripts {
    fn new(connection: MultiplexedConnection) -> Self {
        let script = |how: &str| {
            let text = format!(
                "return redis.call('SET', KEYS[1], ARGV[1], {how}, 'PX', ARGV[2]) and 1 or 0"
            );
            Arc::new(Script::new(&text))
        };
        Self { connection, claim: script("'NX'"), complete: script("'XX'") }
    }
}

impl Subject for Scripts {
    async fn run(&self, key: Key) {
        let mut connection = self.connection.clone();
        for (script, value) in [(&self.claim, &IN_PROGRESS[..]), (&self.complete, &COMPLETED)] {
            let mut call = script.key(key.as_bytes());
            let done: i64 = call.arg(value).arg(TTL).invoke_async(&mut connection).await.unwrap();
            assert_eq!(done, 1);
        }
    }
}

#[derive(Clone)]
struct Engine(Idempotency);

impl Subject for Engine {
    async fn run(&self, key: Key) {
        let fingerprint = Fingerprint::from_digest(1, [7; 32]);
        let operation = |_| async { Ok::<_, Failure<()>>(Bytes::from_static(&VALUE)) };
        self.0.run_bytes(&key, &fingerprint, operation).await.unwrap();
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
        let by_scripts = on(RedisStore::builder(connection).scripts_only());
        let mut group = criterion.benchmark_group(format!("{name}/lifecycle"));
        group.throughput(Throughput::Elements(1)).sample_size(20);
        for tasks in TASKS {
            bench(&mut group, &runtime, "bare commands, tasks", tasks, &commands);
            bench(&mut group, &runtime, "bare scripts, tasks", tasks, &scripts);
            bench(&mut group, &runtime, "oncekey, tasks", tasks, &store);
            bench(&mut group, &runtime, "oncekey by scripts alone, tasks", tasks, &by_scripts);
            server.ask(&["FLUSHALL"]);
        }
        group.finish();

        let mut group = criterion.benchmark_group(format!("{name}/replay"));
        group.throughput(Throughput::Elements(1)).sample_size(20);
        let done = key();
        runtime.block_on(store.run(done.clone()));
        for tasks in TASKS {
            group.bench_function(BenchmarkId::new("oncekey, tasks", tasks), |bencher| {
                bencher.iter_custom(|iterations| {
                    by_tasks(&runtime, &store, tasks, iterations, &|| done.clone())
                });
            });
        }
        group.finish();
    }
}

fn bench(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runtime: &Runtime,
    name: &str,
    tasks: u64,
    subject: &impl Subject,
) {
    group.bench_function(BenchmarkId::new(name, tasks), |bencher| {
        bencher.iter_custom(|iterations| by_tasks(runtime, subject, tasks, iterations, &key));
    });
}

/// At least a few lifecycles a task, so that the tasks meet.
fn by_tasks<S: Subject>(
    runtime: &Runtime,
    subject: &S,
    tasks: u64,
    iterations: u64,
    key: &(impl Fn() -> Key + Sync),
) -> Duration {
    let total = iterations.max(tasks * 8);
    let keys = (0..total).map(|_| key()).collect::<Vec<_>>();
    let share = usize::try_from(total.div_ceil(tasks)).unwrap();
    let start = Instant::now();
    let workers: Vec<_> = keys
        .chunks(share)
        .map(|keys| {
            let (subject, keys) = (subject.clone(), keys.to_vec());
            runtime.spawn(async move {
                for key in keys {
                    subject.run(key).await;
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
        .measurement_time(Duration::from_secs(2));
    targets = lifecycles
}
criterion_main!(benches);
