//! Clients that hang up, handlers that panic, services that stop: never a second effect.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use oncekey::Idempotency;
use oncekey_memory::MemoryStore;
use oncekey_tower::{IdempotencyLayer, InFlight, Principal, Task};
use support::{Till, pay, payments, raw_head, request, send, serve, soon, until};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

fn engine() -> Idempotency {
    // Long enough for the handler that a client left to end.
    Idempotency::at_most_once(MemoryStore::new()).wait_for_duplicate(Duration::from_secs(60))
}

async fn start(till: &Till, idempotency: Idempotency) -> (SocketAddr, InFlight) {
    let layer = IdempotencyLayer::new(idempotency, Principal::single_tenant());
    let in_flight = layer.in_flight();
    (serve(payments(till, layer)).await, in_flight)
}

/// A client that has sent all of its request.
async fn ask(server: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let mut bytes = raw_head(b"idempotency-key: k\r\n", 7);
    bytes.extend_from_slice(b"100 EUR");
    stream.write_all(&bytes).await.unwrap();
    stream
}

#[tokio::test]
async fn a_client_that_hangs_up_before_its_body_is_there_has_asked_for_nothing() {
    let till = Till::open();
    let (server, in_flight) = start(&till, engine()).await;
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(&raw_head(b"idempotency-key: k\r\n", 7)).await.unwrap();
    until(|| in_flight.count() == 1).await;
    drop(stream);

    soon(in_flight.drain()).await;
    assert_eq!(till.started(), 0);
}

#[tokio::test]
async fn a_client_that_hangs_up_during_the_handler_stops_nothing() {
    let till = Till::closed();
    let (server, in_flight) = start(&till, engine()).await;
    let stream = ask(server).await;
    till.begun().await;
    drop(stream);
    // The retry comes while the handler is still at work, and waits for it.
    let retry = tokio::spawn(pay(server, "k", "100 EUR"));
    until(|| in_flight.count() == 2).await;
    assert_eq!(till.charges(), 0);
    till.let_in(1);

    let retry = soon(retry).await.unwrap();
    assert_eq!((retry.text(), retry.is_replay()), ("receipt 1 for 100 EUR", true));
    assert_eq!((till.started(), till.charges()), (1, 1));
}

#[tokio::test]
async fn a_client_that_hangs_up_behind_the_handler_finds_its_answer_later() {
    let till = Till::open();
    let (server, in_flight) = start(&till, engine()).await;
    let stream = ask(server).await;
    till.begun().await;
    soon(in_flight.drain()).await;
    // The answer is on its way, and nobody reads it.
    drop(stream);

    let retry = pay(server, "k", "100 EUR").await;
    assert_eq!((retry.text(), retry.is_replay()), ("receipt 1 for 100 EUR", true));
    assert_eq!(till.charges(), 1);
}

#[tokio::test]
async fn many_clients_that_hang_up_anywhere_are_charged_once_each() {
    let till = Till::open();
    let (server, in_flight) = start(&till, engine()).await;
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..40_u64 {
        clients.spawn(async move {
            let key = format!("k{number}");
            for pause in [0, number % 7, 3 * (number % 5)] {
                let ask = pay(server, &key, "100 EUR");
                let _ = tokio::time::timeout(Duration::from_micros(100 * pause), ask).await;
            }
            pay(server, &key, "100 EUR").await
        });
    }
    let answers = soon(clients.join_all()).await;
    soon(in_flight.drain()).await;

    assert!(answers.iter().all(|it| it.status == 201), "{answers:?}");
    assert_eq!((till.started(), till.charges()), (40, 40));
}

/// A service whose handler panics the first time.
async fn start_panicking(idempotency: Idempotency, pends: bool) -> (SocketAddr, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let handler = move || async move {
        if pends {
            tokio::task::yield_now().await;
        }
        assert!(counted.fetch_add(1, Ordering::SeqCst) > 0, "the first call");
        "charged"
    };
    let layer = IdempotencyLayer::new(idempotency, Principal::single_tenant());
    (serve(Router::new().route("/", post(handler)).layer(layer)).await, calls)
}

#[tokio::test]
async fn a_handler_that_panics_has_an_unknown_outcome() {
    for pends in [true, false] {
        let ask = |server| send(server, request("/", "k", "100 EUR"));
        let (server, calls) = start_panicking(engine(), pends).await;
        let first = ask(server).await;
        first.assert_problem(500, "outcome-unknown");
        assert!(!first.text().contains("the first call"));
        // Refused: it may have charged.
        ask(server).await.assert_problem(409, "interrupted");
        assert_eq!(calls.load(Ordering::SeqCst), 1);

        // Run again, since that is what was asked for.
        let (server, calls) =
            start_panicking(Idempotency::at_least_once(MemoryStore::new()), pends).await;
        ask(server).await.assert_problem(500, "outcome-unknown");
        assert_eq!(ask(server).await.text(), "charged");
        assert!(ask(server).await.is_replay());
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test]
async fn draining_waits_for_those_whose_clients_are_gone() {
    let till = Till::closed();
    let (server, in_flight) = start(&till, engine()).await;
    drop(ask(server).await);
    till.begun().await;
    let mut draining = Box::pin(in_flight.drain());
    let early = tokio::time::timeout(Duration::from_millis(50), draining.as_mut()).await;
    assert!(early.is_err(), "one is at work");

    till.let_in(1);
    soon(draining).await;
    assert_eq!((till.charges(), in_flight.count()), (1, 0));
}

#[tokio::test]
async fn a_closed_layer_starts_nothing_and_ends_what_it_began() {
    let till = Till::closed();
    let (server, in_flight) = start(&till, engine()).await;
    let first = tokio::spawn(pay(server, "k", "100 EUR"));
    till.begun().await;
    in_flight.close();

    let refused = pay(server, "another", "100 EUR").await;
    refused.assert_problem(503, "shutting-down");
    assert_eq!(refused.headers["retry-after"], "1");
    till.let_in(1);
    assert_eq!(soon(first).await.unwrap().status, 201);
    soon(in_flight.drain()).await;
    assert_eq!(till.started(), 1);
}

#[tokio::test]
async fn beyond_the_cap_requests_are_refused_and_come_back() {
    let till = Till::closed();
    let layer = IdempotencyLayer::new(engine(), Principal::single_tenant()).with_max_in_flight(2);
    let in_flight = layer.in_flight();
    let server = serve(payments(&till, layer)).await;
    let first = tokio::spawn(pay(server, "k1", "1"));
    let waiting = tokio::spawn(pay(server, "k1", "1"));
    until(|| in_flight.count() == 2).await;

    let refused = pay(server, "k2", "2").await;
    refused.assert_problem(503, "overloaded");
    assert_eq!(refused.headers["retry-after"], "1");
    till.let_in(2);
    assert_eq!(soon(first).await.unwrap().status, 201);
    assert_eq!(soon(waiting).await.unwrap().status, 201);
    assert_eq!(pay(server, "k2", "2").await.status, 201, "the place is free again");
    assert_eq!(till.charges(), 2);
}

#[tokio::test]
async fn nobody_takes_the_places_of_all_others() {
    let till = Till::closed();
    let principal = Principal::from_header(http::HeaderName::from_static("x-account"));
    let layer = IdempotencyLayer::new(engine(), principal).with_max_in_flight_per_principal(2);
    let in_flight = layer.in_flight();
    let server = serve(payments(&till, layer)).await;
    let pay_as = |account: &'static str, key: &'static str| {
        let mut request = request("/payments", key, "1");
        request.headers_mut().insert("x-account", account.parse().unwrap());
        tokio::spawn(send(server, request))
    };
    let greedy = [pay_as("oak", "k1"), pay_as("oak", "k2")];
    until(|| in_flight.count() == 2).await;

    let refused = pay_as("oak", "k3").await.unwrap();
    refused.assert_problem(429, "too-many-requests");
    assert_eq!(refused.headers["retry-after"], "1");
    let other = pay_as("elm", "k1");
    until(|| in_flight.count() == 3).await;
    till.let_in(4);
    for answer in greedy.into_iter().chain([other]) {
        assert_eq!(soon(answer).await.unwrap().status, 201);
    }
    soon(in_flight.drain()).await;
    assert_eq!(pay_as("oak", "k3").await.unwrap().status, 201, "its places are free again");
    assert_eq!(till.charges(), 4);
}

#[tokio::test]
async fn an_executor_of_ones_own_runs_the_handler() {
    let spawned = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&spawned);
    let till = Till::closed();
    let layer = IdempotencyLayer::new(engine(), Principal::single_tenant()).with_executor(
        move |task: Task| {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(tokio::spawn(task));
        },
    );
    let server = serve(payments(&till, layer)).await;
    let first = tokio::spawn(pay(server, "k", "100 EUR"));
    till.begun().await;
    till.let_in(1);
    assert_eq!(soon(first).await.unwrap().status, 201);
    assert_eq!(spawned.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_executor_that_drops_its_task_leaves_an_unknown_outcome() {
    let till = Till::closed();
    let layer = IdempotencyLayer::new(
        engine().wait_for_duplicate(Duration::ZERO).lease(Duration::from_millis(50)),
        Principal::single_tenant(),
    )
    .with_executor(|task: Task| drop(task));
    let server = serve(payments(&till, layer)).await;

    pay(server, "k", "100 EUR").await.assert_problem(500, "outcome-unknown");
    // As after a crash: when the lease is over, somebody has to find out.
    soon(async {
        while pay(server, "k", "100 EUR").await.problem() != "interrupted" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!((till.started(), till.charges()), (1, 0));
}
