//! Opening a connection, and making sure of what the promises rest on.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use oncekey::store::StoreError;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::builder::{OnConnect, Synchronous};
use crate::busy;
use crate::error::{Purpose, misconfigured};

pub(crate) const OPERATION: &str = "open the store";
const OPEN: Purpose = Purpose::new(OPERATION);

/// The first version whose log can be started anew without harm while others write.
const FIRST_SOUND_VERSION: i32 = 3_051_003;

/// All statements of this crate, and some of the user's.
const CACHED_STATEMENTS: usize = 64;

/// How many bytes of the log are kept on the disk to be written again.
const LOG_SIZE_LIMIT: i64 = 64 << 20;

/// How a connection is made.
pub(crate) struct Connecting<'a> {
    pub(crate) path: &'a Path,
    /// Whether to make the file if it is not there.
    pub(crate) create: bool,
    pub(crate) busy_timeout: Duration,
    pub(crate) synchronous: Synchronous,
    pub(crate) on_connect: Option<&'a OnConnect>,
    pub(crate) allow_wal_reset_bug: bool,
    /// The SQLite that is linked.
    pub(crate) version: i32,
}

impl Connecting<'_> {
    pub(crate) fn for_writing(&self) -> Result<Connection, StoreError> {
        check_version(self.version, self.allow_wal_reset_bug)?;
        let mut connection = self.open(self.create)?;
        if let Some(setup) = self.on_connect {
            setup(&mut connection).map_err(|error| {
                let message = "what `on_connect` does with the connection failed";
                let kind = OPEN.failed_kind(&error);
                StoreError::new(kind, OPERATION).with_message(message).with_source(error)
            })?;
        }
        self.prepare(&mut connection)?;
        Ok(connection)
    }

    pub(crate) fn for_reading(&self) -> Result<Connection, StoreError> {
        let mut connection = self.open(false)?;
        self.prepare(&mut connection)?;
        set(&connection, "query_only", 1)?;
        Ok(connection)
    }

    fn open(&self, create: bool) -> Result<Connection, StoreError> {
        let path = self.path.display();
        // SQLite would take a VFS and parameters from it, and one of them turns the locks off.
        if self.path.as_os_str().as_encoded_bytes().starts_with(b"file:") {
            let message = format!(
                "`{path}` is a URI; give a path, with `./` before it if a file is called that"
            );
            return Err(misconfigured(OPERATION, message));
        }
        // One thread uses a connection at a time, so SQLite need not lock it.
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
        Connection::open_with_flags(self.path, flags).map_err(|error| {
            match (error.sqlite_error_code(), self.obstacle()) {
                (Some(ErrorCode::CannotOpen), Some(obstacle)) => {
                    misconfigured(OPERATION, obstacle).with_source(error)
                }
                (None, _) => {
                    let message = format!("`{path}` cannot be a path for SQLite; give another");
                    misconfigured(OPERATION, message).with_source(error)
                }
                _ => OPEN.failed(error),
            }
        })
    }

    /// Why the file cannot be opened, if that can be seen.
    fn obstacle(&self) -> Option<String> {
        let path = self.path.display();
        if self.path.is_dir() {
            return Some(format!("`{path}` is a folder; give the path of a file in it"));
        }
        let folder = self.path.parent()?;
        if !folder.as_os_str().is_empty() && !folder.is_dir() {
            return Some(format!("the folder of `{path}` does not exist; make it first"));
        }
        // It is not opened to see why: closing it would end the locks that this process has on it.
        if !self.create && !self.path.exists() {
            return Some(format!(
                "there is no file `{path}`, and `migrate_on_open` is off; call `migrate` first"
            ));
        }
        None
    }

    /// Sets what the promises rest on, and reads it back: SQLite ignores what it cannot do.
    fn prepare(&self, connection: &mut Connection) -> Result<(), StoreError> {
        busy::install(connection).map_err(|error| OPEN.failed(error))?;
        busy::allow(self.busy_timeout);
        connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        // Before it uses the log: it could not give up the locks of that any more.
        lock_as_needed(connection)?;
        self.use_wal(connection)?;
        let locking = lock_as_needed(connection)?;
        if !locking.eq_ignore_ascii_case("normal") {
            return Err(misconfigured(
                OPERATION,
                format!(
                    "`on_connect` leaves the connection in the locking mode `{locking}`, which locks \
                     everybody else out"
                ),
            ));
        }
        let (level, name) = match self.synchronous {
            Synchronous::Full => (2, "FULL"),
            Synchronous::Normal => (1, "NORMAL"),
        };
        set(connection, "synchronous", level)?;
        if get(connection, "synchronous")? != level {
            return Err(misconfigured(
                OPERATION,
                format!(
                    "SQLite does not take `PRAGMA synchronous = {name}`; check how it was built"
                ),
            ));
        }
        // Where a plain sync does not reach the disk itself.
        set(connection, "fullfsync", 1)?;
        set(connection, "checkpoint_fullfsync", 1)?;
        // A stray write of the process must not reach the file, nor a failing disk end the process.
        set(connection, "mmap_size", 0)?;
        // What a burst left behind is given back to the disk.
        set(connection, "journal_size_limit", LOG_SIZE_LIMIT)?;
        set(connection, "cell_size_check", 1)
    }

    fn use_wal(&self, connection: &Connection) -> Result<(), StoreError> {
        let deadline = Instant::now().checked_add(self.busy_timeout);
        let mode: String = loop {
            let sql = "PRAGMA journal_mode = WAL";
            match connection.query_row(sql, [], |row| row.get(0)) {
                Ok(mode) => break mode,
                // The change waits for no lock by itself: another process may be making it.
                Err(error)
                    if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                        && deadline.is_none_or(|deadline| Instant::now() < deadline) =>
                {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(OPEN.failed(error)),
            }
        };
        if mode.eq_ignore_ascii_case("wal") {
            return Ok(());
        }
        Err(misconfigured(
            OPERATION,
            format!(
                "the database uses the journal mode `{mode}` and cannot use WAL; it must be a file on \
                 a local disk"
            ),
        ))
    }
}

fn check_version(version: i32, allow_wal_reset_bug: bool) -> Result<(), StoreError> {
    if version >= FIRST_SOUND_VERSION || allow_wal_reset_bug {
        return Ok(());
    }
    let (major, minor, patch) = (version / 1_000_000, version / 1_000 % 1_000, version % 1_000);
    Err(misconfigured(
        OPERATION,
        format!(
            "SQLite {major}.{minor}.{patch} can damage a database that several connections write in \
             WAL mode; use 3.51.3 or newer (the feature `bundled` with a rusqlite of 0.39 or newer has \
             it), or call `allow_sqlite_with_wal_reset_bug` if yours has the correction"
        ),
    ))
}

/// Lets others use the file in between, and returns whether it does: a connection may have been set to keep
/// its locks.
fn lock_as_needed(connection: &Connection) -> Result<String, StoreError> {
    let sql = "PRAGMA main.locking_mode = NORMAL";
    connection.query_row(sql, [], |row| row.get(0)).map_err(|error| OPEN.failed(error))
}

fn set(connection: &Connection, pragma: &str, value: i64) -> Result<(), StoreError> {
    connection.pragma_update(None, pragma, value).map_err(|error| OPEN.failed(error))
}

fn get(connection: &Connection, pragma: &str) -> Result<i64, StoreError> {
    connection
        .pragma_query_value(None, pragma, |row| row.get(0))
        .map_err(|error| OPEN.failed(error))
}

#[cfg(test)]
mod tests {
    use oncekey::store::ErrorKind;

    use super::*;

    #[test]
    fn a_version_that_may_damage_the_file_is_refused_unless_allowed_by_name() {
        let error = check_version(3_040_001, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        let message = error.to_string();
        for part in ["3.40.1", "3.51.3", "allow_sqlite_with_wal_reset_bug"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(check_version(3_051_002, false).is_err());
        assert!(check_version(3_051_002, true).is_ok());
        assert!(check_version(3_051_003, false).is_ok());
    }

    fn connecting(path: &Path) -> Connecting<'_> {
        Connecting {
            path,
            create: true,
            busy_timeout: Duration::ZERO,
            synchronous: Synchronous::Full,
            on_connect: None,
            allow_wal_reset_bug: false,
            version: FIRST_SOUND_VERSION,
        }
    }

    #[test]
    fn an_unsound_version_does_not_touch_the_file_unless_allowed_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db.sqlite3");
        let old = Connecting { version: FIRST_SOUND_VERSION - 1, ..connecting(&path) };
        assert_eq!(old.for_writing().unwrap_err().kind(), ErrorKind::Misconfigured);
        assert!(!path.exists());
        let allowed = Connecting { allow_wal_reset_bug: true, ..old };
        assert!(allowed.for_writing().is_ok());
    }

    /// File permissions do not bind every user that tests run as, so the connection is what cannot
    /// write here.
    #[test]
    fn a_database_that_cannot_be_written_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db.sqlite3");
        let made = Connection::open(&path).unwrap();
        made.execute_batch("CREATE TABLE t (x); PRAGMA user_version = 1").unwrap();
        drop(made);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let mut connection = Connection::open_with_flags(&path, flags).unwrap();
        let error = connecting(&path).prepare(&mut connection).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
    }
}
