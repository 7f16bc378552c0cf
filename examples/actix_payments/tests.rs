//! By a real client, over real sockets.

use std::time::Duration;

use reqwest::Response;

use super::service::{Shop, start};

struct Client {
    url: String,
    account: &'static str,
}

impl Client {
    async fn pay(&self, key: &str, body: &'static str) -> Response {
        let request = reqwest::Client::new().post(&self.url).bearer_auth(self.account);
        request.header("Idempotency-Key", key).body(body).send().await.unwrap()
    }
}

fn open() -> (Shop, Client) {
    let shop = Shop::default();
    let url = start(&shop).unwrap();
    (shop, Client { url, account: "oak" })
}

#[actix_web::test]
async fn a_request_is_charged_once() {
    let (shop, client) = open();
    let first = client.pay("\"k\"", "100 EUR").await;
    let again = client.pay("k", "100 EUR").await;

    assert_eq!((first.status().as_u16(), again.status().as_u16()), (201, 201));
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(first.headers()["location"], again.headers()["location"]);
    assert!(first.headers().contains_key("set-cookie"));
    assert!(!again.headers().contains_key("set-cookie"));
    assert_eq!(first.text().await.unwrap(), again.text().await.unwrap());
    assert_eq!(shop.charges(), 1);
}

#[actix_web::test]
async fn at_the_same_moment_too() {
    let (shop, client) = open();
    let crowd = (0..20).map(|_| client.pay("k", "100 EUR"));
    let answers = futures::future::join_all(crowd).await;

    let firsts = answers.iter().filter(|it| !it.headers().contains_key("idempotent-replayed"));
    assert_eq!(firsts.count(), 1);
    assert!(answers.iter().all(|it| it.status() == 201));
    assert_eq!(shop.charges(), 1);
}

#[actix_web::test]
async fn what_is_wrong_is_told_as_a_problem() {
    let (shop, client) = open();
    client.pay("k", "100 EUR").await;
    let stranger = Client { url: client.url.clone(), account: "" };
    for (answer, status) in [
        (client.pay("k", "200 EUR").await, 422),
        (client.pay("k, k", "100 EUR").await, 400),
        (client.pay("", "100 EUR").await, 400),
        (stranger.pay("k", "100 EUR").await, 403),
    ] {
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
    assert_eq!(shop.charges(), 1);
}

#[actix_web::test]
async fn a_refusal_is_replayed() {
    let (shop, client) = open();
    for _ in 0..2 {
        let refused = client.pay("k", "").await;
        assert_eq!(refused.status(), 402);
        assert_eq!(refused.text().await.unwrap(), "nothing to charge");
    }
    assert_eq!(shop.charges(), 0);
}

#[actix_web::test]
async fn a_client_that_hangs_up_stops_nothing() {
    let (shop, client) = open();
    let hasty = reqwest::Client::builder().timeout(Duration::from_millis(15)).build().unwrap();
    let request = hasty.post(&client.url).bearer_auth("oak").header("Idempotency-Key", "k");
    request.body("100 EUR").send().await.unwrap_err();

    let retry = client.pay("k", "100 EUR").await;
    assert_eq!(retry.status(), 201);
    assert_eq!(retry.text().await.unwrap(), "receipt 1 for 100 EUR");
    assert_eq!(shop.charges(), 1);
}
