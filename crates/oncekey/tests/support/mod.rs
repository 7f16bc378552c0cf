//! What the tests of the engine share: simulated time, tasks and faults, all from one seed.
#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test file uses a part of it; a failed expectation fails the test"
)]

mod executor;
mod faults;
mod ledger;
mod plain;
mod recorder;
mod time;
mod world;

pub(crate) use executor::{Network, Simulation, Task};
pub(crate) use faults::{Chaos, Fault, FaultyStore, Verb, WatchFault};
pub(crate) use ledger::{Ledger, Promise};
pub(crate) use plain::PlainStore;
pub(crate) use recorder::Recorder;
pub(crate) use time::{START, VirtualTimer};
pub(crate) use world::{Ran, World};

use std::time::Duration;

use oncekey::{Fingerprint, Key, Scope};

/// What the operations of these tests fail with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("declined")]
pub(crate) struct Declined;

pub(crate) fn key(id: &str) -> Key {
    let scope = Scope::new("tenant-42", "POST /payments").unwrap();
    Key::new(&scope, id).unwrap()
}

pub(crate) fn fingerprint() -> Fingerprint {
    Fingerprint::of("100 EUR to Ada")
}

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
