//! A map in memory with an atomic compare-and-swap, and habits that a storage may have.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use oncekey::Key;
use oncekey::runtime::{Clock, Timestamp};
use oncekey::store::{
    CompareAndSwap, Entry, ErrorKind, StoreError, Subscription, Version, Versioned, Watch,
};

/// A handle to the map.
#[derive(Debug, Clone)]
pub(crate) struct Map {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) habits: Habits,
    shared: Arc<Shared>,
}

/// What is allowed to a storage, and what it need not do.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Habits {
    /// Its futures pend at every step; otherwise they are ready at once.
    pub(crate) pends: bool,
    /// It removes an entry by itself when its time to forget has come.
    pub(crate) forgets: bool,
    /// It has room for this many keys.
    pub(crate) room: Option<usize>,
    /// The most bytes of an entry.
    pub(crate) largest: Option<usize>,
}

#[derive(Debug, Default)]
struct Shared {
    entries: Mutex<HashMap<Vec<u8>, (u64, Entry)>>,
    versions: AtomicU64,
    waiters: Mutex<Vec<(Vec<u8>, UnboundedSender<()>)>>,
}

impl Map {
    pub(crate) fn new(clock: Arc<dyn Clock>, habits: Habits) -> Self {
        Self { clock, habits, shared: Arc::default() }
    }

    /// Changes the bytes of an entry, as no `swap` would.
    pub(crate) fn damage(&self, key: &Key, damage: impl FnOnce(&mut Vec<u8>)) {
        if let Some((version, entry)) = self.entries().get_mut(key.as_bytes()) {
            let mut bytes = entry.bytes.to_vec();
            damage(&mut bytes);
            entry.bytes = bytes.into();
            *version = self.shared.versions.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Vec<u8>, (u64, Entry)>> {
        let mut entries = lock(&self.shared.entries);
        if self.habits.forgets {
            let now = self.clock.now();
            entries.retain(|_, (_, entry)| now < entry.forget_at);
        }
        entries
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
            Some(_) if current.is_none() && self.habits.room == Some(entries.len()) => {
                return Err(StoreError::new(ErrorKind::Full, "swap"));
            }
            Some(entry) if self.habits.largest.is_some_and(|most| most < entry.bytes.len()) => {
                return Err(StoreError::new(ErrorKind::TooLarge, "swap"));
            }
            Some(entry) => {
                let version = self.shared.versions.fetch_add(1, Ordering::SeqCst);
                entries.insert(key.to_vec(), (version, entry));
            }
            None => drop(entries.remove(key)),
        }
        lock(&self.shared.waiters)
            .retain(|(of, waiter)| of != key || waiter.unbounded_send(()).is_ok());
        Ok(true)
    }

    async fn pend(&self) {
        let mut ready = !self.habits.pends;
        std::future::poll_fn(|context| {
            if ready {
                return Poll::Ready(());
            }
            ready = true;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

#[async_trait]
impl CompareAndSwap for Map {
    async fn load(&self, key: &[u8]) -> Result<(Option<Versioned>, Timestamp), StoreError> {
        self.pend().await;
        let found = self.entries().get(key).map(|(version, entry)| Versioned {
            version: Version::from(*version),
            bytes: entry.bytes.clone(),
        });
        Ok((found, self.clock.now()))
    }

    async fn swap(
        &self,
        key: &[u8],
        expected: Option<&Version>,
        new: Option<Entry>,
    ) -> Result<bool, StoreError> {
        self.pend().await;
        let swapped = self.swap_now(key, expected, new)?;
        // The answer is under way; its caller may be gone before it comes.
        self.pend().await;
        Ok(swapped)
    }

    async fn expired(&self, limit: usize) -> Result<Vec<Bytes>, StoreError> {
        self.pend().await;
        let (entries, now) = (self.entries(), self.clock.now());
        let over = entries.iter().filter(|(_, (_, entry))| entry.forget_at <= now);
        Ok(over.take(limit).map(|(key, _)| key.clone().into()).collect())
    }

    fn watch(&self) -> Option<&dyn Watch> {
        Some(self)
    }
}

#[async_trait]
impl Watch for Map {
    async fn subscribe(&self, key: &Key) -> Result<Subscription, StoreError> {
        self.pend().await;
        let (waiter, notifications) = unbounded();
        lock(&self.shared.waiters).push((key.as_bytes().to_vec(), waiter));
        Ok(Subscription::new(notifications))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
