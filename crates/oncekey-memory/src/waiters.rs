//! Waking whoever waits for a key: the subscriptions of a shard.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures::Stream;
use futures::task::AtomicWaker;
use oncekey::Key;

use crate::id::KeyHash;
use crate::shared::Shared;

/// Who is to be told when an attempt on a key ends.
///
/// Kept by hash: keys with equal hashes share notifications, which may come for nothing. An entry is
/// there as long as its subscription, whether or not its key ever changes.
#[derive(Default)]
pub(crate) struct Waiters {
    signals: BTreeMap<(KeyHash, u64), Arc<Signal>>,
    last_number: u64,
}

impl Waiters {
    fn add(&mut self, hash: KeyHash, signal: Arc<Signal>) -> u64 {
        self.last_number += 1;
        self.signals.insert((hash, self.last_number), signal);
        self.last_number
    }

    fn remove(&mut self, hash: KeyHash, number: u64) -> Option<Arc<Signal>> {
        self.signals.remove(&(hash, number))
    }

    /// Adds the signals of `hash` to `signals`, to be fired once the lock is released.
    pub(crate) fn collect(&self, hash: KeyHash, signals: &mut Vec<Arc<Signal>>) {
        if !self.signals.is_empty() {
            let of_hash = self.signals.range((hash, 0)..=(hash, u64::MAX));
            signals.extend(of_hash.map(|(_, signal)| signal.clone()));
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.signals.len()
    }
}

/// Remembers that something happened, and wakes who waits for it.
#[derive(Default)]
pub(crate) struct Signal {
    fired: AtomicBool,
    waker: AtomicWaker,
}

impl Signal {
    /// Runs a waker: never under a lock.
    pub(crate) fn fire(&self) {
        self.fired.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn take(&self) -> bool {
        self.fired.swap(false, Ordering::AcqRel)
    }
}

/// The notifications of one subscription. Never ends.
pub(crate) struct Notifications {
    shared: Arc<Shared>,
    hash: KeyHash,
    number: u64,
    signal: Arc<Signal>,
}

impl Notifications {
    pub(crate) fn new(shared: Arc<Shared>, key: &Key) -> Self {
        let hash = shared.hash(key);
        let signal = Arc::<Signal>::default();
        let number = shared.lock(hash).waiters.add(hash, signal.clone());
        Self {
            shared,
            hash,
            number,
            signal,
        }
    }
}

impl Stream for Notifications {
    type Item = ();

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<()>> {
        if self.signal.take() {
            return Poll::Ready(Some(()));
        }
        self.signal.waker.register(context.waker());
        // It may have fired between the first look and the registration.
        if self.signal.take() {
            return Poll::Ready(Some(()));
        }
        Poll::Pending
    }
}

impl Drop for Notifications {
    fn drop(&mut self) {
        let mut shard = self.shared.lock(self.hash);
        let signal = shard.waiters.remove(self.hash, self.number);
        // Dropping a waker may run anything: not under the lock.
        drop(shard);
        drop(signal);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use oncekey::{Key, Scope};

    use super::*;
    use crate::builder::MemoryStoreBuilder;
    use crate::id::SHARDS;

    fn waiting(shared: &Shared) -> usize {
        (0..SHARDS)
            .map(|shard| shared.lock_shard(shard).waiters.len())
            .sum()
    }

    #[test]
    fn a_dropped_subscription_leaves_nothing_behind() {
        let shared = Arc::new(Shared::new(MemoryStoreBuilder::new()));
        let scope = Scope::new("tenant", "operation").unwrap();
        let mut kept = Vec::new();
        for number in 0..1_000_u32 {
            // Ten waiters a key, on keys that never change.
            let key = Key::new(&scope, (number / 10).to_be_bytes()).unwrap();
            let notifications = Notifications::new(shared.clone(), &key);
            if number % 2 == 0 {
                kept.push(notifications);
            }
        }
        assert_eq!(waiting(&shared), 500);
        drop(kept);
        assert_eq!(waiting(&shared), 0);
        assert_eq!(Arc::strong_count(&shared), 1);
    }
}
