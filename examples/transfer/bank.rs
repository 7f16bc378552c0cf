//! Two accounts in a database, and transfers between them.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use oncekey::{Fingerprint, Idempotency, Key, Outcome, RunError};
use oncekey_postgres::deadpool_postgres::{Manager, Pool, Runtime, Transaction};
use oncekey_postgres::{PostgresStore, tokio_postgres};
use oncekey_sqlite::{SqliteStore, rusqlite};
use serde::{Deserialize, Serialize};

/// What is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Transfer {
    pub(crate) amount: i64,
}

/// What is answered, and given to every copy of a request.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Receipt {
    left: i64,
}

pub(crate) struct Balances {
    pub(crate) alice: i64,
    pub(crate) bob: i64,
}

/// The accounts and the keys are in one database: that is what makes it exactly once.
pub(crate) enum Bank {
    Sqlite { store: SqliteStore, idempotency: Idempotency, file: std::path::PathBuf },
    Postgres { store: PostgresStore, idempotency: Idempotency },
}

pub(crate) type AnyError = Box<dyn Error + Send + Sync>;

const ACCOUNTS: &str =
    "CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, balance BIGINT NOT NULL);
    INSERT INTO accounts VALUES ('alice', 1000), ('bob', 1000) ON CONFLICT DO NOTHING";
const DEBIT: &str =
    "UPDATE accounts SET balance = balance - $1 WHERE name = 'alice' RETURNING balance";
const CREDIT: &str = "UPDATE accounts SET balance = balance + $1 WHERE name = 'bob'";
const BALANCES: &str = "SELECT balance FROM accounts WHERE name IN ('alice', 'bob') ORDER BY name";

impl Bank {
    pub(crate) fn in_sqlite(file: &Path) -> Result<Self, AnyError> {
        rusqlite::Connection::open(file)?.execute_batch(ACCOUNTS)?;
        let store = SqliteStore::open(file)?;
        let idempotency = Idempotency::at_most_once(store.clone());
        Ok(Self::Sqlite { store, idempotency, file: file.to_owned() })
    }

    pub(crate) async fn in_postgres(url: &str) -> Result<Self, AnyError> {
        let pool = Pool::builder(Manager::new(url.parse()?, tokio_postgres::NoTls))
            .max_size(8)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(Duration::from_secs(30)))
            .build()?;
        pool.get().await?.batch_execute(ACCOUNTS).await?;
        let store = PostgresStore::new(pool);
        store.migrate().await?;
        let idempotency = Idempotency::at_most_once(store.clone());
        Ok(Self::Postgres { store, idempotency })
    }

    /// Moves the money, or tells what was answered when it was moved.
    pub(crate) async fn transfer(
        &self,
        key: &Key,
        transfer: Transfer,
    ) -> Result<Outcome<Receipt>, AnyError> {
        let Transfer { amount } = transfer;
        let fingerprint = Fingerprint::of(format!("{amount} from alice to bob"));
        match self {
            Self::Sqlite { store, idempotency, .. } => {
                let business = move |tx: &rusqlite::Transaction<'_>| {
                    let left = tx.query_row(DEBIT, [amount], |row| row.get(0))?;
                    tx.execute(CREDIT, [amount])?;
                    Ok::<_, rusqlite::Error>(Receipt { left })
                };
                let run = store.run_in_transaction(idempotency, key, &fingerprint, business);
                run.await.map_err(told)
            }
            Self::Postgres { store, idempotency } => {
                let business = async |tx: &mut Transaction<'_>| {
                    let left = tx.query_one(DEBIT, &[&amount]).await?.get(0);
                    tx.execute(CREDIT, &[&amount]).await?;
                    Ok::<_, tokio_postgres::Error>(Receipt { left })
                };
                let run = store.run_in_transaction(idempotency, key, &fingerprint, business);
                run.await.map_err(told)
            }
        }
    }

    pub(crate) async fn balances(&self) -> Result<Balances, AnyError> {
        let balances: Vec<i64> = match self {
            Self::Sqlite { file, .. } => {
                let connection = rusqlite::Connection::open(file)?;
                let mut statement = connection.prepare(BALANCES)?;
                let rows = statement.query_map([], |row| row.get(0))?;
                rows.collect::<Result<_, _>>()?
            }
            Self::Postgres { store, .. } => {
                let rows = store.pool().get().await?.query(BALANCES, &[]).await?;
                rows.iter().map(|row| row.get(0)).collect()
            }
        };
        match balances[..] {
            [alice, bob] => Ok(Balances { alice, bob }),
            _ => Err("the accounts are not there".into()),
        }
    }
}

/// A service would answer 409 to `Busy`, 422 to `Mismatch`, and so on.
fn told<E: Error + Send + Sync + 'static>(error: RunError<E>) -> AnyError {
    error.into()
}
