//! Lifecycles (claim and complete) on the store in PostgreSQL, beside the two bare statements: over the
//! same driver one by one, and from the server's own `pgbench` with 64 clients. The server is a throwaway
//! one that waits for its disk.
//!
//! `cargo bench -p oncekey-benches --bench postgres`

#![allow(missing_docs, reason = "the macros of the harness make public items")]
#![allow(clippy::unwrap_used, reason = "a bench may stop at the first surprise")]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use oncekey::{Failure, Fingerprint, Idempotency, Key, Scope};
use oncekey_postgres::PostgresStore;
use oncekey_postgres::deadpool_postgres::{Manager, Pool};
use oncekey_postgres::tokio_postgres::{Client, NoTls};
use oncekey_testkit::{Durability, Postgres};
use tokio::runtime::Runtime;

const VALUE: [u8; 64] = [b'v'; 64];
const TABLE: &str = "CREATE TABLE bare (
    key bytea PRIMARY KEY, attempt bytea, fingerprint bytea, token bigint, status smallint,
    deadline timestamptz, forget_at timestamptz, value bytea
) WITH (fillfactor = 50)";
const CLAIM: &str = "INSERT INTO bare VALUES ($1, $2, $3, 1, 1, clock_timestamp() + interval '30 s', \
                     clock_timestamp() + interval '1 day', NULL) ON CONFLICT DO NOTHING";
const COMPLETE: &str = "UPDATE bare SET status = 2, value = $2, \
                        forget_at = clock_timestamp() + interval '1 day' WHERE key = $1 AND attempt = $3";
/// How long each of the figures at the end is measured.
const MEASURED: Duration = Duration::from_secs(8);

/// Numbers keys, so that each is fresh.
static NEXT: AtomicU64 = AtomicU64::new(0);

fn key() -> Key {
    let scope = Scope::new("tenant-42", "POST /payments").unwrap();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Key::new(&scope, format!("8e03978e-40d5-43dd-bc93-{number:012}")).unwrap()
}

struct Bench {
    server: Postgres,
    runtime: Runtime,
    idempotency: Idempotency,
    /// The same, with statements that are prepared once on each connection.
    prepared: Idempotency,
    client: Client,
}

impl Bench {
    fn start() -> Self {
        let settings = ["shared_buffers=256MB", "max_wal_size=2GB", "min_wal_size=1GB"];
        let server = Postgres::start_with(Durability::Full, &settings);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.unwrap();
        let (idempotency, prepared, client) = runtime.block_on(async {
            let config = server.connection_string().parse().unwrap();
            let pool = Pool::builder(Manager::new(config, NoTls)).max_size(16).build().unwrap();
            let store = PostgresStore::new(pool.clone());
            store.migrate().await.unwrap();
            let prepared = PostgresStore::builder(pool).prepared_statements(true).build().unwrap();
            let (client, connection) =
                oncekey_postgres::tokio_postgres::connect(&server.connection_string(), NoTls)
                    .await
                    .unwrap();
            tokio::spawn(connection);
            client.batch_execute(TABLE).await.unwrap();
            (Idempotency::at_least_once(store), Idempotency::at_least_once(prepared), client)
        });
        Self { server, runtime, idempotency, prepared, client }
    }

    /// Lifecycles by so many tasks, until `more` says no.
    fn by_tasks(&self, tasks: u64, more: impl Fn() -> bool + Send + Sync + 'static) {
        let more = Arc::new(more);
        self.runtime.block_on(async {
            let workers: Vec<_> = (0..tasks)
                .map(|_| {
                    let (idempotency, more) = (self.idempotency.clone(), Arc::clone(&more));
                    tokio::spawn(async move {
                        while more() {
                            run(&idempotency, &key()).await;
                        }
                    })
                })
                .collect();
            for worker in workers {
                worker.await.unwrap();
            }
        });
    }

    /// The rows inserted, updated or deleted since the beginning.
    fn written(&self) -> i64 {
        self.runtime.block_on(async {
            // What a session did is counted when it has been idle for ten seconds.
            tokio::time::sleep(Duration::from_secs(11)).await;
            let sql = "SELECT n_tup_ins + n_tup_upd + n_tup_del \
                       FROM pg_stat_user_tables WHERE relname = 'oncekey'";
            self.client.query_one(sql, &[]).await.unwrap().get(0)
        })
    }

    /// Lifecycles a second by `pgbench` with so many clients, and how many there were.
    fn pgbench(&self, clients: u32) -> (f64, f64) {
        let script = "\\set n :n + 1\n\\set key :client_id * 1000000000000 + :n\n".to_owned()
            + &CLAIM.replace("$1", ":key").replace("$2", "'attempt'").replace("$3", "'print'")
            + ";\n"
            + &COMPLETE
                .replace("$1", ":key")
                .replace("$2", &format!("'{}'", String::from_utf8_lossy(&VALUE)))
                .replace("$3", "'attempt'")
            + ";\n";
        let file = std::env::temp_dir().join(format!("oncekey-bench-{}.sql", std::process::id()));
        fs::write(&file, script).unwrap();
        let start = NEXT.fetch_add(1, Ordering::Relaxed) * 1_000_000;
        let output = self
            .server
            .program("pgbench")
            .args(["-n", "-M", "prepared", "-j", "2", "-c", &clients.to_string()])
            .args(["-T", &MEASURED.as_secs().to_string(), "-D", &format!("n={start}"), "-f"])
            .arg(&file)
            .output()
            .unwrap();
        fs::remove_file(file).unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let after = |what: &str| {
            let rest = said.split_once(what).unwrap().1.trim_start();
            let number = rest.split(|c: char| c != '.' && !c.is_ascii_digit()).next().unwrap();
            number.parse().unwrap()
        };
        (after("tps ="), after("actually processed:"))
    }
}

async fn run(idempotency: &Idempotency, key: &Key) {
    let fingerprint = Fingerprint::from_digest(1, [7; 32]);
    let operation = |_| async { Ok::<_, Failure<()>>(Bytes::from_static(&VALUE)) };
    idempotency.run_bytes(key, &fingerprint, operation).await.unwrap();
}

fn lifecycles(criterion: &mut Criterion) {
    let bench = &Bench::start();
    let mut group = criterion.benchmark_group("postgres/lifecycle");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    let (claim, complete) = bench.runtime.block_on(async {
        let claim = bench.client.prepare(CLAIM).await.unwrap();
        (claim, bench.client.prepare(COMPLETE).await.unwrap())
    });
    group.bench_function("bare, one by one", |bencher| {
        bencher.iter(|| {
            bench.runtime.block_on(async {
                let (key, attempt) = (key(), &[1_u8; 16][..]);
                let print = &[7_u8; 32][..];
                bench.client.execute(&claim, &[&key.as_bytes(), &attempt, &print]).await.unwrap();
                let value = &VALUE[..];
                let values: [&(dyn oncekey_postgres::tokio_postgres::types::ToSql + Sync); 3] =
                    [&key.as_bytes(), &value, &attempt];
                bench.client.execute(&complete, &values).await.unwrap();
            });
        });
    });
    group.bench_function("oncekey, one task", |bencher| {
        bencher.iter(|| bench.runtime.block_on(run(&bench.idempotency, &key())));
    });
    group.bench_function("oncekey, one task, prepared", |bencher| {
        bencher.iter(|| bench.runtime.block_on(run(&bench.prepared, &key())));
    });
    for tasks in [64_u64, 256] {
        group.bench_function(BenchmarkId::new("oncekey, tasks", tasks), |bencher| {
            bencher.iter_custom(|iterations| {
                // At least a few lifecycles a task, so that the tasks meet.
                let total = iterations.max(tasks * 8);
                let left = AtomicU64::new(total);
                let take = |left: u64| left.checked_sub(1);
                let more =
                    move || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
                let start = Instant::now();
                bench.by_tasks(tasks, more);
                let per_lifecycle = start.elapsed().as_secs_f64() / total as f64;
                Duration::from_secs_f64(per_lifecycle * iterations as f64)
            });
        });
    }
    let done = key();
    bench.runtime.block_on(run(&bench.idempotency, &done));
    group.bench_function("oncekey, replay", |bencher| {
        bencher.iter(|| bench.runtime.block_on(run(&bench.idempotency, &done)));
    });
    group.bench_function("oncekey, replay, prepared", |bencher| {
        bencher.iter(|| bench.runtime.block_on(run(&bench.prepared, &done)));
    });
    group.bench_function("bare, one look at a row", |bencher| {
        let sql = "SELECT value FROM bare WHERE key = $1";
        let look = bench.runtime.block_on(bench.client.prepare(sql)).unwrap();
        bencher.iter(|| {
            bench.runtime.block_on(async {
                bench.client.query(&look, &[&done.as_bytes()]).await.unwrap();
            });
        });
    });
    group.finish();
    beside_pgbench(bench);
    replays_write_nothing(bench);
}

/// Under load, in lifecycles a second and in the server's processor time.
fn beside_pgbench(bench: &Bench) {
    let before = bench.server.cpu_seconds();
    let (limit, count) = bench.pgbench(64);
    let limit_cpu = (bench.server.cpu_seconds() - before) * 1e6 / count;
    println!(
        "pgbench, 64 clients: {limit:.0} lifecycles/s, {limit_cpu:.0} us of the server's time each"
    );
    for tasks in [64, 256] {
        let before = bench.server.cpu_seconds();
        let done = Arc::new(AtomicU64::new(0));
        let start = Instant::now();
        let counter = Arc::clone(&done);
        bench.by_tasks(tasks, move || {
            let more = start.elapsed() < MEASURED;
            counter.fetch_add(more.into(), Ordering::Relaxed);
            more
        });
        let done = done.load(Ordering::Relaxed) as f64;
        let rate = done / start.elapsed().as_secs_f64();
        let cpu = (bench.server.cpu_seconds() - before) * 1e6 / done;
        println!(
            "oncekey, {tasks} tasks: {rate:.0} lifecycles/s ({:.1} times, the limit is 4), {cpu:.0} us \
             of the server's time each ({:.2} times, the limit is 0.5)",
            rate / limit,
            cpu / limit_cpu,
        );
    }
}

/// A replay reads: no row is written, and none dies.
fn replays_write_nothing(bench: &Bench) {
    let done = key();
    bench.runtime.block_on(run(&bench.idempotency, &done));
    let before = bench.written();
    for _ in 0..1000 {
        bench.runtime.block_on(run(&bench.idempotency, &done));
    }
    println!("1000 replays: {} rows written (pg_stat_user_tables)", bench.written() - before);
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    targets = lifecycles
}
criterion_main!(benches);
