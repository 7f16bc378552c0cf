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
        Self { shared, hash, number, signal }
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
    use std::hint::{black_box, spin_loop};
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};
    use std::thread;
    use std::time::{Duration, Instant};

    use oncekey::{Key, Scope};

    use super::*;
    use crate::builder::MemoryStoreBuilder;
    use crate::id::SHARDS;

    fn waiting(shared: &Shared) -> usize {
        (0..SHARDS).map(|shard| shared.lock_shard(shard).waiters.len()).sum()
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

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    /// Polls while another thread fires: either the poll sees it, or the waker is run.
    #[test]
    fn a_signal_that_fires_during_a_poll_is_not_lost() {
        // The machine may have other things to do.
        const ROUNDS: usize = 100_000;
        const LONG_ENOUGH: Duration = Duration::from_secs(1);
        let shared = Arc::new(Shared::new(MemoryStoreBuilder::new()));
        let key = Key::new(&Scope::new("tenant", "operation").unwrap(), "key").unwrap();
        let mut notifications = Notifications::new(shared, &key);
        let (started, fired) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let signal = notifications.signal.clone();
        let (mut seen, mut woke, mut lost) = (0, 0, 0);
        thread::scope(|scope| {
            let (started, fired) = (&started, &fired);
            scope.spawn(move || {
                let mut round = 1;
                while await_round(started, round) != usize::MAX {
                    // Earlier in some rounds than in others.
                    (0..round % 128).for_each(|turn| _ = black_box(turn));
                    signal.fire();
                    fired.store(round, Ordering::SeqCst);
                    round += 1;
                }
            });
            let start = Instant::now();
            for round in 1..=ROUNDS {
                let woken = Arc::<Woken>::default();
                let waker = Waker::from(woken.clone());
                let mut poll = || {
                    let mut context = Context::from_waker(&waker);
                    Pin::new(&mut notifications).poll_next(&mut context)
                };
                started.store(round, Ordering::SeqCst);
                let at_once = poll().is_ready();
                await_round(fired, round);
                if at_once {
                    seen += 1;
                } else if woken.0.load(Ordering::SeqCst) && poll().is_ready() {
                    woke += 1;
                } else {
                    lost += 1;
                    let _ = poll();
                }
                if start.elapsed() > LONG_ENOUGH {
                    break;
                }
            }
            started.store(usize::MAX, Ordering::SeqCst);
        });
        assert_eq!(lost, 0, "{seen} seen at once, {woke} woken");
        assert!(woke > 0);
    }

    fn await_round(counter: &AtomicUsize, round: usize) -> usize {
        let mut spins = 0;
        loop {
            let current = counter.load(Ordering::SeqCst);
            if current >= round {
                return current;
            }
            spins += 1;
            if spins % 1_000 == 0 {
                thread::yield_now();
            }
            spin_loop();
        }
    }
}
