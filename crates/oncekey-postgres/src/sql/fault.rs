//! What an error of the server means for a caller of a store.

use std::error::Error;

use oncekey::store::{Completion, ErrorKind, StoreError};

use super::tables::misconfigured;
use crate::ServerError;

/// The SQLSTATE of a completion that is refused where it must not be; the message names the outcome.
pub const REFUSED: &str = "OK001";
/// The SQLSTATE of a claim whose row can neither be made nor be seen.
const HIDDEN: &str = "OK002";

/// The longest content. A message to the server may have a gigabyte, and a row needs some of it.
const MAX_CONTENT_LEN: usize = 512 << 20;

/// What has to be known of a command to name the kind of its failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purpose {
    operation: &'static str,
    /// What a lack of room means for it.
    no_room: ErrorKind,
    /// What is known of a command whose answer did not come.
    unanswered: ErrorKind,
}

impl Purpose {
    /// A command that writes, and carries nothing of note.
    #[must_use]
    pub const fn write(operation: &'static str) -> Self {
        Self { operation, no_room: ErrorKind::Unavailable, unanswered: ErrorKind::OutcomeUnknown }
    }

    /// A command that makes a key known.
    #[must_use]
    pub const fn new_key(operation: &'static str) -> Self {
        Self { no_room: ErrorKind::Full, ..Self::write(operation) }
    }

    /// A command that carries content, without which it would need no room.
    #[must_use]
    pub const fn content(operation: &'static str) -> Self {
        Self { no_room: ErrorKind::TooLarge, ..Self::write(operation) }
    }

    /// A command that decides nothing: what became of it does not matter.
    #[must_use]
    pub const fn read(operation: &'static str) -> Self {
        Self { unanswered: ErrorKind::Unavailable, ..Self::write(operation) }
    }

    /// A command that carries this result.
    ///
    /// # Errors
    /// [`TooLarge`](ErrorKind::TooLarge): the result is longer than half a gigabyte.
    pub fn completing(
        operation: &'static str,
        completion: &Completion,
    ) -> Result<Self, StoreError> {
        if completion.replayable {
            Self::content(operation).of_length(completion.value.len())
        } else {
            Ok(Self::write(operation))
        }
    }

    /// The same, if a content of so many bytes can be kept.
    ///
    /// # Errors
    /// [`TooLarge`](ErrorKind::TooLarge): it is longer than half a gigabyte.
    pub fn of_length(self, len: usize) -> Result<Self, StoreError> {
        if len <= MAX_CONTENT_LEN {
            Ok(self)
        } else {
            Err(self.too_large("it is longer than half a gigabyte"))
        }
    }

    /// What is attempted.
    #[must_use]
    pub const fn operation(self) -> &'static str {
        self.operation
    }

    /// The error of a command that the server refused.
    #[must_use]
    pub fn refused(self, error: ServerError) -> StoreError {
        let (kind, message) = self.explain(&error);
        StoreError::new(kind, self.operation).with_message(message).with_source(error)
    }

    /// The error of a COMMIT that the server answered with one.
    #[must_use]
    pub fn commit_refused(self, error: ServerError) -> StoreError {
        if error.sqlstate().starts_with("23") {
            let message =
                "a deferred constraint of a business table is violated; everything was rolled back";
            return misconfigured(self.operation, message).with_source(error);
        }
        if error.is_over_limit() {
            // What is written was not too long: that was told before.
            return StoreError::new(ErrorKind::Unavailable, self.operation)
                .with_message(NO_NOTICES)
                .with_source(error);
        }
        self.refused(error)
    }

    /// The error of a command that was sent, and whose answer did not come.
    #[must_use]
    pub fn unanswered(self, error: impl Into<Box<dyn Error + Send + Sync>>) -> StoreError {
        StoreError::new(self.unanswered, self.operation).with_message(LOST).with_source(error)
    }

    /// The error of a command that was not sent.
    #[must_use]
    pub fn unsent(self, error: impl Into<Box<dyn Error + Send + Sync>>) -> StoreError {
        StoreError::new(ErrorKind::Unavailable, self.operation)
            .with_message(
                "there is no connection to the server; check that it runs and is reachable",
            )
            .with_source(error)
    }

    /// The error of a connection that the server refused.
    #[must_use]
    pub fn turned_away(self, error: ServerError) -> StoreError {
        match error.sqlstate() {
            "28000" | "28P01" | "3D000" | "42501" => {
                StoreError::new(ErrorKind::Misconfigured, self.operation)
                    .with_message(
                        "the server does not let this role in; check user, password, database and \
                 `pg_hba.conf`",
                    )
                    .with_source(error)
            }
            _ => self.unsent(error),
        }
    }

    pub(crate) fn corrupt(self, problem: &'static str) -> StoreError {
        StoreError::new(ErrorKind::Corrupt, self.operation).with_message(problem)
    }

    pub(crate) fn misconfigured(self, problem: &'static str) -> StoreError {
        misconfigured(self.operation, problem)
    }

    /// The error of a command that carries more than can be kept.
    #[must_use]
    pub fn too_large(self, problem: &'static str) -> StoreError {
        StoreError::new(ErrorKind::TooLarge, self.operation).with_message(problem)
    }

    fn explain(self, error: &ServerError) -> (ErrorKind, &'static str) {
        if error.is_no_answer() {
            let message = match error.sqlstate() {
                "40003" | "08007" => "the server does not know what became of the statement",
                _ => LOST,
            };
            return (self.unanswered, message);
        }
        match error.sqlstate() {
            "40001" | "40P01" | "0A000" => (
                ErrorKind::Unavailable,
                "it met others' transactions again and again; set the default isolation level of this \
                 role to `read committed`",
            ),
            "55P03" => (
                ErrorKind::Timeout,
                "another transaction held the row for longer than a lock is waited for; look for one \
                 that stays open in `pg_stat_activity`",
            ),
            "57014" => (
                ErrorKind::Timeout,
                "the statement was cancelled, by `statement_timeout` or by an operator",
            ),
            "42P01" | "42883" | "3F000" => (
                ErrorKind::Misconfigured,
                "a table or function of the schema is not there; call `migrate`, or run what `ddl` \
                 prints",
            ),
            "42P07" | "42710" | "42723" => (
                ErrorKind::Misconfigured,
                "something else has the name of what is to be made, perhaps what is left of tables that \
                 were dropped; drop it, or choose another name with `table` or `schema`",
            ),
            "42501" => (
                ErrorKind::Misconfigured,
                "access is denied; grant this role USAGE on the schema, EXECUTE on its functions, and \
                 SELECT, INSERT, UPDATE and DELETE on its tables; to migrate it, CREATE on the schema",
            ),
            "42703" | "42804" | "42846" | "42P13" | "42702" => (
                ErrorKind::Misconfigured,
                "a table or function is not as this build makes it; compare it with what `ddl` prints",
            ),
            HIDDEN => (
                ErrorKind::Misconfigured,
                "the key's row can neither be made nor be seen; exempt this role from the row-level \
                 security of the table, and remove triggers that keep its rows from being made",
            ),
            "25006" => (ErrorKind::Unavailable, NO_WRITES),
            "25P02" => (
                ErrorKind::Unavailable,
                "an earlier statement of the transaction failed, so that it can only roll back",
            ),
            "53100" => (self.no_room, "the disk of the server is full; free some space"),
            "53300" => (
                ErrorKind::Unavailable,
                "the server has no connection left; raise `max_connections`, or make the pool smaller",
            ),
            "54000" if error.message().contains("NOTIFY") => (ErrorKind::Unavailable, NO_NOTICES),
            "54000" | "54023" | "22026" | "22001" => {
                (ErrorKind::TooLarge, "it is longer than the server allows")
            }
            "XX001" | "XX002" => {
                (ErrorKind::Corrupt, "the files of the database are damaged; restore a backup")
            }
            state if state.starts_with("23") => (
                ErrorKind::Misconfigured,
                "a constraint refuses the row; compare the table with what `ddl` prints",
            ),
            _ => (ErrorKind::Unavailable, "the server refused the statement"),
        }
    }
}

/// The error of a transaction that failed before it was told to commit: if its connection was lost, it is
/// rolled back, for sure.
#[must_use]
pub fn rolled_back(error: StoreError) -> StoreError {
    if error.kind() != ErrorKind::OutcomeUnknown {
        return error;
    }
    StoreError::new(ErrorKind::Unavailable, error.operation())
        .with_message("the connection was lost, and the transaction was rolled back")
        .with_source(error)
}

/// The error of a command that has to be in a transaction, and is not.
#[must_use]
pub fn not_in_transaction(operation: &'static str) -> StoreError {
    misconfigured(
        operation,
        "the connection is in no transaction, and nothing was done; begin one, then claim, write and \
         complete in it",
    )
}

pub(super) const NO_WRITES: &str =
    "the server takes no writes: it is a standby, or `default_transaction_read_only` is on";
const NO_NOTICES: &str = "the server's NOTIFY queue is full, and nothing was done; find the session that listens \
                          and stays in a transaction, in `pg_stat_activity`, and end it";
const LOST: &str = "the connection was lost before the answer came";

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(purpose: Purpose, sqlstate: &str, fatal: bool) -> ErrorKind {
        purpose.refused(ServerError::new(sqlstate, "", fatal)).kind()
    }

    #[test]
    fn a_kind_says_what_was_applied_and_what_helps() {
        for (sqlstate, expected) in [
            ("40001", ErrorKind::Unavailable),
            ("55P03", ErrorKind::Timeout),
            ("57014", ErrorKind::Timeout),
            ("42P01", ErrorKind::Misconfigured),
            ("42883", ErrorKind::Misconfigured),
            ("42501", ErrorKind::Misconfigured),
            ("23514", ErrorKind::Misconfigured),
            ("OK002", ErrorKind::Misconfigured),
            ("54000", ErrorKind::TooLarge),
            ("XX001", ErrorKind::Corrupt),
            ("57P01", ErrorKind::OutcomeUnknown),
            ("08006", ErrorKind::OutcomeUnknown),
            ("08007", ErrorKind::OutcomeUnknown),
            ("40003", ErrorKind::OutcomeUnknown),
            ("25P03", ErrorKind::OutcomeUnknown),
            ("25P04", ErrorKind::OutcomeUnknown),
            // A transaction that was rolled back, whatever else is known of it.
            ("40000", ErrorKind::Unavailable),
            ("58030", ErrorKind::Unavailable),
        ] {
            assert_eq!(kind(Purpose::write("claim"), sqlstate, false), expected, "{sqlstate}");
        }
        let no_notices = "too many notifications in the NOTIFY queue";
        let error =
            Purpose::content("complete").refused(ServerError::new("54000", no_notices, false));
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(kind(Purpose::write("claim"), "XX000", true), ErrorKind::OutcomeUnknown);
        assert_eq!(kind(Purpose::read("get"), "57P01", true), ErrorKind::Unavailable);
    }

    #[test]
    fn a_lack_of_room_is_named_by_what_needs_it() {
        assert_eq!(kind(Purpose::new_key("claim"), "53100", false), ErrorKind::Full);
        assert_eq!(kind(Purpose::content("complete"), "53100", false), ErrorKind::TooLarge);
        assert_eq!(kind(Purpose::write("abandon"), "53100", false), ErrorKind::Unavailable);
    }
}
