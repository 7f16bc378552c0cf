//! The one thread that writes: who shares its commits, who waits for it, and when it answers.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
mod shop;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::task::{Context, Waker};
use std::time::Duration;

use futures::future::join_all;
use oncekey::store::{ClaimOutcome, Store};
use oncekey_sqlite::rusqlite;

use common::{Database, claim, get, key, number, sent_under_a_lock, wait};
use shop::{Shop, begin, granted};

#[test]
fn calls_that_queue_up_share_a_commit() {
    let database = Database::new();
    let commits = Arc::new(AtomicUsize::new(0));
    let counted = commits.clone();
    let count = move |connection: &mut rusqlite::Connection| {
        let counted = counted.clone();
        let _ = connection.commit_hook(Some(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            false
        }));
        Ok(())
    };
    let store = database.builder().on_connect(count).open().unwrap();
    let before = commits.load(Ordering::SeqCst);
    let calls = (0..200).map(|id| {
        let store = &store;
        async move { store.claim(&key(format!("{id}")), &claim(id)).await.unwrap() }
    });
    for answer in sent_under_a_lock(&database, calls) {
        assert!(matches!(answer, ClaimOutcome::Acquired { .. }), "{answer:?}");
    }
    // The first may have gone ahead of the others.
    let commits = commits.load(Ordering::SeqCst) - before;
    assert!((1..=2).contains(&commits), "{commits}");
    assert_eq!(number(&database.connect(), "SELECT count(*) FROM oncekey"), 200);
}

#[test]
fn nobody_is_answered_before_the_commit() {
    let database = Database::new();
    let armed = Arc::new(AtomicBool::new(false));
    let (reached, is_reached) = channel();
    let (go_on, may_go_on) = channel::<()>();
    let gate = std::sync::Mutex::new(Some((armed.clone(), reached, may_go_on)));
    let stop = move |connection: &mut rusqlite::Connection| {
        let (armed, reached, may_go_on) = gate.lock().unwrap().take().unwrap();
        let _ = connection.commit_hook(Some(move || {
            if armed.load(Ordering::SeqCst) {
                reached.send(()).unwrap();
                let _ = may_go_on.recv();
            }
            false
        }));
        Ok(())
    };
    let store = database.builder().on_connect(stop).open().unwrap();
    armed.store(true, Ordering::SeqCst);
    let (key, claim) = (key("a"), claim(1));
    let mut call = store.claim(&key, &claim);
    let mut context = Context::from_waker(Waker::noop());
    assert!(call.as_mut().poll(&mut context).is_pending());
    is_reached.recv().unwrap();
    assert!(call.as_mut().poll(&mut context).is_pending(), "it is decided, and not committed");
    assert!(get(&store, &key).is_none());
    armed.store(false, Ordering::SeqCst);
    go_on.send(()).unwrap();
    assert!(matches!(wait(call).unwrap(), ClaimOutcome::Acquired { .. }));
}

/// A transaction that began as a reader would have to give up here.
#[test]
fn a_claim_that_waited_for_a_writer_sees_what_that_wrote() {
    let shop = Shop::new();
    let mut connection = shop.database.connect();
    let tx = begin(&mut connection);
    let prepared = shop.prepare("a");
    let _ = granted(shop.store.claim_in(&tx, &prepared).unwrap());
    let (key, claim) = (key("a"), claim(2));
    let mut call = shop.store.claim(&key, &claim);
    let mut context = Context::from_waker(Waker::noop());
    assert!(call.as_mut().poll(&mut context).is_pending());
    while !format!("{:?}", shop.store).contains("queued: 0") {
        std::thread::yield_now();
    }
    // The thread has it, and begins; if it is slow to, it begins after the commit.
    std::thread::sleep(Duration::from_millis(5));
    tx.commit().unwrap();
    let answer = wait(call).unwrap();
    assert!(matches!(answer, ClaimOutcome::Busy { .. }), "{answer:?}");
}

#[test]
fn a_claim_waits_for_one_step_of_a_purge_and_not_for_all() {
    const ROWS: usize = 1_000;
    let database = Database::new();
    let store = database.open();
    let keys: Vec<_> = (0..ROWS).map(|id| key(format!("{id}"))).collect();
    let claims: Vec<_> = (0..ROWS).map(|id| claim(id as u128)).collect();
    let calls = keys.iter().zip(&claims).map(|(key, claim)| store.claim(key, claim));
    assert!(wait(join_all(calls)).iter().all(Result::is_ok));
    database.clock.advance(Duration::from_secs(3600));

    // Both are queued while nobody can write.
    let mut other = database.connect();
    let lock = begin(&mut other);
    let (new, claim) = (key("new"), claim(1));
    let mut purge = store.purge(ROWS);
    let mut call = store.claim(&new, &claim);
    let mut context = Context::from_waker(Waker::noop());
    assert!(purge.as_mut().poll(&mut context).is_pending());
    assert!(call.as_mut().poll(&mut context).is_pending());
    lock.rollback().unwrap();
    assert!(matches!(wait(call).unwrap(), ClaimOutcome::Acquired { .. }));
    let left = number(&database.connect(), "SELECT count(*) FROM oncekey") as usize - 1;
    assert!((ROWS * 4 / 5..ROWS).contains(&left), "one step came before the claim: {left} left");
    assert_eq!(wait(purge).unwrap().removed, ROWS);
    assert!(get(&store, &new).is_some());
}
