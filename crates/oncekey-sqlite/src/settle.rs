//! What became of a commit that failed: found out by reading, never by running again.

use oncekey::RunError;
use oncekey::store::Status;
use oncekey::transaction::Prepared;
use rusqlite::Connection;

use crate::columns;
use crate::transaction::RUN;
use crate::writer::Writer;

impl Writer {
    /// The value, if it is committed.
    pub(crate) fn settle<T, E>(
        &self,
        prepared: &Prepared,
        value: T,
        error: rusqlite::Error,
    ) -> Result<T, RunError<E>> {
        match self.is_completed_by(prepared) {
            Ok(true) => Ok(value),
            _ => Err(RunError::InDoubt(RUN.unknown(error))),
        }
    }

    fn is_completed_by(&self, prepared: &Prepared) -> rusqlite::Result<bool> {
        let key = prepared.key().as_bytes();
        let connection: &Connection = &self.connection;
        let mut statement = connection.prepare_cached(&self.schema.select)?;
        let mut rows = statement.query([key])?;
        let record = match rows.next()? {
            Some(row) => columns::read(row, 0, key).ok(),
            None => None,
        };
        Ok(record.is_some_and(|record| {
            record.attempt == prepared.claim().attempt
                && matches!(record.status, Status::Completed { .. })
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::time::Duration;

    use oncekey::runtime::SystemClock;
    use oncekey::store::ErrorKind;
    use oncekey::{Fingerprint, Idempotency, Key, Scope};
    use rusqlite::ffi;

    use super::*;
    use crate::builder::Synchronous;
    use crate::connect::Connecting;
    use crate::file::OpenFile;
    use crate::schema::Schema;
    use crate::store::SqliteStore;

    /// A failed commit that was in the file all the same is found there, and is not run again.
    #[test]
    fn an_unknown_commit_is_settled_by_reading() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db.sqlite3");
        let store = SqliteStore::open(&path).unwrap();
        let idempotency = Idempotency::at_most_once(store);
        let key = Key::new(&Scope::new("tenant-42", "pay").unwrap(), "a").unwrap();
        let fingerprint = Fingerprint::of("100 EUR");
        let connecting = Connecting {
            path: &path,
            create: false,
            busy_timeout: Duration::from_secs(5),
            synchronous: Synchronous::Full,
            on_connect: None,
            allow_wal_reset_bug: true,
            version: rusqlite::version_number(),
        };
        let mut writer = Writer {
            connection: connecting.for_writing().unwrap(),
            file: OpenFile::of(&path),
            schema: Arc::new(Schema::new("oncekey").unwrap()),
            clock: Arc::new(SystemClock::new()),
            busy_timeout: Duration::from_secs(5),
        };
        let lost = || rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), None);
        let prepared = idempotency.prepare(&key, &fingerprint).unwrap();

        let not_there = writer.settle::<_, Infallible>(&prepared, 7, lost());
        let Err(RunError::InDoubt(error)) = not_there else { panic!("it is unknown") };
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);

        let ran = writer.run_alone(&prepared, |_| Ok::<_, Infallible>(7));
        assert_eq!(*ran.unwrap().value(), 7);
        let there = writer.settle::<_, Infallible>(&prepared, 7, lost()).unwrap();
        assert_eq!(there, 7);

        // The result of somebody else is not ours.
        let other = idempotency.prepare(&key, &fingerprint).unwrap();
        assert!(writer.settle::<_, Infallible>(&other, 7, lost()).is_err());
    }
}
