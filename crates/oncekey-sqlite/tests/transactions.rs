//! Effect and record in one transaction: both or neither, whatever happens in between.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
mod shop;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use oncekey::store::{ClaimOutcome, ErrorKind, State, Store};
use oncekey::{Failure, Fingerprint, Idempotency, RunError};
use oncekey_sqlite::rusqlite;
use rusqlite::Transaction;

use common::{Database, acquire, claim, fingerprint, get, key, number, wait};
use shop::{Shop, pay};

#[test]
fn effect_and_record_commit_together_once() {
    let shop = Shop::new();
    let first = shop.run("a", pay).unwrap();
    assert_eq!((*first.value(), first.is_replay()), (1, false));
    let second = shop.run("a", pay).unwrap();
    assert_eq!((*second.value(), second.is_replay()), (1, true));
    assert_eq!(shop.payments(), 1);
    assert_eq!(get(&shop.store, &key("a")).unwrap().state, State::Completed);
}

#[test]
fn an_error_rolls_everything_back_and_leaves_the_key_free() {
    let shop = Shop::new();
    let failed = shop.run::<i64, _>("a", |tx| {
        pay(tx)?;
        tx.query_row("SELECT no_such_column", [], |row| row.get(0))
    });
    assert!(matches!(failed, Err(RunError::NotStarted(_))), "{failed:?}");
    assert_eq!(shop.payments(), 0);
    assert!(get(&shop.store, &key("a")).is_none());
    assert_eq!(*shop.run("a", pay).unwrap().value(), 1);
}

/// To roll back a takeover says nothing of the attempt that it took over from.
#[test]
fn an_error_after_a_takeover_leaves_the_key_interrupted() {
    let shop = Shop::new();
    let engine = Idempotency::at_least_once(shop.store.clone());
    let (key, fingerprint) = (key("a"), fingerprint());
    let timed_out = |_| async { Err::<i64, _>(Failure::Unknown("timed out")) };
    let failed = wait(engine.run_classified(&key, &fingerprint, timed_out));
    assert!(matches!(failed, Err(RunError::Unknown("timed out"))), "{failed:?}");

    let declined = |_: &Transaction<'_>| Err::<i64, _>("no stock");
    let failed = wait(shop.store.run_in_transaction(&engine, &key, &fingerprint, declined));
    assert!(matches!(failed, Err(RunError::Unknown("no stock"))), "{failed:?}");
    assert!(matches!(shop.run("a", pay), Err(RunError::Interrupted)));
    let ran = wait(shop.store.run_in_transaction(&engine, &key, &fingerprint, pay)).unwrap();
    assert!(!ran.is_replay());
}

#[test]
fn a_panic_rolls_everything_back_and_ends_nothing_else() {
    let shop = Shop::new();
    let run = || {
        shop.run::<i64, _>("a", |tx| {
            pay(tx)?;
            panic!("business panics");
        })
    };
    let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"business panics"));
    assert_eq!(shop.payments(), 0);
    assert!(get(&shop.store, &key("a")).is_none());
    let _ = acquire(&shop.store, &key("b"), 1);
    assert!(shop.run("a", pay).is_ok());
}

#[test]
fn refusals_run_nothing() {
    let shop = Shop::new();
    let never = |_: &Transaction<'_>| -> rusqlite::Result<i64> { panic!("it must not run") };
    let _ = acquire(&shop.store, &key("live"), 1);
    assert!(matches!(shop.run("live", never), Err(RunError::Busy { .. })));
    shop.database.clock.advance(common::LEASE);
    assert!(matches!(shop.run("live", never), Err(RunError::Interrupted)));
    let other = Fingerprint::of("another request");
    shop.run("done", pay).unwrap();
    let done = key("done");
    let mismatch = shop.store.run_in_transaction(&shop.idempotency, &done, &other, never);
    assert!(matches!(wait(mismatch), Err(RunError::Mismatch)));
    assert_eq!(shop.payments(), 1);
}

#[test]
fn many_callers_make_one_effect() {
    let shop = Shop::new();
    let second = shop.database.open();
    let replays: usize = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..8)
            .map(|caller| {
                let store = if caller % 2 == 0 { &shop.store } else { &second };
                let idempotency = &shop.idempotency;
                scope.spawn(move || {
                    let (key, fingerprint) = (key("a"), fingerprint());
                    let run = store.run_in_transaction(idempotency, &key, &fingerprint, pay);
                    let outcome = wait(run).unwrap();
                    assert_eq!(*outcome.value(), 1);
                    usize::from(outcome.is_replay())
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).sum()
    });
    assert_eq!((replays, shop.payments()), (7, 1));
}

#[test]
fn a_deferred_constraint_rolls_everything_back() {
    let shop = Shop::new();
    let tables = "CREATE TABLE parent (id INTEGER PRIMARY KEY);
        CREATE TABLE child (parent REFERENCES parent DEFERRABLE INITIALLY DEFERRED)";
    shop.database.connect().execute_batch(tables).unwrap();
    let failed = shop.run("a", |tx| {
        tx.execute("PRAGMA foreign_keys", []).ok();
        tx.execute("INSERT INTO child VALUES (7)", []).map(|rows| rows as i64)
    });
    let Err(RunError::Store(error)) = failed else { panic!("the commit must fail") };
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.to_string().contains("deferred constraint"), "{error}");
    assert_eq!(number(&shop.database.connect(), "SELECT count(*) FROM child"), 0);
    assert!(shop.run("a", pay).is_ok());
}

#[test]
fn a_commit_that_failed_is_unknown_and_not_run_again() {
    let fail = Arc::new(AtomicBool::new(false));
    let failing = fail.clone();
    let shop = Shop::over(Database::new(), |database| {
        let builder = database.builder().on_connect(move |connection| {
            let fail = failing.clone();
            let _ = connection.commit_hook(Some(move || fail.load(Ordering::SeqCst)));
            Ok(())
        });
        builder.open().unwrap()
    });
    fail.store(true, Ordering::SeqCst);
    let Err(RunError::InDoubt(error)) = shop.run("a", pay) else { panic!("the commit must fail") };
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    fail.store(false, Ordering::SeqCst);
    assert_eq!(shop.payments(), 0);
    let outcome = shop.run("a", pay).unwrap();
    assert_eq!((outcome.is_replay(), shop.payments()), (false, 1));
}

#[test]
fn a_closure_that_takes_the_key_away_is_rolled_back() {
    let shop = Shop::new();
    let failed = shop.run("a", |tx| {
        tx.execute("DELETE FROM oncekey", [])?;
        pay(tx)
    });
    assert!(matches!(failed, Err(RunError::LeaseLost)), "{failed:?}");
    assert_eq!(shop.payments(), 0);
}

#[test]
fn a_result_that_cannot_be_encoded_rolls_back() {
    let shop = Shop::new();
    let failed = shop.run("a", |tx| {
        pay(tx)?;
        Ok(std::collections::HashMap::from([((1, 2), 3)]))
    });
    let Err(RunError::Store(error)) = failed else { panic!("it cannot be encoded") };
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert_eq!(shop.payments(), 0);
    assert!(shop.run("a", pay).is_ok());
}

#[test]
fn the_futures_can_be_spawned() {
    let shop = Shop::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let (store, idempotency) = (shop.store.clone(), shop.idempotency.clone());
    // As a handler of a web framework is: an owned future that may move between threads.
    let handler = async move {
        let (key, fingerprint) = (key("a"), fingerprint());
        store.run_in_transaction(&idempotency, &key, &fingerprint, pay).await
    };
    let outcome = runtime.block_on(async { tokio::spawn(handler).await.unwrap() });
    assert_eq!(*outcome.unwrap().value(), 1);
}

#[test]
fn a_dropped_run_happened_or_did_not() {
    let shop = Shop::new();
    let mut happened = 0;
    for round in 0..50 {
        let (key, fingerprint) = (key(format!("{round}")), fingerprint());
        let run = shop.store.run_in_transaction(&shop.idempotency, &key, &fingerprint, pay);
        let mut run = Box::pin(run);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = run.as_mut().poll(&mut context);
        std::thread::sleep(Duration::from_micros(20 * round));
        drop(run);
        let after = shop.run(&format!("{round}"), pay).unwrap();
        happened += i64::from(after.is_replay());
        assert_eq!(shop.payments(), round as i64 + 1);
    }
    println!("{happened} of 50 happened before the caller was gone");
}

#[test]
fn a_run_waits_for_what_runs_before_it() {
    let shop = Shop::new();
    std::thread::scope(|scope| {
        let (started, began) = std::sync::mpsc::channel();
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let slow = scope.spawn(|| {
            shop.run("slow", move |tx| {
                started.send(()).unwrap();
                let _ = finished.recv();
                pay(tx)
            })
        });
        began.recv().unwrap();
        // Queued behind it: the closure is on the thread that writes.
        let (key, claim) = (key("other"), claim(1));
        let mut behind = shop.store.claim(&key, &claim);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(behind.as_mut().poll(&mut context).is_pending());
        assert!(get(&shop.store, &key).is_none(), "reading waits for nobody");
        finish.send(()).unwrap();
        assert!(slow.join().unwrap().is_ok());
        assert!(matches!(wait(behind).unwrap(), ClaimOutcome::Acquired { .. }));
    });
}
