//! Effect and record in one transaction: both or neither, whatever happens in between.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use oncekey::store::{ClaimOutcome, ErrorKind, Fenced, State, Store};
use oncekey::transaction::{Admitted, Prepared};
use oncekey::{Fingerprint, Idempotency, Outcome, RecordError, RunError};
use oncekey_sqlite::{SqliteStore, rusqlite};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use common::{Database, acquire, claim, complete, fingerprint, get, key, number, release, wait};

type Ran<T> = Result<Outcome<T>, RunError<rusqlite::Error>>;

/// A database with a business table in it.
struct Shop {
    database: Database,
    store: SqliteStore,
    idempotency: Idempotency,
}

impl Shop {
    fn new() -> Self {
        Self::over(Database::new(), |database| database.open())
    }

    fn over(database: Database, open: impl FnOnce(&Database) -> SqliteStore) -> Self {
        database.connect().execute_batch("CREATE TABLE payments (amount INTEGER)").unwrap();
        let store = open(&database);
        let idempotency = Idempotency::at_most_once(store.clone());
        Self { database, store, idempotency }
    }

    fn run<T, F>(&self, id: &str, business: F) -> Ran<T>
    where
        T: serde_like::Value,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (key, fingerprint) = (key(id), fingerprint());
        wait(self.store.run_in_transaction(&self.idempotency, &key, &fingerprint, business))
    }

    fn payments(&self) -> i64 {
        number(&self.database.connect(), "SELECT count(*) FROM payments")
    }

    fn prepare(&self, id: &str) -> Prepared {
        self.idempotency.prepare(&key(id), &fingerprint()).unwrap()
    }
}

/// The results in these tests.
mod serde_like {
    pub(crate) trait Value:
        serde::Serialize + serde::de::DeserializeOwned + Send + 'static
    {
    }

    impl<T: serde::Serialize + serde::de::DeserializeOwned + Send + 'static> Value for T {}
}

fn pay(tx: &Transaction<'_>) -> rusqlite::Result<i64> {
    tx.execute("INSERT INTO payments VALUES (100)", [])?;
    Ok(tx.last_insert_rowid())
}

fn begin(connection: &mut Connection) -> Transaction<'_> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap()
}

fn granted(admitted: Admitted<i64>) -> oncekey::store::Grant {
    match admitted {
        Admitted::Run { grant, .. } => grant,
        Admitted::Replay(_) => panic!("the key should be free"),
    }
}

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
    let Err(RunError::Store(error)) = shop.run("a", pay) else { panic!("the commit must fail") };
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    fail.store(false, Ordering::SeqCst);
    assert_eq!(shop.payments(), 0);
    let outcome = shop.run("a", pay).unwrap();
    assert_eq!((outcome.is_replay(), shop.payments()), (false, 1));
}

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
            let Err(RunError::Store(error)) = failed else { panic!("{end} {fails}: {failed:?}") };
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
        let Err(RunError::Store(error)) = failed else { panic!("{goes_on} {fails}: {failed:?}") };
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(shop.payments(), i64::from(goes_on));
    }
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
