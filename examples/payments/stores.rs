//! The store of the play: where it is, opened in every life of the service, and removed in the end.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use futures::future::LocalBoxFuture;
use oncekey::store::Store;
use oncekey_memory::MemoryStore;
use oncekey_postgres::PostgresStore;
use oncekey_postgres::deadpool_postgres::{Manager, Pool};
use oncekey_postgres::tokio_postgres::{Config, NoTls};
use oncekey_redis::RedisStoreBuilder;
use oncekey_redis::redis::{Client, cmd};
use oncekey_sqlite::SqliteStore;
use oncekey_tiered::Tiered;

/// Where the keys of the service are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Memory,
    /// In a file; in a temporary one without a path.
    Sqlite(Option<PathBuf>),
    Postgres(String),
    Redis(String),
    /// Decided by the second, answered from copies in the first.
    Tiered(Box<Self>, Box<Self>),
}

impl Place {
    /// Whether keys outlive the process.
    pub(crate) fn is_durable(&self) -> bool {
        match self {
            Self::Memory => false,
            Self::Sqlite(_) | Self::Postgres(_) | Self::Redis(_) => true,
            Self::Tiered(_, durable) => durable.is_durable(),
        }
    }

    /// Opens the store. Every play begins with an empty one, for which `folder` is its own name.
    pub(crate) fn open<'a>(
        &'a self,
        folder: &'a Path,
    ) -> LocalBoxFuture<'a, Result<Arc<dyn Store>, Box<dyn Error>>> {
        Box::pin(async move {
            let store: Arc<dyn Store> = match self {
                Self::Memory => Arc::new(MemoryStore::new()),
                Self::Sqlite(path) => {
                    let path = path.clone().unwrap_or_else(|| folder.join("keys.sqlite3"));
                    Arc::new(SqliteStore::open(path)?)
                }
                Self::Postgres(url) => {
                    let (pool, schema) = (pool(url)?, name_of(folder));
                    let create = format!("CREATE SCHEMA IF NOT EXISTS {schema}");
                    pool.get().await?.batch_execute(&create).await?;
                    let store = PostgresStore::builder(pool).schema(schema).build()?;
                    store.migrate().await?;
                    Arc::new(store)
                }
                Self::Redis(url) => {
                    let prefix = format!("{}:", name_of(folder));
                    let store = RedisStoreBuilder::connect(url)?.key_prefix(prefix).build()?;
                    store.check().await?;
                    Arc::new(store)
                }
                Self::Tiered(fast, durable) => {
                    Arc::new(Tiered::new(fast.open(folder).await?, durable.open(folder).await?))
                }
            };
            Ok(store)
        })
    }

    /// Whether a play may begin: a store with the keys of an earlier one would replay its answers.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Sqlite(Some(path)) if path.exists() => {
                Err(format!("{} exists; a play begins with a new file", path.display()))
            }
            Self::Tiered(fast, durable) => fast.check().and(durable.check()),
            _ => Ok(()),
        }
    }

    /// Removes what a play made on a server.
    pub(crate) fn clean_up<'a>(
        &'a self,
        folder: &'a Path,
    ) -> LocalBoxFuture<'a, Result<(), Box<dyn Error>>> {
        Box::pin(async move {
            match self {
                Self::Memory | Self::Sqlite(_) => {}
                Self::Postgres(url) => {
                    let drop = format!("DROP SCHEMA IF EXISTS {} CASCADE", name_of(folder));
                    pool(url)?.get().await?.batch_execute(&drop).await?;
                }
                Self::Redis(url) => {
                    let client = Client::open(url.as_str())?;
                    let mut connection = client.get_multiplexed_async_connection().await?;
                    let pattern = format!("{}:*", name_of(folder));
                    let keys: Vec<Vec<u8>> =
                        cmd("KEYS").arg(pattern).query_async(&mut connection).await?;
                    for some in keys.chunks(500) {
                        let _: u64 = cmd("DEL").arg(some).query_async(&mut connection).await?;
                    }
                }
                Self::Tiered(fast, durable) => {
                    fast.clean_up(folder).await?;
                    durable.clean_up(folder).await?;
                }
            }
            Ok(())
        })
    }

    /// How many times faster than written the log is played, if nobody says otherwise.
    pub(crate) const fn speed(&self) -> u32 {
        match self {
            Self::Memory | Self::Sqlite(_) => 50,
            Self::Postgres(_) | Self::Redis(_) | Self::Tiered(..) => 10,
        }
    }

    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::Memory => "in memory",
            Self::Sqlite(_) => "in an SQLite file",
            Self::Postgres(_) => "in PostgreSQL",
            Self::Redis(_) => "in Redis",
            Self::Tiered(..) => "in two tiers",
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
            Some(("tiered", both)) => {
                let (fast, durable) = both.split_once(',').ok_or_else(|| {
                    format!("--store tiered:FAST,DURABLE names two places, and {both:?} does not")
                })?;
                Ok(Self::Tiered(Box::new(fast.parse()?), Box::new(durable.parse()?)))
            }
            // The URL as its database knows it, or behind a name of ours.
            Some(("postgres", rest)) => Ok(Self::Postgres(url(text, rest))),
            Some(("redis", rest)) => Ok(Self::Redis(url(text, rest))),
            _ => Err(format!(
                "--store must be memory, sqlite, sqlite:PATH, postgres:URL, redis:URL or \
                 tiered:FAST,DURABLE, and {text:?} is none"
            )),
        }
    }
}

fn pool(url: &str) -> Result<Pool, Box<dyn Error>> {
    let config: Config = url.parse()?;
    Ok(Pool::builder(Manager::new(config, NoTls)).max_size(8).build()?)
}

fn url(text: &str, rest: &str) -> String {
    if rest.starts_with("//") { text } else { rest }.to_owned()
}

/// What a play names its own on a server: as its folder.
fn name_of(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_")
}
