//! The consumer: what a user of oncekey writes.
//!
//! Its effect is a row in the SQLite file that also holds the keys, so message and effect are one: key, row
//! and result commit together. A message is acknowledged when its key has a result, whoever made it.
//!
//! | the run | the message |
//! |---|---|
//! | has a result, of this delivery or an earlier one | is acknowledged |
//! | is done, and its result is not kept or cannot be read | is acknowledged: there is nothing left to do |
//! | is busy: another consumer has the other copy | stays, and comes again |
//! | failed, or the store did | stays, and comes again |
//! | is a mismatch: the key of another order | is put aside, for somebody to look at, and acknowledged |
//!
//! A key is remembered for the retention. A message that comes again after it is a new one, and is booked twice: the
//! retention has to be longer than the queue keeps a message, and a producer one that it is in doubt about.

use std::error::Error;
use std::ops::AddAssign;
use std::path::Path;
use std::time::Duration;

use oncekey::{Effect, Fingerprint, Idempotency, Key, KeyError, RunError, Scope};
use oncekey_sqlite::SqliteStore;
use oncekey_sqlite::rusqlite::{self, Connection};

use crate::queue::{Delivery, Message, Queue};

/// Longer than any message, or copy of one, is on its way.
const RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub(crate) fn create(path: &Path) -> rusqlite::Result<()> {
    // It takes a second booking of an order as it takes the first.
    let table =
        "CREATE TABLE bookings (order_number TEXT NOT NULL, amount INTEGER NOT NULL) STRICT";
    Connection::open(path)?.execute_batch(table)
}

pub(crate) struct Consumer {
    name: String,
    number: u32,
    queue: Queue,
    store: SqliteStore,
    idempotency: Idempotency,
    tally: Tally,
}

/// What a consumer has seen.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) deliveries: u32,
    pub(crate) died_before: u32,
    pub(crate) died_after: u32,
    pub(crate) replayed: u32,
    pub(crate) put_aside: u32,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.deliveries.add_assign(other.deliveries);
        self.died_before.add_assign(other.died_before);
        self.died_after.add_assign(other.died_after);
        self.replayed.add_assign(other.replayed);
        self.put_aside.add_assign(other.put_aside);
    }
}

impl Consumer {
    pub(crate) fn open(number: u32, queue: Queue, path: &Path) -> Result<Self, Box<dyn Error>> {
        let store = SqliteStore::open(path)?;
        // What commits with its effect, or not at all, may run again.
        let idempotency =
            Idempotency::at_least_once(store.clone()).retention(RETENTION).named("book");
        let name = format!("consumer-{number}");
        Ok(Self { name, number, queue, store, idempotency, tally: Tally::default() })
    }

    /// Works until nothing is left, for anybody.
    pub(crate) async fn work(mut self) -> Result<Tally, Box<dyn Error>> {
        while self.queue.left().await? > 0 {
            let deliveries = self.queue.receive(&self.name).await?;
            if deliveries.is_empty() {
                // With others, who may die of it.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            for delivery in deliveries {
                self.handle(&delivery).await?;
            }
        }
        Ok(self.tally)
    }

    pub(crate) async fn handle(&mut self, delivery: &Delivery) -> Result<(), Box<dyn Error>> {
        self.tally.deliveries += 1;
        let message = &delivery.message;
        let (key, fingerprint) = key_of(message)?;

        if self.dies(3) {
            self.tally.died_before += 1;
            return Ok(());
        }
        let book = book(message);
        let run = self.store.run_in_transaction(&self.idempotency, &key, &fingerprint, book);
        match run.await {
            Ok(outcome) => self.tally.replayed += u32::from(outcome.is_replay()),
            Err(RunError::Mismatch) => self.tally.put_aside += 1,
            // Whatever there is to know of it, it would come again for ever.
            Err(error) if error.effect() == Effect::Done => self.tally.replayed += 1,
            // It comes again.
            Err(_) => return Ok(()),
        }
        if self.dies(4) {
            self.tally.died_after += 1;
            return Ok(());
        }
        Ok(self.queue.acknowledge(delivery).await?)
    }

    /// In this pretend world, every consumer dies at some of its deliveries, and another one takes its name.
    fn dies(&self, moment: u32) -> bool {
        (self.tally.deliveries * 7 + self.number).is_multiple_of(moment * 5)
    }
}

/// The number of the order, under who handles it and what for: not the id of the delivery, which is another
/// one for each copy.
pub(crate) fn key_of(message: &Message) -> Result<(Key, Fingerprint), KeyError> {
    let key = Key::new(&Scope::new("bookkeeping", "book")?, &message.order)?;
    Ok((key, Fingerprint::builder().part("amount", message.amount.to_be_bytes()).finish()))
}

fn book(
    message: &Message,
) -> impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<i64> + Send + 'static {
    let message = message.clone();
    move |transaction| {
        let insert = "INSERT INTO bookings (order_number, amount) VALUES (?1, ?2)";
        transaction.execute(insert, (&message.order, message.amount))?;
        Ok(transaction.last_insert_rowid())
    }
}
