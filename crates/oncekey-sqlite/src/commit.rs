//! The end of a transaction, and what is known when its commit fails.
//!
//! SQLite rolls back where a commit fails, but the error alone does not say that nothing is in the file. If
//! syncing fails, the transaction is in the log already, whole, where the next process that recovers the
//! log may find it. A hook of the user's that runs after the commit can fail the statement. And if a trigger
//! writes to an attached database, that commits by itself, after this one.
//!
//! Two cases are certain. A transaction that is still open did not begin to commit. And if there was no room
//! to write the log, then the mark that ends the transaction, which is written last, is not in it: unless
//! SQLite was built to repeat that mark up to the end of a sector, and the repetition is what failed.
//! Whether it was this log that found no room, the rows tell.

use rusqlite::{Connection, Error, ErrorCode};

use crate::session::Session;

/// What became of a transaction whose commit failed. It is over.
#[derive(Debug)]
pub(crate) enum Uncommitted {
    /// Nothing of it is in force, now or later.
    NotApplied(Error),
    /// It may be in the file, or come into force when the log is recovered.
    Unknown(Error),
}

impl Session<'_> {
    /// Commits, and rolls back if that fails.
    pub(crate) fn commit(&self) -> Result<(), Uncommitted> {
        let connection = self.connection();
        let (error, began) = match self.finish() {
            Ok(()) => match execute(connection, "COMMIT") {
                Ok(()) => return Ok(()),
                Err(error) => (error, connection.is_autocommit()),
            },
            Err(error) => (error, false),
        };
        roll_back(connection);
        let undone = !began
            || is_without_room(&error)
                && has_one_mark(connection)
                && self.is_undone().unwrap_or(false);
        Err(if undone { Uncommitted::NotApplied(error) } else { Uncommitted::Unknown(error) })
    }
}

pub(crate) fn roll_back(connection: &Connection) {
    if !connection.is_autocommit() {
        // If this fails as well, the next BEGIN does too, and says so.
        let _ = connection.execute_batch("ROLLBACK");
    }
}

pub(crate) fn is_without_room(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// Whether a commit writes its mark once, as SQLite does unless it was built otherwise.
fn has_one_mark(connection: &Connection) -> bool {
    // Only listed if it is not the default.
    let sql = "SELECT count(*) FROM pragma_compile_options \
               WHERE compile_options LIKE 'POWERSAFE_OVERWRITE=%'";
    connection.query_row(sql, [], |row| row.get(0)).is_ok_and(|otherwise: i64| otherwise == 0)
}

pub(crate) fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use oncekey::store::{
        Abandon, AttemptId, Claim, ClaimOutcome, Command, Complete, Completion, Evict, Expected,
        Fenced, Grant, Known, OnInterrupted, OnRetired, Renew,
    };
    use oncekey::{Fingerprint, Key, Scope};
    use oncekey_memory::ManualClock;

    use super::*;
    use crate::error::Purpose;
    use crate::purge::{Place, step};
    use crate::schema::Schema;

    const TEST: Purpose = Purpose::new("test");
    const LEASE: Duration = Duration::from_secs(30);

    fn key(id: &str) -> Key {
        Key::new(&Scope::new("tenant-42", "pay").unwrap(), id).unwrap()
    }

    fn claim(session: &mut Session<'_>, id: &str) -> Grant {
        let claim = Claim {
            attempt: AttemptId::from_bytes([id.len() as u8; 16]),
            fingerprint: Fingerprint::of("100 EUR"),
            lease: LEASE,
            hold: LEASE,
            on_interrupted: OnInterrupted::TakeOver,
            on_retired: OnRetired::Forget,
        };
        match session.claim(TEST, &key(id), &claim).unwrap() {
            ClaimOutcome::Acquired { grant, .. } => grant,
            other => panic!("the key should be free: {other:?}"),
        }
    }

    fn apply(session: &mut Session<'_>, id: &str, command: &impl Command<Outcome = Fenced>) {
        assert_eq!(session.apply(TEST, &key(id), command).unwrap(), Fenced::Applied);
    }

    /// Each kind of change, after a commit and after a roll back.
    #[test]
    fn the_rows_tell_whether_a_change_is_in_force() {
        type Change = fn(&mut Session<'_>, Grant);
        let changes: [(&str, Change); 7] = [
            ("claim", |session, _| {
                claim(session, "another");
            }),
            ("claim and evict", |session, _| {
                claim(session, "another");
                let evict = Evict { expected: Expected::Any, force: true };
                apply(session, "another", &evict);
            }),
            ("renew", |session, grant| {
                let renew = Renew { grant, lease: 2 * LEASE, progress: None };
                apply(session, "a", &renew);
            }),
            ("complete", |session, grant| {
                let completion = Completion {
                    value: Bytes::from_static(b"done"),
                    replayable: true,
                    retention: LEASE,
                    hold: LEASE,
                };
                apply(session, "a", &Complete { grant, completion });
            }),
            ("abandon", |session, grant| {
                let abandon = Abandon { grant, known: Known::Unknown };
                apply(session, "a", &abandon);
            }),
            ("evict", |session, _| {
                let evict = Evict { expected: Expected::Any, force: true };
                apply(session, "a", &evict);
            }),
            ("purge", |session, _| {
                assert_eq!(step(session, TEST, Place::FIRST, 9).unwrap().removed, 1);
            }),
        ];
        let schema = Schema::new("oncekey").unwrap();
        for (name, change) in changes {
            for (end, undone) in [("COMMIT", false), ("ROLLBACK", true)] {
                let connection = Connection::open_in_memory().unwrap();
                connection.execute_batch(&schema.ddl()).unwrap();
                let clock = ManualClock::default();
                let mut first = Session::new(&connection, &schema, &clock);
                let grant = claim(&mut first, "a");
                first.finish().unwrap();
                clock.advance(3 * LEASE);
                connection.execute_batch("BEGIN IMMEDIATE").unwrap();
                let mut session = Session::new(&connection, &schema, &clock);
                change(&mut session, grant);
                session.finish().unwrap();
                connection.execute_batch(end).unwrap();
                assert_eq!(session.is_undone().unwrap(), undone, "{name}, {end}");
            }
        }
    }
}
