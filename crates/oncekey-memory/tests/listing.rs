//! Listing: complete, page by page, whatever happens meanwhile.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use oncekey::Key;
use oncekey::store::{Cursor, ErrorKind, Page, Query, State, Store};
use oncekey_memory::{ManualClock, MemoryStore};

use common::{LEASE, acquire, complete, evict, give_up, now, numbered};

fn page(store: &MemoryStore, states: &[State], after: Option<Cursor>, limit: usize) -> Page {
    let query = Query { states: states.to_vec(), after, limit };
    now(store.inspect().unwrap().list(&query)).unwrap()
}

/// How often each key is listed, and on how many pages.
fn list(store: &MemoryStore, states: &[State], limit: usize) -> (HashMap<Key, usize>, usize) {
    let (mut listed, mut pages, mut after) = (HashMap::new(), 0, None);
    loop {
        let page = page(store, states, after, limit);
        pages += 1;
        assert!(page.entries.len() <= limit);
        assert_eq!(page.undecodable, 0);
        for (key, observed) in page.entries {
            assert!(states.contains(&observed.state));
            *listed.entry(key).or_insert(0) += 1;
        }
        match page.next {
            None => return (listed, pages),
            next => after = next,
        }
    }
}

/// 1,000 keys, every tenth of them given up, every tenth completed, the others live.
fn filled() -> (MemoryStore, ManualClock) {
    let clock = ManualClock::default();
    let store = MemoryStore::builder().clock(Arc::new(clock.clone())).build();
    for number in 0..1_000 {
        let grant = acquire(&store, &numbered(number), 1);
        let _ = match number % 10 {
            0 => give_up(&store, &numbered(number), grant),
            1 => complete(&store, &numbered(number), grant, "done"),
            _ => continue,
        };
    }
    (store, clock)
}

#[test]
fn every_key_in_a_wanted_state_is_listed_once() {
    let (store, clock) = filled();
    for limit in [1, 7, 100, 1_000, usize::MAX] {
        let (listed, _) = list(&store, &[State::GaveUp, State::Live], limit);
        assert_eq!(listed.len(), 900);
        assert!(listed.values().all(|times| *times == 1));
        assert!(listed.contains_key(&numbered(0)) && !listed.contains_key(&numbered(1)));
    }
    clock.advance(LEASE);
    assert_eq!(list(&store, &[State::Live], 100).0.len(), 0);
    assert_eq!(list(&store, &[State::Lapsed], 100).0.len(), 800);
    assert_eq!(list(&store, &[], 100).0.len(), 0);
}

#[test]
fn a_page_looks_at_no_more_than_its_limit_allows() {
    let (store, _clock) = filled();
    let (listed, pages) = list(&store, &[State::Retired], 10);
    assert!(listed.is_empty());
    assert!(pages > 10, "{pages} pages for 1,000 records to look at");
    assert!(pages <= 101, "{pages} pages");
}

#[test]
fn a_limit_of_zero_is_taken_for_one() {
    let (store, _clock) = filled();
    let one = page(&store, &[State::Live], None, 0);
    assert!(one.entries.len() <= 1);
    let rest = page(&store, &[State::Live], one.next, usize::MAX);
    assert_eq!(one.entries.len() + rest.entries.len(), 800);
    assert!(rest.next.is_none());
}

#[test]
fn a_cursor_survives_the_record_it_points_at() {
    let (store, _clock) = filled();
    let all = page(&store, &[State::Live], None, usize::MAX).entries;
    let first = page(&store, &[State::Live], None, 10);
    // What comes right before and right after the cut.
    for (key, _) in &all[5..15] {
        let _ = evict(&store, key);
    }
    let rest = page(&store, &[State::Live], first.next, usize::MAX);
    let expected: Vec<_> = all[15..].iter().map(|(key, _)| key).collect();
    let listed: Vec<_> = rest.entries.iter().map(|(key, _)| key).collect();
    assert_eq!(listed, expected);
}

#[test]
fn a_foreign_cursor_is_refused() {
    let query =
        Query { states: vec![State::Live], after: Some(Cursor::new("another store's")), limit: 10 };
    let store = MemoryStore::new();
    let error = now(store.inspect().unwrap().list(&query)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
}

#[test]
fn a_listing_is_complete_while_keys_come_and_go() {
    let (store, _clock) = filled();
    let (stop, changes) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for thread in 1..=2 {
            let (store, stop, changes) = (&store, &stop, &changes);
            scope.spawn(move || {
                let mut number = thread * 1_000_000;
                while !stop.load(Ordering::SeqCst) {
                    let _ = acquire(store, &numbered(number), 1);
                    if number % 3 > 0 {
                        let _ = evict(store, &numbered(number - 1));
                    }
                    number += 1;
                    changes.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for _ in 0..20 {
            let before = changes.load(Ordering::SeqCst);
            loop {
                let (listed, _) = list(&store, &[State::GaveUp], 3);
                assert_eq!(listed.len(), 100);
                assert!(listed.values().all(|times| *times == 1));
                // Until something did change during a listing.
                if changes.load(Ordering::SeqCst) > before {
                    break;
                }
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
}
