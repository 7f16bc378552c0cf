//! The contract between the layer and the service inside of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::future::{Ready, poll_fn, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use oncekey::{Attempt, Idempotency, Key};
use oncekey_memory::MemoryStore;
use oncekey_tower::{IdempotencyLayer, Principal, RequestBody};
use tower::{Layer, Service, ServiceExt};

type Requested = Request<RequestBody<Full<Bytes>>>;

/// As strict as services may be: ready once it was polled, and its clones are not.
#[derive(Debug)]
struct Strict {
    ready: bool,
    calls: Arc<AtomicUsize>,
    limit: Arc<AtomicUsize>,
}

impl Strict {
    fn new() -> Self {
        Self { ready: false, calls: Arc::default(), limit: Arc::new(AtomicUsize::new(usize::MAX)) }
    }
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        let (calls, limit) = (Arc::clone(&self.calls), Arc::clone(&self.limit));
        Self { ready: false, calls, limit }
    }
}

impl Service<Requested> for Strict {
    type Response = Response<Full<Bytes>>;
    type Error = &'static str;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if self.calls.load(Ordering::SeqCst) >= self.limit.load(Ordering::SeqCst) {
            return Poll::Ready(Err("used up"));
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Requested) -> Self::Future {
        assert!(self.ready, "called without being polled ready");
        self.ready = false;
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if request.uri().path() == "/fail" {
            return ready(Err("failed"));
        }
        ready(Ok(Response::new(Full::from(format!("call {call}")))))
    }
}

fn layer() -> IdempotencyLayer {
    let idempotency = Idempotency::at_most_once(MemoryStore::new());
    IdempotencyLayer::new(idempotency, Principal::single_tenant())
}

fn request(path: &str, key: Option<&str>) -> Request<Full<Bytes>> {
    let request = Request::post(path);
    let request = match key {
        Some(key) => request.header("idempotency-key", key),
        None => request,
    };
    request.body(Full::from("100 EUR")).unwrap()
}

async fn text<B: Body<Data = Bytes>>(response: Response<B>) -> String
where
    B::Error: std::fmt::Debug,
{
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn the_service_that_is_ready_is_the_one_that_is_called() {
    let mut service = layer().layer(Strict::new());
    for (key, expected) in
        [(Some("a"), "call 1"), (None, "call 2"), (Some("b"), "call 3"), (Some("a"), "call 1")]
    {
        let response = service.ready().await.unwrap().call(request("/", key)).await.unwrap();
        assert_eq!(text(response).await, expected);
    }
}

#[tokio::test]
async fn what_the_service_says_of_being_ready_is_passed_on() {
    let strict = Strict::new();
    strict.limit.store(0, Ordering::SeqCst);
    let mut service = layer().layer(strict);
    let ready = poll_fn(|cx| Service::<Request<Full<Bytes>>>::poll_ready(&mut service, cx));
    assert_eq!(ready.await, Err("used up"));
}

#[tokio::test]
async fn an_error_of_the_service_is_passed_on_and_unknown() {
    let service = layer().layer(Strict::new());
    for key in [None, Some("a")] {
        let failed = service.clone().oneshot(request("/fail", key)).await;
        assert_eq!(failed.unwrap_err(), "failed");
    }
    let again = service.oneshot(request("/fail", Some("a"))).await.unwrap();
    assert_eq!(again.status(), 409, "it may have done its work");
}

#[tokio::test]
async fn a_replay_does_not_call_the_service() {
    let strict = Strict::new();
    let calls = Arc::clone(&strict.calls);
    let service = layer().layer(strict);
    for _ in 0..3 {
        let response = service.clone().oneshot(request("/", Some("a"))).await.unwrap();
        assert_eq!(text(response).await, "call 1");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_passes_through_is_untouched() {
    // A body that was touched would not be of this length, nor be at its end at once.
    let inner = tower::service_fn(async |request: Requested| {
        assert!(request.extensions().get::<Attempt>().is_none());
        assert_eq!(request.body().size_hint().exact(), Some(7));
        Ok::<_, std::convert::Infallible>(Response::new(request.into_body()))
    });
    let service = layer().layer(inner);
    let response = service.oneshot(request("/", None)).await.unwrap();
    assert_eq!(response.body().size_hint().exact(), Some(7));
    assert!(!response.body().is_end_stream());
    assert_eq!(text(response).await, "100 EUR");
}

#[tokio::test]
async fn a_handler_gets_key_and_attempt_and_the_whole_body() {
    let inner = tower::service_fn(async |request: Requested| {
        let attempt = request.extensions().get::<Attempt>().unwrap().clone();
        let key = request.extensions().get::<Key>().unwrap().clone();
        assert!(attempt.key() == &key && key.id() == Some(b"a"));
        assert_eq!(key.operation(), Some(b"payments".as_slice()));
        assert_eq!(attempt.number(), 1);
        let saved = attempt.step("charge", async || Ok::<_, ()>(17)).await.unwrap();
        assert_eq!(request.body().size_hint().exact(), Some(7));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "100 EUR");
        Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(saved.to_string())))
    });
    let service = layer().with_operation("payments").layer(inner);
    let response = service.oneshot(request("/", Some("a"))).await.unwrap();
    assert_eq!(text(response).await, "17");
}

#[tokio::test]
async fn a_body_in_pieces_arrives_whole_and_with_its_trailers() {
    type Pieces = BoxBody<Bytes, std::convert::Infallible>;
    let inner = tower::service_fn(async |request: Request<RequestBody<Pieces>>| {
        let collected = request.into_body().collect().await.unwrap();
        let trailers = collected.trailers().unwrap();
        assert_eq!((trailers.len(), &trailers["x-checksum"]), (1, &HeaderValue::from_static("1")));
        Ok::<_, std::convert::Infallible>(Response::new(Full::new(collected.to_bytes())))
    });
    let service = layer().layer(inner);
    // Cut at other places, it is the same request.
    for (pieces, replayed) in [(["100", " EUR"], false), (["1", "00 EUR"], true)] {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", HeaderValue::from_static("1"));
        let frames = pieces.map(|piece| Frame::data(Bytes::from(piece)));
        let frames = frames.into_iter().chain([Frame::trailers(trailers)]).map(Ok);
        let body = BoxBody::new(StreamBody::new(futures::stream::iter(frames)));
        let request = Request::post("/").header("idempotency-key", "a").body(body).unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers().contains_key("idempotent-replayed"), replayed);
        assert_eq!(text(response).await, "100 EUR");
    }
}

#[test]
fn a_step_survives_a_crash_of_the_service() {
    let store = MemoryStore::new();
    let steps = Arc::new(AtomicUsize::new(0));
    for crash in [true, false] {
        let idempotency = Idempotency::at_least_once(store.clone());
        let layer = IdempotencyLayer::new(idempotency, Principal::single_tenant());
        let counted = Arc::clone(&steps);
        let inner = tower::service_fn(move |request: Requested| {
            let counted = Arc::clone(&counted);
            async move {
                let attempt = request.extensions().get::<Attempt>().unwrap();
                let count = || async { Ok::<_, ()>(counted.fetch_add(1, Ordering::SeqCst)) };
                attempt.step("charge", count).await.unwrap();
                assert!(!crash, "the process dies here");
                Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("done")))
            }
        });
        let service = layer.layer(inner);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let response = runtime.block_on(service.oneshot(request("/", Some("a")))).unwrap();
        assert_eq!(response.status(), if crash { 500 } else { 200 });
    }
    assert_eq!(steps.load(Ordering::SeqCst), 1);
}

#[test]
fn the_future_of_a_request_without_a_key_is_small() {
    let pass = size_of::<
        <oncekey_tower::IdempotencyService<Strict> as Service<Request<Full<Bytes>>>>::Future,
    >();
    let inner = size_of::<<Strict as Service<Requested>>::Future>();
    let response = size_of::<Response<oncekey_tower::ResponseBody<Full<Bytes>>>>();
    assert!(pass <= inner.max(response) + 16, "{pass} beside {inner} and {response}");
}
