//! What a store keeps for a key: [`Record`], and the [`State`] it is in at a point in time.

use std::fmt;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::grant::{AttemptId, FencingToken, Grant};
use crate::Fingerprint;
use crate::runtime::Timestamp;

/// What a store keeps for a key.
///
/// A record is a plain value. Only [`transition`](super::transition) makes new ones; a store keeps
/// them, whole and unchanged, in whatever form suits it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "a store must keep every field: a new one has to be seen by every store author"
)]
pub struct Record {
    /// What the request asked for. Survives release, takeover and interruption.
    pub fingerprint: Fingerprint,
    /// The attempt that was granted last.
    pub attempt: AttemptId,
    /// The token of that grant.
    pub token: FencingToken,
    /// How many grants this key has had in a row without a result: 1 for the first.
    pub number: u32,
    /// Whom the last grant took over from, if it was a takeover.
    pub previous: Option<Replaced>,
    /// What was saved by steps. Boxed, since most records have none and all of them cost memory.
    pub progress: Option<Box<Progress>>,
    /// What became of the last attempt.
    pub status: Status,
    /// When the record may be purged, once nobody owns it and no result is retained.
    pub forget_at: Timestamp,
}

/// What became of the attempt that was granted last.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "the lifecycle is closed; stores must know all of it")]
pub enum Status {
    /// It was granted a lease and has not ended it.
    InProgress {
        /// When the lease lapses.
        deadline: Timestamp,
    },
    /// Its owner ended it and does not know what it did.
    GaveUp,
    /// Its owner ended it and did nothing.
    Released,
    /// It has a result.
    Completed {
        /// The result.
        value: StoredValue,
        /// Until when the result is replayed.
        retained_until: Timestamp,
    },
}

/// A result, as a record keeps it.
#[derive(Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "the stored format is closed; stores must know all")]
pub enum StoredValue {
    /// The very bytes that were completed with; replayed to duplicates.
    Replayable(Bytes),
    /// The SHA-256 of the bytes: the operation is done, and its result is not kept. A store may
    /// also shrink a retired result to this.
    Digest([u8; 32]),
}

impl StoredValue {
    /// What to keep of `value`.
    #[must_use]
    pub fn new(value: &Bytes, replayable: bool) -> Self {
        if replayable {
            Self::Replayable(value.clone())
        } else {
            Self::Digest(Sha256::digest(value).into())
        }
    }

    /// Whether this is what was kept of exactly these bytes.
    #[must_use]
    pub fn is_of(&self, value: &[u8]) -> bool {
        match self {
            Self::Replayable(kept) => kept == value,
            Self::Digest(digest) => *digest == <[u8; 32]>::from(Sha256::digest(value)),
        }
    }

    /// The bytes to replay, unless only their digest is kept.
    #[must_use]
    pub fn replay(&self) -> Option<Bytes> {
        match self {
            Self::Replayable(value) => Some(value.clone()),
            Self::Digest(_) => None,
        }
    }
}

impl fmt::Debug for StoredValue {
    /// Shows the length only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replayable(value) => write!(f, "Replayable({} bytes)", value.len()),
            Self::Digest(_) => f.write_str("Digest(..)"),
        }
    }
}

/// Progress that an attempt saved, so that a takeover need not start over.
#[derive(Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the stored format is closed; stores keep all of it")]
pub struct Progress {
    /// Grows with every save of one attempt; 0 for what a takeover inherited.
    pub sequence: u64,
    /// What was saved.
    pub data: Bytes,
}

impl fmt::Debug for Progress {
    /// Shows the length of the data only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Progress {{ sequence: {}, {} bytes }}", self.sequence, self.data.len())
    }
}

/// The interrupted attempt that the last grant took over from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the stored format is closed; stores keep all of it")]
pub struct Replaced {
    /// How it ended.
    pub cause: Cause,
    /// Its token.
    pub token: FencingToken,
}

/// How an attempt with an unknown outcome ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "the lifecycle is closed; stores must know all of it")]
pub enum Cause {
    /// Its lease lapsed: the owner crashed, hung, or lost its connection.
    Lapsed,
    /// Its owner said that it does not know what it did.
    GaveUp,
}

/// What a record means at a point in time. *Absent* is the lack of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "the lifecycle is closed; every match must be complete")]
pub enum State {
    /// In progress, and the lease has not lapsed: somebody owns the key.
    Live,
    /// In progress, and the lease has lapsed: the outcome is unknown.
    Lapsed,
    /// The owner gave up: the outcome is unknown.
    GaveUp,
    /// The owner did nothing: the key is free, and remembered.
    Released,
    /// There is a result, and it is replayed.
    Completed,
    /// There was a result, and its retention is over; remembered for the hold.
    Retired,
}

impl State {
    /// Whether the outcome of the last attempt is unknown: somebody may have done something.
    #[must_use]
    pub const fn is_interrupted(self) -> bool {
        matches!(self, Self::Lapsed | Self::GaveUp)
    }
}

impl Record {
    /// The state at `now`. A deadline that equals `now` has passed.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> State {
        match &self.status {
            Status::InProgress { deadline } if now < *deadline => State::Live,
            Status::InProgress { .. } => State::Lapsed,
            Status::GaveUp => State::GaveUp,
            Status::Released => State::Released,
            Status::Completed { retained_until, .. } if now < *retained_until => State::Completed,
            Status::Completed { .. } => State::Retired,
        }
    }

    /// The last grant.
    #[must_use]
    pub const fn grant(&self) -> Grant {
        Grant { token: self.token, attempt: self.attempt }
    }

    /// Whether purging removes the record at `now`: nobody owns it, no result is retained, and the
    /// time to remember it is over.
    #[must_use]
    pub fn is_purgeable(&self, now: Timestamp) -> bool {
        now >= self.forget_at && !matches!(self.state(now), State::Live | State::Completed)
    }
}

/// A record as read from a store, with what only the store can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "what `get` returns by contract; stores build it")]
pub struct Observed {
    /// The record.
    pub record: Record,
    /// Its state at `now`.
    pub state: State,
    /// The time by the store's clock when it was read.
    pub now: Timestamp,
}

impl Observed {
    /// The record as read at `now`.
    #[must_use]
    pub fn new(record: Record, now: Timestamp) -> Self {
        Self { state: record.state(now), record, now }
    }
}
