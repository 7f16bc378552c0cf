//! By a real client of tonic, over a real socket.

use tonic::Code;

use super::service::{Payments, start};
use super::wire::{Client, Order};

fn order(order: &str, amount: u64) -> Order {
    Order { order: order.to_owned(), amount }
}

async fn open(account: &'static str) -> (Payments, Client) {
    let payments = Payments::default();
    let server = start(&payments).await.unwrap();
    (payments, Client::connect(server, account).await.unwrap())
}

#[tokio::test]
async fn a_call_is_charged_once() {
    let (payments, mut client) = open("oak").await;
    let (first, replayed) = client.charge("k", order("17", 100)).await.unwrap();
    assert!(!replayed);
    for _ in 0..3 {
        let again = client.charge("k", order("17", 100)).await.unwrap();
        assert_eq!(again, (first.clone(), true));
    }
    assert_eq!(payments.charges(), 1);
}

#[tokio::test]
async fn calls_at_the_same_moment_get_one_receipt() {
    let (payments, client) = open("oak").await;
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let mut client = client.clone();
        crowd.spawn(async move { client.charge("k", order("17", 100)).await.unwrap() });
    }
    let answers = crowd.join_all().await;
    assert!(answers.iter().all(|(receipt, _)| receipt == &answers[0].0));
    assert_eq!(answers.iter().filter(|(_, replayed)| !replayed).count(), 1);
    assert_eq!(payments.charges(), 1);
}

#[tokio::test]
async fn a_client_that_hangs_up_stops_nothing() {
    let (payments, mut client) = open("oak").await;
    let hasty = client.charge("k", order("17", 100));
    // Dropping a call resets its stream.
    let _ = tokio::time::timeout(std::time::Duration::from_millis(15), hasty).await;
    let (receipt, _) = client.charge("k", order("17", 100)).await.unwrap();
    assert_eq!((receipt.receipt, payments.charges()), (1, 1));
}

#[tokio::test]
async fn a_key_of_another_call_is_an_invalid_argument() {
    let (payments, mut client) = open("oak").await;
    client.charge("k", order("17", 100)).await.unwrap();
    let other = client.charge("k", order("17", 200)).await.unwrap_err();
    assert_eq!(other.code(), Code::InvalidArgument);
    assert_eq!(other.metadata().get("idempotency-problem").unwrap(), "key-reused");
    let empty = client.charge("", order("18", 100)).await.unwrap_err();
    assert_eq!(empty.code(), Code::InvalidArgument);
    assert!(empty.message().contains("empty"), "{}", empty.message());
    assert_eq!(payments.charges(), 1);
}

#[tokio::test]
async fn a_status_that_is_an_answer_is_replayed() {
    let (payments, mut client) = open("oak").await;
    for _ in 0..2 {
        let refused = client.charge("k", order("17", 0)).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(refused.message(), "there is nothing to charge");
    }
    assert_eq!(payments.charges(), 0);
}

#[tokio::test]
async fn a_status_that_tells_nothing_lets_a_retry_run() {
    let (payments, mut client) = open("oak").await;
    let closed = client.charge("k", order("closed", 100)).await.unwrap_err();
    assert_eq!(closed.code(), Code::Unavailable);
    let (_, replayed) = client.charge("k", order("closed", 100)).await.unwrap();
    assert!(!replayed);
    assert_eq!(payments.charges(), 1);
}

#[tokio::test]
async fn accounts_never_meet() {
    let payments = Payments::default();
    let server = start(&payments).await.unwrap();
    for (account, receipt) in [("oak", 1), ("elm", 2)] {
        let mut client = Client::connect(server, account).await.unwrap();
        let (got, replayed) = client.charge("k", order("17", 100)).await.unwrap();
        assert_eq!((got.receipt, replayed), (receipt, false));
    }
}
