//! Commands with durations of a few microseconds.

use std::time::Duration;

use bytes::Bytes;
use oncekey::Fingerprint;
use oncekey::store::{
    Abandon, AttemptId, Claim, Complete, Completion, Evict, Expected, Grant, Known, OnInterrupted,
    OnRetired, Renew, Settle, Settlement,
};

/// In microseconds.
pub(crate) const LEASE: u64 = 10;
pub(crate) const HOLD: u64 = 5;

pub(crate) const fn attempt(number: u8) -> AttemptId {
    AttemptId::from_bytes([number; 16])
}

pub(crate) fn claim(number: u8) -> Claim {
    Claim {
        attempt: attempt(number),
        fingerprint: Fingerprint::of("body"),
        lease: Duration::from_micros(LEASE),
        hold: Duration::from_micros(HOLD),
        on_interrupted: OnInterrupted::TakeOver,
        on_retired: OnRetired::Forget,
    }
}

pub(crate) const fn renew(grant: Grant) -> Renew {
    Renew { grant, lease: Duration::from_micros(LEASE), progress: None }
}

pub(crate) fn completion(value: &str) -> Completion {
    Completion {
        value: Bytes::copy_from_slice(value.as_bytes()),
        replayable: true,
        retention: Duration::from_micros(100),
        hold: Duration::from_micros(HOLD),
    }
}

pub(crate) fn complete(grant: Grant, value: &str) -> Complete {
    Complete { grant, completion: completion(value) }
}

pub(crate) const fn release(grant: Grant) -> Abandon {
    Abandon { grant, known: Known::NotStarted { hold: Duration::from_micros(HOLD) } }
}

pub(crate) fn settle(expected: Expected) -> Settle {
    Settle { expected, settlement: Settlement::Done(completion("settled")) }
}

pub(crate) const fn evict(expected: Expected) -> Evict {
    Evict { expected, force: false }
}
