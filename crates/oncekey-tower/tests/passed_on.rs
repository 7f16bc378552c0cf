//! Answers of others that a handler passes on: none is kept that is not final.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use oncekey::Idempotency;
use oncekey_memory::MemoryStore;
use oncekey_tower::oncekey_http::{DEFAULT_TYPE_BASE, Knowledge, Problem, ProblemKind};
use oncekey_tower::{IdempotencyLayer, Principal};
use support::{Answer, Till, pay, payments, request, send, serve};

const BASE: &str = "https://example.com/problems#";

fn layer(idempotency: Idempotency) -> IdempotencyLayer {
    IdempotencyLayer::new(idempotency, Principal::single_tenant())
}

/// A service whose handler answers with `first`, and from then on with "charged".
async fn start(
    layer: IdempotencyLayer,
    first: impl Fn() -> Response + Send + Sync + 'static,
) -> SocketAddr {
    let (first, calls) = (Arc::new(first), Arc::new(AtomicUsize::new(0)));
    let handler = move || async move {
        if calls.fetch_add(1, Ordering::SeqCst) == 0 { first() } else { "charged".into_response() }
    };
    serve(Router::new().route("/", post(handler)).layer(layer)).await
}

async fn ask(server: SocketAddr) -> Answer {
    send(server, request("/", "k", "100 EUR")).await
}

/// As a client of HTTP has it: all that was in memory is lost.
fn over_a_network(kind: ProblemKind, base: &str) -> Response {
    let (parts, body) = Problem::new(kind).into_response(base).into_parts();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = parts.status;
    *response.headers_mut() = parts.headers;
    response
}

#[tokio::test]
async fn a_problem_is_kept_only_if_it_is_final() {
    type Passed = fn(ProblemKind) -> Response;
    let ways: [Passed; 3] = [
        |kind| Problem::new(kind).into_response(BASE).map(Body::from),
        |kind| over_a_network(kind, BASE),
        |kind| over_a_network(kind, DEFAULT_TYPE_BASE),
    ];
    for &kind in ProblemKind::ALL {
        for (way, pass_on) in ways.into_iter().enumerate() {
            let at_least_once = Idempotency::at_least_once(MemoryStore::new());
            let layer = layer(at_least_once).with_problem_type_base(BASE);
            let server = start(layer, move || pass_on(kind)).await;
            assert_eq!(ask(server).await.status, kind.status().as_u16());
            let again = ask(server).await;
            let is_final = kind.knowledge() == Knowledge::Done;
            assert_eq!(again.is_replay(), is_final, "{kind:?}, way {way}");
            assert_eq!(again.status == 200, !is_final, "{kind:?}, way {way}");
        }
    }
}

#[tokio::test]
async fn nothing_is_known_of_what_was_done_before_it() {
    // Not even that nothing was done: the one behind was perhaps asked last.
    let layer = layer(Idempotency::at_most_once(MemoryStore::new()));
    let server = start(layer, || {
        let busy = Problem::new(ProblemKind::InProgress).into_response(BASE);
        busy.map(Body::from)
    });
    let server = server.await;
    ask(server).await.assert_problem(409, "in-progress");
    ask(server).await.assert_problem(409, "interrupted");
}

#[tokio::test]
async fn whoever_knows_better_says_so() {
    let layer = layer(Idempotency::at_most_once(MemoryStore::new()));
    let server = start(layer, || {
        // This handler asks nobody else, and nothing before.
        let mut busy = Problem::new(ProblemKind::InProgress).into_response(BASE);
        busy.extensions_mut().insert(Knowledge::NotStarted);
        busy.map(Body::from)
    });
    let server = server.await;
    assert_eq!(ask(server).await.status, 409);
    assert_eq!(ask(server).await.text(), "charged");
}

#[tokio::test]
async fn a_conflict_of_others_that_asks_to_come_back_is_not_kept() {
    let layer = layer(Idempotency::at_least_once(MemoryStore::new()));
    let server = start(layer, || {
        Response::builder().status(409).header("retry-after", "1").body(Body::empty()).unwrap()
    });
    let server = server.await;
    assert_eq!(ask(server).await.status, 409);
    assert_eq!(ask(server).await.text(), "charged");
}

/// Two layers around one handler, as of a gateway and a service in one process.
#[tokio::test]
async fn a_layer_within_a_layer_is_understood() {
    let till = Till::closed();
    let inner = layer(Idempotency::at_most_once(MemoryStore::new()));
    let outer = layer(Idempotency::at_least_once(MemoryStore::new()));
    let behind = payments(&till, inner.clone());
    let server = serve(behind.clone().layer(outer)).await;
    let direct = serve(behind).await;

    // Somebody else is at it, behind the outer one.
    let first = tokio::spawn(pay(direct, "k", "100 EUR"));
    till.begun().await;
    pay(server, "k", "100 EUR").await.assert_problem(409, "in-progress");
    till.let_in(1);
    assert_eq!(first.await.unwrap().status, 201);
    assert_eq!(pay(server, "k", "100 EUR").await.text(), "receipt 1 for 100 EUR");
    assert_eq!(till.charges(), 1);
}

/// What a layer inside replays is final, whatever its status would mean of itself.
#[tokio::test]
async fn a_replay_within_a_layer_is_final() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let handler = move || async move {
        counted.fetch_add(1, Ordering::SeqCst);
        let mut failed =
            Response::builder().status(500).body(Body::from("done all the same")).unwrap();
        failed.extensions_mut().insert(Knowledge::Done);
        failed
    };
    let inner = layer(Idempotency::at_most_once(MemoryStore::new()));
    let behind = Router::new().route("/", post(handler)).layer(inner);
    let direct = serve(behind.clone()).await;
    let outer = layer(Idempotency::at_most_once(MemoryStore::new()));
    let server = serve(behind.layer(outer)).await;

    assert_eq!(ask(direct).await.status, 500);
    for _ in 0..2 {
        let answer = ask(server).await;
        assert_eq!((answer.status, answer.text()), (500, "done all the same"));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// Where a classifier has nothing to say, what is passed on is looked at all the same.
#[tokio::test]
async fn a_classifier_hides_no_problem() {
    let layer = layer(Idempotency::at_least_once(MemoryStore::new()))
        .with_problem_type_base(BASE)
        .with_classifier(|response| match response.status.as_u16() {
            401 => Some(Knowledge::NotStarted),
            _ => None,
        });
    let server = start(layer, || over_a_network(ProblemKind::Interrupted, BASE)).await;
    ask(server).await.assert_problem(409, "interrupted");
    assert_eq!(ask(server).await.text(), "charged");
}

/// What a service has done does not become undone by telling of a problem, or by looking like one.
#[tokio::test]
async fn a_document_in_a_success_is_no_problem() {
    let layer = layer(Idempotency::at_least_once(MemoryStore::new())).with_problem_type_base(BASE);
    let server = start(layer, || {
        let mut told = over_a_network(ProblemKind::InProgress, BASE);
        *told.status_mut() = http::StatusCode::CREATED;
        told.headers_mut().remove("retry-after");
        told
    });
    let server = server.await;
    assert_eq!(ask(server).await.status, 201);
    let again = ask(server).await;
    assert!(again.is_replay(), "{again:?}");
}

/// A problem that breaks off may be any of them.
#[tokio::test]
async fn a_problem_that_breaks_off_is_not_final() {
    let layer = layer(Idempotency::at_least_once(MemoryStore::new())).with_problem_type_base(BASE);
    let server = start(layer, || {
        let whole = over_a_network(ProblemKind::Interrupted, BASE);
        let frames = [Ok("{\"type\":\"https://"), Err(std::io::Error::other("it broke off"))];
        whole.map(|_| Body::from_stream(futures::stream::iter(frames)))
    });
    let server = server.await;
    let mut hasty = tokio::net::TcpStream::connect(server).await.unwrap();
    let head =
        b"POST / HTTP/1.1\r\nhost: a\r\nidempotency-key: k\r\ncontent-length: 7\r\n\r\n100 EUR";
    tokio::io::AsyncWriteExt::write_all(&mut hasty, head).await.unwrap();
    let mut got = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut hasty, &mut got).await;
    assert_eq!(ask(server).await.text(), "charged");
}

#[tokio::test]
async fn a_problem_that_is_too_large_to_read_is_not_final() {
    let layer = layer(Idempotency::at_least_once(MemoryStore::new())).with_max_response_body(8);
    let server = start(layer, || over_a_network(ProblemKind::Interrupted, BASE)).await;
    ask(server).await.assert_problem(409, "interrupted");
    assert_eq!(ask(server).await.text(), "charged");
}

/// A handler speaks for itself only: what an attempt before it did, nobody has found out.
#[tokio::test]
async fn what_a_handler_says_of_itself_is_not_said_of_an_earlier_attempt() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let handler = move || async move {
        let known = match counted.fetch_add(1, Ordering::SeqCst) {
            0 => Knowledge::Unknown,
            _ => Knowledge::NotStarted,
        };
        let mut closed = Response::builder().status(503).body(Body::empty()).unwrap();
        closed.extensions_mut().insert(known);
        closed
    };
    let inner = layer(Idempotency::at_least_once(MemoryStore::new()));
    let behind = Router::new().route("/", post(handler)).layer(inner);
    let direct = serve(behind.clone()).await;
    let outer = layer(Idempotency::at_most_once(MemoryStore::new()));
    let server = serve(behind.layer(outer)).await;

    assert_eq!(ask(direct).await.status, 503);
    assert_eq!(ask(server).await.status, 503);
    ask(server).await.assert_problem(409, "interrupted");
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}
