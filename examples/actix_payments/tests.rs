//! By a real client, over real sockets.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use actix_web::{HttpResponse, HttpResponseBuilder, Route, web};
use oncekey::Attempt;
use oncekey_http::Knowledge;
use reqwest::Response;

use super::service::{Shop, serve, start};

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

fn open_with(handler: impl Fn() -> Route + Clone + Send + 'static) -> (Shop, Client) {
    let shop = Shop::default();
    let url = serve(&shop, handler).unwrap();
    (shop, Client { url, account: "oak" })
}

/// A handler that charges, and answers by this status and what it knows.
fn charge(
    shop: web::Data<Shop>,
    mut response: HttpResponseBuilder,
    known: Knowledge,
) -> HttpResponse {
    let mut response = response.body(format!("receipt {}", shop.charge()));
    response.extensions_mut().insert(known);
    response
}

async fn assert_problem(response: Response, status: u16, slug: &str) {
    assert_eq!(response.status(), status);
    let text = response.text().await.unwrap();
    assert!(text.contains(&format!("#{slug}\"")), "{text}");
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

#[actix_web::test]
async fn what_the_handler_knows_decides_and_not_its_status() {
    // By its status, unknown; at most once would refuse the retry.
    let refused = || {
        web::post().to(async |shop| charge(shop, HttpResponse::BadGateway(), Knowledge::NotStarted))
    };
    let (shop, client) = open_with(refused);
    for _ in 0..2 {
        assert_eq!(client.pay("k", "100 EUR").await.status(), 502);
    }
    assert_eq!(shop.charges(), 2, "the handler said that it did nothing");

    // By its status, done.
    let in_doubt =
        || web::post().to(async |shop| charge(shop, HttpResponse::Ok(), Knowledge::Unknown));
    let (shop, client) = open_with(in_doubt);
    assert_eq!(client.pay("k", "100 EUR").await.status(), 200);
    assert_problem(client.pay("k", "100 EUR").await, 409, "interrupted").await;
    assert_eq!(shop.charges(), 1);
}

#[actix_web::test]
async fn what_is_done_and_must_not_be_kept_is_done() {
    let secret =
        || web::post().to(async |shop| charge(shop, HttpResponse::Ok(), Knowledge::DoneNotKept));
    let (shop, client) = open_with(secret);
    let first = client.pay("k", "100 EUR").await;
    assert_eq!((first.status().as_u16(), first.text().await.unwrap().as_str()), (200, "receipt 1"));
    assert_problem(client.pay("k", "100 EUR").await, 410, "result-not-kept").await;
    assert_eq!(shop.charges(), 1);
}

#[actix_web::test]
async fn a_handler_that_is_stopped_at_a_step_or_panics_is_told_as_what_it_is() {
    // No JSON has such keys, so the step cannot be saved.
    let unsaved = || {
        web::post().to(async |shop: web::Data<Shop>, attempt: web::ReqData<Attempt>| {
            let step = async || {
                shop.charge();
                Ok::<_, Infallible>(HashMap::from([((1, 2), 3)]))
            };
            match attempt.step("charge", step).await {
                Ok(_) => HttpResponse::Ok().finish(),
                Err(never) => match never {},
            }
        })
    };
    let (shop, client) = open_with(unsaved);
    assert_problem(client.pay("k", "100 EUR").await, 503, "step-unsaved").await;
    assert_problem(client.pay("k", "100 EUR").await, 409, "interrupted").await;
    assert_eq!(shop.charges(), 1);

    let panics = || {
        web::post().to(async |shop: web::Data<Shop>| -> HttpResponse {
            panic!("after {} charge(s)", shop.charge())
        })
    };
    let (shop, client) = open_with(panics);
    assert_problem(client.pay("k", "100 EUR").await, 500, "outcome-unknown").await;
    assert_problem(client.pay("k", "100 EUR").await, 409, "interrupted").await;
    assert_eq!(shop.charges(), 1);
}
