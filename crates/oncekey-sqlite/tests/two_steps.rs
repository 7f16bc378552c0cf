//! The two steps on a transaction of the caller's own.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
mod shop;

use std::time::Duration;

use oncekey::store::{ErrorKind, Fenced};
use oncekey::transaction::Admitted;
use oncekey::{RecordError, RunError};
use oncekey_sqlite::rusqlite;
use rusqlite::Connection;

use common::{acquire, complete, get, key, number, release};
use shop::{Shop, begin, granted, pay};

#[test]
fn two_steps_commit_together_with_the_callers_own_writes() {
    let shop = Shop::new();
    let mut connection = shop.database.connect();
    let prepared = shop.prepare("a");
    let tx = begin(&mut connection);
    let grant = granted(shop.store.claim_in(&tx, &prepared).unwrap());
    let receipt = pay(&tx).unwrap();
    shop.store.complete_in(&tx, &prepared, grant, &receipt).unwrap();
    assert!(get(&shop.store, &key("a")).is_none(), "nobody sees it before the commit");
    tx.commit().unwrap();

    let again = shop.prepare("a");
    let tx = begin(&mut connection);
    let Admitted::Replay(outcome) = shop.store.claim_in::<i64>(&tx, &again).unwrap() else {
        panic!("it is done");
    };
    assert_eq!((*outcome.value(), shop.payments()), (receipt, 1));
}

#[test]
fn a_roll_back_of_the_two_steps_leaves_the_key_free() {
    let shop = Shop::new();
    let mut connection = shop.database.connect();
    for _ in 0..2 {
        let prepared = shop.prepare("a");
        let tx = begin(&mut connection);
        let grant = granted(shop.store.claim_in(&tx, &prepared).unwrap());
        pay(&tx).unwrap();
        shop.store.complete_in(&tx, &prepared, grant, &1_i64).unwrap();
        tx.rollback().unwrap();
        assert!(get(&shop.store, &key("a")).is_none());
    }
    assert_eq!(shop.payments(), 0);
}

/// The claim is committed first, the owner is slow, and somebody takes over.
#[test]
fn a_stale_owners_writes_roll_back_with_its_refused_completion() {
    for somebody_completed in [false, true] {
        let shop = Shop::new();
        let mut connection = shop.database.connect();
        let prepared = shop.prepare("a");
        let tx = begin(&mut connection);
        let stale = granted(shop.store.claim_in(&tx, &prepared).unwrap());
        tx.commit().unwrap();

        shop.database.clock.advance(Duration::from_secs(60));
        let next = acquire(&shop.store, &key("a"), 2);
        if somebody_completed {
            assert_eq!(complete(&shop.store, &key("a"), next, "theirs"), Fenced::Applied);
        }

        let tx = begin(&mut connection);
        pay(&tx).unwrap();
        // The refusal is ignored.
        let refused = shop.store.complete_in(&tx, &prepared, stale, &1_i64);
        assert!(matches!(refused, Err(RecordError::Lost)), "{refused:?}");
        pay(&tx).unwrap();
        tx.commit().unwrap_err();
        // What came after the roll back is not part of any transaction: it is the caller's own.
        assert_eq!(shop.payments(), 1, "the write before the refusal is gone");
        assert_eq!(get(&shop.store, &key("a")).unwrap().record.attempt, next.attempt);
    }
}

#[test]
fn a_transaction_that_began_as_a_reader_reads_the_time_under_the_lock_or_fails() {
    let shop = Shop::new();
    let mut connection = shop.database.connect();
    let prepared = shop.prepare("a");
    let tx = connection.transaction().unwrap();
    number(&tx, "SELECT count(*) FROM payments");
    // Somebody writes in between: what this transaction sees is out of date.
    let _ = acquire(&shop.store, &key("b"), 1);
    let Err(RunError::Store(error)) = shop.store.claim_in::<i64>(&tx, &prepared) else {
        panic!("it cannot become a writer any more");
    };
    assert_eq!(error.kind(), ErrorKind::Timeout);
    tx.rollback().unwrap();

    let tx = connection.transaction().unwrap();
    let _ = granted(shop.store.claim_in(&tx, &prepared).unwrap());
    let other = shop.database.builder().busy_timeout(Duration::ZERO).open();
    assert_eq!(other.unwrap_err().kind(), ErrorKind::Timeout, "it has the lock");
}

#[test]
fn a_transaction_elsewhere_is_refused() {
    let shop = Shop::new();
    let mut elsewhere = Connection::open_in_memory().unwrap();
    let prepared = shop.prepare("a");
    let tx = begin(&mut elsewhere);
    let Err(RunError::Store(error)) = shop.store.claim_in::<i64>(&tx, &prepared) else {
        panic!("there is no table");
    };
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    let grant = acquire(&shop.store, &key("a"), 1);
    let refused = shop.store.complete_in(&tx, &prepared, grant, &1_i64);
    assert!(matches!(refused, Err(RecordError::Store(_))));
    assert!(tx.is_autocommit(), "rolled back");
    drop(tx);
    let released = release(&shop.store, &key("a"), grant, Duration::ZERO);
    assert_eq!(released, Fenced::Applied);
}
