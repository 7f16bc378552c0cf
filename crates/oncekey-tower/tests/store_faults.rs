//! A store that is down, full, slow, or does not take a result: its answer, and never a second effect.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Extension, Router};
use http::StatusCode;
use oncekey::Idempotency;
use oncekey::store::{ErrorKind, Fenced};
use oncekey_memory::MemoryStore;
use oncekey_tower::oncekey_http::Knowledge;
use oncekey_tower::{IdempotencyLayer, Principal};
use support::store::FaultyStore;
use support::{Till, pay, payments, serve, soon};

async fn start(till: &Till, idempotency: Idempotency) -> SocketAddr {
    let layer = IdempotencyLayer::new(idempotency, Principal::single_tenant());
    serve(payments(till, layer)).await
}

#[tokio::test]
async fn without_its_store_nothing_runs() {
    let (till, store) = (Till::open(), FaultyStore::default());
    let server = start(&till, Idempotency::at_most_once(store.clone())).await;
    for (kind, status, slug) in [
        (ErrorKind::Unavailable, 503, "store-unavailable"),
        (ErrorKind::Timeout, 503, "store-unavailable"),
        (ErrorKind::OutcomeUnknown, 503, "store-unavailable"),
        (ErrorKind::Full, 503, "store-full"),
        (ErrorKind::Corrupt, 500, "store-failed"),
        (ErrorKind::Misconfigured, 500, "store-failed"),
        (ErrorKind::TooLarge, 500, "store-failed"),
    ] {
        store.set(|faults| faults.claim = Some(kind));
        let answer = pay(server, "k", "100 EUR").await;
        answer.assert_problem(status, slug);
        assert_eq!(answer.headers.contains_key("retry-after"), status == 503, "{kind:?}");
    }
    assert_eq!(till.started(), 0);

    store.set(|faults| faults.claim = None);
    assert_eq!(pay(server, "k", "100 EUR").await.status, 201, "and then it does");
}

#[tokio::test]
async fn a_full_store_refuses_new_keys_and_replays_old_ones() {
    let till = Till::open();
    let store = MemoryStore::builder().max_keys(64).build();
    let server = start(&till, Idempotency::at_most_once(store)).await;
    let mut refused = None;
    let mut keys = Vec::new();
    for number in 0..1_000 {
        let key = format!("k{number}");
        let answer = pay(server, &key, "100 EUR").await;
        if answer.status != 201 {
            refused = Some(answer);
            break;
        }
        keys.push(key);
    }
    refused.expect("it is bounded").assert_problem(503, "store-full");
    for key in keys {
        assert!(pay(server, &key, "100 EUR").await.is_replay());
    }
}

#[tokio::test]
async fn a_slow_store_is_waited_for() {
    let (till, store) = (Till::open(), FaultyStore::default());
    store.set(|faults| faults.delay = Duration::from_millis(20));
    let server = start(&till, Idempotency::at_most_once(store)).await;

    assert_eq!(pay(server, "k", "100 EUR").await.text(), "receipt 1 for 100 EUR");
    assert!(pay(server, "k", "100 EUR").await.is_replay());
    assert_eq!(till.charges(), 1);
}

#[tokio::test]
async fn a_store_that_hangs_starts_nothing() {
    let (till, store) = (Till::open(), FaultyStore::default());
    store.set(|faults| faults.delay = Duration::from_secs(3_600));
    let idempotency = Idempotency::at_most_once(store.clone()).lease(Duration::from_millis(20));
    let server = start(&till, idempotency).await;

    pay(server, "k", "100 EUR").await.assert_problem(503, "store-unavailable");
    assert!(store.claims.load(Ordering::SeqCst) > 0);
    assert_eq!(till.started(), 0);
}

#[tokio::test]
async fn a_client_whose_result_the_store_did_not_take_gets_it_once() {
    let (till, store) = (Till::open(), FaultyStore::default());
    store.set(|faults| faults.complete = Some(ErrorKind::Unavailable));
    let idempotency = Idempotency::at_most_once(store.clone()).lease(Duration::from_secs(1));
    let server = start(&till, idempotency).await;

    // It was charged, and is told so: it has no reason to ask again.
    let answer = pay(server, "k", "100 EUR").await;
    assert_eq!((answer.status, answer.text()), (201, "receipt 1 for 100 EUR"));
    assert!(!answer.is_replay());

    // And whoever asks all the same does not charge again.
    store.set(|faults| faults.complete = None);
    let again = pay(server, "k", "100 EUR").await;
    assert!(["in-progress", "interrupted"].contains(&again.problem().as_str()), "{again:?}");
    assert_eq!((till.started(), till.charges()), (1, 1));
}

#[tokio::test]
async fn a_store_that_hangs_at_the_end_keeps_nobody_for_ever() {
    let (till, store) = (Till::open(), FaultyStore::default());
    store.set(|faults| faults.delay_at_the_end = Duration::from_secs(3_600));
    // Long enough for a busy machine to start the handler within it.
    let idempotency = Idempotency::at_most_once(store.clone()).lease(Duration::from_secs(1));
    let server = start(&till, idempotency).await;

    // For one lease it is tried to record the charge, and then its client is told of it.
    let answer = soon(pay(server, "k", "100 EUR")).await;
    assert_eq!((answer.status, answer.text()), (201, "receipt 1 for 100 EUR"));
    let again = pay(server, "k", "100 EUR").await;
    assert!(["in-progress", "interrupted"].contains(&again.problem().as_str()), "{again:?}");
    assert_eq!((till.started(), till.charges()), (1, 1));
}

/// A service whose handler says the first time that it did nothing.
async fn start_refusing(idempotency: Idempotency) -> SocketAddr {
    let calls = Arc::new(AtomicUsize::new(0));
    let handler = move || async move {
        if calls.fetch_add(1, Ordering::SeqCst) == 0 {
            (Extension(Knowledge::NotStarted), StatusCode::SERVICE_UNAVAILABLE).into_response()
        } else {
            "charged".into_response()
        }
    };
    let layer = IdempotencyLayer::new(idempotency, Principal::single_tenant());
    serve(Router::new().route("/payments", post(handler)).layer(layer)).await
}

#[tokio::test]
async fn a_release_that_the_store_did_not_take_is_an_interruption() {
    let lease = Duration::from_secs(1);
    let store = FaultyStore::default();
    store.set(|faults| faults.abandon = Some(ErrorKind::Unavailable));
    let server = start_refusing(Idempotency::at_most_once(store).lease(lease)).await;
    assert_eq!(soon(pay(server, "k", "100 EUR")).await.status, 503, "as the handler said");
    // What the handler knew is known to nobody else.
    soon(async {
        while pay(server, "k", "100 EUR").await.problem() != "interrupted" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;

    let store = FaultyStore::default();
    store.set(|faults| faults.abandon = Some(ErrorKind::Unavailable));
    let server = start_refusing(Idempotency::at_least_once(store).lease(lease)).await;
    assert_eq!(soon(pay(server, "k", "100 EUR")).await.status, 503);
    soon(async {
        while pay(server, "k", "100 EUR").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_result_that_another_attempt_has_overtaken_is_not_told() {
    for fenced in [Fenced::Lost, Fenced::Conflict] {
        let (till, store) = (Till::open(), FaultyStore::default());
        store.set(|faults| faults.completed = Some(fenced));
        let server = start(&till, Idempotency::at_most_once(store)).await;

        pay(server, "k", "100 EUR").await.assert_problem(500, "unrecorded");
        assert_eq!(till.charges(), 1);
    }
}

#[tokio::test]
async fn a_result_that_the_store_cannot_hold_counts_as_done() {
    let till = Till::open();
    let idempotency = Idempotency::at_most_once(MemoryStore::new()).max_value_len(16);
    let server = start(&till, idempotency).await;

    assert_eq!(pay(server, "k", "100 EUR").await.text(), "receipt 1 for 100 EUR");
    pay(server, "k", "100 EUR").await.assert_problem(410, "result-not-kept");
    assert_eq!(till.charges(), 1);
}

#[tokio::test]
async fn problems_are_told_to_whoever_watches() {
    let (till, store) = (Till::open(), FaultyStore::default());
    store.set(|faults| faults.claim = Some(ErrorKind::Unavailable));
    let told = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&told);
    let idempotency = Idempotency::at_most_once(store);
    let layer = IdempotencyLayer::new(idempotency, Principal::single_tenant())
        .with_operation("payments")
        .with_problem_type_base("https://example.com/problems#")
        .on_problem(move |operation, problem| {
            list.lock().unwrap().push((operation.to_owned(), problem.kind().slug()));
        });
    let server = serve(payments(&till, layer)).await;

    let answer = pay(server, "k", "100 EUR").await;
    assert!(answer.text().contains("https://example.com/problems#store-unavailable"));
    pay(server, "", "100 EUR").await;
    let told = told.lock().unwrap();
    let payments = || "payments".to_owned();
    assert_eq!(*told, [(payments(), "store-unavailable"), (payments(), "key-malformed")]);
}
