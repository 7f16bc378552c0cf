//! The other half: a client whose retries are safe. `keys.rs` is a middleware for reqwest that makes a key
//! for each thing that is wanted, and sends the same one until it knows what came of it.
//!
//! Started, it pays three orders over a road on which requests and replies get lost, and checks that each
//! was charged once.

mod keys;
mod road;
mod service;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::time::Duration;

use keys::{IdempotencyKey, IdempotencyKeys};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use road::{Mishap, Road};
use service::Shop;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let shop = Shop::open().await?;
    let trips = [
        ("nothing goes wrong", vec![]),
        ("the request gets lost", vec![Mishap::RequestLost]),
        ("two replies get lost", vec![Mishap::ReplyLost, Mishap::ReplyLost]),
    ];
    let orders = trips.len();
    for (number, (what, mishaps)) in trips.into_iter().enumerate() {
        let road = Road::to(shop.address, mishaps).await?;
        // Kept with the order, before the first try: after a restart, it is the same.
        let key = IdempotencyKey::mint()?;
        let order = client()
            .post(format!("http://{}/payments", road.address))
            .with_extension(key)
            .body(format!("order {}", number + 1));
        let response = order.send().await?;
        let replayed = response.headers().contains_key("idempotent-replayed");
        println!(
            "{what}: {} trips, {}{}",
            road.trips(),
            response.text().await?,
            if replayed { ", replayed" } else { "" }
        );
    }
    println!("{orders} orders, {} charges", shop.charges());
    if shop.charges() == orders { Ok(()) } else { Err("somebody was charged twice".into()) }
}

/// A client of one connection each, as over a bad road.
fn client() -> ClientWithMiddleware {
    let plain = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap_or_default();
    let keys = IdempotencyKeys::new().first_pause(Duration::from_millis(20));
    ClientBuilder::new(plain).with(keys).build()
}
