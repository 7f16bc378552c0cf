//! A run inside a transaction, driven over a toy database: key and business write are one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use oncekey::observe::Event;
use oncekey::runtime::Timestamp;
use oncekey::store::{Change, ClaimOutcome, Command, ErrorKind, Record, StoreError, transition};
use oncekey::transaction::{Admitted, business_error, check_completed, store_error};
use oncekey::{
    Effect, Failure, Fingerprint, Idempotency, Key, Outcome, RecordError, RunError, Verdict,
};
use support::{Declined, START, World, fingerprint, key, seconds};

/// Two tables that change together or not at all.
#[derive(Debug, Clone, Default, PartialEq)]
struct Tables {
    keys: BTreeMap<Vec<u8>, Record>,
    balance: i64,
}

/// A database with one transaction at a time.
#[derive(Default)]
struct Database {
    tables: RefCell<Tables>,
    now: RefCell<Duration>,
    commit: RefCell<Commit>,
}

/// What a commit does.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Commit {
    #[default]
    Works,
    Fails,
    /// It happens, and the answer is lost.
    LosesAnswer,
}

impl Database {
    fn now(&self) -> Timestamp {
        START.saturating_add(*self.now.borrow())
    }

    fn apply<C: Command>(&self, tables: &mut Tables, key: &Key, command: &C) -> C::Outcome {
        let record = tables.keys.get(key.as_bytes());
        let decided = transition(record, command, self.now());
        match decided.change {
            Change::Keep => {}
            Change::Put(record) => drop(tables.keys.insert(key.as_bytes().to_vec(), record)),
            Change::Remove => drop(tables.keys.remove(key.as_bytes())),
        }
        decided.outcome
    }

    fn commit(&self, tables: Tables) -> Result<(), StoreError> {
        match *self.commit.borrow() {
            Commit::Works => *self.tables.borrow_mut() = tables,
            Commit::Fails => return Err(StoreError::new(ErrorKind::Unavailable, "commit")),
            Commit::LosesAnswer => {
                *self.tables.borrow_mut() = tables;
                return Err(StoreError::new(ErrorKind::OutcomeUnknown, "commit"));
            }
        }
        Ok(())
    }

    /// What a backend offers, in the order that the core asks for.
    fn run_in_transaction(
        &self,
        idempotency: &Idempotency,
        key: &Key,
        fingerprint: &Fingerprint,
        work: impl FnOnce(&mut Tables) -> Result<String, Declined>,
    ) -> Result<Outcome<String>, RunError<Declined>> {
        let prepared = idempotency.prepare(key, fingerprint).map_err(RunError::Store)?;
        let mut tables = self.tables.borrow().clone();
        let claimed = self.apply(&mut tables, prepared.key(), prepared.claim());
        let (grant, number, took_over) = match prepared.admit(claimed)? {
            Admitted::Run { grant, number, took_over } => (grant, number, took_over),
            Admitted::Replay(outcome) => return Ok(outcome),
        };
        let value = work(&mut tables)
            .map_err(|error| prepared.failed(number, business_error(took_over, error)))?;
        let complete = prepared.complete(grant, &value).map_err(RunError::Codec)?;
        let completed = self.apply(&mut tables, prepared.key(), &complete);
        let unrecorded = |error| RunError::Unrecorded {
            value: Some(oncekey::Encoded::from_bytes(complete.completion.value.clone())),
            error,
        };
        check_completed(completed).map_err(unrecorded)?;
        if let Err(error) = self.commit(tables) {
            // Never by running again: whether it happened is there to be read.
            let tables = self.tables.borrow();
            let record = tables.keys.get(prepared.key().as_bytes());
            if record.is_none_or(|record| record.attempt != grant.attempt) {
                return Err(prepared.failed(number, store_error(error)));
            }
        }
        Ok(prepared.committed(number, value))
    }

    fn pay(
        &self,
        idempotency: &Idempotency,
        amount: i64,
    ) -> Result<Outcome<String>, RunError<Declined>> {
        self.run_in_transaction(idempotency, &key("a"), &fingerprint(), |tables| {
            tables.balance -= amount;
            if tables.balance < 0 { Err(Declined) } else { Ok(format!("paid {amount}")) }
        })
    }
}

fn database(balance: i64) -> Database {
    let tables = Tables { balance, ..Tables::default() };
    Database { tables: RefCell::new(tables), ..Database::default() }
}

#[test]
fn the_write_and_its_result_happen_once() {
    let (world, database) = (World::new(), database(100));
    let engine = world.at_least_once();
    assert!(!database.pay(&engine, 30).unwrap().is_replay());
    for _ in 0..3 {
        let again = database.pay(&engine, 30).unwrap();
        assert!(again.is_replay());
        assert_eq!(again.value(), "paid 30");
    }
    assert_eq!(database.tables.borrow().balance, 70);
    let executed = Event::Executed { number: 1, elapsed: seconds(0) };
    assert_eq!(world.recorder.count(|event| *event == executed), 1);
    assert_eq!(world.recorder.count(|event| matches!(event, Event::Replayed { .. })), 3);
}

#[test]
fn an_error_rolls_back_the_key_with_everything_else() {
    let (world, database) = (World::new(), database(10));
    let engine = world.at_most_once();
    let before = database.tables.borrow().clone();
    assert!(matches!(database.pay(&engine, 30), Err(RunError::NotStarted(Declined))));
    assert_eq!(*database.tables.borrow(), before, "nothing was done, and the key is free");
    assert_eq!(world.recorder.events(), [Event::Released { number: 1 }]);
    database.tables.borrow_mut().balance = 50;
    assert!(!database.pay(&engine, 30).unwrap().is_replay());
}

#[test]
fn a_commit_with_an_unknown_outcome_is_settled_by_reading() {
    let (world, database) = (World::new(), database(100));
    let engine = world.at_most_once();
    *database.commit.borrow_mut() = Commit::Fails;
    assert!(matches!(database.pay(&engine, 30), Err(RunError::Store(_))));
    assert_eq!(database.tables.borrow().balance, 100);
    let failed = Event::StoreFailed { operation: "commit", kind: ErrorKind::Unavailable };
    assert_eq!(world.recorder.events(), [failed]);
    *database.commit.borrow_mut() = Commit::LosesAnswer;
    assert!(!database.pay(&engine, 30).unwrap().is_replay());
    assert!(database.pay(&engine, 30).unwrap().is_replay());
    assert_eq!(database.tables.borrow().balance, 70);
}

#[test]
fn a_transaction_that_is_retried_as_a_whole_keeps_its_attempt() {
    let (world, database) = (World::new(), database(100));
    let prepared = world.at_least_once().prepare(&key("a"), &fingerprint()).unwrap();
    let mut committed = None;
    for _ in 0..3 {
        let mut tables = database.tables.borrow().clone();
        let claimed = database.apply(&mut tables, prepared.key(), prepared.claim());
        match prepared.admit::<String, Declined>(claimed).unwrap() {
            Admitted::Run { grant, .. } => {
                assert!(committed.is_none());
                let complete = prepared.complete(grant, &"paid").unwrap();
                let completed = database.apply(&mut tables, prepared.key(), &complete);
                check_completed(completed).unwrap();
                database.commit(tables).unwrap();
                committed = Some("paid".to_owned());
            }
            Admitted::Replay(outcome) => assert_eq!(Some(outcome.into_value()), committed),
        }
    }
    assert!(committed.is_some());
}

#[test]
fn an_owner_outside_of_transactions_is_respected() {
    let (world, database) = (World::new(), database(100));
    let engine = world.at_least_once();
    // As an attempt that claimed on its own and crashed.
    let crashed = engine.prepare(&key("a"), &fingerprint()).unwrap();
    let mut tables = database.tables.borrow().clone();
    drop(database.apply(&mut tables, crashed.key(), crashed.claim()));
    database.commit(tables).unwrap();

    assert!(matches!(database.pay(&engine, 30), Err(RunError::Busy { .. })));
    *database.now.borrow_mut() = World::LEASE;
    let others = [world.at_most_once(), world.verified(|_| async { Verdict::NotDone })];
    for engine in others {
        assert!(matches!(database.pay(&engine, 30), Err(RunError::Interrupted)));
    }
    // Rolled back, it is interrupted as before: nothing is known of what the crashed one did.
    database.tables.borrow_mut().balance = 10;
    let declined = database.pay(&engine, 30).unwrap_err();
    assert!(matches!(declined, RunError::Unknown(Declined)), "{declined:?}");
    assert_eq!(declined.effect(), Effect::Unknown);
    assert_eq!(world.recorder.events().last(), Some(&Event::GaveUp { number: 2 }));
    assert!(matches!(database.pay(&world.at_most_once(), 30), Err(RunError::Interrupted)));
    database.tables.borrow_mut().balance = 100;
    assert!(!database.pay(&engine, 30).unwrap().is_replay());
    let taken_over = |event: &Event| matches!(event, Event::TakenOver { number: 2, .. });
    assert_eq!(world.recorder.count(taken_over), 2);

    // The crashed one comes back: it may not commit what it has written.
    let mut tables = database.tables.borrow().clone();
    let claimed = database.apply(&mut tables, crashed.key(), crashed.claim());
    let replay = crashed.admit::<String, Declined>(claimed).unwrap();
    assert!(matches!(replay, Admitted::Replay(_)), "another attempt has done it");
    let grant = oncekey::store::Grant {
        token: oncekey::store::FencingToken::new(1),
        attempt: crashed.claim().attempt,
    };
    let complete = crashed.complete(grant, &"paid twice").unwrap();
    let completed = database.apply(&mut tables, crashed.key(), &complete);
    assert!(matches!(check_completed(completed), Err(RecordError::Lost)));
}

#[test]
fn what_is_refused_writes_nothing() {
    let (world, database) = (World::new(), database(100));
    let engine = world.at_most_once();
    let day = seconds(24 * 60 * 60);
    drop(database.pay(&engine, 30).unwrap());
    let after = database.tables.borrow().clone();
    let other = Fingerprint::of("another body");
    let ran =
        database.run_in_transaction(&engine, &key("a"), &other, |_| panic!("it must not run"));
    assert!(matches!(ran, Err(RunError::Mismatch)));
    let never = |_: &mut Tables| panic!("it must not run");
    *database.now.borrow_mut() = day;
    let ran = database.run_in_transaction(&engine, &key("a"), &fingerprint(), never);
    assert!(matches!(ran, Err(RunError::Retired)));
    let bad = world.at_least_once().lease(Duration::ZERO);
    let ran = database.run_in_transaction(&bad, &key("a"), &fingerprint(), never);
    assert!(matches!(ran, Err(RunError::Store(error)) if error.kind() == ErrorKind::Misconfigured));
    assert_eq!(*database.tables.borrow(), after);
}

#[test]
fn results_over_the_limit_commit_and_are_not_replayable() {
    let (world, database) = (World::new(), database(100));
    let engine = world.at_least_once().max_value_len(10);
    let long = |_: &mut Tables| Ok("x".repeat(100));
    let ran = database.run_in_transaction(&engine, &key("a"), &fingerprint(), long);
    assert!(!ran.unwrap().is_replay());
    let ran = database.run_in_transaction(&engine, &key("a"), &fingerprint(), long);
    assert!(matches!(ran, Err(RunError::NotReplayable)));
    assert_eq!(world.recorder.count(|event| matches!(event, Event::NotReplayable { .. })), 1);
}

#[test]
fn a_result_of_another_kind_is_an_error_and_no_second_write() {
    let (world, database) = (World::new(), database(100));
    let engine = world.at_least_once();
    drop(database.pay(&engine, 30).unwrap());
    let prepared = engine.prepare(&key("a"), &fingerprint()).unwrap();
    let mut tables = database.tables.borrow().clone();
    let claimed = database.apply(&mut tables, prepared.key(), prepared.claim());
    let admitted = prepared.admit::<u64, Failure<Declined>>(claimed);
    assert!(matches!(admitted, Err(RunError::Codec(_))));
}

/// Only a commit can be in doubt: of all else, the outcome is known to be nothing.
#[test]
fn an_unknown_outcome_after_the_business_is_in_doubt() {
    for kind in [ErrorKind::OutcomeUnknown, ErrorKind::Unavailable, ErrorKind::Misconfigured] {
        let error: RunError<Declined> = store_error(StoreError::new(kind, "commit"));
        assert_eq!(matches!(error, RunError::InDoubt(_)), kind == ErrorKind::OutcomeUnknown);
        assert_eq!(error.effect(), Effect::Unknown);
    }
}

/// A replay counts as one when it was given.
#[test]
fn a_result_that_cannot_be_given_is_no_replay() {
    let world = World::new();
    let prepared = world.at_most_once().prepare(&key("a"), &fingerprint()).unwrap();
    let number = oncekey::Encoded::json(&1).unwrap().as_bytes().clone();
    for (stored, event) in [(None, Event::NotKept), (Some(number), Event::Undecodable)] {
        let outcome = ClaimOutcome::Replay(stored);
        assert!(prepared.admit::<String, Declined>(outcome).is_err());
        assert_eq!(world.recorder.events().last(), Some(&event));
    }
}
