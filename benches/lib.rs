//! The raw limits that the benches compare with.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

const SHARDS: usize = 64;

/// What the fastest imaginable store would keep of a key.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BareRecord {
    /// What the request asked for.
    pub fingerprint: [u8; 32],
    /// A counter.
    pub token: u64,
    /// A deadline.
    pub deadline: u64,
    /// The result, once there is one.
    pub value: Option<Bytes>,
}

/// A sharded map and nothing else: no rules, no expiry, no bound, no waiting.
#[derive(Debug)]
pub struct BareMap {
    hasher: RandomState,
    shards: Vec<Mutex<HashMap<Box<[u8]>, BareRecord>>>,
}

impl Default for BareMap {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            hasher: RandomState::new(),
            shards,
        }
    }
}

impl BareMap {
    /// Inserts a record without a value.
    pub fn insert(&self, key: &[u8], fingerprint: [u8; 32]) {
        let record = BareRecord {
            fingerprint,
            token: 1,
            deadline: 2,
            value: None,
        };
        self.shard(key).insert(key.into(), record);
    }

    /// Gives the record of `key` its value.
    pub fn update(&self, key: &[u8], value: Bytes) {
        if let Some(record) = self.shard(key).get_mut(key) {
            record.value = Some(value);
        }
    }

    /// The value of `key`.
    #[must_use]
    pub fn lookup(&self, key: &[u8]) -> Option<Bytes> {
        self.shard(key).get(key)?.value.clone()
    }

    fn shard(&self, key: &[u8]) -> MutexGuard<'_, HashMap<Box<[u8]>, BareRecord>> {
        let index = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
