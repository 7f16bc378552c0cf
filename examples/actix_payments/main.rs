//! oncekey in a framework that is no tower: `keep.rs` is a middleware for actix-web, made of `oncekey-http`
//! in about a hundred lines.
//!
//! Started, it serves on a port of its own, pays by a real client that asks twice, collides and mixes up
//! its keys, and checks that each order was charged once.

mod keep;
mod service;
#[cfg(test)]
mod tests;

use std::error::Error;

use service::{Shop, start};

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let shop = Shop::default();
    let url = start(&shop)?;
    let client = reqwest::Client::new();
    let pay = async |key: &'static str, body: &'static str| {
        let request = client.post(&url).bearer_auth("oak").header("Idempotency-Key", key);
        let response = request.body(body).send().await?;
        let replayed = response.headers().contains_key("idempotent-replayed");
        let status = response.status().as_u16();
        Ok::<_, reqwest::Error>((status, response.text().await?, replayed))
    };
    for (what, key, body) in [
        ("first", "\"order-17\"", "100 EUR"),
        ("again", "order-17", "100 EUR"),
        ("another amount", "order-17", "200 EUR"),
    ] {
        let (status, text, replayed) = pay(key, body).await?;
        println!("{what}: {status} {text}{}", if replayed { " (replayed)" } else { "" });
    }
    let crowd = (0..10).map(|_| pay("order-18", "300 EUR"));
    let receipts = futures::future::try_join_all(crowd).await?;
    let same = receipts.iter().filter(|it| it.1 == receipts[0].1).count();
    println!("ten at once: {same} got {}", receipts[0].1);

    let charges = shop.charges();
    println!("2 orders, {charges} charges");
    if charges == 2 { Ok(()) } else { Err("somebody was charged twice".into()) }
}
