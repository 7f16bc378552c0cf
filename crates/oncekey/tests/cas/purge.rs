//! Purging: what is due goes, what is needed stays, and what cannot be read stops nobody.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::executor::block_on;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    CasStore, Claim, ClaimOutcome, CompareAndSwap, Entry, ErrorKind, Fenced, Purged, Store,
    StoreError, Version, Versioned,
};

use super::commands::{self, HOLD, LEASE};
use super::storage::{Storage, Swap, key};

fn claim(store: &impl Store, id: &str) {
    let outcome = block_on(store.claim(&key(id), &commands::claim(1))).unwrap();
    assert!(matches!(outcome, ClaimOutcome::Acquired { .. }));
}

fn purge(store: &impl Store, limit: usize) -> (usize, bool) {
    let Purged { removed, more } = block_on(store.purge(limit)).unwrap();
    (removed, more)
}

#[test]
fn only_what_is_due_is_removed() {
    let store = CasStore::new(Storage::default());
    claim(&store, "forgotten");
    store.get_ref().pass(1);
    claim(&store, "remembered");
    let held = Claim { hold: Duration::MAX, ..commands::claim(1) };
    assert!(block_on(store.claim(&key("held"), &held)).is_ok());
    assert_eq!(purge(&store, 10), (0, false));
    store.get_ref().pass(LEASE + HOLD - 1);
    assert_eq!(purge(&store, 10), (1, false));
    assert_eq!(store.get_ref().entry(&key("forgotten")), None);
    assert!(store.get_ref().entry(&key("remembered")).is_some());
    assert!(store.get_ref().entry(&key("held")).is_some());
}

#[test]
fn a_backlog_is_worked_off_in_pages() {
    let store = CasStore::new(Storage::default());
    for id in ["a", "b", "c", "d", "e"] {
        claim(&store, id);
    }
    store.get_ref().pass(LEASE + HOLD);
    assert_eq!(purge(&store, 0), (0, false));
    assert_eq!(purge(&store, 2), (2, true));
    assert_eq!(purge(&store, 2), (2, true));
    assert_eq!(purge(&store, 2), (1, false));
    assert_eq!(purge(&store, 2), (0, false));
}

#[test]
fn what_cannot_be_read_stays_and_stops_nobody() {
    let store = CasStore::new(Storage::default());
    store.get_ref().put(&key("a"), "damaged", Timestamp::default());
    claim(&store, "b");
    store.get_ref().pass(LEASE + HOLD);
    assert_eq!(purge(&store, 10), (1, false));
    assert!(store.get_ref().entry(&key("a")).is_some());
    assert_eq!(store.get_ref().entry(&key("b")), None);
}

#[test]
fn what_cannot_be_read_hides_nothing_behind_it() {
    let store = CasStore::new(Storage::default());
    for id in ["a", "b", "c"] {
        store.get_ref().put(&key(id), "damaged", Timestamp::default());
    }
    claim(&store, "d");
    store.get_ref().pass(LEASE + HOLD);
    while purge(&store, 1) == (1, true) {}
    assert_eq!(store.get_ref().entry(&key("d")), None, "reached by pages of one");
    assert_eq!(purge(&store, 1), (0, false), "and there is an end to it");
    assert!(store.get_ref().entry(&key("a")).is_some());
}

#[test]
fn an_entry_that_says_it_is_due_is_not_believed() {
    let store = CasStore::new(Storage::default());
    claim(&store, "a");
    let live = store.get_ref().entry(&key("a")).unwrap().bytes;
    store.get_ref().put(&key("a"), live, Timestamp::default());
    assert_eq!(purge(&store, 10), (0, false));
    assert!(store.get_ref().entry(&key("a")).is_some());
}

#[test]
fn an_error_ends_the_purge() {
    let store = CasStore::new(Storage::default());
    claim(&store, "a");
    store.get_ref().pass(LEASE + HOLD);
    store.get_ref().next_swaps([Swap::Fails(ErrorKind::Unavailable)]);
    assert_eq!(block_on(store.purge(10)).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(purge(&store, 10), (1, false));
}

/// A storage in which an owner renews after the purge has listed its key and before it is removed.
struct Racing(CasStore<Storage>);

#[async_trait]
impl CompareAndSwap for Racing {
    async fn load(&self, key: &[u8]) -> Result<(Option<Versioned>, Timestamp), StoreError> {
        self.0.get_ref().load(key).await
    }

    async fn swap(
        &self,
        bytes: &[u8],
        expected: Option<&Version>,
        new: Option<Entry>,
    ) -> Result<bool, StoreError> {
        if new.is_none() {
            let grant = self.0.get_ref().record(&key("a")).unwrap().grant();
            let renewed = self.0.renew(&key("a"), &commands::renew(grant)).await;
            assert_eq!(renewed.unwrap(), Fenced::Applied);
        }
        self.0.get_ref().swap(bytes, expected, new).await
    }

    async fn expired(&self, limit: usize) -> Result<Vec<Bytes>, StoreError> {
        self.0.get_ref().expired(limit).await
    }
}

#[test]
fn a_record_that_is_renewed_meanwhile_stays() {
    let store = CasStore::new(Storage::default());
    claim(&store, "a");
    store.get_ref().pass(LEASE + HOLD);
    let racing = CasStore::new(Racing(store));
    assert_eq!(purge(&racing, 10), (0, false));
    assert!(racing.get_ref().0.get_ref().record(&key("a")).is_some());
    assert!(racing.watch().is_none());
}

#[test]
fn a_swap_in_the_dark_stops_nobody() {
    for swap in [Swap::DoneInTheDark, Swap::NotDoneInTheDark, Swap::DoneLater] {
        let store = CasStore::new(Storage::default());
        for id in ["a", "b", "c", "d"] {
            claim(&store, id);
        }
        store.get_ref().pass(LEASE + HOLD);
        store.get_ref().next_swaps([swap]);
        let (removed, _) = purge(&store, 10);
        assert!(removed >= 3, "{swap:?}: {removed}");
        assert_eq!(purge(&store, 10), (0, false), "{swap:?}");
    }
}
