//! The bound on the number of keys: strict, also among threads, and never at the cost of a record.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use oncekey::store::{ClaimOutcome, ErrorKind, Fenced, State, Store};
use oncekey_memory::{ManualClock, MemoryStore};

use common::{
    HOLD, LEASE, RETENTION, acquire, claim, complete, evict, now, numbered, release, renew,
};

fn bounded(max_keys: usize) -> (MemoryStore, ManualClock) {
    let clock = ManualClock::default();
    let store = MemoryStore::builder().max_keys(max_keys).clock(Arc::new(clock.clone())).build();
    (store, clock)
}

fn is_full(store: &MemoryStore, number: usize) -> bool {
    match now(store.claim(&numbered(number), &claim(99))) {
        Ok(outcome) => {
            assert!(matches!(outcome, ClaimOutcome::Acquired { .. }));
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Full);
            true
        }
    }
}

#[test]
fn a_full_store_refuses_new_keys_and_keeps_the_known_ones_working() {
    let (store, clock) = bounded(4);
    let grants: Vec<_> =
        (0..4).map(|number| acquire(&store, &numbered(number), number as u128)).collect();
    assert!(is_full(&store, 4));

    assert_eq!(renew(&store, &numbered(0), grants[0]), Fenced::Applied);
    let done = complete(&store, &numbered(1), grants[1], "done");
    assert_eq!(done, Fenced::Applied);
    let replay = now(store.claim(&numbered(1), &claim(50))).unwrap();
    assert_eq!(replay, ClaimOutcome::Replay(Some("done".into())));
    let released = release(&store, &numbered(2), grants[2], HOLD);
    assert_eq!(released, Fenced::Applied);
    let again = now(store.claim(&numbered(2), &claim(51))).unwrap();
    assert!(matches!(again, ClaimOutcome::Acquired { number: 2, .. }));
    clock.advance(LEASE);
    let taken_over = now(store.claim(&numbered(3), &claim(52))).unwrap();
    assert!(matches!(taken_over, ClaimOutcome::Acquired { previous: Some(_), .. }));
    assert!(is_full(&store, 4));
    assert_eq!(store.len(), 4);
}

#[test]
fn the_refusal_says_what_to_do_and_names_no_key() {
    let (store, _clock) = bounded(0);
    let error = now(store.claim(&numbered(1), &claim(1))).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("max_keys"), "{message}");
    assert!(!message.contains("8e03978e"), "{message}");
    assert!(!error.is_retryable());
}

#[test]
fn a_full_store_makes_room_from_what_is_over_in_any_shard() {
    let (store, clock) = bounded(100);
    for number in 0..100 {
        let _ = acquire(&store, &numbered(number), 1);
    }
    clock.advance(LEASE + HOLD - Duration::from_micros(1));
    assert!(is_full(&store, 100), "nothing is over yet");
    clock.advance(Duration::from_micros(1));
    // Each new key pushes out one that is over, or two, wherever they are.
    for number in 100..200 {
        assert!(!is_full(&store, number), "there was room for {number}");
        assert!(store.len() <= 100);
    }
    assert!(is_full(&store, 200), "all that is left is new");
}

#[test]
fn what_is_remembered_is_never_dropped_to_make_room() {
    let (store, clock) = bounded(3);
    let _live = acquire(&store, &numbered(0), 1);
    let grant = acquire(&store, &numbered(1), 1);
    let _ = complete(&store, &numbered(1), grant, "done");
    let grant = acquire(&store, &numbered(2), 1);
    let _ = release(&store, &numbered(2), grant, Duration::MAX);
    clock.advance(LEASE);
    for number in 3..1_000 {
        assert!(is_full(&store, number));
    }
    let state = |number| now(store.get(&numbered(number))).unwrap().unwrap().state;
    assert_eq!(state(0), State::Lapsed);
    assert_eq!(state(1), State::Completed);
    assert_eq!(state(2), State::Released);

    clock.advance(RETENTION);
    assert!(!is_full(&store, 3), "the lapsed one and the retired one are over");
    assert_eq!(state(2), State::Released);
}

#[test]
fn purge_and_evict_give_room_back() {
    let (store, clock) = bounded(2);
    let _ = acquire(&store, &numbered(0), 1);
    let _ = acquire(&store, &numbered(1), 1);
    assert_eq!(evict(&store, &numbered(0)), Fenced::Applied);
    assert_eq!(store.len(), 1);
    let _ = acquire(&store, &numbered(2), 1);
    assert!(is_full(&store, 3));
    clock.advance(LEASE + HOLD);
    assert_eq!(now(store.purge(10)).unwrap().removed, 2);
    assert!(store.is_empty());
    assert!(!is_full(&store, 3));
}

/// Threads claim keys of their own at the same moment, all for one last place. Goes on until it has
/// seen claims overlap.
#[test]
fn one_of_many_threads_gets_the_last_place() {
    const THREADS: usize = 8;
    const KEYS: usize = 20;
    const ROUNDS: usize = 2_000;
    let (mut overlaps, mut round) = (0, 0);
    while overlaps < 20 || round < 100 {
        assert!(round < ROUNDS, "claims never overlapped");
        round += 1;
        let (store, _clock) = bounded(KEYS);
        for number in 1..KEYS {
            let _ = acquire(&store, &numbered(number), 1);
        }
        let (start, inside) = (Barrier::new(THREADS), AtomicUsize::new(0));
        let (granted, met) = (AtomicUsize::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (store, start, inside) = (&store, &start, &inside);
                let (granted, met) = (&granted, &met);
                scope.spawn(move || {
                    start.wait();
                    for try_number in 0..20 {
                        inside.fetch_add(1, Ordering::SeqCst);
                        let full = is_full(store, 1_000 + thread * 100 + try_number);
                        if inside.fetch_sub(1, Ordering::SeqCst) > 1 {
                            met.store(true, Ordering::SeqCst);
                        }
                        granted.fetch_add(usize::from(!full), Ordering::SeqCst);
                        assert!(store.len() <= KEYS);
                    }
                });
            }
        });
        assert_eq!(granted.into_inner(), 1);
        assert_eq!(store.len(), KEYS);
        overlaps += usize::from(met.into_inner());
    }
}

/// The same, while records end and are purged and evicted all the time.
#[test]
fn the_bound_holds_while_records_come_and_go() {
    const THREADS: usize = 4;
    const KEYS: usize = 64;
    let (store, clock) = bounded(KEYS);
    let (start, ended) = (Barrier::new(THREADS + 1), AtomicUsize::new(0));
    let most = AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, clock, start, ended) = (&store, &clock, &start, &ended);
            scope.spawn(move || {
                start.wait();
                for step in 0..5_000 {
                    let key = numbered(thread * 10_000 + step);
                    let attempt = claim((thread * 10_000 + step) as u128);
                    match now(store.claim(&key, &attempt)) {
                        Ok(ClaimOutcome::Acquired { grant, .. }) if step % 3 == 0 => {
                            let _ = release(store, &key, grant, Duration::ZERO);
                        }
                        Ok(_) if step % 7 == 0 => {
                            let _ = evict(store, &key);
                        }
                        Ok(_) => {}
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Full),
                    }
                    if step % 11 == 0 {
                        clock.advance(LEASE);
                    }
                    if step % 13 == 0 {
                        now(store.purge(3)).unwrap();
                    }
                }
                ended.fetch_add(1, Ordering::SeqCst);
            });
        }
        start.wait();
        while ended.load(Ordering::SeqCst) < THREADS {
            most.fetch_max(store.len(), Ordering::SeqCst);
        }
    });
    assert_eq!(most.into_inner(), KEYS, "the bound was reached and held");
    clock.advance(LEASE + HOLD);
    now(store.purge(usize::MAX)).unwrap();
    assert!(store.is_empty(), "every place was given back");
}
