//! The tables and statements, without a driver: for crates that speak to the same tables through
//! another one.
//!
//! The rules of the core are functions in the database, so that each operation is one statement and one
//! round trip. [`Tables`] has their DDL and makes a [`Call`] of each command: a text, the same for every
//! call of a kind, and its parameters. [`answer`] takes the rows apart, [`fault`] says what an error of the
//! server means, and [`settle`] finds out what became of a transaction whose connection was lost.

pub mod answer;
mod call;
pub mod fault;
mod schema;
pub mod settle;
mod tables;
mod turns;

use std::time::Duration;

use oncekey::runtime::{Sleep, ThreadTimer, Timer};

pub use call::{Call, MARK, Param, Terms};
pub use schema::{Finding, VERSION};
pub use tables::Tables;
pub use turns::{Turns, Waiting};

/// On any runtime.
pub(crate) fn sleep(duration: Duration) -> Sleep {
    let timer = ThreadTimer::new();
    timer.sleep_until(timer.now().saturating_add(duration))
}
