//! The whole suite on a correct but unusual store: the core's `CasStore` over a map in memory, whose
//! methods pend at every step. This is also what a fixture looks like.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a fixture may panic")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use oncekey::Key;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    CasStore, CompareAndSwap, Entry, ErrorKind, Store, StoreError, Subscription, Version,
    Versioned, Watch,
};
use oncekey_conformance::{Capabilities, Capability, Damage, Fixture};

#[derive(Clone, Default)]
struct Map {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    entries: Mutex<HashMap<Vec<u8>, (u64, Entry)>>,
    versions: AtomicU64,
    room: Option<usize>,
    waiters: Mutex<Vec<(Vec<u8>, UnboundedSender<()>)>>,
    clock: Arc<AtomicU64>,
}

impl Map {
    fn entries(&self) -> MutexGuard<'_, HashMap<Vec<u8>, (u64, Entry)>> {
        self.shared.entries.lock().unwrap()
    }

    fn swap_now(
        &self,
        key: &[u8],
        expected: Option<&Version>,
        new: Option<Entry>,
    ) -> Result<bool, StoreError> {
        let mut entries = self.entries();
        let current = entries.get(key).map(|(version, _)| Version::from(*version));
        if current.as_ref() != expected {
            return Ok(false);
        }
        match new {
            Some(_) if current.is_none() && self.shared.room == Some(entries.len()) => {
                return Err(StoreError::new(ErrorKind::Full, "swap"));
            }
            Some(entry) => {
                let version = self.shared.versions.fetch_add(1, Ordering::SeqCst);
                entries.insert(key.to_vec(), (version, entry));
            }
            None => drop(entries.remove(key)),
        }
        let mut waiters = self.shared.waiters.lock().unwrap();
        waiters.retain(|(of, waiter)| of != key || waiter.unbounded_send(()).is_ok());
        Ok(true)
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.shared.clock.load(Ordering::SeqCst))
    }
}

/// Pends once, as a real storage would.
async fn pend() {
    let mut pended = false;
    std::future::poll_fn(|context| {
        if pended {
            return Poll::Ready(());
        }
        pended = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[async_trait]
impl CompareAndSwap for Map {
    async fn load(&self, key: &[u8]) -> Result<(Option<Versioned>, Timestamp), StoreError> {
        pend().await;
        let found = self.entries().get(key).map(|(version, entry)| Versioned {
            version: Version::from(*version),
            bytes: entry.bytes.clone(),
        });
        Ok((found, self.now()))
    }

    async fn swap(
        &self,
        key: &[u8],
        expected: Option<&Version>,
        new: Option<Entry>,
    ) -> Result<bool, StoreError> {
        pend().await;
        let swapped = self.swap_now(key, expected, new)?;
        // The answer is under way; its caller may be gone before it comes.
        pend().await;
        Ok(swapped)
    }

    async fn expired(&self, limit: usize) -> Result<Vec<Bytes>, StoreError> {
        pend().await;
        let (entries, now) = (self.entries(), self.now());
        let over = entries
            .iter()
            .filter(|(_, (_, entry))| entry.forget_at <= now);
        Ok(over
            .take(limit)
            .map(|(key, _)| key.clone().into())
            .collect())
    }

    fn watch(&self) -> Option<&dyn Watch> {
        Some(self)
    }
}

#[async_trait]
impl Watch for Map {
    async fn subscribe(&self, key: &Key) -> Result<Subscription, StoreError> {
        pend().await;
        let (waiter, notifications) = unbounded();
        let mut waiters = self.shared.waiters.lock().unwrap();
        waiters.push((key.as_bytes().to_vec(), waiter));
        Ok(Subscription::new(notifications))
    }
}

struct InMemory {
    map: Map,
}

#[async_trait]
impl Fixture for InMemory {
    async fn create() -> Self {
        let clock = Arc::new(AtomicU64::new(1_800_000_000_000_000));
        let shared = Arc::new(Shared {
            clock,
            ..Shared::default()
        });
        Self {
            map: Map { shared },
        }
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(CasStore::new(self.map.clone()))
    }

    async fn advance(&self, duration: Duration) {
        let later = self.map.now().saturating_add(duration);
        self.map
            .shared
            .clock
            .store(later.as_micros(), Ordering::SeqCst);
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::injected_time()
            .with(Capability::Restart)
            .with(Capability::Damage)
            .with(Capability::Bounded)
            .with(Capability::Watch)
    }

    async fn damage(&self, key: &Key, damage: Damage) {
        let mut entries = self.map.entries();
        let (version, entry) = entries.get_mut(key.as_bytes()).expect("a stored key");
        let mut bytes = entry.bytes.to_vec();
        match damage {
            Damage::FlipBit => bytes[7] ^= 1,
            Damage::Truncate => bytes.truncate(9),
            Damage::NewerVersion => bytes[0] = 250,
            other => unimplemented!("{other:?}"),
        }
        entry.bytes = bytes.into();
        *version = self.map.shared.versions.fetch_add(1, Ordering::SeqCst);
    }

    async fn open_bounded(&self, keys: usize) -> Arc<dyn Store> {
        let shared = Arc::new(Shared {
            clock: self.map.shared.clock.clone(),
            room: Some(keys),
            ..Shared::default()
        });
        Arc::new(CasStore::new(Map { shared }))
    }
}

oncekey_conformance::suite!(InMemory);
