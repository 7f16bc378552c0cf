//! The fixture of the conformance suite: a file in a folder of its own, and a clock that is told.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use oncekey::Key;
use oncekey::store::Store;
use oncekey_conformance::{Capabilities, Capability, Damage, Fixture};
use oncekey_memory::ManualClock;
use oncekey_sqlite::{SqliteStore, rusqlite};
use rusqlite::{Connection, params};
use tempfile::TempDir;

pub(crate) struct SqliteFixture {
    folder: TempDir,
    clock: ManualClock,
    /// Kept open by the fixture as other processes would, until a restart.
    opened: Mutex<Vec<Arc<SqliteStore>>>,
}

impl SqliteFixture {
    fn database(&self) -> Connection {
        Connection::open(self.folder.path().join("db.sqlite3")).unwrap()
    }
}

#[async_trait]
impl Fixture for SqliteFixture {
    async fn create() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            clock: ManualClock::default(),
            opened: Mutex::default(),
        }
    }

    async fn open(&self) -> Arc<dyn Store> {
        let store = SqliteStore::builder(self.folder.path().join("db.sqlite3"))
            .clock(Arc::new(self.clock.clone()))
            .open()
            .unwrap();
        let store = Arc::new(store);
        self.opened.lock().unwrap().push(store.clone());
        store
    }

    async fn advance(&self, duration: Duration) {
        self.clock.advance(duration);
    }

    async fn step_back(&self, by: Duration) {
        self.clock.step_back(by);
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::injected_time()
            .with(Capability::Restart)
            .with(Capability::Damage)
            .with(Capability::ClockStep)
            .with(Capability::Inspect)
    }

    /// A copy of the files as they are at this moment, in the place of the old ones: what a crash leaves
    /// behind. Handles opened before go on with the old files, and disturb nobody.
    async fn restart(&self) {
        let copy = self.folder.path().join("copy");
        std::fs::create_dir(&copy).unwrap();
        for name in ["db.sqlite3", "db.sqlite3-wal"] {
            let from = self.folder.path().join(name);
            if from.exists() {
                std::fs::copy(&from, copy.join(name)).unwrap();
                std::fs::remove_file(&from).unwrap();
            }
        }
        let _ = std::fs::remove_file(self.folder.path().join("db.sqlite3-shm"));
        for name in ["db.sqlite3", "db.sqlite3-wal"] {
            if copy.join(name).exists() {
                std::fs::rename(copy.join(name), self.folder.path().join(name)).unwrap();
            }
        }
        std::fs::remove_dir(&copy).unwrap();
        // Only now: the last handle that is closed in good order would have tidied up first.
        self.opened.lock().unwrap().clear();
    }

    async fn damage(&self, key: &Key, damage: Damage) {
        let change = match damage {
            Damage::FlipBit => "token = (token | 64) - (token & 64)",
            Damage::Truncate => {
                "value = substr(value, 1, length(value) - 1), \
                 fingerprint = iif(value IS NULL, substr(fingerprint, 1, 31), fingerprint)"
            }
            Damage::NewerVersion => "format = format + 1",
            other => panic!("how is that done: {other:?}"),
        };
        let sql = format!("UPDATE oncekey SET {change} WHERE key = ?1");
        let changed = self.database().execute(&sql, params![key.as_bytes()]).unwrap();
        assert_eq!(changed, 1);
    }
}
