//! What can break between an engine and a store: [`StoreError`].

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// What broke while a store worked on a command.
///
/// A refusal is not an error: busy, mismatch or lost come back as outcomes. An error says what was
/// attempted ([`operation`](Self::operation)), of which kind the fault is ([`kind`](Self::kind)), and
/// the cause, by [`source`](Error::source). It never carries a key, a body or a fingerprint.
#[derive(Debug, Clone)]
pub struct StoreError {
    kind: ErrorKind,
    operation: &'static str,
    message: Option<Cow<'static, str>>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The kinds of [`StoreError`]: what a caller may conclude from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store could not be reached; the command was not applied.
    Unavailable,
    /// The store did not start on the command in time; the command was not applied.
    Timeout,
    /// The command may or may not have been applied, now or later. Send the same command again to
    /// find out: every verb is safe to repeat.
    OutcomeUnknown,
    /// What is stored cannot be understood; the command was not applied. Somebody has to look: the
    /// record may prove that the operation ran.
    Corrupt,
    /// The store is set up in a way that would break a promise; nothing was applied.
    Misconfigured,
    /// The command carries more than the store can keep; it was not applied.
    TooLarge,
    /// The store has no room for another key; the command was not applied.
    Full,
}

impl ErrorKind {
    /// A name for logs and metrics, in snake case. It never changes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Corrupt => "corrupt",
            Self::Misconfigured => "misconfigured",
            Self::TooLarge => "too_large",
            Self::Full => "full",
        }
    }

    /// What the kind means, for a message.
    const fn describe(self) -> &'static str {
        match self {
            Self::Unavailable => "the store is unavailable",
            Self::Timeout => "the store did not answer in time",
            Self::OutcomeUnknown => "it is unknown whether the store applied the command",
            Self::Corrupt => "the stored record is corrupt",
            Self::Misconfigured => "the configuration is not usable",
            Self::TooLarge => "the command is larger than the store can keep",
            Self::Full => "the store has no room for another key",
        }
    }
}

impl StoreError {
    /// An error of `kind` while `operation` was attempted ("claim", "complete", ..).
    #[must_use]
    pub const fn new(kind: ErrorKind, operation: &'static str) -> Self {
        Self { kind, operation, message: None, source: None }
    }

    /// Adds what exactly is wrong and what to do about it. Must not contain stored content.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Adds the cause, for example the error of a driver.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// What a caller may conclude.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was attempted.
    #[must_use]
    pub const fn operation(&self) -> &'static str {
        self.operation
    }

    /// Whether the same command, sent again a little later, can succeed without anybody's help.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::OutcomeUnknown)
    }
}

impl fmt::Display for StoreError {
    /// Names the operation, the kind and the details; the cause is left to [`Error::source`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {}: {}", self.operation, self.kind.describe())?;
        match &self.message {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn Error + 'static))
    }
}
