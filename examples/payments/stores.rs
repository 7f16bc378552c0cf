//! The store of the play: where it is, opened in every life of the service, and removed in the end.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use oncekey::store::Store;
use oncekey_memory::MemoryStore;
use oncekey_postgres::PostgresStore;
use oncekey_postgres::deadpool_postgres::{Manager, Pool};
use oncekey_postgres::tokio_postgres::{Config, NoTls};
use oncekey_sqlite::SqliteStore;

/// Where the keys of the service are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Memory,
    /// In a file; in a temporary one without a path.
    Sqlite(Option<PathBuf>),
    Postgres(String),
}

impl Place {
    /// Whether keys outlive the process.
    pub(crate) fn is_durable(&self) -> bool {
        *self != Self::Memory
    }

    /// Opens the store. Every play begins with an empty one, for which `folder` is its own name.
    pub(crate) async fn open(&self, folder: &Path) -> Result<Arc<dyn Store>, Box<dyn Error>> {
        match self {
            Self::Memory => Ok(Arc::new(MemoryStore::new())),
            Self::Sqlite(path) => {
                let path = path.clone().unwrap_or_else(|| folder.join("keys.sqlite3"));
                Ok(Arc::new(SqliteStore::open(path)?))
            }
            Self::Postgres(url) => {
                let (pool, schema) = (pool(url)?, schema(folder));
                let create = format!("CREATE SCHEMA IF NOT EXISTS {schema}");
                pool.get().await?.batch_execute(&create).await?;
                let store = PostgresStore::builder(pool).schema(schema).build()?;
                store.migrate().await?;
                Ok(Arc::new(store))
            }
        }
    }

    /// Whether a play may begin: a store with the keys of an earlier one would replay its answers.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Sqlite(Some(path)) if path.exists() => {
                Err(format!("{} exists; a play begins with a new file", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Removes what a play made on a server.
    pub(crate) async fn clean_up(&self, folder: &Path) -> Result<(), Box<dyn Error>> {
        if let Self::Postgres(url) = self {
            let drop = format!("DROP SCHEMA IF EXISTS {} CASCADE", schema(folder));
            pool(url)?.get().await?.batch_execute(&drop).await?;
        }
        Ok(())
    }

    /// How many times faster than written the log is played, if nobody says otherwise.
    pub(crate) const fn speed(&self) -> u32 {
        match self {
            Self::Memory | Self::Sqlite(_) => 50,
            Self::Postgres(_) => 10,
        }
    }

    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::Memory => "in memory",
            Self::Sqlite(_) => "in an SQLite file",
            Self::Postgres(_) => "in PostgreSQL",
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "memory" => Ok(Self::Memory),
            None if text == "sqlite" => Ok(Self::Sqlite(None)),
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(Some(path.into()))),
            Some(("postgres", rest)) => {
                // The URL as PostgreSQL knows it, or the rest of it behind our own name.
                let url = if rest.starts_with("//") { text } else { rest };
                Ok(Self::Postgres(url.to_owned()))
            }
            _ => Err(format!(
                "--store must be memory, sqlite, sqlite:PATH or postgres:URL, and {text:?} is none"
            )),
        }
    }
}

fn pool(url: &str) -> Result<Pool, Box<dyn Error>> {
    let config: Config = url.parse()?;
    Ok(Pool::builder(Manager::new(config, NoTls)).max_size(8).build()?)
}

/// A schema of its own for each play, named as its folder.
fn schema(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_")
}
