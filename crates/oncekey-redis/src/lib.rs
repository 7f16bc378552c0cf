#![doc = include_str!("../README.md")]
//!
//! # Crate features
//! - `cluster`: a Redis Cluster.
//! - `sentinel`: the primary behind Sentinel.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod answer;
mod builder;
mod check;
mod claim;
#[cfg(feature = "cluster")]
mod cluster;
mod commands;
mod complete;
mod content;
mod fault;
mod inspect;
mod layout;
mod link;
mod listener;
mod name;
mod nodes;
mod own;
mod script;
#[cfg(feature = "sentinel")]
mod sentinel;
mod shared;
mod standing;
mod store;
mod time;

pub use builder::RedisStoreBuilder;
pub use redis;
#[cfg(feature = "sentinel")]
pub use sentinel::SentinelConnection;
pub use store::RedisStore;
