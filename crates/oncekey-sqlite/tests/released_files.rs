//! Files that released versions wrote: this one reads them, and goes on where they stopped.
//!
//! `tests/data/v1.sqlite3` has schema version 1, as the first release wrote it. It is never written
//! again. When a release changes what is stored, add a file of that release beside it:
//!
//! ```text
//! ONCEKEY_KEEP_FILE=crates/oncekey-sqlite/tests/data/v2.sqlite3 cargo test -p oncekey-sqlite --test released_files
//! ```
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use oncekey::runtime::Timestamp;
use oncekey::store::{
    Abandon, AttemptId, Cause, Claim, ClaimOutcome, Completion, Fenced, Known, Progress, Record,
    Renew, Replaced, State, Status, Store, StoredValue,
};
use oncekey_memory::ManualClock;
use oncekey_sqlite::SqliteStore;

use common::{HOLD, LEASE, RETENTION, acquire, claim, complete, completion, get, key, wait};

const START: u64 = 1_800_000_000_000_000;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("data").join(name)
}

fn open(path: &Path, now: Timestamp) -> SqliteStore {
    let clock = ManualClock::new(now);
    SqliteStore::builder(path).clock(Arc::new(clock)).open().unwrap()
}

fn start() -> Timestamp {
    Timestamp::from_micros(START)
}

/// One key in every state, with every column in use somewhere.
fn fill(store: &SqliteStore) {
    let saving = |grant, data: &'static str| Renew {
        grant,
        lease: LEASE,
        progress: Some(Progress { sequence: 3, data: data.into() }),
    };
    let live = acquire(store, &key("live"), 1);
    assert_eq!(wait(store.renew(&key("live"), &saving(live, "half"))).unwrap(), Fenced::Applied);

    let forever = Claim { hold: Duration::MAX, ..claim(2) };
    let granted = wait(store.claim(&key("forever"), &forever)).unwrap();
    assert!(matches!(granted, ClaimOutcome::Acquired { .. }));

    let gave_up = acquire(store, &key("taken over"), 3);
    let saved = wait(store.renew(&key("taken over"), &saving(gave_up, "two thirds"))).unwrap();
    assert_eq!(saved, Fenced::Applied);
    let give_up = Abandon { grant: gave_up, known: Known::Unknown };
    assert_eq!(wait(store.abandon(&key("taken over"), &give_up)).unwrap(), Fenced::Applied);
    let _ = acquire(store, &key("taken over"), 4);

    let gave_up = acquire(store, &key("given up"), 5);
    let give_up = Abandon { grant: gave_up, known: Known::Unknown };
    assert_eq!(wait(store.abandon(&key("given up"), &give_up)).unwrap(), Fenced::Applied);

    let released = acquire(store, &key("released"), 6);
    assert_eq!(common::release(store, &key("released"), released, HOLD), Fenced::Applied);

    for (id, attempt, value) in [("completed", 7, &b"a result"[..]), ("empty", 8, b"")] {
        let grant = acquire(store, &key(id), attempt);
        assert_eq!(complete(store, &key(id), grant, value), Fenced::Applied);
    }
    let grant = acquire(store, &key("long"), 9);
    assert_eq!(complete(store, &key("long"), grant, vec![9; 20_000]), Fenced::Applied);
    let grant = acquire(store, &key("not kept"), 10);
    let fact = Completion { replayable: false, hold: HOLD, ..completion("not kept") };
    assert_eq!(
        common::try_complete(store, &key("not kept"), grant, fact).unwrap(),
        Fenced::Applied
    );
}

/// What [`fill`] leaves behind.
fn expected(id: &str) -> Record {
    let deadline = start().saturating_add(LEASE);
    let retained_until = start().saturating_add(RETENTION);
    let completed = |value| Status::Completed { value, retained_until };
    let record = |attempt: u128, status, forget_at| Record {
        fingerprint: common::fingerprint(),
        attempt: AttemptId::from_bytes(attempt.to_be_bytes()),
        token: oncekey::store::FencingToken::new(START),
        number: 1,
        previous: None,
        progress: None,
        status,
        forget_at,
    };
    let in_progress =
        |attempt, forget_at| record(attempt, Status::InProgress { deadline }, forget_at);
    let progress =
        |sequence, data: &'static str| Some(Box::new(Progress { sequence, data: data.into() }));
    let forget_at = deadline.saturating_add(HOLD);
    let bytes = |value: &[u8]| StoredValue::Replayable(value.to_vec().into());
    match id {
        "live" => Record { progress: progress(3, "half"), ..in_progress(1, forget_at) },
        "forever" => in_progress(2, Timestamp::MAX),
        "taken over" => Record {
            token: oncekey::store::FencingToken::new(START + 1),
            number: 2,
            previous: Some(Replaced {
                cause: Cause::GaveUp,
                token: oncekey::store::FencingToken::new(START),
            }),
            progress: progress(0, "two thirds"),
            ..in_progress(4, forget_at)
        },
        "given up" => record(5, Status::GaveUp, forget_at),
        "released" => record(6, Status::Released, start().saturating_add(HOLD)),
        "completed" => record(7, completed(bytes(b"a result")), retained_until),
        "empty" => record(8, completed(bytes(b"")), retained_until),
        "long" => record(9, completed(bytes(&[9; 20_000])), retained_until),
        "not kept" => record(
            10,
            completed(StoredValue::new(&"not kept".into(), false)),
            retained_until.saturating_add(HOLD),
        ),
        other => panic!("no such key: {other}"),
    }
}

const IDS: [&str; 9] = [
    "live",
    "forever",
    "taken over",
    "given up",
    "released",
    "completed",
    "empty",
    "long",
    "not kept",
];

/// With `ONCEKEY_KEEP_FILE` set to a path, it keeps the file there: one for each released version is
/// kept for ever.
#[test]
fn a_file_of_this_version_has_what_is_expected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db.sqlite3");
    let store = open(&path, start());
    fill(&store);
    for id in IDS {
        assert_eq!(get(&store, &key(id)).unwrap().record, expected(id), "{id}");
    }
    drop(store);
    if let Some(kept) = std::env::var_os("ONCEKEY_KEEP_FILE") {
        fs::copy(&path, kept).unwrap();
    }
}

#[test]
fn a_file_of_version_1_is_read_and_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db.sqlite3");
    fs::copy(file("v1.sqlite3"), &path).unwrap();
    let store = open(&path, start());
    for id in IDS {
        assert_eq!(get(&store, &key(id)).unwrap().record, expected(id), "{id}");
    }
    drop(store);

    // A minute later, in the hands of this version.
    let store = open(&path, start().saturating_add(Duration::from_secs(60)));
    assert_eq!(common::replay(&store, &key("completed")), "a result");
    let taken_over = wait(store.claim(&key("live"), &claim(11))).unwrap();
    let ClaimOutcome::Acquired { grant, number, previous: Some(previous), .. } = taken_over else {
        panic!("unexpected: {taken_over:?}");
    };
    assert_eq!((number, previous.cause), (2, Cause::Lapsed));
    assert_eq!(previous.progress.as_deref(), Some(&b"half"[..]));
    assert_eq!(complete(&store, &key("live"), grant, "done"), Fenced::Applied);
    assert_eq!(get(&store, &key("forever")).unwrap().state, State::Lapsed);
    let freed = acquire(&store, &key("released"), 12);
    assert!(freed.token > expected("released").token);
    drop(store);

    // The clock went back meanwhile: what the older version granted is still the floor.
    let store = open(&path, Timestamp::from_micros(START - 1_000_000));
    assert!(acquire(&store, &key("new"), 13).token > freed.token);
}
