//! Bodies that take for ever: what is known of them is recorded in time, and nothing of them is lost.
//!
//! By tokio's clock, which stands still until all wait for it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use oncekey::Idempotency;
use oncekey::runtime::TokioTimer;
use oncekey_memory::MemoryStore;
use oncekey_tower::oncekey_http::Knowledge;
use oncekey_tower::{IdempotencyLayer, InFlight, Principal, ResponseBody};
use tokio::time::Instant;
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt};

type ReplyBody = UnsyncBoxBody<Bytes, Infallible>;
type Reply = Response<ReplyBody>;
type AskBody = UnsyncBoxBody<Bytes, Infallible>;
type Got = Response<ResponseBody<ReplyBody>>;
type Frames = BoxStream<'static, Frame<Bytes>>;

const LIMIT: Duration = IdempotencyLayer::DEFAULT_RESPONSE_BODY_TIMEOUT;

fn layer() -> IdempotencyLayer {
    let idempotency = Idempotency::at_most_once(MemoryStore::new()).timer(TokioTimer::new());
    IdempotencyLayer::new(idempotency, Principal::single_tenant())
}

#[derive(Clone)]
struct Server {
    service: BoxCloneSyncService<Request<AskBody>, Got, Infallible>,
    calls: Arc<AtomicUsize>,
    in_flight: InFlight,
}

fn serve(layer: IdempotencyLayer, reply: impl Fn() -> Reply + Send + Sync + 'static) -> Server {
    let (reply, calls) = (Arc::new(reply), Arc::new(AtomicUsize::new(0)));
    let (counted, in_flight) = (Arc::clone(&calls), layer.in_flight());
    let handler = tower::service_fn(move |_request| {
        counted.fetch_add(1, Ordering::SeqCst);
        let reply = Arc::clone(&reply);
        async move { Ok::<_, Infallible>(reply()) }
    });
    Server { service: BoxCloneSyncService::new(layer.layer(handler)), calls, in_flight }
}

impl Server {
    async fn ask(&self) -> Got {
        self.send(Full::from("100 EUR").boxed_unsync()).await
    }

    async fn send(&self, body: AskBody) -> Got {
        let request = Request::post("/").header("idempotency-key", "k").body(body).unwrap();
        self.service.clone().oneshot(request).await.unwrap()
    }
}

fn data(text: &'static str) -> Frames {
    stream::iter([Frame::data(Bytes::from(text))]).boxed()
}

/// `frames`, when `seconds` have passed.
fn after(seconds: u64, frames: Frames) -> Frames {
    let pause = tokio::time::sleep(Duration::from_secs(seconds));
    stream::once(pause).flat_map(|()| stream::empty()).chain(frames).boxed()
}

fn trailers(status: &'static str) -> Frames {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    stream::iter([Frame::trailers(trailers)]).boxed()
}

fn body(frames: impl Into<Frames>) -> ReplyBody {
    StreamBody::new(frames.into().map(Ok)).boxed_unsync()
}

fn reply(content_type: &str, frames: impl Into<Frames>) -> Reply {
    Response::builder().header("content-type", content_type).body(body(frames)).unwrap()
}

async fn text(response: Got) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn first_frame(response: &mut Got) -> Bytes {
    response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap()
}

/// It is never waited for, so no time passes.
#[tokio::test(start_paused = true)]
async fn a_body_of_empty_frames_without_end_is_passed_on() {
    let empty = || stream::repeat_with(|| Frame::data(Bytes::new())).boxed();
    let server = serve(layer(), move || reply("text/plain", data("one").chain(empty()).boxed()));
    let mut first = server.ask().await;
    assert_eq!(first_frame(&mut first).await, "one");
    assert_eq!(first_frame(&mut first).await, "");
    let again = server.ask().await;
    assert_eq!(again.status(), 410);
    assert_eq!(server.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_passed_on_when_its_time_is_over() {
    let server =
        serve(layer(), || reply("text/plain", data("one").chain(stream::pending()).boxed()));
    let start = Instant::now();
    let mut first = server.ask().await;
    assert_eq!(start.elapsed(), LIMIT);
    assert_eq!(first.status(), 200);
    assert_eq!(first_frame(&mut first).await, "one");

    // Done, as its head said; and while it goes on, nobody waits for it.
    server.in_flight.drain().await;
    assert_eq!(server.ask().await.status(), 410);
    assert_eq!(start.elapsed(), LIMIT);
    assert_eq!(server.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_of_a_body_that_takes_long() {
    let slow = || {
        let rest = after(60, data("three").chain(trailers("0")).boxed());
        reply("text/plain", data("one, ").chain(data("two, ")).chain(rest).boxed())
    };
    let server = serve(layer(), slow);
    let collected = server.ask().await.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(collected.to_bytes(), "one, two, three");
    assert_eq!(server.ask().await.status(), 410);
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_of_the_whole_body() {
    // Something comes every second, for ever.
    let trickle = || {
        let second = |_| {
            let pause = tokio::time::sleep(Duration::from_secs(1));
            async move {
                pause.await;
                Frame::data(Bytes::from("."))
            }
        };
        reply("text/plain", stream::repeat(()).then(second).boxed())
    };
    let server = serve(layer().with_response_body_timeout(Duration::from_millis(5_500)), trickle);
    let start = Instant::now();
    let mut first = server.ask().await;
    assert_eq!(start.elapsed(), Duration::from_millis(5_500));
    assert_eq!(first_frame(&mut first).await, ".....");
    assert_eq!(first_frame(&mut first).await, ".");
    assert_eq!(server.ask().await.status(), 410);
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_within_the_limit_is_kept() {
    let slow = || reply("text/plain", data("one, ").chain(after(9, data("two"))).boxed());
    let server = serve(layer(), slow);
    for replayed in [false, true] {
        let got = server.ask().await;
        assert_eq!(got.headers().contains_key("idempotent-replayed"), replayed);
        assert_eq!(text(got).await, "one, two");
    }
    // And one that takes longer, if that is asked for.
    let slower = || reply("text/plain", after(3_600, data("one")));
    let server = serve(layer().with_response_body_timeout(Duration::MAX), slower);
    assert_eq!(text(server.ask().await).await, "one");
    assert_eq!(text(server.ask().await).await, "one");
    assert_eq!(server.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_does_not_run_beside_a_slow_body() {
    let server = serve(layer(), || reply("text/plain", stream::pending().boxed()));
    let first = tokio::spawn({
        let server = server.clone();
        async move { server.ask().await.status() }
    });
    while server.calls.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.ask().await.status(), 409);
    let mut draining = Box::pin(server.in_flight.drain());
    assert!(futures::poll!(draining.as_mut()).is_pending());
    draining.await;
    assert_eq!(first.await.unwrap(), 200);
    assert_eq!(server.ask().await.status(), 410);
    assert_eq!(server.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_not_waited_for_at_all() {
    for content_type in [
        "text/event-stream",
        "Text/Event-Stream",
        "text/event-stream; charset=utf-8",
        "TEXT/EVENT-STREAM ;charset=utf-8",
        "application/x-ndjson",
        "application/NDJSON",
        "application/stream+json",
        "application/jsonl",
        "application/json-seq",
        "multipart/x-mixed-replace; boundary=frame",
        "application/connect+json",
    ] {
        let endless = move || reply(content_type, data("one").chain(stream::pending()).boxed());
        let server = serve(layer(), endless);
        let start = Instant::now();
        let mut first = server.ask().await;
        assert_eq!(first_frame(&mut first).await, "one");
        assert_eq!(server.ask().await.status(), 410, "{content_type}");
        assert_eq!(start.elapsed(), Duration::ZERO, "{content_type}");
    }
    for content_type in ["text/event-streams", "application/json", "multipart/mixed; boundary=a"] {
        let server = serve(layer(), move || reply(content_type, data("one")));
        assert_eq!(text(server.ask().await).await, "one");
        assert_eq!(text(server.ask().await).await, "one", "{content_type}");
    }
}

#[tokio::test]
async fn what_is_of_a_known_length_is_no_stream() {
    let whole = || {
        let body = Full::from("{}\n{}\n").boxed_unsync();
        Response::builder().header("content-type", "application/x-ndjson").body(body).unwrap()
    };
    let server = serve(layer(), whole);
    server.ask().await;
    let again = server.ask().await;
    assert!(again.headers().contains_key("idempotent-replayed"));
    assert_eq!(text(again).await, "{}\n{}\n");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_kept_if_its_handler_says_so() {
    let lines = || {
        let lines = data("{}\n").chain(after(3, data("{}\n"))).boxed();
        let mut reply = reply("application/x-ndjson", lines);
        reply.extensions_mut().insert(Knowledge::Done);
        reply
    };
    let server = serve(layer(), lines);
    for _ in 0..2 {
        assert_eq!(text(server.ask().await).await, "{}\n{}\n");
    }
    assert_eq!(server.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_of_grpc_that_streams_is_unknown_until_it_ends() {
    let stream = || {
        let rest = after(60, data("two").chain(trailers("0")).boxed());
        reply("application/grpc", data("one, ").chain(rest).boxed())
    };
    let server = serve(layer().with_grpc(), stream);
    let start = Instant::now();
    let first = server.ask().await;
    assert_eq!(start.elapsed(), LIMIT);
    // Its trailers were to say, and have not yet: who asks is told so.
    let again = server.ask().await;
    assert_eq!(again.headers()["grpc-status"], "9", "FAILED_PRECONDITION");
    let collected = first.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(collected.to_bytes(), "one, two");
    assert_eq!(server.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn trailers_are_the_end() {
    let lingering = || {
        let frames = data("one").chain(trailers("0")).chain(stream::pending());
        reply("application/grpc", frames.boxed())
    };
    let server = serve(layer().with_grpc(), lingering);
    let start = Instant::now();
    for _ in 0..2 {
        let collected = server.ask().await.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(collected.to_bytes(), "one");
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(server.calls.load(Ordering::SeqCst), 1);
}

/// By the thread of the library, which is what engines use unless told otherwise.
#[tokio::test]
async fn the_timer_need_not_be_that_of_tokio() {
    let limit = Duration::from_millis(10);
    let idempotency = Idempotency::at_most_once(MemoryStore::new());
    let layer = IdempotencyLayer::new(idempotency, Principal::single_tenant())
        .with_request_body_timeout(limit)
        .with_response_body_timeout(limit);
    let endless = || reply("text/plain", data("one").chain(stream::pending()).boxed());
    let server = serve(layer, endless);

    let stalled = server.send(body(data("100").chain(stream::pending()).boxed())).await;
    assert_eq!(stalled.status(), 408);
    let mut first = server.ask().await;
    assert_eq!(first_frame(&mut first).await, "one");
    assert_eq!(server.ask().await.status(), 410);
    server.in_flight.drain().await;
    assert_eq!(server.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_kept_is_not_read() {
    // Neither for what it says, nor within any time.
    for status in [500, 503, 101] {
        let endless = move || {
            let mut reply = reply("text/plain", data("one").chain(stream::pending()).boxed());
            *reply.status_mut() = http::StatusCode::from_u16(status).unwrap();
            reply
        };
        let server = serve(layer(), endless);
        let start = Instant::now();
        assert_eq!(first_frame(&mut server.ask().await).await, "one");
        assert_eq!(start.elapsed(), Duration::ZERO, "{status}");
        server.in_flight.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_body_stops_arriving_is_refused_in_time() {
    let server = serve(layer(), || reply("text/plain", data("charged")));
    let start = Instant::now();
    let stalled = server.send(body(data("100").chain(stream::pending()).boxed())).await;
    assert_eq!(start.elapsed(), IdempotencyLayer::DEFAULT_REQUEST_BODY_TIMEOUT);
    assert_eq!(stalled.status(), 408);
    assert!(text(stalled).await.contains("#body-too-slow\""));
    assert_eq!((server.calls.load(Ordering::SeqCst), server.in_flight.count()), (0, 0));

    // Nothing ran, and the key is free. What arrives slowly, but in time, is a request.
    let slow = body(data("100").chain(after(50, data(" EUR"))).boxed());
    assert_eq!(text(server.send(slow).await).await, "charged");
    assert!(server.ask().await.headers().contains_key("idempotent-replayed"));

    let server = serve(layer().with_request_body_timeout(Duration::from_secs(1)), || {
        reply("a/b", data("x"))
    });
    let slow = body(data("100").chain(after(50, data(" EUR"))).boxed());
    assert_eq!(server.send(slow).await.status(), 408);
    assert!(server.ask().await.body().size_hint().exact().is_some());
}

/// A body that ends before the length that it has told, as one of HTTP/2 does whose sender resets it
/// without an error.
struct Short(Option<&'static str>);

impl Body for Short {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|text| Ok(Frame::data(Bytes::from(text)))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(if self.0.is_some() { 8 } else { 1 })
    }
}

#[tokio::test]
async fn a_request_that_ends_before_its_length_is_incomplete() {
    let server = serve(layer(), || reply("text/plain", data("charged")));
    let short = server.send(Short(Some("100 EUR")).boxed_unsync()).await;
    assert_eq!(short.status(), 400);
    assert!(text(short).await.contains("#body-incomplete\""));
    assert_eq!(server.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_response_that_ends_before_its_length_is_not_kept() {
    let short = || Response::new(Short(Some("receipt")).boxed_unsync());
    let server = serve(layer(), short);
    assert_eq!(text(server.ask().await).await, "receipt");
    assert_eq!(server.ask().await.status(), 410);
    assert_eq!(server.calls.load(Ordering::SeqCst), 1);
}
