//! oncekey and the peer `idempotent` 2.0 side by side: a fresh key and a replay on Redis and Valkey, on the
//! store in memory, and through the layers for HTTP. Each server is started for the bench.
//!
//! The peer asks for a newer compiler than it needs:
//!
//! `cargo bench --ignore-rust-version --manifest-path benches/peer/Cargo.toml`

#![allow(clippy::unwrap_used, reason = "a bench may stop at the first surprise")]

#[path = "../redis_subjects.rs"]
mod redis_subjects;

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::post;
use bytes::Bytes;
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use idempotent::{CachedResponse, ExecutionOutcome, IdempotencyKey, IdempotencyStore, Metadata};
use oncekey::{Failure, Fingerprint, Idempotency, Key, Scope};
use oncekey_redis::RedisStore;
use oncekey_redis::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use oncekey_redis::redis::Client;
use oncekey_testkit::{Flavor, Redis};
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

use redis_subjects::{Commands, Scripts, Subject, batch, by_tasks};

const TASKS: [u64; 4] = [1, 64, 256, 512];
const VALUE: [u8; 64] = [b'v'; 64];
const REQUEST: &str = r#"{"amount":100,"currency":"EUR","to":"Ada","reference":"order 17"}"#;
const RECEIPT: &str = r#"{"receipt":1,"amount":100,"currency":"EUR","state":"charged, ok"}"#;
const LEASE: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(86_400);

/// Numbers keys, so that each is fresh.
static NEXT: AtomicU64 = AtomicU64::new(0);

fn id() -> String {
    format!("8e03978e-40d5-43dd-bc93-{:012}", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[derive(Clone)]
struct Oncekey(Idempotency);

impl Subject<String> for Oncekey {
    async fn run(&self, id: &String) {
        let key = Key::new(&Scope::new("tenant-42", "POST /payments").unwrap(), id).unwrap();
        let operation = |_| async { Ok::<_, Failure<()>>(Bytes::from_static(&VALUE)) };
        let fingerprint = Fingerprint::of(REQUEST);
        black_box(self.0.run_bytes(&key, &fingerprint, operation).await.unwrap());
    }
}

#[derive(Clone)]
struct Peer<S>(S);

impl<S: IdempotencyStore + Clone + Send + Sync + 'static> Subject<String> for Peer<S> {
    async fn run(&self, id: &String) {
        let key = IdempotencyKey::new(id).unwrap();
        let response = CachedResponse::new(201, Metadata::new(), Bytes::from_static(&VALUE));
        let run = self
            .0
            .claim(&key, LEASE)
            .fingerprint("tenant-42 POST /payments", REQUEST.as_bytes())
            .execute_or_replay(DAY, |_| async { Ok(response) });
        let outcome = run.await.unwrap();
        assert!(matches!(outcome, ExecutionOutcome::Executed(_) | ExecutionOutcome::Replayed(_)));
    }
}

/// Fresh keys, and one key again and again, which the bare operations do not know.
fn both(
    criterion: &mut Criterion,
    runtime: &Runtime,
    place: &str,
    name: &str,
    subject: &impl Subject<String>,
    tasks: &[u64],
) {
    let done = id();
    runtime.block_on(subject.run(&done));
    let again = || done.clone();
    for (what, id) in [("fresh", &id as &dyn Fn() -> String), ("replay", &again)] {
        if what == "replay" && name.starts_with("bare") {
            continue;
        }
        let mut group = criterion.benchmark_group(format!("{place}/{what}"));
        for tasks in tasks {
            group.throughput(Throughput::Elements(batch(*tasks)));
            group.sample_size(20).sampling_mode(SamplingMode::Flat);
            group.bench_function(BenchmarkId::new(name, tasks), |bencher| {
                bencher.iter_custom(|count| by_tasks(runtime, subject, *tasks, count, &|| id()));
            });
        }
    }
}

fn servers(criterion: &mut Criterion) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (flavor, place) in [(Flavor::Redis, "redis"), (Flavor::Valkey, "valkey")] {
        if !flavor.is_there() {
            println!("skipped: {place} is not on this machine");
            continue;
        }
        let server = Redis::start_with(flavor, &["--save", ""]);
        let (connection, peer) = runtime.block_on(async {
            let config = ConnectionManagerConfig::new()
                .set_response_timeout(Some(Duration::from_secs(5)))
                .set_pipeline_buffer_size(1024);
            let client = Client::open(server.url()).unwrap();
            let connection = ConnectionManager::new_with_config(client, config).await.unwrap();
            let peer = idempotent::valkey::ValkeyStore::with_connection_manager(connection.clone());
            (connection, Peer(peer.try_build().await.unwrap()))
        });
        let store = RedisStore::builder(connection.clone()).build().unwrap();
        let oncekey = Oncekey(Idempotency::at_least_once(store));
        for tasks in TASKS {
            let tasks = &[tasks];
            both(criterion, &runtime, place, "bare commands", &Commands(connection.clone()), tasks);
            both(
                criterion,
                &runtime,
                place,
                "bare scripts",
                &Scripts::new(connection.clone()),
                tasks,
            );
            both(criterion, &runtime, place, "oncekey", &oncekey, tasks);
            both(criterion, &runtime, place, "peer", &peer, tasks);
            server.ask(&["FLUSHALL"]);
        }
    }
}

/// A store for all keys of the bench: by default it refuses more than a million.
fn roomy() -> oncekey_memory::MemoryStore {
    oncekey_memory::MemoryStore::builder().max_keys(100_000_000).build()
}

fn memory(criterion: &mut Criterion) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let oncekey = Oncekey(Idempotency::at_least_once(roomy()));
    both(criterion, &runtime, "memory", "oncekey", &oncekey, &[1, 16]);
    let guard = runtime.enter();
    let peer = Peer(idempotent::memory::MemoryStore::builder().try_build().unwrap());
    drop(guard);
    both(criterion, &runtime, "memory", "peer", &peer, &[1, 16]);
}

fn handler() -> Router {
    Router::new().route("/payments", post(async |_: String| (StatusCode::CREATED, RECEIPT)))
}

fn request(key: Option<&str>) -> Request<Body> {
    let request = Request::post("/payments").header("content-type", "application/json");
    let request = match key {
        Some(key) => request.header("idempotency-key", key),
        None => request,
    };
    request.body(Body::from(REQUEST)).unwrap()
}

/// The same handler alone, and behind each layer, in one process without sockets.
fn layers(criterion: &mut Criterion) {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let guard = runtime.enter();
    let idempotency = Idempotency::at_least_once(roomy());
    let layer = oncekey_tower::IdempotencyLayer::new(
        idempotency,
        oncekey_tower::Principal::single_tenant(),
    );
    let oncekey = handler().layer(layer);
    let store = idempotent::memory::MemoryStore::builder().try_build().unwrap();
    let layer = idempotent::middleware::IdempotencyLayer::new(store)
        .scope(|_| Some("tenant-42".to_owned()));
    let peer = handler().layer(layer);
    drop(guard);

    let done = format!("\"{}\"", id());
    type Ids<'a> = &'a dyn Fn() -> Option<String>;
    let kinds: [(&str, Ids<'_>); 3] = [
        ("no key", &|| None),
        ("fresh", &|| Some(format!("\"{}\"", id()))),
        ("replay", &|| Some(done.clone())),
    ];
    for (what, id) in kinds {
        let mut group = criterion.benchmark_group(format!("http/{what}"));
        group.throughput(Throughput::Elements(1));
        for (name, router) in [("alone", &handler()), ("oncekey", &oncekey), ("peer", &peer)] {
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|count| {
                    let requests: Vec<_> = (0..count).map(|_| request(id().as_deref())).collect();
                    runtime.block_on(async {
                        let start = Instant::now();
                        for request in requests {
                            let response = router.clone().oneshot(request).await.unwrap();
                            assert_eq!(response.status(), StatusCode::CREATED);
                        }
                        start.elapsed()
                    })
                });
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2));
    targets = servers, memory, layers
}
criterion_main!(benches);
