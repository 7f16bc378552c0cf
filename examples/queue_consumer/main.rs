//! A consumer of a queue that delivers at least once: Redis Streams, on a server of its own. Producers send
//! twice, consumers die between their work and their acknowledgement, and messages are delivered again;
//! each order is booked once all the same.
//!
//! `consumer.rs` is what a user of oncekey writes. It needs the program `redis-server`.

mod broker;
mod consumer;
mod queue;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::path::Path;

use broker::Broker;
use consumer::{Consumer, Tally};
use oncekey_sqlite::rusqlite::{self, Connection};
use queue::{Message, Queue};

const ORDERS: u32 = 300;
const CONSUMERS: u32 = 4;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let report = play().await?;
    print!("{report}");
    if report.is_good() { Ok(()) } else { Err("an order was booked twice, or not at all".into()) }
}

/// What came of it all.
struct Report {
    sent: u32,
    tally: Tally,
    orders_booked: u32,
    bookings: u32,
    left: usize,
}

impl Report {
    const fn is_good(&self) -> bool {
        self.orders_booked == ORDERS && self.bookings == ORDERS && self.left == 0
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines = [
            ("messages sent, some of them twice", self.sent),
            ("deliveries", self.tally.deliveries),
            ("consumers that died before their work", self.tally.died_before),
            ("consumers that died behind it", self.tally.died_after),
            ("recognised as done", self.tally.replayed),
            ("put aside: a key of another order", self.tally.put_aside),
            ("orders booked", self.orders_booked),
            ("bookings", self.bookings),
        ];
        for (what, count) in lines {
            writeln!(f, "{what:<40}{count:>6}")?;
        }
        Ok(())
    }
}

async fn play() -> Result<Report, Box<dyn Error>> {
    let broker = Broker::start().await?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("orders.sqlite3");
    consumer::create(&path)?;
    let queue = Queue::open(&broker).await?;
    let sent = send(&queue).await?;

    let consumers = (0..CONSUMERS).map(|number| {
        let (queue, path) = (queue.clone(), path.clone());
        async move { Consumer::open(number, queue, &path)?.work().await }
    });
    let tallies = futures::future::try_join_all(consumers).await?;
    let mut tally = Tally::default();
    for one in tallies {
        tally.add(&one);
    }
    let (orders_booked, bookings) = booked(&path)?;
    let left = queue.left().await?;
    Ok(Report { sent, tally, orders_booked, bookings, left })
}

/// As producers do that do not know whether the first time was enough.
async fn send(queue: &Queue) -> Result<u32, Box<dyn Error>> {
    let mut sent = 0;
    for number in 0..ORDERS {
        let message = Message { order: format!("order-{number}"), amount: 100 + number };
        for _ in 0..=u32::from(number % 3 == 0) {
            queue.send(&message).await?;
            sent += 1;
        }
        if number % 50 == 0 {
            // A bug somewhere: the number of one order, and the content of another.
            queue.send(&Message { amount: 1, ..message }).await?;
            sent += 1;
        }
    }
    Ok(sent)
}

fn booked(path: &Path) -> Result<(u32, u32), rusqlite::Error> {
    let count = "SELECT count(DISTINCT order_number), count(*) FROM bookings";
    Connection::open(path)?.query_row(count, [], |row| Ok((row.get(0)?, row.get(1)?)))
}
