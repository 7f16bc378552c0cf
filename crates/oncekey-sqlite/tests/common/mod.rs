//! What the tests of this crate share.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{join, join_all};
use oncekey::store::{
    Abandon, AttemptId, Claim, ClaimOutcome, Complete, Completion, Evict, Expected, Fenced, Grant,
    Known, Observed, OnInterrupted, OnRetired, Store, StoreError,
};
use oncekey::{Fingerprint, Key, Scope};
use oncekey_memory::ManualClock;
use oncekey_sqlite::{SqliteStore, SqliteStoreBuilder, rusqlite};
use rusqlite::{Connection, TransactionBehavior};
use tempfile::TempDir;

pub(crate) const LEASE: Duration = Duration::from_secs(30);
pub(crate) const HOLD: Duration = Duration::from_secs(600);
pub(crate) const RETENTION: Duration = Duration::from_secs(3600);

/// A database file in a folder of its own, and the clock of the stores on it.
pub(crate) struct Database {
    pub(crate) folder: TempDir,
    pub(crate) clock: ManualClock,
}

impl Database {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock: ManualClock::default() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("db.sqlite3")
    }

    pub(crate) fn builder(&self) -> SqliteStoreBuilder {
        SqliteStore::builder(self.path()).clock(Arc::new(self.clock.clone()))
    }

    pub(crate) fn open(&self) -> SqliteStore {
        self.builder().open().unwrap()
    }

    /// A connection beside the store's.
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }
}

pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    futures::executor::block_on(future)
}

pub(crate) fn key(id: impl AsRef<[u8]>) -> Key {
    let scope = Scope::new("tenant-42", "POST /payments").unwrap();
    Key::new(&scope, id).unwrap()
}

pub(crate) fn fingerprint() -> Fingerprint {
    Fingerprint::from_digest(Fingerprint::SHA256, [7; 32])
}

pub(crate) fn claim(attempt: u128) -> Claim {
    Claim {
        attempt: AttemptId::from_bytes(attempt.to_be_bytes()),
        fingerprint: fingerprint(),
        lease: LEASE,
        hold: HOLD,
        on_interrupted: OnInterrupted::TakeOver,
        on_retired: OnRetired::Forget,
    }
}

/// Claims `key`, which must be free.
pub(crate) fn acquire(store: &SqliteStore, key: &Key, attempt: u128) -> Grant {
    match wait(store.claim(key, &claim(attempt))).unwrap() {
        ClaimOutcome::Acquired { grant, .. } => grant,
        other => panic!("the key should be free: {other:?}"),
    }
}

pub(crate) fn completion(value: impl Into<Bytes>) -> Completion {
    Completion { value: value.into(), replayable: true, retention: RETENTION, hold: Duration::ZERO }
}

pub(crate) fn try_complete(
    store: &SqliteStore,
    key: &Key,
    grant: Grant,
    completion: Completion,
) -> Result<Fenced, StoreError> {
    wait(store.complete(key, &Complete { grant, completion }))
}

pub(crate) fn complete(
    store: &SqliteStore,
    key: &Key,
    grant: Grant,
    value: impl Into<Bytes>,
) -> Fenced {
    try_complete(store, key, grant, completion(value)).unwrap()
}

pub(crate) fn release(store: &SqliteStore, key: &Key, grant: Grant, hold: Duration) -> Fenced {
    let known = Known::NotStarted { hold };
    wait(store.abandon(key, &Abandon { grant, known })).unwrap()
}

pub(crate) fn evict(store: &SqliteStore, key: &Key) -> Fenced {
    let evict = Evict { expected: Expected::Any, force: true };
    wait(store.evict(key, &evict)).unwrap()
}

pub(crate) fn get(store: &SqliteStore, key: &Key) -> Option<Observed> {
    wait(store.get(key)).unwrap()
}

pub(crate) fn replay(store: &SqliteStore, key: &Key) -> Bytes {
    match wait(store.claim(key, &claim(u128::MAX))).unwrap() {
        ClaimOutcome::Replay(Some(value)) => value,
        other => panic!("expected a replay: {other:?}"),
    }
}

/// What `sql` selects, a number.
pub(crate) fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// The answers of all `calls`, which are sent while another connection holds the lock on the file.
pub(crate) fn sent_under_a_lock<T: Send>(
    database: &Database,
    calls: impl IntoIterator<Item = impl Future<Output = T>> + Send,
) -> Vec<T> {
    let mut other = database.connect();
    let lock = other.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let (sent, all_sent) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let answers = scope.spawn(move || {
            // Polled after all of them.
            let tell = async { sent.send(()).unwrap() };
            wait(join(join_all(calls), tell)).0
        });
        all_sent.recv().unwrap();
        lock.rollback().unwrap();
        answers.join().unwrap()
    })
}
