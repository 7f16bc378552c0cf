//! Business that ends the transaction which it was lent: it is never said that nothing was done where something
//! may have been.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
mod shop;

use std::task::{Context, Waker};
use std::time::Duration;

use oncekey::RunError;
use oncekey::store::{ErrorKind, Store};
use oncekey_sqlite::rusqlite;

use common::{acquire, claim, get, key, wait};
use shop::{Shop, begin, pay};

/// By whatever name it ends it, and whatever it returns then.
#[test]
fn a_closure_that_ends_the_transaction_is_told_so() {
    for end in
        ["COMMIT", "ROLLBACK", "COMMIT; BEGIN", "ROLLBACK; BEGIN IMMEDIATE", "COMMIT; nonsense"]
    {
        for fails in [false, true] {
            let shop = Shop::new();
            let failed = shop.run::<i64, _>("a", move |tx| {
                pay(tx)?;
                let _ignored = tx.execute_batch(end);
                if fails { Err(rusqlite::Error::InvalidQuery) } else { Ok(1) }
            });
            let Err(RunError::InDoubt(error)) = failed else { panic!("{end} {fails}: {failed:?}") };
            assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{end} {fails}");
            assert!(error.to_string().contains("COMMIT"), "{error}");
            let _ = acquire(&shop.store, &key("b"), 1);
        }
    }
}

#[test]
fn a_closure_that_fails_without_ending_the_transaction_did_nothing() {
    for sql in ["SELECT 1", "nonsense", "SAVEPOINT mine", "SAVEPOINT mine; nonsense"] {
        let shop = Shop::new();
        let failed = shop.run::<i64, _>("a", move |tx| {
            pay(tx)?;
            let _ignored = tx.execute_batch(sql);
            Err(rusqlite::Error::InvalidQuery)
        });
        assert!(matches!(failed, Err(RunError::NotStarted(_))), "{sql}: {failed:?}");
        assert!(get(&shop.store, &key("a")).is_none());
        assert!(!shop.run("a", pay).unwrap().is_replay());
        assert_eq!(shop.payments(), 1);
    }
}

/// A statement that rolls back when it fails. What business writes after that is in no transaction.
#[test]
fn a_transaction_that_sqlite_ended_is_not_taken_for_one_that_is_open() {
    for (goes_on, fails) in [(false, true), (true, true), (true, false)] {
        let shop = Shop::new();
        let failed = shop.run::<i64, _>("a", move |tx| {
            tx.execute("INSERT INTO payments VALUES (1)", [])?;
            let sql = "INSERT OR ROLLBACK INTO oncekey SELECT * FROM oncekey";
            tx.execute(sql, []).unwrap_err();
            assert!(tx.is_autocommit(), "SQLite left the transaction open");
            if goes_on {
                pay(tx)?;
            }
            if fails { Err(rusqlite::Error::InvalidQuery) } else { Ok(1) }
        });
        let Err(RunError::InDoubt(error)) = failed else { panic!("{goes_on} {fails}: {failed:?}") };
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(shop.payments(), i64::from(goes_on));
    }
}

/// Business has the connection, and may set it up for itself.
#[test]
fn a_closure_that_does_not_wait_for_locks_lets_the_others_wait() {
    let shop = Shop::new();
    let impatient = |tx: &rusqlite::Transaction<'_>| {
        tx.busy_timeout(Duration::ZERO)?;
        pay(tx)
    };
    assert!(shop.run("a", impatient).is_ok());
    let mut other = shop.database.connect();
    let lock = begin(&mut other);
    let (key, claim) = (key("b"), claim(1));
    let mut call = shop.store.claim(&key, &claim);
    let mut context = Context::from_waker(Waker::noop());
    assert!(call.as_mut().poll(&mut context).is_pending());
    while !format!("{:?}", shop.store).contains("queued: 0") {
        std::thread::yield_now();
    }
    // The thread has it, and looks at the lock at once.
    std::thread::sleep(Duration::from_millis(5));
    lock.rollback().unwrap();
    assert!(wait(call).is_ok());
}
