//! What the tests of this crate share.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use oncekey::store::{
    Abandon, AttemptId, Claim, ClaimOutcome, Complete, Completion, Evict, Expected, Fenced, Grant,
    Known, OnInterrupted, OnRetired, Renew, Store,
};
use oncekey::{Fingerprint, Key, Scope};
use oncekey_memory::MemoryStore;

pub(crate) const LEASE: Duration = Duration::from_secs(30);
pub(crate) const HOLD: Duration = Duration::from_secs(600);
pub(crate) const RETENTION: Duration = Duration::from_secs(3600);

/// The answer of a future that must be ready at its first poll, as every one of this store is.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("a future of the memory store is ready at its first poll"),
    }
}

pub(crate) fn key(id: impl AsRef<[u8]>) -> Key {
    let scope = Scope::new("tenant-42", "POST /payments").unwrap();
    Key::new(&scope, id).unwrap()
}

pub(crate) fn numbered(number: usize) -> Key {
    key(format!("8e03978e-40d5-43dd-bc93-{number:012x}"))
}

pub(crate) fn claim(attempt: u128) -> Claim {
    Claim {
        attempt: AttemptId::from_bytes(attempt.to_be_bytes()),
        fingerprint: Fingerprint::from_digest(Fingerprint::SHA256, [7; 32]),
        lease: LEASE,
        hold: HOLD,
        on_interrupted: OnInterrupted::TakeOver,
        on_retired: OnRetired::Forget,
    }
}

/// Claims `key`, which must be free.
pub(crate) fn acquire(store: &MemoryStore, key: &Key, attempt: u128) -> Grant {
    match now(store.claim(key, &claim(attempt))).unwrap() {
        ClaimOutcome::Acquired { grant, .. } => grant,
        other => panic!("the key should be free: {other:?}"),
    }
}

pub(crate) fn completion(value: impl Into<Bytes>) -> Completion {
    Completion { value: value.into(), replayable: true, retention: RETENTION, hold: Duration::ZERO }
}

pub(crate) fn complete(
    store: &MemoryStore,
    key: &Key,
    grant: Grant,
    value: impl Into<Bytes>,
) -> Fenced {
    let completion = completion(value);
    now(store.complete(key, &Complete { grant, completion })).unwrap()
}

pub(crate) fn release(store: &MemoryStore, key: &Key, grant: Grant, hold: Duration) -> Fenced {
    let known = Known::NotStarted { hold };
    now(store.abandon(key, &Abandon { grant, known })).unwrap()
}

pub(crate) fn give_up(store: &MemoryStore, key: &Key, grant: Grant) -> Fenced {
    let known = Known::Unknown;
    now(store.abandon(key, &Abandon { grant, known })).unwrap()
}

pub(crate) fn renew(store: &MemoryStore, key: &Key, grant: Grant) -> Fenced {
    let renew = Renew { grant, lease: LEASE, progress: None };
    now(store.renew(key, &renew)).unwrap()
}

pub(crate) fn evict(store: &MemoryStore, key: &Key) -> Fenced {
    let evict = Evict { expected: Expected::Any, force: true };
    now(store.evict(key, &evict)).unwrap()
}
