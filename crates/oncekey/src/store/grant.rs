//! Who holds a key: [`AttemptId`], [`FencingToken`], and both as a [`Grant`].

use std::fmt;

/// 128 random bits that a caller mints before it claims: what makes every verb safe to send twice.
///
/// One id per attempt: the same for each resend of a claim and for each poll of one waiter, never
/// used again once the claim was answered with a grant, never persisted by the caller.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId([u8; 16]);

impl AttemptId {
    /// The id with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes of the id.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AttemptId({:032x})", u128::from_be_bytes(self.0))
    }
}

/// A number that grows with every grant of one key, for the outside world to refuse older owners by.
///
/// Pass it along with every write to another system; a system that remembers the highest token it
/// has seen for a key can refuse a late write of an owner that was replaced. It increases strictly
/// while the record is remembered; across a purge, an eviction or the loss of the record it increases
/// once the store's clock has passed the last token (tokens are microseconds since 1970, or one more
/// than the token before). It is below 2^53, exact in Lua and JSON.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FencingToken(u64);

impl FencingToken {
    /// The highest token.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// The token with this number, at most [`MAX`](Self::MAX).
    #[must_use]
    pub const fn new(number: u64) -> Self {
        if number > Self::MAX.0 { Self::MAX } else { Self(number) }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FencingToken({})", self.0)
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The right to run, as an owner names it in every later command.
///
/// Stores compare both. The attempt id alone does not do: a delayed copy of a claim may be granted again,
/// to nobody, and other delayed copies of that attempt must not act under the new grant. The same grant
/// is sent with every copy of a command, so each stays safe to repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_structs, reason = "a pair by definition; stores build and match it")]
pub struct Grant {
    /// The token of this grant.
    pub token: FencingToken,
    /// The attempt that holds it.
    pub attempt: AttemptId,
}
