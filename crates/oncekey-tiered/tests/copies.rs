//! What is answered from a copy, and what never is.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::channel::oneshot;
use futures::executor::block_on;
use futures::{FutureExt, join};
use oncekey::store::{
    Abandon, AttemptId, Claim, ClaimOutcome, Complete, Completion, ErrorKind, Evict, Expected,
    Fenced, Observed, OnInterrupted, OnRetired, Purged, Renew, Settle, Store, StoreError,
};
use oncekey::{Failure, Fingerprint, Idempotency, Key, Scope};
use oncekey_memory::{ManualClock, MemoryStore};
use oncekey_tiered::Tiered;

const HOUR: Duration = Duration::from_secs(3600);

/// A store that counts the calls that reach it, and fails or hangs when it is told to.
#[derive(Default)]
struct Watched {
    store: Option<MemoryStore>,
    calls: AtomicUsize,
    fails: AtomicBool,
    hangs: AtomicBool,
    /// The next `get` has its answer, says so, and comes back when it is let go.
    stopped_get: Mutex<Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>>,
}

impl Watched {
    fn on(clock: &ManualClock) -> Arc<Self> {
        let store = MemoryStore::builder().clock(Arc::new(clock.clone())).build();
        Arc::new(Self { store: Some(store), ..Self::default() })
    }

    fn calls(&self) -> usize {
        self.calls.swap(0, Ordering::SeqCst)
    }

    async fn reach(&self) -> Result<&MemoryStore, StoreError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::new(ErrorKind::Unavailable, "reach"));
        }
        Ok(self.store.as_ref().unwrap())
    }
}

#[async_trait]
impl Store for Watched {
    async fn claim(&self, key: &Key, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        self.reach().await?.claim(key, claim).await
    }

    async fn renew(&self, key: &Key, renew: &Renew) -> Result<Fenced, StoreError> {
        self.reach().await?.renew(key, renew).await
    }

    async fn complete(&self, key: &Key, complete: &Complete) -> Result<Fenced, StoreError> {
        self.reach().await?.complete(key, complete).await
    }

    async fn abandon(&self, key: &Key, abandon: &Abandon) -> Result<Fenced, StoreError> {
        self.reach().await?.abandon(key, abandon).await
    }

    async fn settle(&self, key: &Key, settle: &Settle) -> Result<Fenced, StoreError> {
        self.reach().await?.settle(key, settle).await
    }

    async fn evict(&self, key: &Key, evict: &Evict) -> Result<Fenced, StoreError> {
        self.reach().await?.evict(key, evict).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Observed>, StoreError> {
        let seen = self.reach().await?.get(key).await?;
        let stopped = self.stopped_get.lock().unwrap().take();
        if let Some((seen, go_on)) = stopped {
            seen.send(()).unwrap();
            go_on.await.unwrap();
        }
        Ok(seen)
    }

    async fn purge(&self, limit: usize) -> Result<Purged, StoreError> {
        self.reach().await?.purge(limit).await
    }
}

struct World {
    clock: ManualClock,
    fast: Arc<Watched>,
    durable: Arc<Watched>,
    tiered: Tiered,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::default();
        let (fast, durable) = (Watched::on(&clock), Watched::on(&clock));
        let tiered = Tiered::new(Arc::clone(&fast), Arc::clone(&durable));
        Self { clock, fast, durable, tiered }
    }

    fn claim(&self, attempt: u8) -> ClaimOutcome {
        block_on(self.tiered.claim(&key(), &claim(attempt, "100 EUR"))).unwrap()
    }

    /// A key that attempt 1 completed, and that was replayed once.
    fn completed_and_copied() -> Self {
        let world = Self::new();
        world.complete();
        assert_eq!(world.claim(2), replay());
        let _ = (world.fast.calls(), world.durable.calls());
        world
    }

    fn complete(&self) {
        let ClaimOutcome::Acquired { grant, .. } = self.claim(1) else { panic!("not granted") };
        let completion = Completion {
            value: Bytes::from_static(b"receipt 1"),
            replayable: true,
            retention: HOUR,
            hold: HOUR,
        };
        let complete = Complete { grant, completion };
        assert_eq!(block_on(self.tiered.complete(&key(), &complete)).unwrap(), Fenced::Applied);
    }
}

fn key() -> Key {
    Key::new(&Scope::new("tenant-42", "pay").unwrap(), "order-17").unwrap()
}

fn claim(attempt: u8, body: &str) -> Claim {
    Claim {
        attempt: AttemptId::from_bytes([attempt; 16]),
        fingerprint: Fingerprint::of(body),
        lease: Duration::from_secs(30),
        hold: HOUR,
        on_interrupted: OnInterrupted::TakeOver,
        on_retired: OnRetired::Tell,
    }
}

fn replay() -> ClaimOutcome {
    ClaimOutcome::Replay(Some(Bytes::from_static(b"receipt 1")))
}

const EVICT: Evict = Evict { expected: Expected::Any, force: false };

#[test]
fn a_second_replay_does_not_reach_the_durable_store() {
    let world = World::completed_and_copied();
    for attempt in 3..10 {
        assert_eq!(world.claim(attempt), replay());
    }
    assert_eq!((world.fast.calls(), world.durable.calls()), (7, 0));

    let other = block_on(world.tiered.claim(&key(), &claim(10, "200 EUR"))).unwrap();
    assert_eq!(other, ClaimOutcome::Mismatch);
    assert_eq!(world.durable.calls(), 0);
}

#[test]
fn a_copy_ends_before_the_retention_does() {
    let world = World::completed_and_copied();
    world.clock.advance(HOUR - Duration::from_secs(3));
    assert_eq!(world.claim(3), replay());
    assert_eq!(world.durable.calls(), 0);

    world.clock.advance(Duration::from_secs(2));
    assert_eq!(world.claim(4), replay());
    assert!(world.durable.calls() > 0, "it is the durable store that answers");

    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.claim(5), ClaimOutcome::Retired);
}

#[test]
fn a_fast_store_that_fails_is_done_without_and_left_alone() {
    let world = World::new();
    world.complete();
    world.fast.fails.store(true, Ordering::SeqCst);
    let _ = world.fast.calls();
    for attempt in 2..10 {
        assert_eq!(world.claim(attempt), replay());
    }
    assert_eq!(world.fast.calls(), 1, "asked once, then left alone");
}

#[test]
fn a_fast_store_that_hangs_is_done_without() {
    let world = World::new();
    world.complete();
    world.fast.hangs.store(true, Ordering::SeqCst);
    assert_eq!(world.claim(2), replay());
}

#[test]
fn a_fast_store_that_forgets_gets_a_new_copy() {
    let world = World::completed_and_copied();
    let evict = Evict { expected: Expected::Any, force: true };
    assert_eq!(block_on(world.fast.evict(&key(), &evict)).unwrap(), Fenced::Applied);
    assert_eq!(world.claim(3), replay());
    let _ = world.durable.calls();
    assert_eq!(world.claim(4), replay());
    assert_eq!(world.durable.calls(), 0);
}

#[test]
fn what_was_evicted_is_not_replayed() {
    let world = World::completed_and_copied();
    assert_eq!(block_on(world.tiered.evict(&key(), &EVICT)).unwrap(), Fenced::Applied);
    assert!(matches!(world.claim(3), ClaimOutcome::Acquired { .. }));
}

#[test]
fn an_evicted_key_is_copied_again_after_a_while() {
    let world = World::completed_and_copied();
    assert_eq!(block_on(world.tiered.evict(&key(), &EVICT)).unwrap(), Fenced::Applied);
    world.complete();
    assert_eq!(world.claim(3), replay());
    let _ = world.durable.calls();
    assert_eq!(world.claim(4), replay());
    assert!(world.durable.calls() > 0, "no copy so soon");

    world.clock.advance(Duration::from_secs(10));
    assert_eq!(world.claim(5), replay());
    let _ = world.durable.calls();
    assert_eq!(world.claim(6), replay());
    assert_eq!(world.durable.calls(), 0);
}

/// Whoever makes a copy has read the result before it is evicted, and writes it afterwards.
#[test]
fn no_copy_is_made_of_what_was_evicted_meanwhile() {
    let world = World::new();
    world.complete();
    let (seen, has_seen) = oneshot::channel();
    let (go_on, goes_on) = oneshot::channel();
    *world.durable.stopped_get.lock().unwrap() = Some((seen, goes_on));

    let (key, duplicate) = (key(), claim(2, "100 EUR"));
    let reader = world.tiered.claim(&key, &duplicate).boxed();
    let evicter = async {
        has_seen.await.unwrap();
        let evicted = world.tiered.evict(&key, &EVICT).await.unwrap();
        go_on.send(()).unwrap();
        evicted
    };
    let (read, evicted) = block_on(both(reader, evicter));
    assert_eq!((read.unwrap(), evicted), (replay(), Fenced::Applied), "the race took place");
    assert!(block_on(world.fast.get(&key)).unwrap().is_none_or(|seen| !is_a_result(&seen)));
    assert!(matches!(world.claim(3), ClaimOutcome::Acquired { .. }));
}

async fn both<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, B) {
    join!(one, other)
}

fn is_a_result(seen: &Observed) -> bool {
    seen.state == oncekey::store::State::Completed
}

/// A full fast store takes no bar, and no copy either.
#[test]
fn a_key_is_evicted_while_the_fast_store_is_full() {
    let clock = ManualClock::default();
    let full = MemoryStore::builder().max_keys(1).clock(Arc::new(clock.clone())).build();
    let durable = Watched::on(&clock);
    let tiered = Tiered::new(full.clone(), Arc::clone(&durable));
    let world = World { clock, fast: Arc::default(), durable, tiered };
    world.complete();
    let other = Key::new(&Scope::new("tenant-42", "pay").unwrap(), "order-18").unwrap();
    let filled = block_on(full.claim(&other, &claim(9, "1 EUR"))).unwrap();
    assert!(matches!(filled, ClaimOutcome::Acquired { .. }));
    let none = block_on(full.claim(&key(), &claim(9, "1 EUR"))).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::Full);

    assert_eq!(block_on(world.tiered.evict(&key(), &EVICT)).unwrap(), Fenced::Applied);
    assert!(matches!(world.claim(3), ClaimOutcome::Acquired { .. }));
}

#[test]
fn nothing_is_evicted_while_the_copy_cannot_be_removed() {
    let world = World::completed_and_copied();
    world.fast.fails.store(true, Ordering::SeqCst);
    let error = block_on(world.tiered.evict(&key(), &EVICT)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(world.durable.calls(), 0);

    world.fast.fails.store(false, Ordering::SeqCst);
    assert_eq!(block_on(world.tiered.evict(&key(), &EVICT)).unwrap(), Fenced::Applied);
}

#[test]
fn an_engine_runs_once_and_replays_from_the_copy() {
    let world = World::new();
    let engine = Idempotency::at_least_once(world.tiered.clone());
    let run = || {
        let operation = |_| async { Ok::<_, Failure<()>>(Bytes::from_static(b"done")) };
        block_on(engine.run_bytes(&key(), &Fingerprint::of("body"), operation)).unwrap()
    };
    assert!(!run().is_replay());
    assert!(run().is_replay());
    let _ = world.durable.calls();
    assert!(run().is_replay());
    assert_eq!(world.durable.calls(), 0);
}
