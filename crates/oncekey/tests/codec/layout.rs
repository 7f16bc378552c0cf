//! The layout of version 1, written a second time from its description.

use bytes::{BufMut, Bytes};
use oncekey::store::{Cause, Record, Status, StoredValue};
use sha2::{Digest, Sha256};

pub(crate) fn write(record: &Record) -> Bytes {
    seal(body(record))
}

pub(crate) fn body(record: &Record) -> Vec<u8> {
    let mut out = vec![1];
    out.put_u8(match &record.status {
        Status::InProgress { .. } => 1,
        Status::GaveUp => 2,
        Status::Released => 3,
        Status::Completed { value: StoredValue::Replayable(_), .. } => 4,
        Status::Completed { value: StoredValue::Digest(_), .. } => 5,
    });
    out.put_u8(record.fingerprint.algorithm());
    out.put_slice(record.fingerprint.digest());
    out.put_slice(record.attempt.as_bytes());
    out.put_u64(record.token.get());
    out.put_u32(record.number);
    out.put_u64(record.forget_at.as_micros());
    match &record.status {
        Status::InProgress { deadline } => out.put_u64(deadline.as_micros()),
        Status::GaveUp | Status::Released => {}
        Status::Completed { value, retained_until } => {
            out.put_u64(retained_until.as_micros());
            match value {
                StoredValue::Replayable(value) => sized(&mut out, value),
                StoredValue::Digest(digest) => out.put_slice(digest),
            }
        }
    }
    match record.previous {
        None => out.put_u8(0),
        Some(previous) => {
            out.put_u8(match previous.cause {
                Cause::Lapsed => 1,
                Cause::GaveUp => 2,
            });
            out.put_u64(previous.token.get());
        }
    }
    match &record.progress {
        None => out.put_u8(0),
        Some(progress) => {
            out.put_u8(1);
            out.put_u64(progress.sequence);
            sized(&mut out, &progress.data);
        }
    }
    out
}

fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u64(bytes.len() as u64);
    out.put_slice(bytes);
}

/// The body with its checksum.
pub(crate) fn seal(mut body: Vec<u8>) -> Bytes {
    let digest = Sha256::digest(&body);
    body.extend_from_slice(&digest[..8]);
    body.into()
}
