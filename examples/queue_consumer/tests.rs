//! The whole of it, on a real server.

use std::convert::Infallible;

use bytes::Bytes;
use oncekey::Idempotency;
use oncekey_sqlite::SqliteStore;

use super::broker::Broker;
use super::consumer::{self, Consumer, key_of};
use super::queue::{Message, Queue};
use super::{ORDERS, booked, play};

#[tokio::test]
async fn every_order_is_booked_once() {
    if !has_server() {
        return;
    }
    let report = play().await.unwrap();

    assert!(report.is_good(), "{report}");
    // It was not easy.
    assert!(report.sent > ORDERS && report.tally.deliveries > report.sent, "{report}");
    assert!(report.tally.died_before > 0 && report.tally.died_after > 0, "{report}");
    assert!(report.tally.replayed > 0 && report.tally.put_aside > 0, "{report}");
}

/// What was done by somebody else, or kept too little of: nobody can replay it, and it need not come again.
#[tokio::test]
async fn what_is_done_and_cannot_be_replayed_is_acknowledged() {
    if !has_server() {
        return;
    }
    let broker = Broker::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("orders.sqlite3");
    consumer::create(&path).unwrap();
    let queue = Queue::open(&broker).await.unwrap();

    let engine = Idempotency::at_least_once(SqliteStore::open(&path).unwrap());
    for (order, kept) in [("not kept", None), ("of another program", Some(Bytes::from("7")))] {
        let message = Message { order: order.to_owned(), amount: 100 };
        let (key, fingerprint) = key_of(&message).unwrap();
        let booked = async |_| Ok::<_, oncekey::Failure<Infallible>>(kept);
        engine.run_kept_bytes(&key, &fingerprint, booked).await.unwrap();
        queue.send(&message).await.unwrap();
    }
    // By this number, it dies at neither.
    let mut consumer = Consumer::open(2, queue.clone(), &path).unwrap();
    let deliveries = queue.receive("consumer-2").await.unwrap();
    assert_eq!(deliveries.len(), 2);
    for delivery in &deliveries {
        consumer.handle(delivery).await.unwrap();
    }
    assert_eq!(queue.left().await.unwrap(), 0);
    assert_eq!(booked(&path).unwrap(), (0, 0));
}

fn has_server() -> bool {
    let has = Broker::is_installed() || is_required("redis");
    if !has {
        eprintln!(
            "SKIPPED: there is no redis-server here; REQUIRE_BACKENDS=redis makes that a failure"
        );
    }
    has
}

/// Whether `cargo xtask test`, or somebody else, wants this backend to be there.
fn is_required(backend: &str) -> bool {
    let required = std::env::var("REQUIRE_BACKENDS").unwrap_or_default();
    required.split(',').any(|name| name == backend)
}
