//! Unary calls of gRPC: what they mean is in their trailers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use oncekey::Idempotency;
use oncekey_memory::MemoryStore;
use oncekey_tower::oncekey_http::{Knowledge, Problem, ProblemKind};
use oncekey_tower::{IdempotencyLayer, Principal, RequestBody, ResponseBody};
use tokio::sync::Semaphore;
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt};

type ReplyBody = UnsyncBoxBody<Bytes, Infallible>;
type Reply = Response<ReplyBody>;
type Calls = BoxCloneSyncService<Request<Full<Bytes>>, Got, Infallible>;

/// What a client of gRPC sees of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Got {
    replayed: bool,
    status: String,
    message: Bytes,
    trailers: HeaderMap,
    pushback: bool,
}

/// As tonic answers: a message, and the status in the trailers.
fn message(text: &'static str, status: &'static str) -> Reply {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    trailers.append("x-detail", HeaderValue::from_static("a"));
    trailers.append("x-detail", HeaderValue::from_static("b"));
    let frames = [Frame::data(Bytes::from(text)), Frame::trailers(trailers)].map(Ok);
    let body = StreamBody::new(futures::stream::iter(frames)).boxed_unsync();
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

/// As tonic answers when there is no message: all in the headers.
fn no_message(status: &'static str) -> Reply {
    let body = Full::default().boxed_unsync();
    let response = Response::builder().header("content-type", "application/grpc");
    response.header("grpc-status", status).body(body).unwrap()
}

/// As a handler answers that knows.
fn marked(knowledge: Knowledge) -> Reply {
    let mut reply = no_message("16");
    reply.extensions_mut().insert(knowledge);
    reply
}

/// A service that answers with what `reply` makes of the number of the call, and the count of calls.
fn service(
    idempotency: Idempotency,
    max_response: usize,
    gate: Arc<Semaphore>,
    reply: impl Fn(usize) -> Reply + Send + Sync + 'static,
) -> (Calls, Arc<AtomicUsize>) {
    let (reply, calls) = (Arc::new(reply), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&calls);
    let inner = tower::service_fn(move |_: Request<RequestBody<Full<Bytes>>>| {
        let (reply, counted, gate) = (Arc::clone(&reply), Arc::clone(&counted), Arc::clone(&gate));
        async move {
            let call = counted.fetch_add(1, Ordering::SeqCst) + 1;
            let _permit = gate.acquire().await.unwrap();
            Ok::<_, Infallible>(reply(call))
        }
    });
    let layer = IdempotencyLayer::new(idempotency, Principal::single_tenant())
        .with_max_response_body(max_response)
        .with_grpc();
    let service =
        layer.layer(inner).and_then(async |response: Response<ResponseBody<ReplyBody>>| {
            assert_eq!(response.status(), 200);
            let headers = response.headers().clone();
            assert_eq!(headers["content-type"], "application/grpc");
            let collected = response.into_body().collect().await.unwrap();
            let trailers = collected.trailers().cloned().unwrap_or_default();
            let status = headers.get("grpc-status").or(trailers.get("grpc-status")).unwrap();
            Ok(Got {
                replayed: headers.contains_key("idempotent-replayed"),
                status: status.to_str().unwrap().to_owned(),
                pushback: headers.contains_key("grpc-retry-pushback-ms"),
                message: collected.to_bytes(),
                trailers,
            })
        });
    (BoxCloneSyncService::new(service), calls)
}

fn open() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(Semaphore::MAX_PERMITS))
}

fn at_most_once() -> Idempotency {
    Idempotency::at_most_once(MemoryStore::new())
}

async fn call(service: &Calls, key: &str, message: &'static str) -> Got {
    let request = Request::post("/pay.Payments/Charge")
        .header("content-type", "application/grpc")
        .header("idempotency-key", key)
        .body(Full::from(message))
        .unwrap();
    service.clone().oneshot(request).await.unwrap()
}

#[tokio::test]
async fn a_replay_has_the_message_and_the_trailers() {
    let (service, calls) = service(at_most_once(), 1 << 20, open(), |_| message("receipt", "0"));
    let first = call(&service, "k", "100").await;
    let again = call(&service, "k", "100").await;

    assert!(!first.replayed && again.replayed);
    assert_eq!(first.trailers, again.trailers);
    assert_eq!(again.trailers.get_all("x-detail").iter().count(), 2);
    assert_eq!(again, Got { replayed: true, ..first });
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_status_says_what_is_known() {
    // (reply, status of the retry, whether it ran)
    type Case = (fn() -> Reply, &'static str, bool);
    let table: [Case; 8] = [
        (|| no_message("9"), "9", false),
        (|| message("", "9"), "9", false),
        (|| no_message("16"), "9", false),
        (|| message("", "16"), "9", false),
        (|| marked(Knowledge::NotStarted), "0", true),
        (|| no_message("14"), "9", false),
        (|| message("", "13"), "9", false),
        (|| message("", "not a number"), "9", false),
    ];
    for (number, (reply, retry, ran)) in table.into_iter().enumerate() {
        let reply = move |call| if call == 1 { reply() } else { message("receipt", "0") };
        let (service, calls) = service(at_most_once(), 1 << 20, open(), reply);
        call(&service, "k", "100").await;
        assert_eq!(call(&service, "k", "100").await.status, retry, "row {number}");
        assert_eq!(calls.load(Ordering::SeqCst) == 2, ran, "row {number}");
    }
}

#[tokio::test]
async fn a_problem_of_others_is_kept_only_if_it_is_final() {
    for &kind in ProblemKind::ALL {
        // As it comes from a client of another service: what was in memory is lost.
        let pass_on = move |call| {
            let (parts, body) = Problem::new(kind).into_grpc_response().into_parts();
            let mut reply = Response::new(Full::new(body).boxed_unsync());
            *reply.headers_mut() = parts.headers;
            if call == 1 { reply } else { message("receipt", "0") }
        };
        let engine = Idempotency::at_least_once(MemoryStore::new());
        let (service, calls) = service(engine, 1 << 20, open(), pass_on);
        call(&service, "k", "100").await;
        let again = call(&service, "k", "100").await;
        let is_final = kind.knowledge() == Knowledge::Done;
        assert_eq!(again.replayed, is_final, "{kind:?}");
        assert_eq!(calls.load(Ordering::SeqCst) == 1, is_final, "{kind:?}");
    }
}

#[tokio::test]
async fn outcomes_are_status_codes() {
    let gate = Arc::new(Semaphore::new(0));
    let (service, calls) =
        service(at_most_once(), 1 << 20, Arc::clone(&gate), |_| message("receipt", "0"));
    let first = tokio::spawn({
        let service = service.clone();
        async move { call(&service, "k", "100").await }
    });
    while calls.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }

    let busy = call(&service, "k", "100").await;
    assert_eq!((busy.status.as_str(), busy.pushback), ("10", true), "ABORTED");
    assert_eq!(call(&service, "k", "200").await.status, "3", "INVALID_ARGUMENT");
    assert_eq!(call(&service, "k, k", "100").await.status, "3", "INVALID_ARGUMENT");
    gate.add_permits(1);
    assert_eq!(first.await.unwrap().status, "0");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_message_that_is_too_large_counts_as_done() {
    let (service, calls) = service(at_most_once(), 4, open(), |_| message("receipt", "0"));
    let first = call(&service, "k", "100").await;
    assert_eq!((first.status.as_str(), first.message.as_ref()), ("0", b"receipt".as_slice()));
    assert_eq!(call(&service, "k", "100").await.status, "6", "ALREADY_EXISTS");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn refusals_at_the_door_are_status_codes() {
    let nobody = Principal::from_fn(|_| None);
    let layer = |principal| IdempotencyLayer::new(at_most_once(), principal).with_grpc();
    let closed = layer(Principal::single_tenant());
    closed.in_flight().close();
    let full = layer(Principal::single_tenant()).with_max_in_flight(0);
    let small = layer(Principal::single_tenant()).with_max_request_body(2);
    for (layer, code) in [(layer(nobody), "7"), (closed, "14"), (full, "14"), (small, "8")] {
        let handler = tower::service_fn(async |_: Request<RequestBody<Full<Bytes>>>| {
            Ok::<_, Infallible>(message("it ran", "0"))
        });
        let request = Request::post("/pay.Payments/Charge").header("idempotency-key", "k");
        let request = request.body(Full::from("100")).unwrap();
        let refused = layer.layer(handler).oneshot(request).await.unwrap();
        assert_eq!(refused.headers()["grpc-status"], code);
        assert_eq!(refused.status(), 200);
        assert_eq!(refused.headers()["content-type"], "application/grpc");
    }
}

#[tokio::test]
async fn a_classifier_of_heads_leaves_the_rest_to_the_trailers() {
    let layer = IdempotencyLayer::new(at_most_once(), Principal::single_tenant())
        .with_grpc()
        .with_classifier(|response| match response.status.as_u16() {
            503 => Some(Knowledge::NotStarted),
            _ => None,
        });
    let handler = tower::service_fn(async |_: Request<RequestBody<Full<Bytes>>>| {
        Ok::<_, Infallible>(message("", "14"))
    });
    let ask = async || {
        let request = Request::post("/pay.Payments/Charge").header("idempotency-key", "k");
        layer.layer(handler).oneshot(request.body(Full::from("100")).unwrap()).await.unwrap()
    };
    let trailers = ask().await.into_body().collect().await.unwrap().trailers().cloned();
    assert_eq!(trailers.unwrap()["grpc-status"], "14");
    let again = ask().await;
    assert!(!again.headers().contains_key("idempotent-replayed"));
    assert_eq!(again.headers()["grpc-status"], "9", "FAILED_PRECONDITION");
}
