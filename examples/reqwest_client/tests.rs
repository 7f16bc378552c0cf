//! What the middleware sends, and when it stops.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};

use super::client;
use super::keys::{IdempotencyKey, IdempotencyKeys};
use super::road::{Mishap, Road};
use super::service::Shop;

/// A server that answers as it is told, one answer after the other, and notes the keys it gets.
struct Scripted {
    url: String,
    keys: Arc<Mutex<Vec<Option<String>>>>,
    pauses: Arc<Mutex<Vec<Duration>>>,
}

impl Scripted {
    async fn start(answers: Vec<(u16, Option<&'static str>)>) -> Self {
        let keys = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&keys);
        let handler = async move |headers: HeaderMap| -> Response {
            let mut noted = noted.lock().unwrap();
            let key = headers.get("idempotency-key").map(|it| it.to_str().unwrap().to_owned());
            noted.push(key);
            let (status, after) = answers[(noted.len() - 1).min(answers.len() - 1)];
            let status = StatusCode::from_u16(status).unwrap();
            match after {
                Some(after) => (status, [("retry-after", after)]).into_response(),
                None => status.into_response(),
            }
        };
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(any(handler));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, keys, pauses: Arc::default() }
    }

    /// A client that notes its pauses instead of making them.
    fn client(&self) -> ClientWithMiddleware {
        let pauses = Arc::clone(&self.pauses);
        let keys = IdempotencyKeys::new().pause_by(move |pause| {
            pauses.lock().unwrap().push(pause);
            Box::pin(async {})
        });
        ClientBuilder::new(reqwest::Client::new()).with(keys).build()
    }

    async fn post(&self) -> u16 {
        self.client().post(&self.url).body("100 EUR").send().await.unwrap().status().as_u16()
    }

    fn keys(&self) -> Vec<Option<String>> {
        self.keys.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn nobody_is_charged_twice_over_a_bad_road() {
    let shop = Shop::open().await.unwrap();
    let mishaps = [
        vec![],
        vec![Mishap::ReplyLost],
        vec![Mishap::RequestLost, Mishap::ReplyLost, Mishap::RequestLost],
        vec![Mishap::ReplyLost; 5],
    ];
    let orders = mishaps.len();
    for (number, mishaps) in mishaps.into_iter().enumerate() {
        let tries = mishaps.len() + 1;
        let reply_lost = mishaps.iter().any(|it| matches!(it, Mishap::ReplyLost));
        let road = Road::to(shop.address, mishaps).await.unwrap();
        let order = format!("order {number}");
        let request = client().post(format!("http://{}/payments", road.address)).body(order);
        let response = request.send().await.unwrap();

        assert_eq!(response.status(), 201);
        assert_eq!(response.headers().contains_key("idempotent-replayed"), reply_lost);
        let receipt = format!("receipt {} for order {number}", number + 1);
        assert_eq!(response.text().await.unwrap(), receipt);
        assert_eq!(road.trips(), tries);
    }
    assert_eq!(shop.charges(), orders);
}

#[tokio::test]
async fn a_key_is_kept_across_retries_and_not_beyond() {
    let server = Scripted::start(vec![(503, None), (500, None), (201, None)]).await;
    assert_eq!(server.post().await, 201);
    let first = server.keys();
    assert_eq!(first.len(), 3);
    assert!(first.iter().all(|key| key == &first[0]));
    let key = first[0].as_deref().unwrap();
    assert!(key.starts_with('"') && key.ends_with('"') && key.len() == 38, "a quoted UUID: {key}");

    server.post().await;
    assert_ne!(server.keys()[3], first[0], "another thing, another key");
}

#[tokio::test]
async fn a_key_of_ones_own_is_sent() {
    let server = Scripted::start(vec![(503, None), (201, None), (503, None), (201, None)]).await;
    let kept = IdempotencyKey::mint().unwrap();
    for _ in 0..2 {
        // The second time is after a restart: the key was kept with the order.
        let request = server.client().post(&server.url).with_extension(kept.clone()).body("100");
        request.send().await.unwrap();
    }
    let keys = server.keys();
    assert!(keys.len() == 4 && keys.iter().all(|key| key == &keys[0]));

    let request = server.client().post(&server.url).header("Idempotency-Key", "\"mine\"");
    request.body("100").send().await.unwrap();
    assert_eq!(server.keys()[4].as_deref(), Some("\"mine\""));
}

#[tokio::test]
async fn the_server_says_when_to_come_back() {
    let server = Scripted::start(vec![(409, Some("2")), (503, Some("90")), (201, None)]).await;
    assert_eq!(server.post().await, 201);
    let seconds = server.pauses.lock().unwrap().iter().map(Duration::as_secs).collect::<Vec<_>>();
    assert_eq!(seconds, [2, 30], "and no longer than we are willing to wait");
}

/// It may be a date, too. That one is in progress, and not interrupted.
#[tokio::test]
async fn a_date_to_come_back_at_is_a_reason_to_come_back() {
    let date = Some("Fri, 31 Dec 2999 23:59:59 GMT");
    let server = Scripted::start(vec![(409, date), (201, None)]).await;
    assert_eq!(server.post().await, 201);
    let pauses = server.pauses.lock().unwrap().clone();
    assert!(pauses.len() == 1 && pauses[0] < Duration::from_secs(1), "the usual pause: {pauses:?}");
}

#[tokio::test]
async fn answers_are_not_asked_for_again() {
    for status in [200, 201, 204, 400, 402, 404, 409, 410, 413, 422, 501] {
        let server = Scripted::start(vec![(status, None)]).await;
        assert_eq!(server.post().await, status);
        assert_eq!(server.keys().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn some_time_it_gives_up() {
    let server = Scripted::start(vec![(503, None)]).await;
    assert_eq!(server.post().await, 503);
    assert_eq!((server.keys().len(), server.pauses.lock().unwrap().len()), (8, 7));
}

#[tokio::test]
async fn what_is_safe_by_itself_needs_no_key() {
    let server = Scripted::start(vec![(503, None)]).await;
    let got = server.client().get(&server.url).send().await.unwrap();
    assert_eq!((got.status().as_u16(), server.keys()), (503, vec![None]));
}
