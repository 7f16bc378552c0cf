//! What the server says when it refuses a statement.

use std::error::Error;
use std::fmt;

/// An error as the server reported it, without what could be stored content: its detail, hint and context
/// are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    sqlstate: String,
    message: String,
    fatal: bool,
}

impl ServerError {
    /// An error with this SQLSTATE and primary message. It is fatal if its severity is FATAL or PANIC.
    #[must_use]
    pub fn new(sqlstate: impl Into<String>, message: impl Into<String>, fatal: bool) -> Self {
        Self { sqlstate: sqlstate.into(), message: message.into(), fatal }
    }

    /// The five characters of the SQLSTATE.
    #[must_use]
    pub fn sqlstate(&self) -> &str {
        &self.sqlstate
    }

    /// The primary message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether nothing was done, and the same statement can succeed at once.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        // The last is a plan that became invalid when the schema changed.
        !self.fatal && matches!(self.sqlstate(), "40001" | "40P01" | "0A000")
    }

    /// Whether a lock was not had in time.
    #[must_use]
    pub fn is_lock_timeout(&self) -> bool {
        self.sqlstate() == "55P03"
    }

    /// Whether a limit of the server's own was met: of what it is sent, or of the notifications that it keeps for
    /// sessions that listen. Those fail the commit, also of a single statement.
    #[must_use]
    pub fn is_over_limit(&self) -> bool {
        self.sqlstate() == "54000"
    }

    /// Whether there is no such savepoint, because its transaction was ended.
    #[must_use]
    pub fn is_no_savepoint(&self) -> bool {
        matches!(self.sqlstate(), "25P01" | "3B001")
    }

    /// Whether it says nothing of what was done. It may have come instead of an answer that was about to be
    /// sent: an administrator's command may end a session that has committed and waits for its standby.
    pub(crate) fn is_no_answer(&self) -> bool {
        let state = &self.sqlstate[..];
        // The last three: time-outs that end a session, and a statement whose completion is unknown.
        self.fatal
            || state.starts_with("08")
            || state.starts_with("57P")
            || matches!(state, "25P03" | "25P04" | "40003")
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.sqlstate)
    }
}

impl Error for ServerError {}
