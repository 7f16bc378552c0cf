#![doc = include_str!("../README.md")]
//!
//! # Crate features
//! - `tokio-postgres` (default): [`PostgresStore`]. Without it only [`sql`] is here, which has no driver.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod sql;

mod server_error;

#[cfg(feature = "tokio-postgres")]
mod batch;
#[cfg(feature = "tokio-postgres")]
mod builder;
#[cfg(feature = "tokio-postgres")]
mod driver;
#[cfg(feature = "tokio-postgres")]
mod listener;
#[cfg(feature = "tokio-postgres")]
mod migrate;
#[cfg(feature = "tokio-postgres")]
mod settle;
#[cfg(feature = "tokio-postgres")]
mod store;
#[cfg(feature = "tokio-postgres")]
mod transaction;

#[cfg(feature = "tokio-postgres")]
pub use builder::{PostgresStoreBuilder, SynchronousCommit};
#[cfg(feature = "tokio-postgres")]
pub use deadpool_postgres;
#[cfg(feature = "tokio-postgres")]
pub use deadpool_postgres::tokio_postgres;
pub use server_error::ServerError;
#[cfg(feature = "tokio-postgres")]
pub use store::PostgresStore;
