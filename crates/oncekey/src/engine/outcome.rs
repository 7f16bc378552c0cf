//! What a run returns: [`Outcome`], or one of the reasons in [`RunError`].

use std::time::Duration;

use super::value::{CodecError, Encoded};
use crate::store::StoreError;

/// The answer to a request: from this very run, or replayed from an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome<T> {
    value: T,
    replay: bool,
}

impl<T> Outcome<T> {
    pub(crate) const fn executed(value: T) -> Self {
        Self { value, replay: false }
    }

    pub(crate) const fn replayed(value: T) -> Self {
        Self { value, replay: true }
    }

    /// What the operation returned.
    pub const fn value(&self) -> &T {
        &self.value
    }

    /// What the operation returned.
    pub fn into_value(self) -> T {
        self.value
    }

    /// Whether the operation ran earlier, and not in this call.
    pub const fn is_replay(&self) -> bool {
        self.replay
    }
}

/// What an operation that failed knows of what it did, for
/// [`run_classified`](crate::Idempotency::run_classified).
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "nothing was done, or it is unknown: there is no third")]
pub enum Failure<E> {
    /// Nothing was done: the key is released, and the next request runs.
    NotStarted(E),
    /// The outcome is unknown: the guarantee decides what a retry does.
    Unknown(E),
}

/// Why a run has no result to return.
///
/// What each says about the *effect* of the operation:
///
/// | error | the operation | what to do |
/// |---|---|---|
/// | `NotStarted` | ran and says that it did nothing | retry, same key |
/// | `Unknown` | ran, effect unknown | retry, same key: the guarantee decides |
/// | `Busy` | runs elsewhere now | retry after the time given, same key |
/// | `Mismatch` | did not run for *this* request | a bug of the client: new request, new key |
/// | `Interrupted` | ran once, effect unknown | somebody must find out, then settle the key |
/// | `Retired` | is done; the result is no longer kept | do not retry |
/// | `NotReplayable` | is done; the result was not kept | do not retry; read the result elsewhere |
/// | `LeaseLost` | did not run here, or stopped at a step | retry, same key |
/// | `StepUnsaved` | stopped after a step | retry, same key: the guarantee decides |
/// | `Unrecorded` | is done; the record of it is missing | keep the value that the error carries |
/// | `Store` | did not run here | retry, same key |
/// | `Codec` | is done; the stored result cannot be read | mend the type |
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError<E> {
    /// The operation failed and knows that nothing was done. The key is free again.
    #[error("the operation failed before it did anything")]
    NotStarted(#[source] E),
    /// The operation failed, and what it did is unknown.
    #[error("the operation failed, and it is unknown what it did")]
    Unknown(#[source] E),
    /// The same request is being worked on.
    #[error("the same request is in progress; retry in {retry_after:?}")]
    Busy {
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The key was used for another request.
    #[error("this key was used for another request; use a new key for a new request")]
    Mismatch,
    /// An earlier attempt was interrupted, and running again is not allowed.
    #[error("an earlier attempt was interrupted and may have done its work; settle the key")]
    Interrupted,
    /// The operation is done, and its result is no longer kept.
    #[error("the operation was done long ago, and its result is no longer kept")]
    Retired,
    /// The operation is done, and its result was not kept: too large, or not encodable.
    #[error("the operation is done, and its result was too large to keep")]
    NotReplayable,
    /// The lease ended before the operation was started, or while a step was saved.
    #[error("the lease on the key was lost")]
    LeaseLost,
    /// A step ran, and what it returned could not be saved. The operation was stopped there.
    #[error("a step ran, and its result could not be saved")]
    StepUnsaved(#[source] StepError),
    /// The operation is done, and the store did not take its result.
    #[error("the operation is done, and its result could not be recorded")]
    Unrecorded {
        /// What the operation returned.
        value: Encoded,
        /// Why it was not recorded.
        #[source]
        error: RecordError,
    },
    /// The store, or its configuration, is broken; the operation did not run.
    #[error("the operation was not started")]
    Store(#[source] StoreError),
    /// The operation is done, and its stored result cannot be decoded.
    #[error("the operation is done, and its stored result cannot be read")]
    Codec(#[source] CodecError),
}

impl<E> RunError<E> {
    /// When trying again makes sense, if the error says so.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after } => Some(*retry_after),
            _ => None,
        }
    }
}

/// Why a result could not be recorded.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Another attempt took over after the lease was lost.
    #[error("another attempt owns the key")]
    Lost,
    /// The key was completed with another result.
    #[error("the key has another result already")]
    Conflict,
    /// The record vanished, and the key was not free to record the result anew.
    #[error("the record is gone, and the key is no longer free")]
    Gone,
    /// The store failed for longer than the engine keeps trying.
    #[error("the store failed")]
    Store(#[source] StoreError),
}

/// Why the result of a step could not be saved or reused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The store failed for longer than the lease lasted, or refuses what is to be saved.
    #[error("the store did not save it")]
    Store(#[source] StoreError),
    /// The result cannot be encoded, or a saved one cannot be decoded.
    #[error("the result cannot be encoded or decoded")]
    Codec(#[source] CodecError),
}
