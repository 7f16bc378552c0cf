//! What a run returns: [`Outcome`], or one of the reasons in [`RunError`].

use std::fmt;
use std::time::Duration;

use super::value::{CodecError, Encoded};
use crate::store::StoreError;

/// The answer to a request: from this very run, or replayed from an earlier one.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome<T> {
    value: T,
    replay: bool,
}

impl<T> fmt::Debug for Outcome<T> {
    /// Shows no value: what an operation returned is not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcome").field("replay", &self.replay).finish_non_exhaustive()
    }
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

    /// The same with a value made of this one.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Outcome<U> {
        Outcome { value: change(self.value), replay: self.replay }
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
    /// Nothing was done: the key is released, and the next request runs. Not if a step ran, or if this
    /// attempt took over from one of which nobody has found out what it did: that counts as unknown.
    NotStarted(E),
    /// The outcome is unknown: the guarantee decides what a retry does.
    Unknown(E),
}

/// So that `?` works in an operation: an error that says nothing else may have done anything.
impl<E> From<E> for Failure<E> {
    fn from(error: E) -> Self {
        Self::Unknown(error)
    }
}

/// Why a run has no result to return.
///
/// What each says about the *effect* of the operation:
///
/// | error | the operation | what to do |
/// |---|---|---|
/// | `NotStarted` | ran and did nothing | retry, same key (see there) |
/// | `Unknown` | ran, effect unknown | retry, same key: the guarantee decides |
/// | `Busy` | runs elsewhere now | retry after the time given, same key |
/// | `Mismatch` | did not run for *this* request | a bug of the client: new request, new key |
/// | `Interrupted` | ran once, effect unknown | find out, then settle; verified: retry asks again |
/// | `Retired` | is done; the result is no longer kept | do not retry |
/// | `NotReplayable` | is done; the result was not kept | do not retry; read the result elsewhere |
/// | `LeaseLost` | did not run here, or stopped at a step | retry, same key |
/// | `StepUnsaved` | stopped after a step | retry, same key: the guarantee decides |
/// | `StepUnreadable` | stopped before a step that had run | mend the type, or settle the key |
/// | `Unrecorded` | is done; the record of it is missing | keep the value that the error carries |
/// | `InDoubt` | ran in a transaction that may have committed | retry, same key (see there) |
/// | `Store` | did not run here, or was rolled back | retry, same key |
/// | `Codec` | is done; the stored result cannot be read | mend the type |
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError<E> {
    /// The operation failed and says that nothing was done, and nothing contradicts it. The key is free
    /// again; if the store was away for longer than 5 seconds, it counts as interrupted when the lease
    /// lapses.
    ///
    /// After a step that ran, or after an earlier attempt of which nobody has found out what it did, it is
    /// [`Unknown`](Self::Unknown), and the key stays interrupted.
    #[error("the operation failed before it did anything")]
    NotStarted(#[source] E),
    /// The operation failed, and what it did is unknown; or it did nothing, and what a step or an earlier
    /// attempt did is unknown.
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
    #[error("the operation is done, and its result was not kept: too large, or not encodable")]
    NotReplayable,
    /// The lease ended before the operation was started, or while a step was saved.
    #[error("the lease on the key was lost")]
    LeaseLost,
    /// A step ran, and what it returned could not be saved. The operation was stopped there.
    #[error("a step ran, and its result could not be saved")]
    StepUnsaved(#[source] StepError),
    /// What an earlier attempt saved of a step is not of the type asked for. The operation was stopped
    /// before that step; every retry will be, until the type is mended or the key settled.
    #[error("the saved result of a step cannot be read")]
    StepUnreadable(#[source] CodecError),
    /// The operation is done, and the store did not take its result.
    #[error("the operation is done, and its result could not be recorded")]
    Unrecorded {
        /// What the operation returned; `None` if that could not be encoded.
        value: Option<Encoded>,
        /// Why it was not recorded.
        #[source]
        error: RecordError,
    },
    /// The operation ran in a [transaction](crate::transaction), and it is unknown whether that committed. A
    /// retry with the same key tells: it replays, or runs if nothing was committed. That is not so if the
    /// source says that the operation ended the transaction itself: what it wrote may be there without a
    /// result, so look before a retry.
    #[error(
        "it is unknown whether the transaction of the operation committed; run again with the same key, \
         unless the operation ended the transaction itself"
    )]
    InDoubt(#[source] StoreError),
    /// The store, or its configuration, is broken; the operation did not run, or its
    /// [transaction](crate::transaction) was rolled back.
    #[error("the store failed, and the operation did not run or was rolled back")]
    Store(#[source] StoreError),
    /// The operation is done, and its stored result, or the one that a hook found, cannot be decoded.
    #[error("the operation is done, and its stored result cannot be read")]
    Codec(#[source] CodecError),
}

/// What a [`RunError`] says about the effect of the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "not done, done, or unknown: there is no fourth")]
pub enum Effect {
    /// This call did nothing, and knows of nothing done under this key.
    NotDone,
    /// The operation is done.
    Done,
    /// The operation may have been done, in this call or an earlier one, or is being done.
    Unknown,
}

impl<E> RunError<E> {
    /// What is known about the effect of the operation.
    pub const fn effect(&self) -> Effect {
        match self {
            Self::NotStarted(_) | Self::Mismatch => Effect::NotDone,
            Self::Retired | Self::NotReplayable | Self::Unrecorded { .. } | Self::Codec(_) => {
                Effect::Done
            }
            Self::Unknown(_)
            | Self::Busy { .. }
            | Self::Interrupted
            | Self::LeaseLost
            | Self::StepUnsaved(_)
            | Self::StepUnreadable(_)
            | Self::InDoubt(_)
            | Self::Store(_) => Effect::Unknown,
        }
    }

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
