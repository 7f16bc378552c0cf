//! What a client can get wrong before anything runs: each has its answer, and nothing runs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod support;

use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::{HeaderName, Request};
use http_body_util::Full;
use oncekey::Idempotency;
use oncekey::store::ErrorKind;
use oncekey_memory::MemoryStore;
use oncekey_tower::oncekey_http::KeyHeader;
use oncekey_tower::{IdempotencyLayer, Principal};
use support::{Till, pay, payments, raw_head, send, send_raw, serve, until};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

fn layer() -> IdempotencyLayer {
    let idempotency = Idempotency::at_most_once(MemoryStore::new());
    IdempotencyLayer::new(idempotency, Principal::single_tenant())
}

fn router(till: &Till, layer: IdempotencyLayer) -> Router {
    payments(till, layer)
}

#[tokio::test]
async fn a_malformed_key_is_refused_and_nothing_runs() {
    let till = Till::open();
    let server = serve(router(&till, layer())).await;
    let long = format!("idempotency-key: {}\r\n", "k".repeat(256));
    let malformed: [&[u8]; 16] = [
        b"idempotency-key:\r\n",
        b"idempotency-key:    \r\n",
        b"idempotency-key: \"\"\r\n",
        b"idempotency-key: a\r\nidempotency-key: a\r\n",
        b"idempotency-key: \"a\"\r\nIdempotency-Key: \"b\"\r\n",
        b"idempotency-key: a,b\r\n",
        b"idempotency-key: \"a\", \"b\"\r\n",
        b"idempotency-key: \"a\r\n",
        b"idempotency-key: a\"b\r\n",
        b"idempotency-key: a b\r\n",
        b"idempotency-key: a\tb\r\n",
        b"idempotency-key: \"a\tb\"\r\n",
        b"idempotency-key: \"k\xc3\xa9y\"\r\n",
        b"idempotency-key: k\xffy\r\n",
        b"idempotency-key: \"a\";;\r\n",
        long.as_bytes(),
    ];
    for headers in malformed {
        let mut bytes = raw_head(headers, 7);
        bytes.extend_from_slice(b"100 EUR");
        let answer = send_raw(server, &bytes).await;
        let shown = String::from_utf8_lossy(headers);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{shown}: {answer}");
        assert!(answer.contains("#key-malformed\""), "{shown}: {answer}");
    }
    // Refused by the server itself, before a layer sees it.
    for headers in [b"idempotency-key: a\0b\r\n".as_slice(), b"idempotency-key: a\x07b\r\n"] {
        let answer = send_raw(server, &raw_head(headers, 0)).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    assert_eq!(till.started(), 0);
}

#[tokio::test]
async fn a_refusal_shows_nothing_of_the_key() {
    let till = Till::open();
    let server = serve(router(&till, layer())).await;
    let answer = pay(server, "secret-key, secret-key", "secret-body").await;

    answer.assert_problem(400, "key-malformed");
    assert!(!answer.text().contains("secret"));
}

#[tokio::test]
async fn a_required_key_that_is_missing_is_refused() {
    let till = Till::open();
    let server = serve(router(&till, layer().with_required_key(true))).await;
    let answer = send_raw(server, &raw_head(b"", 0)).await;

    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("#key-missing\""), "{answer}");
    assert_eq!(till.started(), 0);
}

#[tokio::test]
async fn without_a_key_every_request_runs() {
    let till = Till::open();
    let server = serve(router(&till, layer())).await;
    for number in 1..=2 {
        let answer = send_raw(server, &raw_head(b"", 0)).await;
        assert!(answer.contains(&format!("receipt {number} ")), "{answer}");
    }
}

#[tokio::test]
async fn methods_that_are_not_listed_pass_whatever_their_key_is() {
    let till = Till::open();
    let server = serve(router(&till, layer())).await;
    for number in 1..=2 {
        let request = Request::put("/payments").header("idempotency-key", ",").header("host", "a");
        let answer = send(server, request.body(Full::default()).unwrap()).await;
        assert_eq!(answer.text(), format!("receipt {number} for "));
        assert!(!answer.is_replay());
    }
}

#[tokio::test]
async fn strict_and_named_as_asked_for() {
    let till = Till::open();
    let header = KeyHeader::new().strict().named(HeaderName::from_static("x-key"));
    let server = serve(router(&till, layer().with_key_header(header))).await;
    let with = |key: &'static str| {
        let request = Request::post("/payments").header("x-key", key).header("host", "a");
        send(server, request.body(Full::<Bytes>::default()).unwrap())
    };

    with("bare").await.assert_problem(400, "key-malformed");
    assert_eq!(with("\"quoted\"").await.status, 201);
    assert!(with("\"quoted\"").await.is_replay());
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let till = Till::open();
    let server = serve(router(&till, layer().with_max_request_body(8))).await;

    pay(server, "k", "123456789").await.assert_problem(413, "body-too-large");
    // In chunks, so that its length is not known beforehand.
    let mut bytes = b"POST /payments HTTP/1.1\r\nhost: a\r\nconnection: close\r\n".to_vec();
    bytes.extend_from_slice(b"idempotency-key: k\r\ntransfer-encoding: chunked\r\n\r\n");
    bytes.extend_from_slice(b"5\r\n12345\r\n5\r\n67890\r\n0\r\n\r\n");
    let answer = send_raw(server, &bytes).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(till.started(), 0);

    assert_eq!(pay(server, "k", "12345678").await.status, 201, "the key is still free");
}

#[tokio::test]
async fn a_body_that_stops_half_way_runs_nothing() {
    let till = Till::open();
    let layer = layer();
    let in_flight = layer.in_flight();
    let server = serve(router(&till, layer)).await;

    let mut stream = TcpStream::connect(server).await.unwrap();
    let mut bytes = raw_head(b"idempotency-key: k\r\n", 7);
    bytes.extend_from_slice(b"100");
    stream.write_all(&bytes).await.unwrap();
    until(|| in_flight.count() == 1).await;
    drop(stream);
    until(|| in_flight.count() == 0).await;
    assert_eq!(till.started(), 0);

    // A broken chunk is told apart from a whole body, too.
    let mut bytes = b"POST /payments HTTP/1.1\r\nhost: a\r\nconnection: close\r\n".to_vec();
    bytes.extend_from_slice(
        b"idempotency-key: k\r\ntransfer-encoding: chunked\r\n\r\n3\r\n100\r\nX",
    );
    let answer = send_raw(server, &bytes).await;
    assert!(answer.is_empty() || answer.contains("#body-incomplete\""), "{answer}");
    assert_eq!(till.started(), 0);

    assert_eq!(pay(server, "k", "100 EUR").await.text(), "receipt 1 for 100 EUR");
}

#[tokio::test]
async fn a_request_of_nobody_is_refused() {
    let till = Till::open();
    let idempotency = Idempotency::at_most_once(MemoryStore::new());
    let principal = Principal::from_header(HeaderName::from_static("x-account"));
    let server = serve(router(&till, IdempotencyLayer::new(idempotency, principal))).await;
    let with = |accounts: &[&str]| {
        let request = Request::post("/payments").header("idempotency-key", "k").header("host", "a");
        let request = accounts.iter().fold(request, |it, account| it.header("x-account", *account));
        send(server, request.body(Full::<Bytes>::default()).unwrap())
    };

    with(&[]).await.assert_problem(403, "no-principal");
    with(&[""]).await.assert_problem(403, "no-principal");
    with(&["a", "b"]).await.assert_problem(403, "no-principal");
    with(&[&"a".repeat(513)]).await.assert_problem(403, "no-principal");
    assert_eq!(till.started(), 0);
    assert_eq!(with(&["a"]).await.status, 201);
}

/// A fault of the service, not of its clients: told as one.
#[tokio::test]
async fn an_operation_without_a_name_runs_nothing() {
    let till = Till::open();
    for name in [String::new(), "a".repeat(513)] {
        let server = serve(router(&till, layer().with_operation(name))).await;
        pay(server, "k", "100 EUR").await.assert_problem(500, "store-failed");
    }
    assert_eq!(till.started(), 0);
}

/// What would have every request refused, or run each time, is told before there is one.
#[tokio::test]
async fn a_layer_that_is_set_up_wrongly_is_found_at_start() {
    let briefly = Idempotency::at_most_once(MemoryStore::new()).lease(Duration::ZERO);
    let wrong = [
        (layer().with_operation(""), "the name of the operation is empty", 500),
        (layer().with_operation("a".repeat(513)), "longer than 512 bytes", 500),
        (layer().with_max_in_flight(0), "no request may be in flight", 503),
        (layer().with_max_in_flight_per_principal(0), "no request may be in flight", 429),
        (layer().with_methods([]), "no method may have a key", 201),
        (
            IdempotencyLayer::new(briefly, Principal::single_tenant()),
            "the lease is shorter than a millisecond",
            500,
        ),
    ];
    for (layer, why, status) in wrong {
        let error = layer.validate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        assert!(error.to_string().contains(why), "{error}");

        let till = Till::open();
        let server = serve(router(&till, layer)).await;
        for _ in 0..2 {
            assert_eq!(pay(server, "k", "100 EUR").await.status, status, "{error}");
        }
        // One that takes no key at all runs, each time.
        assert_eq!(till.started(), if status == 201 { 2 } else { 0 }, "{error}");
    }

    let right = [layer(), layer().with_operation("a".repeat(512)), layer().with_max_in_flight(1)];
    for layer in right {
        layer.validate().unwrap();
        let server = serve(router(&Till::open(), layer)).await;
        assert_eq!(pay(server, "k", "100 EUR").await.status, 201);
    }
}
