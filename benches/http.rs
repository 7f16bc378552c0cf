//! A request through the layer on the store in memory, beside the same axum handler alone.
//!
//! `cargo bench -p oncekey-benches --bench http`
//!
//! In one process, without sockets: what is measured is the service, and what differs between the lines is
//! the layer. "as a task" is a handler that waits once, so that it is spawned.

#![allow(missing_docs, reason = "the macros of the harness make public items")]
#![allow(clippy::unwrap_used, reason = "a bench may stop at the first surprise")]

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::post;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use oncekey::Idempotency;
use oncekey_memory::MemoryStore;
use oncekey_tower::{IdempotencyLayer, Principal};
use tokio::runtime::Runtime;
use tower::ServiceExt;

/// Keys per store: every chunk starts with an empty one, so that memory stays bounded.
const CHUNK: usize = 20_000;
const BODY: &str = r#"{"amount":100,"currency":"EUR","to":"Ada","reference":"order 17"}"#;
const RECEIPT: &str = r#"{"receipt":1,"amount":100,"currency":"EUR","state":"charged, ok"}"#;

fn bare() -> Router {
    let pay = async |_: String| (StatusCode::CREATED, RECEIPT);
    let pay_as_a_task = async |_: String| {
        tokio::task::yield_now().await;
        (StatusCode::CREATED, RECEIPT)
    };
    Router::new().route("/payments", post(pay)).route("/later", post(pay_as_a_task))
}

fn kept() -> Router {
    let idempotency = Idempotency::at_least_once(MemoryStore::new());
    bare().layer(IdempotencyLayer::new(idempotency, Principal::single_tenant()))
}

fn request(path: &str, key: Option<&str>) -> Request<Body> {
    let request = Request::post(path).header("content-type", "application/json");
    let request = match key {
        Some(key) => request.header("idempotency-key", key),
        None => request,
    };
    request.body(Body::from(BODY)).unwrap()
}

/// Times `iterations` requests, on a new router for every chunk. Making requests and routers is not part of it.
fn time(
    runtime: &Runtime,
    iterations: u64,
    router: impl Fn() -> Router,
    request: impl Fn(usize) -> Request<Body>,
) -> Duration {
    let mut left = usize::try_from(iterations).unwrap();
    let mut elapsed = Duration::ZERO;
    while left > 0 {
        let count = left.min(CHUNK);
        let router = router();
        let requests: Vec<_> = (0..count).map(&request).collect();
        elapsed += runtime.block_on(async {
            let start = Instant::now();
            for request in requests {
                let response = router.clone().oneshot(request).await.unwrap();
                assert_eq!(response.status(), StatusCode::CREATED);
            }
            start.elapsed()
        });
        left -= count;
    }
    elapsed
}

fn requests(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let ids: Vec<_> =
        (0..CHUNK).map(|number| format!("\"8e03978e-40d5-43dd-bc93-{number:012}\"")).collect();
    let replaying = kept();
    time(&runtime, CHUNK as u64, || replaying.clone(), |at| request("/payments", Some(&ids[at])));

    for path in ["/payments", "/later"] {
        let name = if path == "/payments" { "http" } else { "http, as a task" };
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(1));
        group.bench_function("handler alone", |bencher| {
            bencher.iter_custom(|iterations| {
                time(&runtime, iterations, bare, |at| request(path, Some(&ids[at])))
            });
        });
        group.bench_function("no key", |bencher| {
            bencher.iter_custom(|iterations| {
                time(&runtime, iterations, kept, |_| request(path, None))
            });
        });
        group.bench_function("fresh key", |bencher| {
            bencher.iter_custom(|iterations| {
                time(&runtime, iterations, kept, |at| request(path, Some(&ids[at])))
            });
        });
        if path == "/payments" {
            group.bench_function("replay", |bencher| {
                bencher.iter_custom(|iterations| {
                    let again = || replaying.clone();
                    time(&runtime, iterations, again, |at| request(path, Some(&ids[at])))
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    targets = requests
}
criterion_main!(benches);
