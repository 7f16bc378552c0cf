//! What breaks below the store: each as an error that says what holds and what helps.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    ClaimOutcome, Complete, Completion, ErrorKind, Fenced, Progress, Renew, State, Store,
};
use oncekey_sqlite::{SqliteStore, rusqlite};
use rusqlite::TransactionBehavior;

use common::{
    Database, LEASE, acquire, claim, complete, completion, evict, get, key, number, release,
    replay, sent_under_a_lock, try_complete, wait,
};

/// A store whose file has room for `pages` pages.
fn with_pages(database: &Database, pages: i64) -> SqliteStore {
    let builder = database
        .builder()
        .on_connect(move |connection| connection.pragma_update(None, "max_page_count", pages));
    builder.open().unwrap()
}

#[test]
fn a_full_file_refuses_new_keys_and_serves_the_known_ones() {
    let database = Database::new();
    let store = with_pages(&database, 20);
    let mut owners = Vec::new();
    let error = loop {
        let key = key(format!("{:0900}", owners.len()));
        match wait(store.claim(&key, &claim(1))) {
            Ok(ClaimOutcome::Acquired { grant, .. }) => owners.push((key, grant)),
            Ok(other) => panic!("unexpected: {other:?}"),
            Err(error) => break error,
        }
        assert!(owners.len() < 1_000);
    };
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(error.to_string().contains("free some space"), "{error}");

    let (key, grant) = &owners[0];
    let large = Bytes::from(vec![9; 100_000]);
    let refused = try_complete(&store, key, *grant, completion(large.clone())).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    let progress = Some(Progress { sequence: 1, data: large.clone() });
    let renew = Renew { grant: *grant, lease: LEASE, progress };
    let refused = wait(store.renew(key, &renew)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    assert_eq!(get(&store, key).unwrap().state, State::Live);
    let fact = Completion { replayable: false, ..completion(large) };
    assert_eq!(try_complete(&store, key, *grant, fact).unwrap(), Fenced::Applied);
    assert_eq!(number(&database.connect(), "SELECT count(*) FROM oncekey"), owners.len() as i64);

    for (key, _) in &owners[1..] {
        let _ = evict(&store, key);
    }
    let _ = acquire(&store, &common::key("new"), 1);
}

/// One call that cannot be done shares a batch with others that can.
#[test]
fn a_call_that_cannot_be_done_takes_no_other_down() {
    let database = Database::new();
    let store = with_pages(&database, 40);
    let keys: Vec<_> = (0..20).map(|id| key(format!("{id}"))).collect();
    let grants: Vec<_> = keys.iter().map(|key| acquire(&store, key, 1)).collect();
    let calls = keys.iter().zip(&grants).enumerate().map(|(index, (key, grant))| {
        let len = if index % 5 == 2 { 1_000_000 } else { 10 };
        let complete = Complete { grant: *grant, completion: completion(vec![9; len]) };
        let store = &store;
        async move { store.complete(key, &complete).await }
    });
    let answers = sent_under_a_lock(&database, calls);
    for (index, answer) in answers.into_iter().enumerate() {
        if index % 5 == 2 {
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::TooLarge, "{index}");
            assert_eq!(get(&store, &keys[index]).unwrap().state, State::Live);
        } else {
            assert_eq!(answer.unwrap(), Fenced::Applied, "{index}");
            assert_eq!(replay(&store, &keys[index]).len(), 10);
        }
    }
}

#[test]
fn a_lock_that_is_held_too_long_is_a_timeout_and_nothing_is_applied() {
    let database = Database::new();
    let store = database.builder().busy_timeout(Duration::from_millis(20)).open().unwrap();
    let grant = acquire(&store, &key("a"), 1);
    let mut other = database.connect();
    let lock = other.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let error = wait(store.claim(&key("b"), &claim(2))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.is_retryable());
    assert!(error.to_string().contains("busy_timeout"), "{error}");
    let error = try_complete(&store, &key("a"), grant, completion("x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    // Reading waits for no writer.
    assert_eq!(get(&store, &key("a")).unwrap().state, State::Live);
    lock.rollback().unwrap();
    assert!(get(&store, &key("b")).is_none());
    assert_eq!(complete(&store, &key("a"), grant, "x"), Fenced::Applied);
}

#[test]
fn a_failed_commit_leaves_every_member_unknown() {
    let database = Database::new();
    let fail = Arc::new(AtomicBool::new(false));
    let failing = fail.clone();
    let builder = database.builder().on_connect(move |connection| {
        let fail = failing.clone();
        let _ = connection.commit_hook(Some(move || fail.load(Ordering::SeqCst)));
        Ok(())
    });
    let store = builder.open().unwrap();
    fail.store(true, Ordering::SeqCst);
    let (keys, claims) = ([key("a"), key("b")], [claim(1), claim(2)]);
    let calls = keys.iter().zip(&claims).map(|(key, claim)| store.claim(key, claim));
    for answer in wait(join_all(calls)) {
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
        assert!(error.is_retryable());
    }
    fail.store(false, Ordering::SeqCst);
    // The same command again finds out.
    for (key, claim) in keys.iter().zip(&claims) {
        let again = wait(store.claim(key, claim)).unwrap();
        assert!(matches!(again, ClaimOutcome::Acquired { number: 1, .. }), "{again:?}");
    }
}

#[test]
fn a_table_that_vanished_is_missed() {
    let database = Database::new();
    let store = database.open();
    database.connect().execute_batch("DROP TABLE oncekey").unwrap();
    let error = wait(store.claim(&key("a"), &claim(1))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.to_string().contains("ddl"), "{error}");
    assert_eq!(wait(store.get(&key("a"))).unwrap_err().kind(), ErrorKind::Misconfigured);
}

#[test]
fn a_damaged_page_is_corrupt_and_never_absent() {
    let database = Database::new();
    let store = database.open();
    for id in 0..200 {
        let _ = acquire(&store, &key(format!("{id}")), 1);
    }
    drop(store);
    // What the last close leaves in the log is moved to the file, which is what gets damaged here.
    let connection = rusqlite::Connection::open(database.path()).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(connection);
    let mut file = std::fs::read(database.path()).unwrap();
    assert!(file.len() > 5 * 4096, "{}", file.len());
    for page in file.chunks_mut(4096).skip(1) {
        page[..64].fill(0x55);
    }
    std::fs::write(database.path(), file).unwrap();
    // Depending on the page, at once or at the first key.
    let kind = match database.builder().open() {
        Err(error) => error.kind(),
        Ok(store) => wait(store.claim(&key("7"), &claim(2))).unwrap_err().kind(),
    };
    assert_eq!(kind, ErrorKind::Corrupt);
}

#[test]
fn tokens_never_go_back_with_the_clock() {
    let database = Database::new();
    let start = database.clock.clone();
    let store = database.open();
    let before = acquire(&store, &key("a"), 1);
    let _ = evict(&store, &key("a"));
    let back = before.token.get() - 3_600_000_000;
    start.set(Timestamp::from_micros(back));

    let second = acquire(&store, &key("a"), 2);
    assert!(second.token > before.token);
    let observed = get(&store, &key("a")).unwrap();
    assert_eq!(observed.now.as_micros(), back, "the clock decides deadlines all the same");
    assert_eq!(observed.record.forget_at.as_micros(), back + 630_000_000);
    let _ = evict(&store, &key("a"));
    drop(store);

    let store = database.open();
    let third = acquire(&store, &key("a"), 3);
    assert!(third.token > second.token, "also in another process");
    let _ = release(&store, &key("a"), third, Duration::from_secs(600));
    let fourth = acquire(&store, &key("a"), 4);
    assert!(fourth.token > third.token);
}

#[test]
fn what_waits_is_bounded() {
    let database = Database::new();
    let store = database.builder().max_queued(3).open().unwrap();
    let calls = (0..12).map(|id| {
        let store = &store;
        async move { store.claim(&key(format!("{id}")), &claim(id)).await }
    });
    let answers = sent_under_a_lock(&database, calls);
    let refused: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!(!refused.is_empty());
    for error in refused {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("max_queued"), "{error}");
    }
    assert!(answers.iter().any(Result::is_ok));
}

#[test]
fn a_call_that_was_dropped_holds_nothing_up() {
    let database = Database::new();
    let store = database.open();
    for id in 0..50 {
        let key = key(format!("{id}"));
        let claim = claim(1);
        let mut call = store.claim(&key, &claim);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = call.as_mut().poll(&mut context);
        drop(call);
    }
    let grant = acquire(&store, &key("next"), 1);
    assert_eq!(complete(&store, &key("next"), grant, "done"), Fenced::Applied);
    // Dropping the last handle waits for the threads, which have nothing left to do.
    drop(store);
    assert_eq!(replay(&database.open(), &key("next")), "done");
}

#[test]
fn a_clock_that_panics_ends_the_store_and_hangs_nobody() {
    #[derive(Debug)]
    struct Broken;

    impl oncekey::runtime::Clock for Broken {
        fn now(&self) -> Timestamp {
            panic!("the clock is broken");
        }
    }
    let database = Database::new();
    let store = database.builder().clock(Arc::new(Broken)).open().unwrap();
    let error = wait(store.claim(&key("a"), &claim(1))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    // One that comes while the thread ends may be unknown as well.
    let error = loop {
        match wait(store.claim(&key("a"), &claim(1))).unwrap_err() {
            error if error.kind() == ErrorKind::OutcomeUnknown => {}
            error => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("open the store again"), "{error}");
}

#[test]
fn a_purge_of_many_goes_in_steps_and_heeds_its_limit() {
    let database = Database::new();
    let store = database.open();
    let keys: Vec<_> = (0..500).map(|id| key(format!("{id}"))).collect();
    let claims: Vec<_> = (0..500).map(claim).collect();
    let calls = keys.iter().zip(&claims).map(|(key, claim)| store.claim(key, claim));
    assert!(wait(join_all(calls)).iter().all(Result::is_ok));
    database.clock.advance(Duration::from_secs(3600));
    // Rows that cannot be understood are in the way, at the head.
    let sql = "UPDATE oncekey SET checksum = x'00', forget_at = 0 WHERE id <= 200";
    database.connect().execute_batch(sql).unwrap();
    let purged = wait(store.purge(100)).unwrap();
    assert_eq!((purged.removed, purged.more), (100, true));
    let purged = wait(store.purge(10_000)).unwrap();
    assert_eq!((purged.removed, purged.more), (200, false));
    assert_eq!(number(&database.connect(), "SELECT count(*) FROM oncekey"), 200);
    assert_eq!(wait(store.purge(0)).unwrap().removed, 0);
}

#[test]
fn nothing_shows_content() {
    let database = Database::new();
    let store = database.open();
    let grant = acquire(&store, &key("secret-key"), 1);
    let _ = complete(&store, &key("secret-key"), grant, "secret-value");
    let sql = "UPDATE oncekey SET value = x'00'";
    database.connect().execute_batch(sql).unwrap();
    let corrupt = wait(store.get(&key("secret-key"))).unwrap_err();
    assert_eq!(corrupt.kind(), ErrorKind::Corrupt);
    database.connect().execute_batch("DROP TABLE oncekey").unwrap();
    let missing = wait(store.claim(&key("secret-key"), &claim(1))).unwrap_err();
    let shown = format!("{store:?} {corrupt} {corrupt:?} {missing} {missing:?}");
    assert!(!shown.contains("secret"), "{shown}");
}
