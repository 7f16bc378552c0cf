//! Time: what is over is removed, nothing else is, and the clock may do what clocks do.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use oncekey::runtime::{Clock, Timestamp};
use oncekey::store::{Claim, ClaimOutcome, Fenced, State, Store};
use oncekey_memory::{ManualClock, MemoryStore};

use common::{
    HOLD, LEASE, RETENTION, acquire, claim, complete, give_up, now, numbered, release, renew,
};

const MICRO: Duration = Duration::from_micros(1);

fn with_clock() -> (MemoryStore, ManualClock) {
    let clock = ManualClock::default();
    let store = MemoryStore::builder().clock(Arc::new(clock.clone())).build();
    (store, clock)
}

fn state(store: &MemoryStore, number: usize) -> Option<State> {
    let observed = now(store.get(&numbered(number))).unwrap();
    observed.map(|observed| observed.state)
}

#[test]
fn purge_removes_what_is_over_and_keeps_to_its_limit() {
    let (store, clock) = with_clock();
    for number in 0..1_000 {
        let _ = acquire(&store, &numbered(number), 1);
    }
    clock.advance(LEASE + HOLD - MICRO);
    let purged = now(store.purge(usize::MAX)).unwrap();
    assert_eq!((purged.removed, purged.more), (0, false));

    clock.advance(MICRO);
    let purged = now(store.purge(0)).unwrap();
    assert_eq!((purged.removed, purged.more), (0, false));
    let purged = now(store.purge(300)).unwrap();
    assert_eq!((purged.removed, purged.more), (300, true));
    let mut removed = 300;
    loop {
        let purged = now(store.purge(300)).unwrap();
        assert!(purged.removed <= 300);
        removed += purged.removed;
        if !purged.more {
            break;
        }
    }
    assert_eq!(removed, 1_000);
    assert!(store.is_empty());
}

#[test]
fn purge_spares_what_was_renewed_completed_or_is_kept_for_ever() {
    let (store, clock) = with_clock();
    let renewed = acquire(&store, &numbered(0), 1);
    let completed = acquire(&store, &numbered(1), 1);
    let _ = complete(&store, &numbered(1), completed, "done");
    let for_ever = Claim { hold: Duration::MAX, ..claim(1) };
    now(store.claim(&numbered(2), &for_ever)).unwrap();
    let gave_up = acquire(&store, &numbered(3), 1);
    let _ = give_up(&store, &numbered(3), gave_up);

    clock.advance(LEASE + HOLD);
    assert_eq!(renew(&store, &numbered(0), renewed), Fenced::Applied);
    assert_eq!(now(store.purge(100)).unwrap().removed, 1, "the one given up");
    assert_eq!(state(&store, 0), Some(State::Live));
    assert_eq!(state(&store, 1), Some(State::Completed));

    clock.advance(RETENTION);
    assert_eq!(now(store.purge(100)).unwrap().removed, 2);
    clock.set(Timestamp::MAX);
    clock.advance(Duration::MAX);
    assert_eq!(state(&store, 2), Some(State::Lapsed));
}

#[test]
fn a_time_that_comes_nearer_is_heeded() {
    let (store, clock) = with_clock();
    let for_ever = Claim { hold: Duration::MAX, ..claim(1) };
    // Many times over, since each time could leave something behind in the queue.
    for round in 0..100 {
        let attempt = Claim { attempt: claim(round).attempt, ..for_ever };
        let ClaimOutcome::Acquired { grant, .. } =
            now(store.claim(&numbered(0), &attempt)).unwrap()
        else {
            panic!("the key is free");
        };
        let _ = release(&store, &numbered(0), grant, Duration::from_secs(60));
    }
    clock.advance(Duration::from_secs(60) - MICRO);
    assert_eq!(now(store.purge(100)).unwrap().removed, 0);
    clock.advance(MICRO);
    assert_eq!(now(store.purge(100)).unwrap().removed, 1);
    assert!(store.is_empty());
}

#[test]
fn new_keys_sweep_out_old_ones_without_any_purge() {
    let (store, clock) = with_clock();
    let lifetime = LEASE + HOLD;
    let mut most = 0;
    for number in 0..50_000 {
        let _ = acquire(&store, &numbered(number), 1);
        clock.advance(lifetime / 1_000);
        most = most.max(store.len());
    }
    // A thousand keys are alive at any time; a shard is swept when a new key comes to it.
    assert!(most < 2_000, "{most} records for 1,000 keys alive");
}

#[test]
fn a_clock_that_steps_back_shortens_no_lease_and_loses_nothing() {
    let (store, clock) = with_clock();
    let start = clock.now();
    clock.advance(Duration::from_secs(7_200));
    let owner = acquire(&store, &numbered(0), 1);
    let done = acquire(&store, &numbered(1), 1);
    let _ = complete(&store, &numbered(1), done, "done");
    let deadline = clock.now().saturating_add(LEASE);

    clock.set(start);
    assert_eq!(renew(&store, &numbered(0), owner), Fenced::Applied);
    let again = now(store.claim(&numbered(0), &claim(1))).unwrap();
    let ClaimOutcome::Acquired { grant, lease_left, .. } = again else {
        panic!("the owner claims again: {again:?}");
    };
    assert_eq!(grant, owner);
    assert_eq!(start.saturating_add(lease_left), deadline, "not shortened");
    assert_eq!(now(store.purge(100)).unwrap().removed, 0);
    let replay = now(store.claim(&numbered(1), &claim(2))).unwrap();
    assert_eq!(replay, ClaimOutcome::Replay(Some("done".into())));

    // Whoever takes over later gets a higher token, although the clock is behind the first one.
    let _ = give_up(&store, &numbered(0), owner);
    assert!(acquire(&store, &numbered(0), 2).token > owner.token);
    assert_eq!(complete(&store, &numbered(0), owner, "late"), Fenced::Lost);
}

#[test]
fn a_clock_that_runs_ahead_and_comes_back_drops_nothing_early() {
    let (store, clock) = with_clock();
    let start = clock.now();
    for number in 0..100 {
        let grant = acquire(&store, &numbered(number), 1);
        let _ = complete(&store, &numbered(number), grant, "done");
    }
    // Far enough for every place in the queue, not for what was completed since.
    clock.advance(LEASE + HOLD);
    assert_eq!(now(store.purge(usize::MAX)).unwrap().removed, 0);
    clock.advance(MICRO);
    assert!(!now(store.purge(1)).unwrap().more, "each has its right place now");
    clock.set(start);
    assert_eq!(now(store.purge(usize::MAX)).unwrap().removed, 0);
    clock.set(start.saturating_add(RETENTION));
    assert_eq!(now(store.purge(usize::MAX)).unwrap().removed, 100);
}

/// Shows the time, except once.
#[derive(Debug, Default)]
struct Faulty {
    breaks: AtomicBool,
    time: ManualClock,
}

impl Clock for Faulty {
    fn now(&self) -> Timestamp {
        assert!(!self.breaks.swap(false, Ordering::SeqCst), "the clock broke");
        self.time.now()
    }
}

#[test]
fn a_panic_of_the_clock_leaves_the_store_whole() {
    let clock = Arc::new(Faulty::default());
    let store = MemoryStore::builder().clock(clock.clone()).build();
    let grant = acquire(&store, &numbered(0), 1);
    clock.breaks.store(true, Ordering::SeqCst);
    let broke = catch_unwind(AssertUnwindSafe(|| complete(&store, &numbered(0), grant, "done")));
    assert!(broke.is_err());

    assert_eq!(state(&store, 0), Some(State::Live));
    assert_eq!(complete(&store, &numbered(0), grant, "done"), Fenced::Applied);
    assert_eq!(store.len(), 1);
}
