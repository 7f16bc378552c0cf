//! The raw limits that the benches compare with.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use oncekey::Fingerprint;
use oncekey::runtime::Timestamp;
use oncekey::store::{AttemptId, FencingToken, Record, Status, StoredValue};

const SHARDS: usize = 64;

/// A sharded map of the very same records, and nothing else: no rules, no expiry, no bound, no waiting.
#[derive(Debug)]
pub struct BareMap {
    shards: Vec<Mutex<HashMap<Box<[u8]>, Record>>>,
}

impl Default for BareMap {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards }
    }
}

impl BareMap {
    /// Inserts a record that is in progress.
    pub fn insert(&self, key: &[u8], fingerprint: Fingerprint) {
        let record = Record {
            fingerprint,
            attempt: AttemptId::from_bytes([7; 16]),
            token: FencingToken::new(1),
            number: 1,
            previous: None,
            progress: None,
            status: Status::InProgress { deadline: Timestamp::MAX },
            forget_at: Timestamp::MAX,
        };
        self.shard(key).insert(key.into(), record);
    }

    /// Completes the record of `key`.
    pub fn update(&self, key: &[u8], value: Bytes) {
        if let Some(record) = self.shard(key).get_mut(key) {
            let value = StoredValue::Replayable(value);
            record.status = Status::Completed { value, retained_until: Timestamp::MAX };
        }
    }

    /// The value of `key`.
    #[must_use]
    pub fn lookup(&self, key: &[u8]) -> Option<Bytes> {
        match &self.shard(key).get(key)?.status {
            Status::Completed { value, .. } => value.replay(),
            _ => None,
        }
    }

    fn shard(&self, key: &[u8]) -> MutexGuard<'_, HashMap<Box<[u8]>, Record>> {
        // The ids of the benches differ at their ends: good enough, and the map hashes only once.
        let index =
            key.iter().rev().take(2).fold(0, |sum, byte| sum * 10 + usize::from(*byte)) % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
