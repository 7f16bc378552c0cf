//! Duplicates at the same moment and later, and keys that must not meet.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod support;

use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Request};
use http_body_util::Full;
use oncekey::Idempotency;
use oncekey_memory::MemoryStore;
use oncekey_tower::{IdempotencyLayer, Principal};
use support::{Answer, Till, pay, payments, request, send, serve, soon, until};
use tokio::task::JoinSet;

const CROWD: usize = 24;

fn engine() -> Idempotency {
    Idempotency::at_most_once(MemoryStore::new())
}

async fn start(till: &Till, idempotency: Idempotency) -> SocketAddr {
    let layer = IdempotencyLayer::new(idempotency, Principal::single_tenant());
    serve(payments(till, layer)).await
}

fn crowd(server: SocketAddr, body: impl Fn(usize) -> String) -> JoinSet<Answer> {
    let mut clients = JoinSet::new();
    for number in 0..CROWD {
        let body = body(number);
        clients.spawn(async move { pay(server, "k", &body).await });
    }
    clients
}

#[tokio::test]
async fn a_duplicate_of_a_running_request_is_told_to_come_back() {
    let till = Till::closed();
    let server = start(&till, engine()).await;
    let first = tokio::spawn(pay(server, "\"k\"", "100 EUR"));
    till.begun().await;

    // The owner is in its handler, and stays there: every one of these meets it.
    let busy = soon(crowd(server, |_| "100 EUR".to_owned()).join_all()).await;
    for answer in &busy {
        answer.assert_problem(409, "in-progress");
        let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=5).contains(&seconds), "{seconds}");
    }
    till.let_in(1);
    assert_eq!(first.await.unwrap().text(), "receipt 1 for 100 EUR");

    let later = soon(crowd(server, |_| "100 EUR".to_owned()).join_all()).await;
    assert!(later.iter().all(|it| it.is_replay() && it.text() == "receipt 1 for 100 EUR"));
    assert_eq!(till.started(), 1);
}

#[tokio::test]
async fn duplicates_that_wait_get_the_answer_of_the_first() {
    let till = Till::closed();
    let layer = IdempotencyLayer::new(
        engine().wait_for_duplicate(Duration::from_secs(60)),
        Principal::single_tenant(),
    );
    let in_flight = layer.in_flight();
    let server = serve(payments(&till, layer)).await;
    let clients = crowd(server, |_| "100 EUR".to_owned());
    till.begun().await;
    // All are there, one of them in the handler, before it goes on.
    until(|| in_flight.count() == CROWD).await;
    till.let_in(CROWD);

    let answers = soon(clients.join_all()).await;
    assert!(answers.iter().all(|it| it.text() == "receipt 1 for 100 EUR" && it.status == 201));
    assert_eq!(answers.iter().filter(|it| !it.is_replay()).count(), 1);
    assert_eq!((till.started(), till.charges()), (1, 1));
}

#[tokio::test]
async fn beyond_the_cap_of_waiters_a_duplicate_is_told_to_come_back() {
    let till = Till::closed();
    let layer = IdempotencyLayer::new(
        engine().wait_for_duplicate(Duration::from_secs(3_600)).max_waiters(1),
        Principal::single_tenant(),
    );
    let in_flight = layer.in_flight();
    let server = serve(payments(&till, layer)).await;
    let first = tokio::spawn(pay(server, "k", "100 EUR"));
    till.begun().await;
    let mut others = crowd(server, |_| "100 EUR".to_owned());

    // All but one, which has the place.
    for _ in 1..CROWD {
        let refused = soon(others.join_next()).await.unwrap().unwrap();
        refused.assert_problem(409, "in-progress");
        assert!(refused.headers.contains_key("retry-after"));
    }
    assert_eq!(in_flight.count(), 2);
    till.let_in(1);
    assert_eq!(soon(first).await.unwrap().status, 201);
    assert!(soon(others.join_next()).await.unwrap().unwrap().is_replay());
    assert_eq!(till.started(), 1);
}

/// Also where nobody has set either bound.
#[tokio::test]
async fn duplicates_that_wait_leave_room_for_others() {
    let till = Till::closed();
    let waiting = engine().wait_for_duplicate(Duration::from_secs(3_600));
    let layer = IdempotencyLayer::new(waiting, Principal::single_tenant());
    let in_flight = layer.in_flight();
    let service = payments(&till, layer);
    let mut patient = Vec::new();
    for _ in 0..IdempotencyLayer::DEFAULT_MAX_IN_FLIGHT {
        let asked = request("/payments", "k", "100 EUR");
        let mut asked = Box::pin(tower::ServiceExt::oneshot(service.clone(), asked));
        match futures::poll!(asked.as_mut()) {
            Poll::Pending => patient.push(asked),
            Poll::Ready(told) => assert_eq!(told.unwrap().status(), 409),
        }
    }
    assert_eq!(in_flight.count(), patient.len());
    let other = request("/payments", "another", "100 EUR");
    let mut other = Box::pin(tower::ServiceExt::oneshot(service, other));
    assert!(futures::poll!(other.as_mut()).is_pending(), "there was no place for it");
    till.let_in(2);
    assert_eq!(soon(other).await.unwrap().status(), 201);
}

/// Two servers that share nothing but a store: two machines, as far as the layer can tell.
#[tokio::test]
async fn two_servers_run_one_request_once() {
    let (till, store) = (Till::closed(), MemoryStore::new());
    let mut clients = JoinSet::new();
    for _ in 0..2 {
        let idempotency = Idempotency::at_most_once(store.clone());
        let server = start(&till, idempotency.wait_for_duplicate(Duration::from_secs(60))).await;
        for _ in 0..CROWD {
            clients.spawn(async move { pay(server, "k", "100 EUR").await });
        }
    }
    till.begun().await;
    till.let_in(2 * CROWD);

    let answers = soon(clients.join_all()).await;
    assert!(answers.iter().all(|it| it.text() == "receipt 1 for 100 EUR"));
    assert_eq!(answers.iter().filter(|it| !it.is_replay()).count(), 1);
    assert_eq!((till.started(), till.charges()), (1, 1));
}

#[tokio::test]
async fn of_concurrent_mismatches_one_runs() {
    let till = Till::closed();
    let server = start(&till, engine()).await;
    let mut clients = crowd(server, |number| format!("{number} EUR"));
    till.begun().await;

    for _ in 1..CROWD {
        soon(clients.join_next()).await.unwrap().unwrap().assert_problem(422, "key-reused");
    }
    till.let_in(CROWD);
    assert_eq!(soon(clients.join_next()).await.unwrap().unwrap().status, 201);
    assert_eq!(till.started(), 1);
}

#[tokio::test]
async fn another_request_under_the_key_is_refused() {
    let till = Till::open();
    let server = start(&till, engine()).await;
    let first = pay(server, "k", "100 EUR").await;
    assert_eq!(first.status, 201);

    let typed = |content_type: &'static str| {
        let mut request = request("/payments", "k", "100 EUR");
        request.headers_mut().insert("content-type", content_type.parse().unwrap());
        request
    };
    let mut patch = request("/payments", "k", "100 EUR");
    *patch.method_mut() = http::Method::PATCH;
    for other in [
        request("/payments", "k", "200 EUR"),
        request("/payments?dry=1", "k", "100 EUR"),
        request("/refunds", "k", "100 EUR"),
        typed("text/plain"),
        patch,
    ] {
        let answer = send(server, other).await;
        answer.assert_problem(422, "key-reused");
        assert!(!answer.text().contains("receipt"), "nothing of the stored answer is told");
    }
    assert_eq!(till.started(), 1);
    assert!(pay(server, "k", "100 EUR").await.is_replay());
}

#[tokio::test]
async fn tenants_never_meet() {
    let till = Till::open();
    let principal = Principal::from_header(HeaderName::from_static("x-account"));
    let server = serve(payments(&till, IdempotencyLayer::new(engine(), principal))).await;
    let pay_as = |account: &'static str, key: &'static str, body: &'static str| {
        let request = Request::post("/payments")
            .header("host", "a")
            .header("x-account", account)
            .header("idempotency-key", key);
        send(server, request.body(Full::<Bytes>::from(body)).unwrap())
    };

    assert_eq!(pay_as("oak", "k", "100 EUR").await.text(), "receipt 1 for 100 EUR");
    assert_eq!(pay_as("elm", "k", "100 EUR").await.text(), "receipt 2 for 100 EUR");
    // Not even told that there is such a key.
    assert_eq!(pay_as("ash", "k", "200 EUR").await.text(), "receipt 3 for 200 EUR");
    // Where one ends and the other begins cannot be shifted.
    assert_eq!(pay_as("oak1", "k", "100 EUR").await.text(), "receipt 4 for 100 EUR");
    assert_eq!(pay_as("oak", "1k", "100 EUR").await.text(), "receipt 5 for 100 EUR");
    assert_eq!(pay_as("oak", "k", "100 EUR").await.text(), "receipt 1 for 100 EUR");
    assert_eq!(till.started(), 5);
}

#[tokio::test]
async fn operations_never_meet() {
    let till = Till::open();
    let engine = engine();
    let start = async |operation: &'static str| {
        let layer = IdempotencyLayer::new(engine.clone(), Principal::single_tenant());
        serve(payments(&till, layer.with_operation(operation))).await
    };
    let (charges, refunds) = (start("charge").await, start("refund").await);

    assert_eq!(pay(charges, "k", "100 EUR").await.text(), "receipt 1 for 100 EUR");
    assert_eq!(pay(refunds, "k", "200 EUR").await.text(), "receipt 2 for 200 EUR");
    assert!(pay(charges, "k", "100 EUR").await.is_replay());
}

#[tokio::test]
async fn what_a_router_cuts_off_can_be_made_to_count() {
    let till = Till::open();
    let engine = engine();
    let layer = IdempotencyLayer::new(engine, Principal::single_tenant()).with_fingerprint_parts(
        |request, fingerprint| match request.extensions.get::<axum::extract::OriginalUri>() {
            Some(original) => fingerprint.part("original path", original.path()),
            None => fingerprint,
        },
    );
    let router = axum::Router::new().nest("/shops/{shop}", payments(&till, layer));
    let server = serve(router).await;

    assert_eq!(send(server, request("/shops/1/payments", "k", "1")).await.status, 201);
    let other = send(server, request("/shops/2/payments", "k", "1")).await;
    other.assert_problem(422, "key-reused");
}
