//! What a completed key costs in memory, counted by the allocator.

mod common;

use std::alloc::System;

use bytes::Bytes;
use oncekey::store::{ClaimOutcome, Store};
use oncekey_memory::MemoryStore;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use common::{acquire, claim, complete, evict, now, numbered};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const KEYS: usize = 100_000;
const VALUE_LEN: usize = 64;
/// Bytes of a completed key on top of the key and the value.
const MOST: f64 = 300.0;

fn in_use(region: &Region<'_, System>) -> f64 {
    let stats = region.change();
    stats.bytes_allocated as f64 - stats.bytes_deallocated as f64
}

// One test: others in this binary would be counted too.
#[test]
fn a_completed_key_costs_little_and_gives_it_back() {
    let region = Region::new(ALLOCATOR);
    let store = MemoryStore::new();
    let empty = in_use(&region);
    for number in 0..KEYS {
        let key = numbered(number);
        let grant = acquire(&store, &key, number as u128);
        // A slice of something larger, as bodies are.
        let value = Bytes::from(vec![9; 4096]).slice(..VALUE_LEN);
        let _ = complete(&store, &key, grant, value);
    }
    let content = (numbered(0).as_bytes().len() + VALUE_LEN) as f64;
    let per_key = |in_use: f64| (in_use - empty) / KEYS as f64 - content;
    let completed = per_key(in_use(&region));

    for number in 0..KEYS {
        let replayed = now(store.claim(&numbered(number), &claim(u128::MAX))).unwrap();
        assert!(matches!(replayed, ClaimOutcome::Replay(Some(_))));
    }
    let replayed = per_key(in_use(&region));
    println!(
        "bytes a key on top of key and value: {completed:.0} completed, {replayed:.0} replayed; \
         {empty:.0} bytes for an empty store"
    );
    assert!(completed <= MOST, "{completed:.0} bytes a key");
    assert!(replayed <= MOST, "{replayed:.0} bytes a key after a replay");

    for number in 0..KEYS {
        let _ = evict(&store, &numbered(number));
    }
    let left = in_use(&region) - empty;
    assert!(left < 1_000_000.0, "{left:.0} bytes are left of an empty store");
}
