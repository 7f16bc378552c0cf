//! What a record keeps of a result, and how damage to it is told.

use bytes::Bytes;
use oncekey::store::{Completion, StoredValue};
use sha2::{Digest, Sha256};

use crate::layout::Kind;

/// A result, as it is sent and stored.
pub(crate) struct Content {
    pub(crate) kind: Kind,
    pub(crate) bytes: Bytes,
    pub(crate) check: [u8; 8],
}

impl Content {
    /// What is kept of a result: all of it, or its digest.
    pub(crate) fn of(completion: &Completion) -> Self {
        let (kind, bytes) = match StoredValue::new(&completion.value, completion.replayable) {
            StoredValue::Replayable(value) => (Kind::Completed, value),
            StoredValue::Digest(digest) => (Kind::Digest, Bytes::copy_from_slice(&digest)),
        };
        Self { kind, check: check(&bytes), bytes }
    }
}

/// The first bytes of the SHA-256: tells a damaged content.
pub(crate) fn check(content: &[u8]) -> [u8; 8] {
    let digest = Sha256::digest(content);
    std::array::from_fn(|index| digest[index])
}
