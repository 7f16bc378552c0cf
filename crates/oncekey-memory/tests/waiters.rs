//! Notifications: of every end of an attempt, to those who wait for that key, and to nobody else.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use oncekey::Key;
use oncekey::store::{ClaimOutcome, Expected, Fenced, Settle, Settlement, Store, Subscription};
use oncekey_memory::{ManualClock, MemoryStore};

use common::{
    HOLD, LEASE, acquire, claim, complete, completion, evict, give_up, key, now, numbered, release,
    renew,
};

/// Claims a key and ends the attempt.
type End<'a> = &'a dyn Fn(&Key);

fn subscribe(store: &MemoryStore, key: &Key) -> Subscription {
    now(store.watch().unwrap().subscribe(key)).unwrap()
}

/// Whether something is there to be notified of.
fn notified(subscription: &mut Subscription) -> bool {
    pin!(subscription.changed()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

fn settle(store: &MemoryStore, key: &Key, settlement: Settlement) {
    let expected = Expected::Any;
    let settle = Settle { expected, settlement };
    assert_eq!(now(store.settle(key, &settle)).unwrap(), Fenced::Applied);
}

#[test]
fn every_end_of_an_attempt_is_notified_once() {
    let clock = ManualClock::default();
    let store = MemoryStore::builder().clock(Arc::new(clock.clone())).build();
    let ends: [(&str, End<'_>); 7] = [
        ("completion", &|key| {
            let grant = acquire(&store, key, 1);
            let _ = complete(&store, key, grant, "done");
        }),
        ("release", &|key| {
            let grant = acquire(&store, key, 1);
            let _ = release(&store, key, grant, HOLD);
        }),
        ("giving up", &|key| {
            let grant = acquire(&store, key, 1);
            let _ = give_up(&store, key, grant);
        }),
        ("settling as done", &|key| {
            let _ = acquire(&store, key, 1);
            clock.advance(LEASE);
            settle(&store, key, Settlement::Done(completion("done")));
        }),
        ("settling as not done", &|key| {
            let _ = acquire(&store, key, 1);
            clock.advance(LEASE);
            settle(&store, key, Settlement::NotDone { hold: HOLD });
        }),
        ("eviction", &|key| {
            let _ = acquire(&store, key, 1);
            let _ = evict(&store, key);
        }),
        ("purging", &|key| {
            let _ = acquire(&store, key, 1);
            clock.advance(LEASE + HOLD);
            while now(store.purge(100)).unwrap().more {}
        }),
    ];
    for (end, act) in ends {
        let key = key(end);
        let mut subscriptions = [subscribe(&store, &key), subscribe(&store, &key)];
        act(&key);
        for subscription in &mut subscriptions {
            assert!(notified(subscription), "{end}");
            assert!(!notified(subscription), "{end}: only once");
        }
    }
}

#[test]
fn what_ends_no_attempt_is_not_notified() {
    let store = MemoryStore::new();
    let mut subscription = subscribe(&store, &key("a"));
    let grant = acquire(&store, &key("a"), 1);
    let _ = renew(&store, &key("a"), grant);
    let busy = now(store.claim(&key("a"), &claim(2))).unwrap();
    assert!(matches!(busy, ClaimOutcome::Busy { .. }));
    let other = acquire(&store, &key("b"), 1);
    let _ = complete(&store, &key("b"), other, "done");
    assert!(!notified(&mut subscription));

    let _ = complete(&store, &key("a"), grant, "done");
    assert!(notified(&mut subscription));
    let _ = complete(&store, &key("a"), grant, "done");
    let _ = release(&store, &key("a"), grant, HOLD);
    assert!(!notified(&mut subscription), "nothing changed any more");
}

#[test]
fn a_subscription_goes_on_after_a_notification() {
    let store = MemoryStore::new();
    let mut subscription = subscribe(&store, &key("a"));
    for attempt in 0..10 {
        let grant = acquire(&store, &key("a"), attempt);
        let _ = release(&store, &key("a"), grant, HOLD);
        assert!(notified(&mut subscription));
    }
}

/// Uses the store when it is woken, as an executor that polls in its waker would.
struct Reenters {
    store: MemoryStore,
    woken: AtomicUsize,
}

impl Wake for Reenters {
    fn wake(self: Arc<Self>) {
        assert!(now(self.store.get(&key("a"))).unwrap().is_some());
        self.woken.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_waker_may_use_the_store() {
    let store = MemoryStore::new();
    let waker = Arc::new(Reenters { store: store.clone(), woken: AtomicUsize::new(0) });
    let mut subscription = subscribe(&store, &key("a"));
    {
        let mut changed = pin!(subscription.changed());
        let waker = Waker::from(waker.clone());
        assert!(changed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let grant = acquire(&store, &key("a"), 1);
        let _ = complete(&store, &key("a"), grant, "done");
    }
    assert_eq!(waker.woken.load(Ordering::SeqCst), 1);
}

/// Threads subscribe, read, and wait for the notification alone. One lost would hang the test.
#[test]
fn who_subscribes_and_then_reads_misses_nothing() {
    const WAITERS: usize = 3;
    let store = MemoryStore::new();
    let waited = AtomicUsize::new(0);
    for round in 0..300 {
        let key = numbered(round);
        let grant = acquire(&store, &key, 1);
        let start = Barrier::new(WAITERS + 1);
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            for waiter in 0..WAITERS {
                let (store, key, start, waited) = (&store, &key, &start, &waited);
                let ended = &ended;
                scope.spawn(move || {
                    start.wait();
                    let mut subscription = subscribe(store, key);
                    loop {
                        match now(store.claim(key, &claim(10 + waiter as u128))).unwrap() {
                            ClaimOutcome::Replay(_) => break,
                            ClaimOutcome::Busy { .. } => {
                                waited.fetch_add(1, Ordering::SeqCst);
                                futures::executor::block_on(subscription.changed());
                                assert!(ended.load(Ordering::SeqCst), "woken for nothing");
                            }
                            other => panic!("unexpected: {other:?}"),
                        }
                    }
                });
            }
            start.wait();
            if round % 2 == 0 {
                thread::sleep(Duration::from_micros(round as u64));
            }
            ended.store(true, Ordering::SeqCst);
            let _ = complete(&store, &key, grant, "done");
        });
    }
    assert!(waited.into_inner() > 0, "somebody had to wait");
}
