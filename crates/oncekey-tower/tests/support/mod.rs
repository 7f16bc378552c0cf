//! A service over real sockets, and clients that can do what they should not.

#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod store;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use oncekey_tower::IdempotencyLayer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Counts the charges that it makes, and makes each only when it is let.
#[derive(Clone)]
pub(crate) struct Till {
    inner: Arc<Inner>,
}

struct Inner {
    started: AtomicUsize,
    charges: AtomicUsize,
    begun: Semaphore,
    gate: Semaphore,
}

impl Till {
    /// One that charges at once.
    pub(crate) fn open() -> Self {
        Self::with_gate(Semaphore::MAX_PERMITS)
    }

    /// One that charges when [`let_in`](Self::let_in) says so.
    pub(crate) fn closed() -> Self {
        Self::with_gate(0)
    }

    fn with_gate(permits: usize) -> Self {
        let inner = Inner {
            started: AtomicUsize::new(0),
            charges: AtomicUsize::new(0),
            begun: Semaphore::new(0),
            gate: Semaphore::new(permits),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) async fn charge(&self) -> usize {
        self.inner.started.fetch_add(1, Ordering::SeqCst);
        self.inner.begun.add_permits(1);
        self.inner.gate.acquire().await.unwrap().forget();
        self.inner.charges.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Waits until one more charge has begun.
    pub(crate) async fn begun(&self) {
        soon(self.inner.begun.acquire()).await.unwrap().forget();
    }

    pub(crate) fn let_in(&self, count: usize) {
        self.inner.gate.add_permits(count);
    }

    pub(crate) fn started(&self) -> usize {
        self.inner.started.load(Ordering::SeqCst)
    }

    pub(crate) fn charges(&self) -> usize {
        self.inner.charges.load(Ordering::SeqCst)
    }
}

/// `POST /payments`, which charges and answers 201 with the number of the charge.
pub(crate) fn payments(till: &Till, layer: IdempotencyLayer) -> Router {
    let pay = async |State(till): State<Till>, body: Bytes| {
        let charge = till.charge().await;
        let receipt = format!("receipt {charge} for {}", String::from_utf8_lossy(&body));
        (StatusCode::CREATED, receipt)
    };
    Router::new()
        .route("/payments", post(pay).patch(pay).put(pay))
        .route("/refunds", post(pay))
        .layer(layer)
        .with_state(till.clone())
}

/// Serves `router` on a port of its own, for as long as the runtime of the test lives.
pub(crate) async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// What a client got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn is_replay(&self) -> bool {
        self.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
    }

    /// The end of the `type` of a problem; checks that it is one.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(json["status"], self.status);
        json["type"].as_str().unwrap().rsplit('#').next().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, slug: &str) {
        assert_eq!((self.status, self.problem().as_str()), (status, slug), "{self:?}");
    }
}

/// One request on a connection of its own.
pub(crate) async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let response = soon(sender.send_request(request)).await.unwrap();
    let (parts, body) = response.into_parts();
    let collected = soon(body.collect()).await.unwrap();
    let trailers = collected.trailers().cloned();
    let body = collected.to_bytes();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body, trailers }
}

pub(crate) fn request(path: &str, key: &str, body: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(Method::POST)
        .uri(path)
        .header("host", "localhost")
        .header("idempotency-key", key)
        .body(Full::from(body.to_owned()))
        .unwrap()
}

pub(crate) async fn pay(address: SocketAddr, key: &str, body: &str) -> Answer {
    send(address, request("/payments", key, body)).await
}

/// Sends `bytes` as they are, and returns all that comes back until the server hangs up.
pub(crate) async fn send_raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// The head of a `POST /payments`, as bytes.
pub(crate) fn raw_head(headers: &[u8], content_length: usize) -> Vec<u8> {
    let mut head = b"POST /payments HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n".to_vec();
    head.extend_from_slice(format!("content-length: {content_length}\r\n").as_bytes());
    head.extend_from_slice(headers);
    head.extend_from_slice(b"\r\n");
    head
}

/// Fails a test that would hang.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("this should have ended")
}

/// Waits until `done`.
pub(crate) async fn until(done: impl Fn() -> bool) {
    soon(async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
