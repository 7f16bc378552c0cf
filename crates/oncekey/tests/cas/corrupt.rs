//! Entries that cannot be understood: every command fails, none takes them for absent, and an
//! operator can remove them.

use bytes::Bytes;
use futures::executor::block_on;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    CasStore, ErrorKind, Expected, Fenced, FencingToken, Grant, Store, StoreError,
};

use super::commands::{self, attempt};
use super::storage::{Storage, Swap, key};

fn damaged() -> Vec<Bytes> {
    let store = CasStore::new(Storage::default());
    let claimed = block_on(store.claim(&key("a"), &commands::claim(1)));
    assert!(claimed.is_ok());
    let whole = store.get_ref().entry(&key("a")).unwrap().bytes;
    let mut flipped = whole.to_vec();
    flipped[40] ^= 1;
    let mut newer = whole.to_vec();
    newer[0] = 2;
    vec![Bytes::new(), whole.slice(..50), flipped.into(), newer.into()]
}

fn with(bytes: &Bytes) -> CasStore<Storage> {
    let store = CasStore::new(Storage::default());
    store.get_ref().put(&key("a"), bytes.clone(), Timestamp::default());
    store
}

#[track_caller]
fn is_corrupt<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn every_command_fails_and_leaves_the_entry() {
    let key = key("a");
    let grant = Grant { token: FencingToken::new(1), attempt: attempt(1) };
    for bytes in damaged() {
        let store = with(&bytes);
        block_on(async {
            is_corrupt(store.claim(&key, &commands::claim(1)).await);
            is_corrupt(store.claim(&key, &commands::claim(2)).await);
            is_corrupt(store.renew(&key, &commands::renew(grant)).await);
            is_corrupt(store.complete(&key, &commands::complete(grant, "x")).await);
            is_corrupt(store.abandon(&key, &commands::release(grant)).await);
            is_corrupt(store.settle(&key, &commands::settle(Expected::Any)).await);
            for expected in [Expected::Attempt(attempt(1)), Expected::Token(FencingToken::new(1))] {
                is_corrupt(store.evict(&key, &commands::evict(expected)).await);
            }
            is_corrupt(store.get(&key).await);
        });
        assert_eq!(store.get_ref().entry(&key).unwrap().bytes, bytes);
    }
}

#[test]
fn whoever_takes_whatever_is_there_can_remove_it() {
    let key = key("a");
    for bytes in damaged() {
        let store = with(&bytes);
        let outcome = block_on(store.evict(&key, &commands::evict(Expected::Any))).unwrap();
        assert_eq!(outcome, Fenced::Applied);
        assert_eq!(store.get_ref().entry(&key), None);
    }
}

#[test]
fn what_changes_under_an_eviction_is_not_removed_unseen() {
    let key = key("a");
    let evict = commands::evict(Expected::Any);
    let store = with(&Bytes::from_static(b"damaged"));
    store.get_ref().next_swaps([Swap::Beaten]);
    assert_eq!(block_on(store.evict(&key, &evict)).unwrap(), Fenced::Applied);
    assert_eq!(store.get_ref().entry(&key), None, "looked at again, and removed");

    let store = with(&Bytes::from_static(b"damaged"));
    store.get_ref().next_swaps([Swap::DoneInTheDark]);
    let error = block_on(store.evict(&key, &evict)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(block_on(store.evict(&key, &evict)).unwrap(), Fenced::Gone);
}

/// Between the look that finds it damaged and the removal, others may have removed it and claimed the key.
#[test]
fn a_live_owner_is_spared_where_a_damaged_entry_was() {
    let key = key("a");
    let other = CasStore::new(Storage::default());
    assert!(block_on(other.claim(&key, &commands::claim(1))).is_ok());
    let live = other.get_ref().entry(&key).unwrap();
    for bytes in damaged() {
        let store = with(&bytes);
        store.get_ref().put_at_load(2, &key, live.clone());
        let evicted = block_on(store.evict(&key, &commands::evict(Expected::Any)));
        assert_eq!(evicted.unwrap(), Fenced::Busy);
        assert_eq!(store.get_ref().entry(&key).unwrap(), live);
    }
}
