//! A record as bytes, for stores that keep bytes: versioned, bounded, checksummed.
//!
//! Layout, integers big-endian: format version (1 byte), status tag (1), fingerprint algorithm (1)
//! and digest (32), attempt (16), token (8), number (4), forget-at (8), then what the status needs,
//! then the takeover (tag, token), then the progress (tag, sequence, length, bytes), then the first 8
//! bytes of the SHA-256 of all before. A length is checked against what is there before anything is
//! allocated.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::error::{ErrorKind, StoreError};
use super::grant::{AttemptId, FencingToken};
use super::record::{Cause, Progress, Record, Replaced, Status, StoredValue};
use crate::Fingerprint;
use crate::runtime::Timestamp;

/// The version of the layout that this build writes, and the only one so far.
const VERSION: u8 = 1;
const CHECKSUM_LEN: usize = 8;
/// Everything but the value, the progress and the status' own fields.
const FIXED_LEN: usize = 2 + 33 + 16 + 8 + 4 + 8 + 16 + 32 + CHECKSUM_LEN;
const OPERATION: &str = "decode a record";

mod tag {
    pub(super) const IN_PROGRESS: u8 = 1;
    pub(super) const GAVE_UP: u8 = 2;
    pub(super) const RELEASED: u8 = 3;
    pub(super) const COMPLETED: u8 = 4;
    pub(super) const COMPLETED_DIGEST: u8 = 5;
    pub(super) const NONE: u8 = 0;
    pub(super) const LAPSED: u8 = 1;
    pub(super) const SOME: u8 = 1;
}

impl Record {
    /// The record as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(FIXED_LEN + self.variable_len());
        out.put_u8(VERSION);
        out.put_u8(match &self.status {
            Status::InProgress { .. } => tag::IN_PROGRESS,
            Status::GaveUp => tag::GAVE_UP,
            Status::Released => tag::RELEASED,
            Status::Completed { value: StoredValue::Replayable(_), .. } => tag::COMPLETED,
            Status::Completed { value: StoredValue::Digest(_), .. } => tag::COMPLETED_DIGEST,
        });
        out.put_u8(self.fingerprint.algorithm());
        out.put_slice(self.fingerprint.digest());
        out.put_slice(self.attempt.as_bytes());
        out.put_u64(self.token.get());
        out.put_u32(self.number);
        out.put_u64(self.forget_at.as_micros());
        match &self.status {
            Status::InProgress { deadline } => out.put_u64(deadline.as_micros()),
            Status::GaveUp | Status::Released => {}
            Status::Completed { value, retained_until } => {
                out.put_u64(retained_until.as_micros());
                match value {
                    StoredValue::Replayable(value) => put_bytes(&mut out, value),
                    StoredValue::Digest(digest) => out.put_slice(digest),
                }
            }
        }
        match self.previous {
            None => out.put_u8(tag::NONE),
            Some(Replaced { cause, token }) => {
                out.put_u8(match cause {
                    Cause::Lapsed => tag::LAPSED,
                    Cause::GaveUp => tag::GAVE_UP,
                });
                out.put_u64(token.get());
            }
        }
        match &self.progress {
            None => out.put_u8(tag::NONE),
            Some(progress) => {
                out.put_u8(tag::SOME);
                out.put_u64(progress.sequence);
                put_bytes(&mut out, &progress.data);
            }
        }
        let checksum = checksum(&out);
        out.put_slice(&checksum);
        out.freeze()
    }

    /// The record that [`encode`](Self::encode) made these bytes of.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the bytes are cut off, changed in any bit, or of a version that
    /// this build does not know: then a newer oncekey wrote them, and guessing could run an operation
    /// twice.
    pub fn decode(bytes: &Bytes) -> Result<Self, StoreError> {
        match bytes.first() {
            None => return Err(corrupt("the stored record is empty")),
            Some(&VERSION) => {}
            Some(_) => {
                return Err(corrupt(
                    "the stored record has a format version that this build does not know; \
                     upgrade oncekey here before the service that wrote it",
                ));
            }
        }
        let body_len = bytes.len().saturating_sub(CHECKSUM_LEN);
        let body = bytes.slice(..body_len);
        if bytes[body_len..] != checksum(&body) {
            return Err(corrupt("the stored record does not match its checksum"));
        }
        parse(body).ok_or_else(|| corrupt("the stored record has a field that makes no sense"))
    }

    fn variable_len(&self) -> usize {
        let value = match &self.status {
            Status::Completed { value: StoredValue::Replayable(value), .. } => value.len(),
            _ => 0,
        };
        value + self.progress.as_ref().map_or(0, |progress| progress.data.len())
    }
}

/// The fields of a body whose checksum is right. `None` for what no encoder writes.
fn parse(mut body: Bytes) -> Option<Record> {
    body.try_get_u8().ok()?;
    let status = body.try_get_u8().ok()?;
    let algorithm = body.try_get_u8().ok()?;
    let fingerprint = Fingerprint::from_digest(algorithm, take_array(&mut body)?);
    let attempt = AttemptId::from_bytes(take_array(&mut body)?);
    let token = take_token(&mut body)?;
    let number = body.try_get_u32().ok()?;
    let forget_at = take_timestamp(&mut body)?;
    let status = match status {
        tag::IN_PROGRESS => Status::InProgress { deadline: take_timestamp(&mut body)? },
        tag::GAVE_UP => Status::GaveUp,
        tag::RELEASED => Status::Released,
        tag::COMPLETED | tag::COMPLETED_DIGEST => {
            let retained_until = take_timestamp(&mut body)?;
            let value = if status == tag::COMPLETED {
                StoredValue::Replayable(take_bytes(&mut body)?)
            } else {
                StoredValue::Digest(take_array(&mut body)?)
            };
            Status::Completed { value, retained_until }
        }
        _ => return None,
    };
    let cause = match body.try_get_u8().ok()? {
        tag::NONE => None,
        tag::LAPSED => Some(Cause::Lapsed),
        tag::GAVE_UP => Some(Cause::GaveUp),
        _ => return None,
    };
    let previous = match cause {
        None => None,
        Some(cause) => Some(Replaced { cause, token: take_token(&mut body)? }),
    };
    let progress = match body.try_get_u8().ok()? {
        tag::NONE => None,
        tag::SOME => {
            let sequence = body.try_get_u64().ok()?;
            Some(Box::new(Progress { sequence, data: take_bytes(&mut body)? }))
        }
        _ => return None,
    };
    body.is_empty().then_some(Record {
        fingerprint,
        attempt,
        token,
        number,
        previous,
        progress,
        status,
        forget_at,
    })
}

fn put_bytes(out: &mut BytesMut, bytes: &Bytes) {
    out.put_u64(bytes.len() as u64);
    out.put_slice(bytes);
}

/// The length is compared with what is there, so it cannot make anything large.
fn take_bytes(body: &mut Bytes) -> Option<Bytes> {
    let len = usize::try_from(body.try_get_u64().ok()?).ok()?;
    (len <= body.len()).then(|| body.split_to(len))
}

fn take_array<const N: usize>(body: &mut Bytes) -> Option<[u8; N]> {
    let array = *body.first_chunk::<N>()?;
    body.advance(N);
    Some(array)
}

fn take_timestamp(body: &mut Bytes) -> Option<Timestamp> {
    let micros = body.try_get_u64().ok()?;
    (micros <= Timestamp::MAX.as_micros()).then(|| Timestamp::from_micros(micros))
}

fn take_token(body: &mut Bytes) -> Option<FencingToken> {
    let number = body.try_get_u64().ok()?;
    (number <= FencingToken::MAX.get()).then(|| FencingToken::new(number))
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let digest = Sha256::digest(bytes);
    std::array::from_fn(|index| digest[index])
}

fn corrupt(message: &'static str) -> StoreError {
    StoreError::new(ErrorKind::Corrupt, OPERATION).with_message(message)
}
