//! The books: a table of what was charged, in the same SQLite file as the keys. It takes a second charge of
//! an order as it takes the first.

use std::path::Path;

use oncekey_sqlite::rusqlite::{Connection, Result, Transaction};
use serde::{Deserialize, Serialize};

use crate::log::Operation;

/// What a client wants.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    pub(crate) order: String,
    pub(crate) operation: Operation,
    /// In the smallest unit of the currency.
    pub(crate) amount: u64,
    pub(crate) currency: String,
}

/// What it gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Receipt {
    /// Counts up: two receipts with one number are one movement of money.
    pub(crate) receipt: i64,
    pub(crate) amount: u64,
    pub(crate) currency: String,
}

/// How often the money of one order was moved.
#[derive(Debug)]
pub(crate) struct Moved {
    pub(crate) account: String,
    pub(crate) order: String,
    pub(crate) operation: String,
    pub(crate) times: u64,
}

pub(crate) fn create(path: &Path) -> Result<()> {
    Connection::open(path)?.execute_batch(
        "CREATE TABLE IF NOT EXISTS movements (
            receipt INTEGER PRIMARY KEY,
            account TEXT NOT NULL,
            order_number TEXT NOT NULL,
            operation TEXT NOT NULL,
            amount INTEGER NOT NULL,
            currency TEXT NOT NULL
        ) STRICT",
    )
}

/// Moves the money, whether or not it was moved before.
pub(crate) fn book(transaction: &Transaction<'_>, account: &str, order: &Order) -> Result<Receipt> {
    transaction.execute(
        "INSERT INTO movements (account, order_number, operation, amount, currency)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        (
            account,
            &order.order,
            name(order.operation),
            i64::try_from(order.amount).unwrap_or(i64::MAX),
            &order.currency,
        ),
    )?;
    let receipt = transaction.last_insert_rowid();
    Ok(Receipt { receipt, amount: order.amount, currency: order.currency.clone() })
}

pub(crate) fn read(path: &Path) -> Result<Vec<Moved>> {
    let connection = Connection::open(path)?;
    let mut statement = connection.prepare(
        "SELECT account, order_number, operation, count(*) FROM movements GROUP BY 1, 2, 3",
    )?;
    let rows = statement.query_map([], |row| {
        let times = row.get::<_, i64>(3)?.unsigned_abs();
        Ok(Moved { account: row.get(0)?, order: row.get(1)?, operation: row.get(2)?, times })
    })?;
    rows.collect()
}

pub(crate) const fn name(operation: Operation) -> &'static str {
    match operation {
        Operation::Charge => "charge",
        Operation::Refund => "refund",
    }
}
