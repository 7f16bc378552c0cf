//! A disk or a file that is full when a transaction commits: where SQLite is sure to have rolled back, it
//! is said that nothing was done; where it may not have, that is never said.
//!
//! A real disk fills up in the commit, where the log grows. Here a full text index does: it keeps what
//! a trigger writes to it in memory until the commit, and then needs more pages than the file may have.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
mod shop;

use std::time::Duration;

use oncekey::RunError;
use oncekey::store::{
    ClaimOutcome, Complete, Completion, ErrorKind, Evict, Expected, Fenced, Progress, Renew, State,
    Store,
};
use oncekey_sqlite::{SqliteStore, rusqlite};

use common::{
    Database, LEASE, acquire, claim, completion, get, key, number, replay, sent_under_a_lock,
    try_complete, wait,
};
use shop::{Shop, pay};

/// Some 8 pages of the index, and none before the commit.
const MUCH: &str = "INSERT INTO words VALUES (hex(randomblob(16000)))";

/// A file that has hardly any room, and in which `when` (an event on the table) needs much.
fn store_without_room(database: &Database, when: &str) -> SqliteStore {
    drop(database.open());
    let sql = format!(
        "CREATE VIRTUAL TABLE words USING fts5(word, content = '');
         CREATE TRIGGER much AFTER {when} BEGIN {MUCH}; END;"
    );
    let connection = database.connect();
    connection.execute_batch(&sql).unwrap();
    let pages = number(&connection, "PRAGMA page_count") + 3;
    let builder = database
        .builder()
        .on_connect(move |connection| connection.pragma_update(None, "max_page_count", pages));
    builder.open().unwrap()
}

/// It fails in the commit, and not before.
#[test]
fn the_commit_is_what_finds_no_room() {
    let database = Database::new();
    drop(store_without_room(&database, "DELETE ON oncekey"));
    let connection = database.connect();
    let pages = number(&connection, "PRAGMA page_count") + 3;
    connection.pragma_update(None, "max_page_count", pages).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection.execute(MUCH, []).unwrap();
    let error = connection.execute_batch("COMMIT").unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DiskFull));
    assert!(connection.is_autocommit(), "SQLite rolled back");
}

#[test]
fn a_claim_without_room_is_full_and_leaves_the_key_free() {
    let database = Database::new();
    let store = store_without_room(&database, "INSERT ON oncekey");
    for _ in 0..2 {
        let error = wait(store.claim(&key("a"), &claim(1))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        assert!(error.to_string().contains("free some space"), "{error}");
        assert!(get(&store, &key("a")).is_none());
    }
    drop(store);
    database.connect().execute_batch("DROP TRIGGER much").unwrap();
    let again = wait(database.open().claim(&key("a"), &claim(2))).unwrap();
    assert!(matches!(again, ClaimOutcome::Acquired { number: 1, .. }), "{again:?}");
}

/// Its room is there; it is as little full as any other update is.
#[test]
fn a_takeover_without_room_may_be_sent_again() {
    let database = Database::new();
    let store = store_without_room(&database, "UPDATE ON oncekey");
    let first = acquire(&store, &key("a"), 1);
    database.clock.advance(LEASE);
    let error = wait(store.claim(&key("a"), &claim(2))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(get(&store, &key("a")).unwrap().record.attempt, first.attempt);
}

#[test]
fn a_result_without_room_is_too_large_and_may_be_recorded_as_done() {
    let database = Database::new();
    let store = store_without_room(
        &database,
        "UPDATE ON oncekey WHEN new.value IS NOT NULL OR new.progress IS NOT NULL",
    );
    let grant = acquire(&store, &key("a"), 1);
    let progress = Some(Progress { sequence: 1, data: "saved".into() });
    let renew = Renew { grant, lease: LEASE, progress };
    assert_eq!(wait(store.renew(&key("a"), &renew)).unwrap_err().kind(), ErrorKind::TooLarge);
    let refused = try_complete(&store, &key("a"), grant, completion("result")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge, "{refused}");
    assert_eq!(get(&store, &key("a")).unwrap().state, State::Live);
    let fact = Completion { replayable: false, ..completion("result") };
    assert_eq!(try_complete(&store, &key("a"), grant, fact).unwrap(), Fenced::Applied);
    assert_eq!(get(&store, &key("a")).unwrap().state, State::Completed);
}

#[test]
fn what_removes_finds_out_that_nothing_was_removed() {
    let database = Database::new();
    let store = store_without_room(&database, "DELETE ON oncekey");
    let _ = acquire(&store, &key("a"), 1);
    let evict = Evict { expected: Expected::Any, force: true };
    let error = wait(store.evict(&key("a"), &evict)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(get(&store, &key("a")).unwrap().state, State::Live);
    database.clock.advance(Duration::from_secs(3600));
    let error = wait(store.purge(10)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(get(&store, &key("a")).is_some());
}

/// What the log has is moved to the file then, so that the next commit can go over it.
#[test]
fn where_there_is_no_room_the_log_is_used_again() {
    let database = Database::new();
    let store = store_without_room(&database, "INSERT ON oncekey");
    let len = || std::fs::metadata(database.path()).unwrap().len();
    let writer = database.connect();
    writer.execute_batch("CREATE TABLE other (x); INSERT INTO other VALUES (1)").unwrap();
    let (before, pages) = (len(), number(&writer, "PRAGMA page_count") as u64);
    assert!(before < pages * 4096, "it is in the log");
    let _ = wait(store.claim(&key("a"), &claim(1))).unwrap_err();
    assert_eq!(len(), pages * 4096);
}

/// Those that share a commit with what does not fit.
#[test]
fn a_commit_without_room_takes_no_other_call_down() {
    let database = Database::new();
    let store = store_without_room(&database, "UPDATE ON oncekey WHEN length(new.value) > 10");
    let keys: Vec<_> = (0..9).map(|id| key(format!("{id}"))).collect();
    let grants: Vec<_> = keys.iter().map(|key| acquire(&store, key, 1)).collect();
    let calls = keys.iter().zip(&grants).enumerate().map(|(index, (key, grant))| {
        let len = if index % 3 == 1 { 11 } else { 10 };
        let complete = Complete { grant: *grant, completion: completion(vec![9; len]) };
        let store = &store;
        async move { store.complete(key, &complete).await }
    });
    for (index, answer) in sent_under_a_lock(&database, calls).into_iter().enumerate() {
        if index % 3 == 1 {
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::TooLarge, "{index}");
            assert_eq!(get(&store, &keys[index]).unwrap().state, State::Live);
        } else {
            assert_eq!(answer.unwrap(), Fenced::Applied, "{index}");
            assert_eq!(replay(&store, &keys[index]).len(), 10);
        }
    }
}

/// In the commit; or at the end of the closure, where SQLite counts up what it wrote.
#[test]
fn a_transaction_without_room_did_nothing() {
    for when in ["UPDATE ON oncekey WHEN new.value IS NOT NULL", "INSERT ON payments"] {
        let shop = Shop::over(Database::new(), |database| store_without_room(database, when));
        let Err(RunError::Store(error)) = shop.run("a", pay) else { panic!("there is no room") };
        assert_eq!(error.kind(), ErrorKind::Full, "{when}: {error}");
        assert_eq!(shop.payments(), 0);
        assert!(get(&shop.store, &key("a")).is_none());
        shop.database.connect().execute_batch("DROP TRIGGER much").unwrap();
        assert!(!shop.run("a", pay).unwrap().is_replay());
        assert_eq!(shop.payments(), 1);
    }
}
