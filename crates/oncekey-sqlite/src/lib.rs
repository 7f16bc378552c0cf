#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod builder;
mod busy;
mod columns;
mod commit;
mod connect;
mod error;
mod file;
mod purge;
mod queue;
mod reader;
mod schema;
mod session;
mod settle;
mod store;
mod transaction;
mod writer;

pub use builder::{SqliteStoreBuilder, Synchronous};
pub use rusqlite;
pub use store::SqliteStore;
