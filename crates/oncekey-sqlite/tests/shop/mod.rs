//! A store, and a business table in the same file.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use oncekey::transaction::{Admitted, Prepared};
use oncekey::{Idempotency, Outcome, RunError};
use oncekey_sqlite::{SqliteStore, rusqlite};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::common::{Database, fingerprint, key, number, wait};

pub type Ran<T> = Result<Outcome<T>, RunError<rusqlite::Error>>;

/// A database with a business table in it.
pub struct Shop {
    pub database: Database,
    pub store: SqliteStore,
    pub idempotency: Idempotency,
}

impl Shop {
    pub fn new() -> Self {
        Self::over(Database::new(), |database| database.open())
    }

    pub fn over(database: Database, open: impl FnOnce(&Database) -> SqliteStore) -> Self {
        database.connect().execute_batch("CREATE TABLE payments (amount INTEGER)").unwrap();
        let store = open(&database);
        let idempotency = Idempotency::at_most_once(store.clone());
        Self { database, store, idempotency }
    }

    pub fn run<T, F>(&self, id: &str, business: F) -> Ran<T>
    where
        T: serde_like::Value,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (key, fingerprint) = (key(id), fingerprint());
        wait(self.store.run_in_transaction(&self.idempotency, &key, &fingerprint, business))
    }

    pub fn payments(&self) -> i64 {
        number(&self.database.connect(), "SELECT count(*) FROM payments")
    }

    pub fn prepare(&self, id: &str) -> Prepared {
        self.idempotency.prepare(&key(id), &fingerprint()).unwrap()
    }
}

/// The results in these tests.
pub mod serde_like {
    pub trait Value: serde::Serialize + serde::de::DeserializeOwned + Send + 'static {}

    impl<T: serde::Serialize + serde::de::DeserializeOwned + Send + 'static> Value for T {}
}

pub fn pay(tx: &Transaction<'_>) -> rusqlite::Result<i64> {
    tx.execute("INSERT INTO payments VALUES (100)", [])?;
    Ok(tx.last_insert_rowid())
}

pub fn begin(connection: &mut Connection) -> Transaction<'_> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap()
}

pub fn granted(admitted: Admitted<i64>) -> oncekey::store::Grant {
    match admitted {
        Admitted::Run { grant, .. } => grant,
        Admitted::Replay(_) => panic!("the key should be free"),
    }
}
