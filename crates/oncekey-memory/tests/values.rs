//! Values: copied in, handed out whole, bounded in length, and never shown.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use oncekey::store::{
    ClaimOutcome, Complete, Completion, ErrorKind, Expected, Fenced, Progress, Renew, Settle,
    Settlement, Store,
};
use oncekey_memory::MemoryStore;

use common::{LEASE, acquire, claim, complete, completion, give_up, key, now};

/// Says when it is freed.
struct Buffer(Vec<u8>, Arc<AtomicBool>);

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.1.store(true, Ordering::SeqCst);
    }
}

/// A short part of a long buffer.
fn part() -> (Bytes, Arc<AtomicBool>) {
    let freed = Arc::<AtomicBool>::default();
    let buffer = Buffer(b"result, and a megabyte more".to_vec(), freed.clone());
    (Bytes::from_owner(buffer).slice(..6), freed)
}

fn replay(store: &MemoryStore, id: &str) -> Bytes {
    match now(store.claim(&key(id), &claim(u128::MAX))).unwrap() {
        ClaimOutcome::Replay(Some(value)) => value,
        other => panic!("expected a replay: {other:?}"),
    }
}

#[test]
fn the_callers_buffer_is_not_kept() {
    let store = MemoryStore::new();
    let (value, freed) = part();
    let grant = acquire(&store, &key("completed"), 1);
    let _ = complete(&store, &key("completed"), grant, value);
    assert!(freed.load(Ordering::SeqCst), "completed");
    assert_eq!(replay(&store, "completed"), "result");

    let (value, freed) = part();
    let grant = acquire(&store, &key("settled"), 1);
    let _ = give_up(&store, &key("settled"), grant);
    let settle =
        Settle { expected: Expected::Any, settlement: Settlement::Done(completion(value)) };
    assert_eq!(now(store.settle(&key("settled"), &settle)).unwrap(), Fenced::Applied);
    drop(settle);
    assert!(freed.load(Ordering::SeqCst), "settled");
    assert_eq!(replay(&store, "settled"), "result");

    let (data, freed) = part();
    let grant = acquire(&store, &key("renewed"), 1);
    let renew = Renew { grant, lease: LEASE, progress: Some(Progress { sequence: 1, data }) };
    assert_eq!(now(store.renew(&key("renewed"), &renew)).unwrap(), Fenced::Applied);
    drop(renew);
    assert!(freed.load(Ordering::SeqCst), "renewed");
    let record = now(store.get(&key("renewed"))).unwrap().unwrap().record;
    assert_eq!(record.progress.unwrap().data, "result");
}

#[test]
fn a_replay_outlives_the_record() {
    let store = MemoryStore::new();
    let grant = acquire(&store, &key("a"), 1);
    let _ = complete(&store, &key("a"), grant, "result");
    let first = replay(&store, "a");
    let _ = common::evict(&store, &key("a"));
    let grant = acquire(&store, &key("a"), 2);
    let _ = complete(&store, &key("a"), grant, "another");
    assert_eq!(first, "result");
    assert_eq!(replay(&store, "a"), "another");
}

#[test]
fn completing_again_needs_the_same_bytes() {
    let store = MemoryStore::new();
    let grant = acquire(&store, &key("a"), 1);
    for value in ["result", "result"] {
        assert_eq!(complete(&store, &key("a"), grant, value), Fenced::Applied);
    }
    assert_eq!(complete(&store, &key("a"), grant, "other"), Fenced::Conflict);
    assert_eq!(replay(&store, "a"), "result");
}

#[test]
fn what_is_too_long_is_refused_unless_it_need_not_be_kept() {
    let store = MemoryStore::builder().max_value_len(8).build();
    let grant = acquire(&store, &key("a"), 1);
    let long = Completion { value: "nine byte".into(), ..completion("") };
    let refused = Complete { grant, completion: long.clone() };
    let error = now(store.complete(&key("a"), &refused)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(!error.to_string().contains("nine byte"));

    let renew = Renew {
        grant,
        lease: LEASE,
        progress: Some(Progress { sequence: 1, data: "nine byte".into() }),
    };
    let error = now(store.renew(&key("a"), &renew)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);

    let fits = Complete { grant, completion: Completion { replayable: false, ..long } };
    assert_eq!(now(store.complete(&key("a"), &fits)).unwrap(), Fenced::Applied);
    let replay = now(store.claim(&key("a"), &claim(2))).unwrap();
    assert_eq!(replay, ClaimOutcome::Replay(None));

    let grant = acquire(&store, &key("b"), 1);
    assert_eq!(complete(&store, &key("b"), grant, "8 bytes!"), Fenced::Applied);
}

#[test]
fn debug_shows_no_content() {
    let store = MemoryStore::new();
    let grant = acquire(&store, &key("secret-key"), 1);
    let _ = complete(&store, &key("secret-key"), grant, "secret-value");
    let shown = format!("{store:?} {:?}", MemoryStore::builder());
    assert!(!shown.contains("secret"), "{shown}");
    assert!(shown.contains("keys: 1"), "{shown}");
}
