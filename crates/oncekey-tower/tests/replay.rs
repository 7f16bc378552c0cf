//! What duplicates get, and what they do not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod support;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use oncekey::{Idempotency, Interruption, Verdict};
use oncekey_memory::MemoryStore;
use oncekey_tower::oncekey_http::{KeptHeaders, Knowledge};
use oncekey_tower::{IdempotencyLayer, Principal};
use support::{Answer, request, send, serve};

fn layer() -> IdempotencyLayer {
    let idempotency = Idempotency::at_most_once(MemoryStore::new());
    IdempotencyLayer::new(idempotency, Principal::single_tenant())
}

/// A service of one route, whose handler answers with what `answer` makes of the number of the call.
async fn start(
    layer: IdempotencyLayer,
    answer: impl Fn(usize) -> Response + Send + Sync + 'static,
) -> SocketAddr {
    let answer = Arc::new(answer);
    let calls = Arc::new(AtomicUsize::new(0));
    let handler = move || async move { answer(calls.fetch_add(1, Ordering::SeqCst) + 1) };
    serve(Router::new().route("/", post(handler)).layer(layer)).await
}

async fn ask(server: SocketAddr) -> Answer {
    send(server, request("/", "k", "100 EUR")).await
}

fn rich(call: usize) -> Response {
    let response = Response::builder()
        .status(201)
        .header("content-type", "application/octet-stream")
        .header("set-cookie", "session=secret")
        .header("location", "/payments/17")
        .header("link", "</a>; rel=\"a\"")
        .header("x-request-id", call.to_string())
        .header("link", "</b>; rel=\"b\"")
        .header("link", "</a>; rel=\"c\"")
        .header("etag", "\"\u{e9}\"")
        .header("www-authenticate", "Basic");
    let every_byte: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    response.body(every_byte.into()).unwrap()
}

#[tokio::test]
async fn a_replay_is_what_the_first_caller_got() {
    let server = start(layer(), rich).await;
    let (first, again) = (ask(server).await, ask(server).await);

    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.body, again.body);
    let kept = |answer: &Answer| -> Vec<_> {
        let named = |name: &HeaderName| KeptHeaders::new().contains(name);
        let headers = answer.headers.iter().filter(|(name, _)| named(name));
        headers.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    assert_eq!(kept(&first), kept(&again), "in order, and repeated");
    assert_eq!(kept(&again).iter().filter(|(name, _)| name == "link").count(), 3);
    assert!(again.is_replay() && !first.is_replay());
}

#[tokio::test]
async fn the_first_caller_gets_everything() {
    let server = start(layer(), rich).await;
    let (first, again) = (ask(server).await, ask(server).await);

    assert_eq!(first.headers["set-cookie"], "session=secret");
    assert_eq!(first.headers["x-request-id"], "1");
    for name in ["set-cookie", "www-authenticate", "x-request-id"] {
        assert!(!again.headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn headers_and_mark_as_asked_for() {
    let kept = KeptHeaders::new().and(HeaderName::from_static("x-request-id")).unwrap();
    let layer =
        layer().with_kept_headers(kept).with_replay_header(HeaderName::from_static("x-again"));
    let server = start(layer, rich).await;
    ask(server).await;
    let again = ask(server).await;

    assert_eq!(again.headers["x-request-id"], "1");
    assert_eq!(again.headers["x-again"], "true");
    assert!(!again.is_replay());
}

#[tokio::test]
async fn a_refusal_is_an_answer_too() {
    let declined = |call: usize| {
        let body = format!("declined, call {call}");
        Response::builder().status(402).body(body.into()).unwrap()
    };
    let server = start(layer(), declined).await;
    ask(server).await;
    let again = ask(server).await;
    assert_eq!((again.status, again.text()), (402, "declined, call 1"));
    assert!(again.is_replay());
}

#[tokio::test]
async fn an_empty_answer_is_an_answer() {
    let server = start(layer(), |_| Response::builder().status(204).body(Body::empty()).unwrap());
    let server = server.await;
    ask(server).await;
    let again = ask(server).await;
    assert_eq!((again.status, again.body.len(), again.is_replay()), (204, 0, true));
}

/// A response of this status, marked with what the handler knows.
fn marked(status: u16, knowledge: Option<Knowledge>) -> Response {
    let mut response = Response::builder().status(status).body(Body::from("a secret")).unwrap();
    if let Some(knowledge) = knowledge {
        response.extensions_mut().insert(knowledge);
    }
    response
}

#[tokio::test]
async fn what_is_known_decides() {
    // (first answer, what its handler knows, status of the retry, whether that one ran)
    let table = [
        (200, Some(Knowledge::Done), 200, false),
        (500, Some(Knowledge::Done), 500, false),
        (200, Some(Knowledge::DoneNotKept), 410, false),
        (503, Some(Knowledge::NotStarted), 299, true),
        (200, Some(Knowledge::NotStarted), 299, true),
        (200, Some(Knowledge::Unknown), 409, false),
        (503, None, 409, false),
        (500, None, 409, false),
        (408, None, 409, false),
        // Perhaps passed on, of somebody who was asked after something was done.
        (401, None, 409, false),
        (407, None, 409, false),
        (421, None, 409, false),
        (425, None, 409, false),
        (429, None, 409, false),
        (499, None, 409, false),
        (401, Some(Knowledge::NotStarted), 299, true),
        (429, Some(Knowledge::NotStarted), 299, true),
        (404, None, 404, false),
    ];
    for (status, knowledge, retry, ran) in table {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let server = start(layer(), move |call| {
            counted.store(call, Ordering::SeqCst);
            if call == 1 { marked(status, knowledge) } else { marked(299, None) }
        });
        let server = server.await;
        let first = ask(server).await;
        // Whatever is known, the first caller gets what the handler said.
        assert_eq!((first.status, first.text()), (status, "a secret"));
        assert_eq!(ask(server).await.status, retry, "{status} {knowledge:?}");
        assert_eq!(calls.load(Ordering::SeqCst) == 2, ran, "{status} {knowledge:?}");
    }
}

#[tokio::test]
async fn a_secret_is_not_kept() {
    let server = start(layer(), |_| marked(200, Some(Knowledge::DoneNotKept))).await;
    ask(server).await;
    let again = ask(server).await;
    again.assert_problem(410, "result-not-kept");
    assert!(!again.text().contains("secret"));
}

#[tokio::test]
async fn a_classifier_of_ones_own_decides() {
    let layer = layer().with_classifier(|response| match response.status.as_u16() {
        503 => Some(Knowledge::NotStarted),
        _ => None,
    });
    let server = start(layer, |call| marked(if call == 1 { 503 } else { 200 }, None)).await;
    assert_eq!(ask(server).await.status, 503);
    assert_eq!(ask(server).await.status, 200);
}

#[tokio::test]
async fn a_large_response_is_passed_on_and_counts_as_done() {
    let body = || Bytes::from(vec![b'x'; 100_000]);
    // Known to be too large, and found to be.
    let chunks = move || {
        let chunk = |it: Bytes| Ok::<_, Infallible>(Frame::data(it));
        let body = body();
        let chunks: Vec<_> =
            (0..100).map(|it| chunk(body.slice(it * 1000..(it + 1) * 1000))).collect();
        Body::new(StreamBody::new(futures::stream::iter(chunks)))
    };
    for whole in [true, false] {
        let answer = move |_| Response::new(if whole { Body::from(body()) } else { chunks() });
        let server = start(layer().with_max_response_body(2_500), answer).await;

        assert_eq!(ask(server).await.body, body(), "whole: {whole}");
        ask(server).await.assert_problem(410, "result-not-kept");
    }
}

#[tokio::test]
async fn chunks_within_the_limit_are_kept() {
    let chunked = |_| {
        let chunks = ["re", "ceipt", "", " 1"].map(|it| Ok::<_, Infallible>(Bytes::from(it)));
        Response::new(Body::from_stream(futures::stream::iter(chunks)))
    };
    let server = start(layer(), chunked).await;
    assert_eq!(ask(server).await.text(), "receipt 1");
    let again = ask(server).await;
    assert_eq!((again.text(), again.is_replay()), ("receipt 1", true));
}

#[tokio::test]
async fn a_stream_of_events_is_not_waited_for() {
    let events = |_| {
        let first = futures::stream::iter([Ok::<_, Infallible>(Bytes::from("data: 1\n\n"))]);
        let endless = futures::StreamExt::chain(first, futures::stream::pending());
        Response::builder()
            .header("content-type", "text/event-stream")
            .body(Body::from_stream(endless))
            .unwrap()
    };
    let server = start(layer(), events).await;
    let bytes =
        b"POST / HTTP/1.1\r\nhost: a\r\nidempotency-key: k\r\ncontent-length: 7\r\n\r\n100 EUR";
    let mut stream = tokio::net::TcpStream::connect(server).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, bytes).await.unwrap();
    let mut got = String::new();
    while !got.contains("data: 1") {
        let mut chunk = [0; 512];
        let read = tokio::io::AsyncReadExt::read(&mut stream, &mut chunk);
        let len = support::soon(read).await.unwrap();
        got.push_str(std::str::from_utf8(&chunk[..len]).unwrap());
    }
    ask(server).await.assert_problem(410, "result-not-kept");
}

#[tokio::test]
async fn a_response_that_breaks_off_counts_as_done() {
    let broken = || async {
        let chunks = [Ok(Bytes::from("rec")), Err(std::io::Error::other("broken"))];
        Response::new(Body::from_stream(futures::stream::iter(chunks)))
    };
    // What a server has sent by then is up to it, so this asks the service itself.
    let router: Router = Router::new().route("/", post(broken)).layer(layer());
    let ask = || tower::ServiceExt::oneshot(router.clone(), request("/", "k", "100 EUR"));
    let mut first = ask().await.unwrap();
    assert_eq!(first.status(), 200);
    let frame = first.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "rec");
    assert!(first.body_mut().frame().await.unwrap().is_err());
    assert!(first.body_mut().frame().await.is_none());

    assert_eq!(ask().await.unwrap().status(), 410);
}

#[tokio::test]
async fn trailers_are_kept() {
    let trailing = |_| {
        let mut trailers = HeaderMap::new();
        trailers.insert("etag", HeaderValue::from_static("\"1\""));
        trailers.insert("set-cookie", HeaderValue::from_static("a=b"));
        let frames = [Frame::data(Bytes::from("receipt 1")), Frame::trailers(trailers)];
        let frames = frames.map(Ok::<_, Infallible>);
        Response::builder()
            .header("trailer", "etag")
            .body(Body::new(StreamBody::new(futures::stream::iter(frames))))
            .unwrap()
    };
    // Over one connection of HTTP/1 trailers need an agreement, so this one asks the service itself.
    let layer = layer();
    let handler = move || async move { trailing(0) };
    let router: Router = Router::new().route("/", post(handler)).layer(layer);
    let ask = || async {
        let request = request("/", "k", "100 EUR");
        let response = tower::ServiceExt::oneshot(router.clone(), request).await.unwrap();
        let marked = response.headers().contains_key("idempotent-replayed");
        let collected = response.into_body().collect().await.unwrap();
        (marked, collected.trailers().cloned().unwrap(), collected.to_bytes())
    };
    let (first, again) = (ask().await, ask().await);
    assert_eq!((first.0, first.1.len()), (false, 2));
    assert_eq!(
        (again.0, again.1.len(), &again.1["etag"]),
        (true, 1, &HeaderValue::from_static("\"1\""))
    );
    assert_eq!(first.2, again.2);
}

/// HTTP/1 has trailers only behind a body whose length is not told.
#[tokio::test]
async fn trailers_get_through_a_connection() {
    let trailing = |_| {
        let mut trailers = HeaderMap::new();
        trailers.insert("etag", HeaderValue::from_static("1"));
        let frames = [Frame::data(Bytes::from("receipt 1")), Frame::trailers(trailers)];
        let body = StreamBody::new(futures::stream::iter(frames.map(Ok::<_, Infallible>)));
        Response::builder().header("trailer", "etag").body(Body::new(body)).unwrap()
    };
    let server = start(layer(), trailing).await;
    for is_replay in [false, true] {
        let mut request = request("/", "k", "100 EUR");
        request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        let answer = send(server, request).await;
        assert_eq!((answer.text(), answer.is_replay()), ("receipt 1", is_replay));
        assert_eq!(answer.trailers.unwrap()["etag"], "1");
    }
}

#[tokio::test]
async fn a_hook_answers_for_an_interrupted_attempt() {
    use oncekey_tower::oncekey_http::StoredResponse;

    let hook = async |_: Interruption| {
        let found = Bytes::from("receipt found");
        let response = StoredResponse::new(http::StatusCode::CREATED, HeaderMap::new(), found);
        response.to_encoded().map_or(Verdict::Unknown, Verdict::Done)
    };
    let idempotency = Idempotency::verified(MemoryStore::new(), hook);
    let layer = IdempotencyLayer::new(idempotency, Principal::single_tenant());
    let server = start(layer, |_| marked(500, None)).await;

    assert_eq!(ask(server).await.status, 500);
    let again = ask(server).await;
    assert_eq!((again.status, again.text(), again.is_replay()), (201, "receipt found", true));
}

#[tokio::test]
async fn a_stored_result_that_is_no_response_is_never_run_again() {
    use oncekey::Encoded;
    let hook = async |_: Interruption| Verdict::Done(Encoded::raw(b"\x09not a response"));
    let idempotency = Idempotency::verified(MemoryStore::new(), hook);
    let layer = IdempotencyLayer::new(idempotency, Principal::single_tenant());
    let server = start(layer, |call| marked(if call == 1 { 500 } else { 200 }, None)).await;

    ask(server).await;
    for _ in 0..2 {
        ask(server).await.assert_problem(500, "result-unreadable");
    }
}
