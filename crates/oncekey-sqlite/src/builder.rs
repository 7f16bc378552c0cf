//! How a store is set up: [`SqliteStoreBuilder`].

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use oncekey::runtime::{Clock, SystemClock};
use oncekey::store::{ErrorKind, StoreError};
use rusqlite::Connection;

use crate::connect::{self, Connecting};
use crate::file::OpenFile;
use crate::queue::Queue;
use crate::reader::Reader;
use crate::schema::Schema;
use crate::store::{Shared, SqliteStore};
use crate::writer::Writer;

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Synchronous {
    /// For the disk: what was acknowledged survives a loss of power.
    Full,
    /// For the operating system: what was acknowledged survives a crash of the process. The last
    /// moments before a loss of power may be lost, and with them results that were acknowledged.
    Normal,
}

/// What is done to the connection that writes, when it is made.
pub(crate) type OnConnect = Arc<dyn Fn(&mut Connection) -> rusqlite::Result<()> + Send + Sync>;

/// Sets up a [`SqliteStore`]. Made by [`SqliteStore::builder`].
///
/// ```
/// use std::time::Duration;
/// use oncekey_sqlite::SqliteStore;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("app.sqlite3");
/// let store = SqliteStore::builder(&path)
///     .table("idempotency_keys")
///     .busy_timeout(Duration::from_secs(2))
///     .open()?;
/// assert_eq!(store.table(), "idempotency_keys");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use = "call `open` to get the store"]
pub struct SqliteStoreBuilder {
    path: PathBuf,
    table: String,
    clock: Arc<dyn Clock>,
    busy_timeout: Duration,
    synchronous: Synchronous,
    migrate_on_open: bool,
    max_queued: usize,
    readers: usize,
    on_connect: Option<OnConnect>,
    allow_wal_reset_bug: bool,
}

impl SqliteStoreBuilder {
    /// The name of the table unless told otherwise.
    pub const DEFAULT_TABLE: &str = "oncekey";

    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            table: Self::DEFAULT_TABLE.to_owned(),
            clock: Arc::new(SystemClock::new()),
            busy_timeout: Duration::from_secs(5),
            synchronous: Synchronous::Full,
            migrate_on_open: true,
            max_queued: 10_000,
            readers: 2,
            on_connect: None,
            allow_wal_reset_bug: false,
        }
    }

    /// The name of the table; `oncekey` unless set. A second table has `_meta` after that name.
    ///
    /// 1 to 50 ASCII letters, digits and underscores, the first not a digit.
    pub fn table(mut self, name: impl Into<String>) -> Self {
        self.table = name.into();
        self
    }

    /// The clock that decides leases, retentions and holds;
    /// [`SystemClock`](oncekey::runtime::SystemClock) unless set.
    ///
    /// All processes on one file must see the same time. It is read on the threads of the store while
    /// the file is locked: it must be quick, and must not call the store.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// How long a call waits for the lock that another connection has on the file; 5 seconds unless
    /// set. Then it fails with [`Timeout`](ErrorKind::Timeout), not applied.
    pub const fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// What a commit waits for; [`Synchronous::Full`] unless set.
    pub const fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Whether [`open`](Self::open) makes the file and the tables where they are missing, and brings
    /// tables of an older version up to date; yes unless set.
    ///
    /// With `false` it only checks them: for those who call [`migrate`](Self::migrate) when they deploy,
    /// or run what [`ddl`](Self::ddl) prints with their other migrations.
    pub const fn migrate_on_open(mut self, migrate: bool) -> Self {
        self.migrate_on_open = migrate;
        self
    }

    /// The most calls that wait for the thread that writes; 10,000 unless set. Further ones fail with
    /// [`Unavailable`](ErrorKind::Unavailable), not applied.
    pub const fn max_queued(mut self, calls: usize) -> Self {
        self.max_queued = calls;
        self
    }

    /// How many threads read, each with a connection of its own; 2 unless set, and 1 at least.
    pub const fn readers(mut self, threads: usize) -> Self {
        self.readers = threads;
        self
    }

    /// What to do with the connection that writes when it is made: register functions that business
    /// tables need, attach databases, set pragmas.
    ///
    /// What the store itself needs (WAL, `synchronous`, waiting for locks) is set after it, and wins.
    pub fn on_connect<F>(mut self, setup: F) -> Self
    where
        F: Fn(&mut Connection) -> rusqlite::Result<()> + Send + Sync + 'static,
    {
        self.on_connect = Some(Arc::new(setup));
        self
    }

    /// Opens the file although SQLite is older than 3.51.3, and may damage a database in WAL mode when
    /// several connections write and one of them starts the log anew.
    ///
    /// For those whose SQLite has the correction under an older number.
    pub const fn allow_sqlite_with_wal_reset_bug(mut self, allow: bool) -> Self {
        self.allow_wal_reset_bug = allow;
        self
    }

    /// The statements that make the tables, for those who run migrations with tools of their own.
    ///
    /// ```
    /// # use oncekey_sqlite::SqliteStore;
    /// let ddl = SqliteStore::builder("app.sqlite3").ddl()?;
    /// assert!(ddl.starts_with("CREATE TABLE"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Misconfigured`](ErrorKind::Misconfigured) when the name of the table is not usable.
    pub fn ddl(&self) -> Result<String, StoreError> {
        Ok(Schema::new(&self.table)?.ddl())
    }

    /// Makes the tables, or brings them up to date, and closes the file again. Safe to repeat, and to
    /// call from several processes at once.
    ///
    /// This blocks while it reads and writes the file.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn migrate(&self) -> Result<(), StoreError> {
        let schema = Schema::new(&self.table)?;
        let mut connection = self.connecting(true).for_writing()?;
        schema.migrate(&mut connection)
    }

    /// Opens the file, checks it, and starts the threads.
    ///
    /// This blocks while it reads and writes the file.
    ///
    /// # Errors
    /// - [`Misconfigured`](ErrorKind::Misconfigured): the folder does not exist, the file is read-only,
    ///   something else has the name of the table, the tables have another version or lack something,
    ///   SQLite is too old, or WAL or `synchronous` cannot be had. The message says how to mend it.
    /// - [`Corrupt`](ErrorKind::Corrupt): the file is damaged, or no SQLite database.
    /// - [`Timeout`](ErrorKind::Timeout): another connection holds the lock on the file.
    /// - [`Unavailable`](ErrorKind::Unavailable): the disk fails, or no thread can be started.
    pub fn open(self) -> Result<SqliteStore, StoreError> {
        let schema = Arc::new(Schema::new(&self.table)?);
        let connecting = self.connecting(self.migrate_on_open);
        let mut connection = connecting.for_writing()?;
        let file = OpenFile::of(&self.path);
        if self.migrate_on_open {
            schema.migrate(&mut connection)?;
        }
        schema.check(&connection)?;
        schema.check_writable(&connection)?;

        let mut shared = Shared {
            path: self.path.clone(),
            schema,
            clock: self.clock.clone(),
            writer: Arc::new(Queue::new(self.max_queued)),
            // As many as may wait for the writer: each caller waits for one thing.
            readers: Arc::new(Queue::new(self.max_queued)),
            threads: Vec::new(),
            process: std::process::id(),
        };
        // From here on, dropping `shared` ends the threads that were started.
        for _ in 0..self.readers.max(1) {
            let reader = Reader {
                connection: connecting.for_reading()?,
                schema: shared.schema.clone(),
                clock: self.clock.clone(),
                busy_timeout: self.busy_timeout,
            };
            let queue = shared.readers.clone();
            let thread = spawn("oncekey-sqlite-read", move || reader.run(&queue))?;
            shared.threads.push(thread);
        }
        let writer = Writer {
            connection,
            file,
            schema: shared.schema.clone(),
            clock: self.clock,
            busy_timeout: self.busy_timeout,
        };
        let queue = shared.writer.clone();
        let thread = spawn("oncekey-sqlite-write", move || writer.run(&queue))?;
        shared.threads.push(thread);
        Ok(SqliteStore { shared: Arc::new(shared) })
    }

    fn connecting(&self, create: bool) -> Connecting<'_> {
        Connecting {
            path: &self.path,
            create,
            busy_timeout: self.busy_timeout,
            synchronous: self.synchronous,
            on_connect: self.on_connect.as_ref(),
            allow_wal_reset_bug: self.allow_wal_reset_bug,
            version: rusqlite::version_number(),
        }
    }
}

impl fmt::Debug for SqliteStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStoreBuilder")
            .field("path", &self.path)
            .field("table", &self.table)
            .field("clock", &self.clock)
            .field("busy_timeout", &self.busy_timeout)
            .field("synchronous", &self.synchronous)
            .field("migrate_on_open", &self.migrate_on_open)
            .finish_non_exhaustive()
    }
}

fn spawn(
    name: &'static str,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StoreError> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(run).map_err(|error| {
        StoreError::new(ErrorKind::Unavailable, connect::OPERATION)
            .with_message("no thread can be started; check the limits of this process")
            .with_source(error)
    })
}
