//! The span of a request follows it into the task that runs it.
#![cfg(feature = "tracing")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use oncekey::Idempotency;
use oncekey_memory::MemoryStore;
use oncekey_tower::{IdempotencyLayer, Principal, RequestBody};
use tower::{Layer, ServiceExt};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Instrument, Metadata, Subscriber};
use tracing_core::span::Current;

/// Knows one span, and whether the code that runs is within it.
#[derive(Clone, Default)]
struct OneSpan(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    metadata: Option<&'static Metadata<'static>>,
    depth: usize,
}

impl Subscriber for OneSpan {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.0.lock().unwrap().metadata = Some(span.metadata());
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {
        self.0.lock().unwrap().depth += 1;
    }

    fn exit(&self, _: &Id) {
        self.0.lock().unwrap().depth -= 1;
    }

    fn current_span(&self) -> Current {
        let state = self.0.lock().unwrap();
        match state.metadata {
            Some(metadata) if state.depth > 0 => Current::new(Id::from_u64(1), metadata),
            _ => Current::none(),
        }
    }
}

fn current() -> Option<&'static str> {
    tracing::Span::current().metadata().map(Metadata::name)
}

#[test]
fn a_span_follows_its_request() {
    tracing::subscriber::with_default(OneSpan::default(), || {
        let handler = tower::service_fn(async |_: Request<RequestBody<Full<Bytes>>>| {
            assert_eq!(current(), Some("request"));
            tokio::task::yield_now().await;
            // In a task of its own by now.
            assert_eq!(current(), Some("request"));
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("done")))
        });
        let idempotency = Idempotency::at_least_once(MemoryStore::new());
        let service = IdempotencyLayer::new(idempotency, Principal::single_tenant()).layer(handler);
        let request = Request::post("/").header("idempotency-key", "k");
        let request = request.body(Full::<Bytes>::default()).unwrap();
        let answer = service.oneshot(request).instrument(tracing::info_span!("request"));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(answer).unwrap().status(), 200);
    });
}
