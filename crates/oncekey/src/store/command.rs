//! What is asked of a store, and what it answers: commands and outcomes as plain data.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::grant::{AttemptId, FencingToken, Grant};
use super::record::Cause;
use crate::Fingerprint;

/// Asks for the right to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a store must heed every field")]
pub struct Claim {
    /// The caller's attempt, minted for this claim.
    pub attempt: AttemptId,
    /// What the request asks for.
    pub fingerprint: Fingerprint,
    /// How long the granted lease lasts. Not zero.
    pub lease: Duration,
    /// How long the key is remembered after the lease, should it end without a result.
    pub hold: Duration,
    /// What to do when an earlier attempt's outcome is unknown.
    pub on_interrupted: OnInterrupted,
    /// What to do when a result was kept and its retention is over.
    pub on_retired: OnRetired,
}

/// What a claim does on a key whose last attempt was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "a store must know all of them")]
pub enum OnInterrupted {
    /// Take over: grant, and say what is known of the interrupted attempt.
    TakeOver,
    /// Refuse with [`ClaimOutcome::Interrupted`].
    Refuse,
}

/// What a claim does on a key whose result was retired and is still remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "a store must know all of them")]
pub enum OnRetired {
    /// Grant as if the key were new, with a higher token.
    Forget,
    /// Refuse with [`ClaimOutcome::Retired`].
    Tell,
}

/// The answer to a [`Claim`].
#[derive(Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "an engine must handle all of them")]
pub enum ClaimOutcome {
    /// The caller owns the key.
    Acquired {
        /// What to name in every later command.
        grant: Grant,
        /// Which attempt in a row this is: 1 for the first.
        number: u32,
        /// What was left of the lease when the claim was decided. The caller counts it from before
        /// it sent the claim.
        lease_left: Duration,
        /// What is known of the interrupted attempt that this one takes over from.
        previous: Option<Previous>,
    },
    /// The operation is done; `None` if its result was not kept.
    Replay(Option<Bytes>),
    /// Somebody else owns the key.
    Busy {
        /// When their lease lapses unless they renew it.
        retry_after: Duration,
    },
    /// The key is known with another fingerprint. Nothing else of it is revealed.
    Mismatch,
    /// The last attempt's outcome is unknown, and the claim asked to refuse then.
    Interrupted,
    /// There was a result, its retention is over, and the claim asked to be told.
    Retired,
    /// The claim's own attempt ended already: a late copy of a claim that was answered long ago.
    Spent,
}

impl fmt::Debug for ClaimOutcome {
    /// Shows no stored content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acquired { grant, number, lease_left, previous } => f
                .debug_struct("Acquired")
                .field("grant", grant)
                .field("number", number)
                .field("lease_left", lease_left)
                .field("previous", previous)
                .finish(),
            Self::Replay(Some(value)) => write!(f, "Replay({} bytes)", value.len()),
            Self::Replay(None) => f.write_str("Replay(not kept)"),
            Self::Busy { retry_after } => {
                f.debug_struct("Busy").field("retry_after", retry_after).finish()
            }
            Self::Mismatch => f.write_str("Mismatch"),
            Self::Interrupted => f.write_str("Interrupted"),
            Self::Retired => f.write_str("Retired"),
            Self::Spent => f.write_str("Spent"),
        }
    }
}

/// What is known of the interrupted attempt that a grant takes over from.
#[derive(Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "part of the claim's answer; stores build it")]
pub struct Previous {
    /// How it ended.
    pub cause: Cause,
    /// Its token.
    pub token: FencingToken,
    /// What it had saved.
    pub progress: Option<Bytes>,
}

impl fmt::Debug for Previous {
    /// Shows no saved content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Previous")
            .field("cause", &self.cause)
            .field("token", &self.token)
            .field("progress_len", &self.progress.as_ref().map(Bytes::len))
            .finish()
    }
}

/// Extends a lease, and may save progress.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a store must heed every field")]
pub struct Renew {
    /// The owner.
    pub grant: Grant,
    /// How long the lease lasts from now. Never shortens what is left. Not zero.
    pub lease: Duration,
    /// What to save, with a sequence number that grows with every save, from 1.
    pub progress: Option<super::record::Progress>,
}

/// Ends an attempt with a result.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a store must heed every field")]
pub struct Complete {
    /// The owner.
    pub grant: Grant,
    /// The result.
    pub completion: Completion,
}

/// A result, and for how long it matters.
#[derive(Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a store must heed every field")]
pub struct Completion {
    /// The bytes that duplicates get.
    pub value: Bytes,
    /// Whether to keep the bytes. If not, only the fact is kept: done, not replayable.
    pub replayable: bool,
    /// For how long the result is replayed.
    pub retention: Duration,
    /// For how long after that the key is remembered.
    pub hold: Duration,
}

impl fmt::Debug for Completion {
    /// Shows the length of the value only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion")
            .field("value_len", &self.value.len())
            .field("replayable", &self.replayable)
            .field("retention", &self.retention)
            .field("hold", &self.hold)
            .finish()
    }
}

/// Ends an attempt without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a store must heed every field")]
pub struct Abandon {
    /// The owner.
    pub grant: Grant,
    /// What the owner knows.
    pub known: Known,
}

/// What an owner that ends without a result knows of what it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "a store must know all of them")]
pub enum Known {
    /// Nothing was done: *release*. The key is free at once and remembered for `hold` from now.
    NotStarted {
        /// How long the released key is remembered.
        hold: Duration,
    },
    /// The outcome is unknown: *give up*. The key is interrupted at once.
    Unknown,
}

/// An operator's verdict on a key that nobody owns.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a store must heed every field")]
pub struct Settle {
    /// Which attempt the verdict is about.
    pub expected: Expected,
    /// The verdict.
    pub settlement: Settlement,
}

/// What an operator found out about an interrupted operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a store must know all of them")]
pub enum Settlement {
    /// It was done, and this is its result.
    Done(Completion),
    /// It was not done; the key is free and remembered for `hold` from now.
    NotDone {
        /// How long the released key is remembered.
        hold: Duration,
    },
}

/// Removes a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a store must heed every field")]
pub struct Evict {
    /// Which attempt must be the last one. [`Expected::Any`] also removes what cannot be decoded.
    pub expected: Expected,
    /// Whether to remove it from under a live owner too, who may then be running beside the next.
    pub force: bool,
}

/// Which attempt a command of an operator is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "a store must know all of them")]
pub enum Expected {
    /// The one with this id.
    Attempt(AttemptId),
    /// The one with this token.
    Token(FencingToken),
    /// Whichever is there.
    Any,
}

/// The answer to every command that names an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "an engine must handle all of them")]
#[must_use = "a fenced command that was not applied must not be taken for done"]
pub enum Fenced {
    /// The command is in force, by this call or by an earlier copy of it.
    Applied,
    /// The key was granted anew since, to another attempt or under another token, or this attempt ended;
    /// nothing changed.
    Lost,
    /// Nothing is known of the key; nothing changed.
    Gone,
    /// The key was completed with other bytes; nothing changed.
    Conflict,
    /// A live owner is in the way; nothing changed.
    Busy,
}

/// What [`Store::purge`](super::Store::purge) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::exhaustive_structs, reason = "what `purge` returns by contract; stores build it")]
pub struct Purged {
    /// How many records were removed.
    pub removed: usize,
    /// Whether there may be more to remove now.
    pub more: bool,
}
