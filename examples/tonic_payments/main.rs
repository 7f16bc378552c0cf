//! Payments over gRPC, by tonic: the same layer, in its mode for unary calls.
//!
//! Started, it serves on a port of its own, charges by a real client that asks twice, collides and
//! mixes up its keys, prints what came of it, and checks that each order was charged once.

mod service;
#[cfg(test)]
mod tests;
mod wire;

use std::error::Error;

use service::{Payments, start};
use tonic::Status;
use wire::{Client, Order};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let payments = Payments::default();
    let server = start(&payments).await?;
    let mut client = Client::connect(server, "oak").await?;
    let order = |amount| Order { order: "17".to_owned(), amount };

    let first = client.charge("order-17", order(100)).await;
    println!("first:              {}", show(first));
    let again = client.charge("order-17", order(100)).await;
    println!("again:              {}", show(again));
    let other = client.charge("order-17", order(200)).await;
    println!("another amount:     {}", show(other));

    // At the same moment: one is charged, and the others wait for it, or are told to come back.
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let mut client = client.clone();
        let order = Order { order: "18".to_owned(), amount: 300 };
        crowd.spawn(async move { client.charge("order-18", order).await });
    }
    let receipts = crowd.join_all().await.into_iter().filter(Result::is_ok).count();
    println!("ten at once:        {receipts} got the receipt");

    let charges = payments.charges();
    println!("2 orders, {charges} charges");
    if charges == 2 { Ok(()) } else { Err("somebody was charged twice".into()) }
}

fn show(answer: Result<(wire::Receipt, bool), Status>) -> String {
    match answer {
        Ok((receipt, true)) => format!("receipt {}, replayed", receipt.receipt),
        Ok((receipt, false)) => format!("receipt {}", receipt.receipt),
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}
