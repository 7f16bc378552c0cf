//! A record as the value of its key, for the scripts to read as well: `record.lua` is the other half.
//!
//! Integers are big-endian. Head: version (1 byte), status (1), flags (1), fingerprint algorithm (1), extra
//! (2), tail (6), number (4), token (8), length of the content (4), check of the content (8), fingerprint
//! (32), attempt (16); with a flag each, the token of the attempt that was replaced (8) and the number of
//! the progress (8); the sum of all that (4). Then the content: the result, its digest, or the progress.
//!
//! Times are relative to the key's expiry, in milliseconds: a record is forgotten `extra` before it, and
//! its lease or retention ends `tail` before it. So `SET .. PX` writes a record by the server's clock
//! although the client does not know the time. The token of such a record is an estimate: until it is
//! renewed, its check is the time that it is remembered for, which tells when it was written.

use bytes::{BufMut, Bytes, BytesMut};
use oncekey::Fingerprint;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    AttemptId, Cause, Claim, FencingToken, Grant, Progress, Record, Replaced, Status, StoredValue,
};

use crate::content::Content;
use crate::time::{Millis, millis};

const VERSION: u8 = 1;
/// Where the sum is, if no flag adds a field.
const FIXED_LEN: usize = 84;
const SUM_LEN: usize = 4;
/// What a record without content has at most.
pub(crate) const LONGEST_HEAD: usize = FIXED_LEN + 16 + SUM_LEN;

mod flag {
    pub(super) const LAPSED: u8 = 1;
    pub(super) const GAVE_UP: u8 = 2;
    pub(super) const PROGRESS: u8 = 4;
    pub(super) const WATCHED: u8 = 8;
}

/// What became of the last attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    InProgress = 1,
    GaveUp = 2,
    Released = 3,
    Completed = 4,
    Digest = 5,
    /// Nothing is left but the last token.
    Forgotten = 6,
}

/// A record, with times as they are stored.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) kind: Kind,
    flags: u8,
    extra: u16,
    tail: u64,
    number: u32,
    token: FencingToken,
    attempt: AttemptId,
    fingerprint: Fingerprint,
    previous: Option<Replaced>,
    sequence: u64,
    content: Bytes,
    check: [u8; 8],
}

/// Why a value is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// A newer oncekey wrote it.
    Newer,
    /// It was damaged, or is somebody else's.
    Damaged,
}

impl Stored {
    /// The record of a grant on a new key. Its lease begins when the server writes it.
    pub(crate) fn granted(claim: &Claim, token: FencingToken) -> Self {
        Self {
            kind: Kind::InProgress,
            flags: 0,
            extra: 0,
            tail: millis(claim.hold),
            number: 1,
            token,
            attempt: claim.attempt,
            fingerprint: claim.fingerprint,
            previous: None,
            sequence: 0,
            content: Bytes::new(),
            check: (millis(claim.lease) + millis(claim.hold)).to_be_bytes(),
        }
    }

    /// The record of a result, but for what only the record of the attempt tells.
    pub(crate) fn result(grant: Grant, content: Content, hold: Millis) -> Self {
        Self {
            kind: content.kind,
            flags: 0,
            extra: 0,
            tail: hold,
            number: 0,
            token: grant.token,
            attempt: grant.attempt,
            fingerprint: Fingerprint::from_digest(0, [0; 32]),
            previous: None,
            sequence: 0,
            content: content.bytes,
            check: content.check,
        }
    }

    /// Takes from the record of the attempt, which was made or checked here, what only that tells. Whether it
    /// is of the same grant.
    pub(crate) fn take_over_from(&mut self, last: &[u8]) -> bool {
        let head = || {
            let fingerprint = Fingerprint::from_digest(*last.get(3)?, array(last, 36)?);
            let number = u32::from_be_bytes(array(last, 12)?);
            (token(last, 16)? == self.token).then_some((number, fingerprint))
        };
        let Some((number, fingerprint)) = head() else { return false };
        (self.number, self.fingerprint) = (number, fingerprint);
        true
    }

    pub(crate) fn encode(&self) -> Bytes {
        let fields = usize::from(self.previous.is_some()) + usize::from(self.has_progress());
        // Just as long as it gets: what has room left costs another allocation to share.
        let len = FIXED_LEN + 8 * fields + SUM_LEN + self.content.len();
        let mut out = BytesMut::with_capacity(len);
        out.put_u8(VERSION);
        out.put_u8(self.kind as u8);
        out.put_u8(self.flags);
        out.put_u8(self.fingerprint.algorithm());
        out.put_u16(self.extra);
        out.put_uint(self.tail, 6);
        out.put_u32(self.number);
        out.put_u64(self.token.get());
        // Checked before: no value of the server is longer.
        out.put_u32(u32::try_from(self.content.len()).unwrap_or(u32::MAX));
        out.put_slice(&self.check);
        out.put_slice(self.fingerprint.digest());
        out.put_slice(self.attempt.as_bytes());
        if let Some(previous) = self.previous {
            out.put_u64(previous.token.get());
        }
        if self.has_progress() {
            out.put_u64(self.sequence);
        }
        let sum = sum(&out);
        out.put_u32(sum);
        out.put_slice(&self.content);
        out.freeze()
    }

    pub(crate) fn decode(raw: &Bytes) -> Result<Self, Unreadable> {
        match raw.first() {
            Some(&VERSION) => {}
            Some(_) => return Err(Unreadable::Newer),
            None => return Err(Unreadable::Damaged),
        }
        Self::parse(raw).ok_or(Unreadable::Damaged)
    }

    fn parse(raw: &Bytes) -> Option<Self> {
        let flags = *raw.get(2)?;
        let cause = match flags & (flag::LAPSED | flag::GAVE_UP) {
            0 => None,
            flag::LAPSED => Some(Cause::Lapsed),
            flag::GAVE_UP => Some(Cause::GaveUp),
            _ => return None,
        };
        let mut len = FIXED_LEN;
        let previous = match cause {
            Some(cause) => {
                len += 8;
                Some(Replaced { cause, token: token(raw, FIXED_LEN)? })
            }
            None => None,
        };
        let mut sequence = 0;
        if flags & flag::PROGRESS != 0 {
            sequence = u64::from_be_bytes(array(raw, len)?);
            len += 8;
        }
        if sum(raw.get(..len)?) != u32::from_be_bytes(array(raw, len)?) {
            return None;
        }
        let content = raw.slice(len + SUM_LEN..);
        let check: [u8; 8] = array(raw, 28)?;
        let content_len = u32::from_be_bytes(array(raw, 24)?);
        if usize::try_from(content_len) != Ok(content.len())
            || (!content.is_empty() && crate::content::check(&content) != check)
        {
            return None;
        }
        let [high, low] = array(raw, 6)?;
        let rest: [u8; 4] = array(raw, 8)?;
        Some(Self {
            kind: Kind::of(*raw.get(1)?)?,
            flags,
            extra: u16::from_be_bytes(array(raw, 4)?),
            tail: u64::from(u16::from_be_bytes([high, low])) << 32
                | u64::from(u32::from_be_bytes(rest)),
            number: u32::from_be_bytes(array(raw, 12)?),
            token: token(raw, 16)?,
            attempt: AttemptId::from_bytes(array(raw, 68)?),
            fingerprint: Fingerprint::from_digest(*raw.get(3)?, array(raw, 36)?),
            previous,
            sequence,
            content,
            check,
        })
    }

    /// The record itself. The key is gone after `expiry`, in milliseconds since 1970. `None` if nothing is
    /// left but a token, or nothing that makes sense.
    pub(crate) fn record(&self, expiry: Millis) -> Option<Record> {
        let before = |by: u64| {
            let micros = expiry.saturating_add(1).saturating_sub(by).saturating_mul(1000);
            Timestamp::from_micros(micros)
        };
        let (limit, forget_at) = (before(self.tail), before(self.extra.into()));
        let value = || match self.kind {
            Kind::Completed => Some(StoredValue::Replayable(self.content.clone())),
            _ => Some(StoredValue::Digest(self.content.as_ref().try_into().ok()?)),
        };
        let status = match self.kind {
            Kind::InProgress => Status::InProgress { deadline: limit },
            Kind::GaveUp => Status::GaveUp,
            Kind::Released => Status::Released,
            Kind::Completed | Kind::Digest => {
                Status::Completed { value: value()?, retained_until: limit }
            }
            Kind::Forgotten => return None,
        };
        let progress = self
            .has_progress()
            .then(|| Box::new(Progress { sequence: self.sequence, data: self.content.clone() }));
        Some(Record {
            fingerprint: self.fingerprint,
            attempt: self.attempt,
            token: self.token,
            number: self.number,
            previous: self.previous,
            progress,
            status,
            forget_at,
        })
    }

    /// Whether the key is there for just as long as the record is remembered.
    pub(crate) const fn is_gone_when_forgotten(&self) -> bool {
        self.extra == 0 && !matches!(self.kind, Kind::Forgotten)
    }

    /// Whether the key is there for just as long as the result is replayed.
    pub(crate) const fn is_gone_when_retired(&self) -> bool {
        self.tail == 0 && matches!(self.kind, Kind::Completed | Kind::Digest)
    }

    pub(crate) const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The check of the content.
    pub(crate) const fn check(&self) -> [u8; 8] {
        self.check
    }

    /// The bytes of a result that is kept.
    pub(crate) fn replay(&self) -> Option<Bytes> {
        (self.kind == Kind::Completed).then(|| self.content.clone())
    }

    const fn has_progress(&self) -> bool {
        self.flags & flag::PROGRESS != 0
    }

    /// Whether somebody waits for the key.
    pub(crate) const fn is_watched(&self) -> bool {
        self.flags & flag::WATCHED != 0
    }
}

impl Kind {
    const fn of(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::InProgress,
            2 => Self::GaveUp,
            3 => Self::Released,
            4 => Self::Completed,
            5 => Self::Digest,
            6 => Self::Forgotten,
            _ => return None,
        })
    }
}

fn array<const N: usize>(raw: &[u8], at: usize) -> Option<[u8; N]> {
    raw.get(at..)?.first_chunk().copied()
}

fn token(raw: &[u8], at: usize) -> Option<FencingToken> {
    let number = u64::from_be_bytes(array(raw, at)?);
    (number <= FencingToken::MAX.get()).then(|| FencingToken::new(number))
}

/// Differs if any one word does. Made of numbers that Lua keeps exact.
fn sum(head: &[u8]) -> u32 {
    const PRIME: u64 = 4_294_967_291;
    let (words, _) = head.as_chunks::<4>();
    let sum = words
        .iter()
        .fold(1, |sum, word| (sum * 1_000_003 + u64::from(u32::from_be_bytes(*word))) % PRIME);
    // Below the prime, which is below 2^32.
    u32::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use oncekey::store::{Completion, OnInterrupted, OnRetired};

    use super::*;

    fn in_progress() -> Stored {
        let claim = Claim {
            attempt: AttemptId::from_bytes([7; 16]),
            fingerprint: Fingerprint::of("100 EUR"),
            lease: Duration::from_secs(30),
            hold: Duration::from_secs(60),
            on_interrupted: OnInterrupted::Refuse,
            on_retired: OnRetired::Forget,
        };
        Stored::granted(&claim, FencingToken::new(1_800_000_000_000_000))
    }

    fn completed() -> Stored {
        let completion = Completion {
            value: Bytes::from_static(&[b'v'; 64]),
            replayable: true,
            retention: Duration::from_secs(60),
            hold: Duration::ZERO,
        };
        let content = Content::of(&completion);
        let Stored { token, attempt, .. } = in_progress();
        let mut result = Stored::result(Grant { token, attempt }, content, 0);
        assert!(result.take_over_from(&in_progress().encode()));
        result
    }

    /// Another grant of the same attempt, made anew, is another record.
    #[test]
    fn a_result_takes_over_from_the_record_of_its_grant_alone() {
        let done = completed();
        assert_eq!((done.number, done.fingerprint), (1, in_progress().fingerprint));
        let later = Stored { token: FencingToken::new(1_800_000_000_000_001), ..in_progress() };
        assert!(!completed().take_over_from(&later.encode()));
        assert!(!completed().take_over_from(b""));
    }

    #[test]
    fn a_record_is_what_was_stored() {
        for stored in [in_progress(), completed()] {
            let raw = stored.encode();
            let again = Stored::decode(&raw).unwrap();
            assert_eq!(again.encode(), raw);
            assert_eq!(again.record(1_800_000_000_000), stored.record(1_800_000_000_000));
        }
    }

    #[test]
    fn times_are_before_the_expiry() {
        let record = in_progress().record(1_800_000_000_000 - 1).unwrap();
        assert_eq!(record.forget_at, Timestamp::from_micros(1_800_000_000_000_000));
        let deadline = Timestamp::from_micros(1_799_999_940_000_000);
        assert_eq!(record.status, Status::InProgress { deadline });
    }

    /// Any bit, in the head and in the content.
    #[test]
    fn a_flipped_bit_is_found() {
        for raw in [in_progress().encode(), completed().encode()] {
            for bit in 0..raw.len() * 8 {
                let mut damaged = raw.to_vec();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(Stored::decode(&damaged.into()).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn what_is_cut_off_is_found() {
        let raw = completed().encode();
        for len in 0..raw.len() {
            assert_eq!(Stored::decode(&raw.slice(..len)).err(), Some(Unreadable::Damaged));
        }
    }

    #[test]
    fn a_newer_version_is_told_apart() {
        let mut newer = completed().encode().to_vec();
        newer[0] = 2;
        assert_eq!(Stored::decode(&newer.into()).err(), Some(Unreadable::Newer));
    }

    /// With 24 bytes of an entry, 16 of an object and 4 of a string, the allocator makes it 200.
    #[test]
    fn a_small_result_takes_little_room() {
        assert_eq!(completed().encode().len(), 64 + 88);
    }
}
