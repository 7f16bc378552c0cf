//! Clients and handlers that do everything at once that the other tests have do one thing at a time: over real
//! sockets, by seeds. Whatever they do, nothing is charged twice, and nobody waits for ever.
//!
//! `ONCEKEY_SEED` is the first seed; a tenth of `ONCEKEY_SEEDS` follow.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use oncekey::{Attempt, Idempotency};
use oncekey_memory::MemoryStore;
use oncekey_tower::oncekey_http::Knowledge;
use oncekey_tower::{IdempotencyLayer, InFlight, Principal};
use support::{raw_head, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const KEYS: u64 = 36;
const CLIENTS: u64 = 3;

/// What the handler does with the request of a key.
const PLANS: [&str; 12] = [
    "at once",
    "soon",
    "panic first",
    "panic after",
    "500",
    "401",
    "come back",
    "not started",
    "endless",
    "stalls",
    "breaks off",
    "no body",
];

/// How often a key was charged, and how often its handler was called.
type Counts = (u32, u32);

#[derive(Debug, Clone, Default)]
struct Books(Arc<Mutex<HashMap<Vec<u8>, Counts>>>);

impl Books {
    fn change(&self, key: &[u8], change: impl FnOnce(&mut Counts)) -> Counts {
        let mut books = self.0.lock().unwrap();
        let entry = books.entry(key.to_vec()).or_default();
        change(entry);
        *entry
    }
}

async fn pay(
    State(books): State<Books>,
    Extension(attempt): Extension<Attempt>,
    plan: String,
) -> Response {
    let key = attempt.key().id().unwrap();
    let (_, calls) = books.change(key, |it| it.1 += 1);
    match plan.as_str() {
        "soon" => tokio::time::sleep(Duration::from_millis(3)).await,
        "panic first" => std::panic::resume_unwind(Box::new("before")),
        "not started" if calls == 1 => {
            tokio::task::yield_now().await;
            let closed = StatusCode::SERVICE_UNAVAILABLE;
            return (Extension(Knowledge::NotStarted), closed).into_response();
        }
        _ => tokio::task::yield_now().await,
    }
    let (charges, _) = books.change(key, |it| it.0 += 1);
    let receipt = Bytes::from(format!("receipt {charges} for {plan}"));
    let start = futures::stream::iter([Ok::<_, std::io::Error>(receipt.clone())]);
    match plan.as_str() {
        "panic after" => std::panic::resume_unwind(Box::new("after")),
        "500" => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        "401" => StatusCode::UNAUTHORIZED.into_response(),
        "come back" => (StatusCode::CONFLICT, [("retry-after", "1")]).into_response(),
        "endless" => {
            let body = Body::from_stream(start.chain(futures::stream::pending()));
            ([("content-type", "application/x-ndjson")], body).into_response()
        }
        "stalls" => Body::from_stream(start.chain(futures::stream::pending())).into_response(),
        "breaks off" => {
            let end = futures::stream::iter([Err(std::io::Error::other("broken"))]);
            Body::from_stream(start.chain(end)).into_response()
        }
        "no body" => StatusCode::NO_CONTENT.into_response(),
        _ => receipt.into_response(),
    }
}

async fn start() -> (SocketAddr, InFlight, Books) {
    let idempotency =
        Idempotency::at_most_once(MemoryStore::new()).wait_for_duplicate(Duration::from_millis(20));
    let layer = IdempotencyLayer::new(idempotency, Principal::single_tenant())
        .with_request_body_timeout(Duration::from_millis(50))
        .with_response_body_timeout(Duration::from_millis(5));
    let (in_flight, books) = (layer.in_flight(), Books::default());
    let router = Router::new().route("/payments", post(pay)).layer(layer);
    (support::serve(router.with_state(books.clone())).await, in_flight, books)
}

/// Splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % bound
    }
}

fn whole_request(key: &str, body: &str) -> Vec<u8> {
    let mut bytes = raw_head(format!("idempotency-key: {key}\r\n").as_bytes(), body.len());
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

/// A client that sends what it should, or not, and stays, or not.
async fn misbehave(server: SocketAddr, key: String, plan: &'static str, mut random: Random) {
    let body = if random.below(6) == 0 { "another plan" } else { plan };
    let mut bytes = whole_request(&key, body);
    let mut stays = false;
    match random.below(4) {
        // Hangs up, or sends no more, somewhere.
        0 => bytes.truncate(random.below(bytes.len() as u64) as usize),
        // Says something else, somewhere.
        1 => {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.below(256) as u8;
        }
        _ => stays = random.below(2) == 0,
    }
    let mut stream = TcpStream::connect(server).await.unwrap();
    // Who is refused early may find the connection closed.
    let _ = stream.write_all(&bytes).await;
    let patience = Duration::from_micros(random.below(4) * random.below(8_000));
    let read = read_answer(&mut stream, body);
    let _ = if stays { Ok(read.await) } else { tokio::time::timeout(patience, read).await };
}

/// To its end, if it has one.
async fn read_answer(stream: &mut TcpStream, plan: &str) -> String {
    let mut answer = Vec::new();
    let ends = !["endless", "stalls"].contains(&plan);
    while (ends || !answer.windows(7).any(|it| it == b"receipt"))
        && matches!(stream.read_buf(&mut answer).await, Ok(1..))
    {}
    String::from_utf8_lossy(&answer).into_owned()
}

/// What a client gets that asks until there is an answer.
async fn settle(server: SocketAddr, key: &str, plan: &str) -> String {
    loop {
        let mut stream = TcpStream::connect(server).await.unwrap();
        stream.write_all(&whole_request(key, plan)).await.unwrap();
        let answer = read_answer(&mut stream, plan).await;
        // What a server has sent of a response that breaks off is up to it.
        let answered = answer.starts_with("HTTP/1.1 ") || plan == "breaks off";
        assert!(answered, "{plan}: no answer: {answer}");
        // In progress, not started, or slow to arrive on a busy machine.
        let not_yet = ["#in-progress\"", " 503 ", "#body-too-slow\""];
        if !not_yet.iter().any(|it| answer.contains(it)) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn play(seed: u64) {
    let (server, in_flight, books) = start().await;
    let mut clients = JoinSet::new();
    for number in 0..KEYS {
        let plan = PLANS[(number % PLANS.len() as u64) as usize];
        for client in 0..CLIENTS {
            let random = Random(seed.wrapping_mul(1_000_003) ^ number << 8 ^ client);
            clients.spawn(misbehave(server, format!("key-{number}"), plan, random));
        }
    }
    soon(clients.join_all()).await;
    let begun = books.0.lock().unwrap().values().filter(|(_, calls)| *calls > 0).count();
    let mut settled = 0;
    for number in 0..KEYS {
        let (key, plan) = (format!("key-{number}"), PLANS[(number % PLANS.len() as u64) as usize]);
        let last = soon(settle(server, &key, plan)).await;
        let again = soon(settle(server, &key, plan)).await;
        let (charges, calls) = books.change(key.as_bytes(), |_| {});
        let shown = format!(
            "seed {seed}, {key}, {plan}: {charges} charges, {calls} calls\n{last}\n{again}"
        );
        assert!(charges <= 1, "{shown}");
        // Of a client that put another plan, or another byte, under the key first.
        if last.contains("#key-reused\"") {
            continue;
        }
        settled += 1;
        let status = |answer: &str| answer[9..12].to_owned();
        match plan {
            "at once" | "soon" | "not started" => {
                assert!(last.contains(&format!("receipt 1 for {plan}")), "{shown}");
                assert!(again.contains("idempotent-replayed: true"), "{shown}");
            }
            "no body" => assert_eq!((&*status(&last), &*status(&again)), ("204", "204"), "{shown}"),
            "endless" | "stalls" | "breaks off" => assert_eq!(status(&again), "410", "{shown}"),
            _ => assert!(again.contains("#interrupted\""), "{shown}"),
        }
        assert_eq!(charges, u32::from(plan != "panic first"), "{shown}");
    }
    soon(in_flight.drain()).await;
    // There was something to be done twice, and to be found out.
    assert!(begun > 6 && settled > 12, "seed {seed}: {begun} begun, {settled} settled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_charged_twice_whatever_anybody_does() {
    let number = |name: &str| std::env::var(name).ok().map(|it| it.parse::<u64>().unwrap());
    let first = number("ONCEKEY_SEED").unwrap_or(1);
    let count = number("ONCEKEY_SEEDS").map_or(3, |seeds| seeds.div_ceil(10));
    for seed in first..first.saturating_add(count) {
        play(seed).await;
    }
}
