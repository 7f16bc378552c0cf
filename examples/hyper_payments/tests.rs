//! By a real client, over real sockets.

use std::sync::atomic::Ordering;

use reqwest::Response;

use super::{Server, Till, start};

async fn pay(server: &Server, account: &str, key: &str, body: &'static str) -> Response {
    let request = reqwest::Client::new().post(&server.url).header("x-account", account);
    request.header("idempotency-key", key).body(body).send().await.unwrap()
}

async fn open() -> (Till, Server) {
    let till = Till::default();
    let server = start(till.clone()).await.unwrap();
    (till, server)
}

fn charges(till: &Till) -> u64 {
    till.charges.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_request_is_charged_once() {
    let (till, server) = open().await;
    let first = pay(&server, "oak", "\"k\"", "100 EUR").await;
    let again = pay(&server, "oak", "k", "100 EUR").await;

    assert_eq!((first.status().as_u16(), again.status().as_u16()), (200, 200));
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(first.text().await.unwrap(), "receipt 1 for 100 EUR");
    assert_eq!(again.text().await.unwrap(), "receipt 1 for 100 EUR");
    assert_eq!(charges(&till), 1);
}

#[tokio::test]
async fn at_the_same_moment_too() {
    let (till, server) = open().await;
    let crowd = (0..20).map(|_| pay(&server, "oak", "k", "100 EUR"));
    let answers = futures::future::join_all(crowd).await;

    assert!(answers.iter().all(|it| it.status() == 200));
    let firsts = answers.iter().filter(|it| !it.headers().contains_key("idempotent-replayed"));
    assert_eq!((firsts.count(), charges(&till)), (1, 1));
}

#[tokio::test]
async fn what_is_wrong_is_told_as_a_problem() {
    let (till, server) = open().await;
    pay(&server, "oak", "k", "100 EUR").await;
    for (answer, status) in [
        (pay(&server, "oak", "k", "200 EUR").await, 422),
        (pay(&server, "oak", "k, k", "100 EUR").await, 400),
        (pay(&server, "", "k", "100 EUR").await, 403),
    ] {
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
    assert_eq!(charges(&till), 1);
}

#[tokio::test]
async fn stopping_waits_for_a_charge_whose_client_is_gone() {
    let (till, server) = open().await;
    let client = tokio::spawn(super::ask(server.url.clone()));
    till.begun.notified().await;
    client.abort();
    drop(server.stop);
    server.serving.await.unwrap();

    assert_eq!(charges(&till), 1);
}
