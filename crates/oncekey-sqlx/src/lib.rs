#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod connection;
mod driver;
mod effects;
mod run;
mod settle;

pub use effects::SqlxPostgres;
pub use sqlx;
