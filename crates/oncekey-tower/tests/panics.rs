//! Functions of the user that panic: no place is lost, and nothing that may have run is forgotten.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use oncekey::Idempotency;
use oncekey_memory::MemoryStore;
use oncekey_tower::{IdempotencyLayer, Principal, RequestBody, ResponseBody};
use tower::{Layer, ServiceExt};

type Answer = Response<ResponseBody<Full<Bytes>>>;

fn layer(principal: Principal) -> IdempotencyLayer {
    IdempotencyLayer::new(Idempotency::at_most_once(MemoryStore::new()), principal)
        .with_max_in_flight_per_principal(1)
}

/// In a task, as servers call a service; an error if that panicked.
async fn ask(
    layer: &IdempotencyLayer,
    calls: &Arc<AtomicUsize>,
) -> Result<Answer, tokio::task::JoinError> {
    let (layer, calls) = (layer.clone(), Arc::clone(calls));
    tokio::spawn(async move {
        let handler = tower::service_fn(move |_: Request<RequestBody<Full<Bytes>>>| {
            calls.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("charged"))) }
        });
        let request = Request::post("/").header("idempotency-key", "k").body(Full::default());
        layer.layer(handler).oneshot(request.unwrap()).await.unwrap()
    })
    .await
}

#[tokio::test]
async fn what_panics_before_the_handler_leaves_no_trace() {
    let single = Principal::single_tenant;
    for layer in [
        layer(Principal::from_fn(|_| panic!("principal"))),
        layer(single()).with_fingerprint_parts(|_, _| panic!("fingerprint")),
    ] {
        let calls = Arc::default();
        for _ in 0..2 {
            assert!(ask(&layer, &calls).await.unwrap_err().is_panic());
            assert_eq!(layer.in_flight().count(), 0);
        }
        assert_eq!(calls.load(Ordering::SeqCst), 0);
        // The key is as free as its place.
        let mended = layer.with_fingerprint_parts(|_, fingerprint| fingerprint);
        if let Ok(answer) = ask(&mended, &calls).await {
            assert_eq!(answer.status(), 200);
        }
    }
}

#[tokio::test]
async fn what_panics_behind_the_handler_leaves_an_unknown_outcome() {
    let layer = layer(Principal::single_tenant()).with_classifier(|_| panic!("classifier"));
    let calls = Arc::default();
    for status in [500, 409, 409] {
        assert_eq!(ask(&layer, &calls).await.unwrap().status(), status);
        assert_eq!(layer.in_flight().count(), 0);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_observer_that_panics_takes_no_place() {
    let layer = layer(Principal::single_tenant())
        .with_max_request_body(0)
        .on_problem(|_, _| panic!("observer"));
    let small = layer.clone().with_max_in_flight(0);
    let calls = Arc::default();
    for _ in 0..2 {
        assert!(ask(&small, &calls).await.unwrap_err().is_panic());
        assert_eq!(layer.in_flight().count(), 0);
    }
    assert_eq!(ask(&layer, &calls).await.unwrap().status(), 200, "an empty body is small enough");
}
