//! What an error of SQLite means for a caller of a store.

use oncekey::store::{ErrorKind, StoreError};
use rusqlite::{Error, ErrorCode, ffi};

/// What has to be known of a command to name the kind of its failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Purpose {
    /// For [`StoreError::operation`].
    pub(crate) operation: &'static str,
    /// What a lack of room means for it.
    pub(crate) no_room: NoRoom,
}

/// What it means for a command that there is no room for what it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// There is no room for another key.
    Key,
    /// There is no room for what it carries; without it, it would need none.
    Content,
    /// It may fit as soon as something was removed.
    Other,
}

impl Purpose {
    /// A command that carries nothing of note.
    pub(crate) const fn new(operation: &'static str) -> Self {
        Self::when_full(operation, NoRoom::Other)
    }

    pub(crate) const fn when_full(operation: &'static str, no_room: NoRoom) -> Self {
        Self { operation, no_room }
    }

    /// The error of a command that failed before its commit, and was rolled back.
    pub(crate) fn failed(self, error: Error) -> StoreError {
        let (kind, message) = self.explain(&error);
        StoreError::new(kind, self.operation).with_message(message).with_source(error)
    }

    /// What is known already needs no room for a key.
    pub(crate) fn on_known_key(self, known: bool) -> Self {
        match self.no_room {
            NoRoom::Key if known => Self::new(self.operation),
            _ => self,
        }
    }

    pub(crate) fn failed_kind(self, error: &Error) -> ErrorKind {
        self.explain(error).0
    }

    /// The error of a command whose commit failed.
    pub(crate) fn unknown(self, error: Error) -> StoreError {
        let message = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => {
                "the disk is full, and the commit may be in the file or not; free some space"
            }
            _ => "the commit failed half way, and may be in the file or not; check the disk",
        };
        StoreError::new(ErrorKind::OutcomeUnknown, self.operation)
            .with_message(message)
            .with_source(error)
    }

    /// The error of business whose commit failed with nothing done.
    pub(crate) fn not_committed(self, error: Error) -> StoreError {
        if error.sqlite_error_code() != Some(ErrorCode::ConstraintViolation) {
            return self.failed(error);
        }
        let message =
            "a deferred constraint of a business table is violated; everything was rolled back";
        misconfigured(self.operation, message).with_source(error)
    }

    /// The error of a command on a row that was changed behind the store's back.
    pub(crate) fn corrupt(self, problem: &'static str) -> StoreError {
        StoreError::new(ErrorKind::Corrupt, self.operation).with_message(problem)
    }

    fn explain(self, error: &Error) -> (ErrorKind, &'static str) {
        if let Error::StatementChangedRows(_) = error {
            return (
                ErrorKind::Misconfigured,
                "a trigger on the table keeps rows from being written or removed; drop it",
            );
        }
        if let Some(failure) = error.sqlite_error()
            && failure.extended_code == ffi::SQLITE_READONLY_DBMOVED
        {
            return (
                ErrorKind::Misconfigured,
                "the file was moved, removed or replaced while it was open; open the store again",
            );
        }
        let Some(code) = error.sqlite_error_code() else {
            return (
                ErrorKind::Misconfigured,
                "the table has not the columns that it should have; compare it with `ddl`",
            );
        };
        match code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => (
                ErrorKind::Timeout,
                "another connection held the lock on the file for longer than `busy_timeout`; look \
                 for a transaction that stays open",
            ),
            ErrorCode::DiskFull => (self.when_there_is_no_room(), NO_ROOM),
            ErrorCode::TooBig => {
                (ErrorKind::TooLarge, "it is longer than SQLite allows a row to be")
            }
            ErrorCode::DatabaseCorrupt => (
                ErrorKind::Corrupt,
                "the database file is damaged; run `PRAGMA integrity_check`, and restore a backup",
            ),
            ErrorCode::NotADatabase => (
                ErrorKind::Corrupt,
                "the file is no SQLite database, or it is encrypted; check the path",
            ),
            ErrorCode::ReadOnly => (
                ErrorKind::Misconfigured,
                "the database is read-only; let this process write the file and its folder",
            ),
            ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => (
                ErrorKind::Misconfigured,
                "access is denied; let this process read and write the file and its folder",
            ),
            ErrorCode::CannotOpen => (
                ErrorKind::Unavailable,
                "the database file, or a file beside it, cannot be opened; check that its folder \
                 exists, that this process may write there, and that it has file handles left",
            ),
            ErrorCode::SystemIoFailure => (
                ErrorKind::Unavailable,
                "the disk reported an error; check the disk and its file system",
            ),
            ErrorCode::OutOfMemory => (ErrorKind::Unavailable, "there is no memory left"),
            ErrorCode::OperationInterrupted | ErrorCode::OperationAborted => {
                (ErrorKind::Unavailable, "the statement was interrupted")
            }
            ErrorCode::FileLockingProtocolFailed => (
                ErrorKind::Unavailable,
                "the file cannot be locked; it must not be on a network file system",
            ),
            ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch => (
                ErrorKind::Misconfigured,
                "a constraint of the table refuses the row; compare it with `ddl`",
            ),
            ErrorCode::Unknown | ErrorCode::SchemaChanged => (
                ErrorKind::Misconfigured,
                "the table is not there, or not as it should be; compare it with `ddl`",
            ),
            _ => (ErrorKind::Unavailable, "SQLite refused the statement"),
        }
    }

    const fn when_there_is_no_room(self) -> ErrorKind {
        match self.no_room {
            NoRoom::Key => ErrorKind::Full,
            NoRoom::Content => ErrorKind::TooLarge,
            NoRoom::Other => ErrorKind::Unavailable,
        }
    }
}

const NO_ROOM: &str = "the disk is full, or the file has reached its `max_page_count`; free some \
                       space, or purge more often";

pub(crate) fn misconfigured(
    operation: &'static str,
    message: impl Into<std::borrow::Cow<'static, str>>,
) -> StoreError {
    StoreError::new(ErrorKind::Misconfigured, operation).with_message(message)
}

/// The same failure once more, for another member of a batch.
pub(crate) fn again(error: &Error) -> Error {
    match error {
        Error::SqliteFailure(failure, message) => Error::SqliteFailure(*failure, message.clone()),
        other => Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_ERROR), Some(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: std::ffi::c_int, no_room: NoRoom) -> ErrorKind {
        let error = Error::SqliteFailure(ffi::Error::new(code), None);
        Purpose::when_full("claim", no_room).failed(error).kind()
    }

    #[test]
    fn a_kind_says_what_was_applied_and_what_helps() {
        for (code, expected) in [
            (ffi::SQLITE_BUSY, ErrorKind::Timeout),
            (ffi::SQLITE_BUSY_SNAPSHOT, ErrorKind::Timeout),
            (ffi::SQLITE_TOOBIG, ErrorKind::TooLarge),
            (ffi::SQLITE_CORRUPT, ErrorKind::Corrupt),
            (ffi::SQLITE_NOTADB, ErrorKind::Corrupt),
            (ffi::SQLITE_READONLY, ErrorKind::Misconfigured),
            (ffi::SQLITE_CANTOPEN, ErrorKind::Unavailable),
            (ffi::SQLITE_IOERR_WRITE, ErrorKind::Unavailable),
            (ffi::SQLITE_ERROR, ErrorKind::Misconfigured),
        ] {
            assert_eq!(kind(code, NoRoom::Other), expected, "{code}");
        }
    }

    #[test]
    fn a_lack_of_room_is_named_by_what_needs_it() {
        let full = ffi::SQLITE_FULL;
        assert_eq!(kind(full, NoRoom::Key), ErrorKind::Full);
        assert_eq!(kind(full, NoRoom::Content), ErrorKind::TooLarge);
        assert_eq!(kind(full, NoRoom::Other), ErrorKind::Unavailable);
    }
}
