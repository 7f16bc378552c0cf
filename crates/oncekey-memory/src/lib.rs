//! A store for [oncekey] in the memory of one process: bounded, and never dropping what has
//! to be remembered.
//!
//! For services of one process, for tools and for tests. When the process ends, every key is new
//! again: where a duplicate may reach another process, or come after a restart, use a store that
//! outlives the process.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use oncekey_memory::{ManualClock, MemoryStore};
//!
//! // For a service.
//! let store = MemoryStore::builder().max_keys(100_000).build();
//!
//! // For a test: hours pass at once.
//! let clock = ManualClock::default();
//! let store = MemoryStore::builder().clock(Arc::new(clock.clone())).build();
//! clock.advance(Duration::from_secs(3600));
//! ```
//!
//! # How it works
//! - A key's hash, seeded at random, chooses one of 256 shards. A shard is one lock around a map of
//!   records, a queue by time, and waiters. Every command is the core's
//!   [`transition`](oncekey::store::transition) under that lock: the rules are not written twice.
//! - One count for all shards bounds the records. A place is taken before a record is added.
//! - The queue says which record may be over next. A claim of a new key looks at the first two of its
//!   shard, and at all shards when the store is full; [`purge`](oncekey::store::Store::purge) looks at
//!   as many as it is told. Nothing scans, and nothing runs in the background.
//! - Notifications reach waiters after the lock is released: a waker may use the store.
//! - Listing follows the order of hashes, which no other record can disturb.
#![forbid(unsafe_code)]

mod builder;
mod capacity;
mod clock;
mod expiry;
mod id;
mod listing;
mod records;
mod shard;
mod shared;
mod store;
mod verb;
mod waiters;

pub use builder::MemoryStoreBuilder;
pub use clock::ManualClock;
pub use store::MemoryStore;
