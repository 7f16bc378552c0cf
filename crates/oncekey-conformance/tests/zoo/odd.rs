//! Correct stores that are unusual: the suite must accept them. All are a few lines of storage
//! behind [`CasStore`].

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use oncekey::Key;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    CasStore, CompareAndSwap, Entry, ErrorKind, Record, State, Status, Store, StoreError,
    StoredValue, Subscription, Version, Versioned, Watch,
};
use oncekey_conformance::{Capabilities, Capability, Damage, Fixture};

use crate::base::{lock, pause};
use crate::cage::hurt;
use crate::runner::{self, rejections};

/// What is unusual about a storage.
#[derive(Debug, Clone, Copy)]
struct Quirks {
    /// Half of the writes are reported as unknown, although they took place. A removal is certain: once
    /// repeated it finds nothing, and that is another answer.
    half_of_the_writes_are_unknown: bool,
    /// Whoever loses a swap to another is turned away as `Unavailable`.
    turns_losers_away: bool,
    /// A retired value is kept as its digest.
    shrinks_the_retired: bool,
    /// Entries vanish by themselves when their time has come.
    removes_by_itself: bool,
    /// How often each call waits before and after its work.
    pauses: usize,
    /// What comes on its channel, if it has one.
    channel: Option<Channel>,
    /// How much later the clock shows at every look than at the last.
    tick: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channel {
    /// Nothing, ever.
    Silent,
    /// Every second notification, twice, and to everybody.
    Sloppy,
}

const USUAL: Quirks = Quirks {
    half_of_the_writes_are_unknown: false,
    turns_losers_away: false,
    shrinks_the_retired: false,
    removes_by_itself: false,
    pauses: 0,
    channel: None,
    tick: Duration::ZERO,
};

#[test]
fn a_plain_compare_and_swap_passes() {
    assert_accepted(USUAL);
}

#[test]
fn a_storage_that_is_often_unsure_passes() {
    assert_accepted(Quirks { half_of_the_writes_are_unknown: true, ..USUAL });
}

#[test]
fn a_storage_that_turns_losers_away_passes() {
    assert_accepted(Quirks { turns_losers_away: true, pauses: 1, ..USUAL });
}

#[test]
fn a_storage_that_shrinks_what_is_retired_passes() {
    assert_accepted(Quirks { shrinks_the_retired: true, ..USUAL });
}

#[test]
fn a_storage_that_forgets_by_itself_passes() {
    assert_accepted(Quirks { removes_by_itself: true, ..USUAL });
}

#[test]
fn a_storage_that_waits_all_the_time_passes() {
    assert_accepted(Quirks { pauses: 5, ..USUAL });
}

#[test]
fn a_storage_that_never_notifies_passes() {
    assert_accepted(Quirks { channel: Some(Channel::Silent), ..USUAL });
}

#[test]
fn a_storage_that_notifies_badly_passes() {
    assert_accepted(Quirks { channel: Some(Channel::Sloppy), ..USUAL });
}

#[test]
fn a_clock_that_never_shows_the_same_time_twice_passes() {
    assert_accepted(Quirks { tick: Duration::from_micros(1), ..USUAL });
}

fn assert_accepted(quirks: Quirks) {
    let found = rejections::<OddFixture>(|| QUIRKS.set(quirks));
    assert!(found.is_empty(), "{}", found.join("\n\n"));
}

thread_local! {
    /// The quirks of the fixtures that this thread makes.
    static QUIRKS: Cell<Quirks> = const { Cell::new(USUAL) };
}

/// What is kept for a key.
#[derive(Debug)]
struct Kept {
    version: u64,
    entry: Entry,
    /// Whether it was reported as unknown that it is kept.
    in_the_dark: bool,
}

/// What all handles share.
#[derive(Debug)]
struct Shelf {
    quirks: Quirks,
    clock: Arc<AtomicU64>,
    capacity: Option<usize>,
    entries: Mutex<BTreeMap<Vec<u8>, Kept>>,
    /// Counts writes, and so makes versions that never come back.
    writes: AtomicU64,
    subscribers: Mutex<Vec<UnboundedSender<()>>>,
    notifications: AtomicU64,
}

impl Shelf {
    fn new(quirks: Quirks, clock: Arc<AtomicU64>, capacity: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            quirks,
            clock,
            capacity,
            entries: Mutex::default(),
            writes: AtomicU64::new(0),
            subscribers: Mutex::default(),
            notifications: AtomicU64::new(0),
        })
    }

    fn now(&self) -> Timestamp {
        let tick = self.quirks.tick.as_micros() as u64;
        Timestamp::from_micros(self.clock.fetch_add(tick, Ordering::SeqCst))
    }

    fn notify(&self) {
        let mut subscribers = lock(&self.subscribers);
        subscribers.retain(|subscriber| !subscriber.is_closed());
        if self.quirks.channel != Some(Channel::Sloppy) || subscribers.is_empty() {
            return;
        }
        if self.notifications.fetch_add(1, Ordering::SeqCst) % 2 == 1 {
            subscribers.retain(|subscriber| {
                subscriber.unbounded_send(()).is_ok() && subscriber.unbounded_send(()).is_ok()
            });
        }
    }

    async fn wait(&self) {
        runner::linger();
        for _ in 0..self.quirks.pauses {
            pause().await;
        }
    }

    /// What becomes of an entry as time goes by.
    fn age(&self, entry: &mut Entry, now: Timestamp) {
        if let (true, Ok(mut record)) =
            (self.quirks.shrinks_the_retired, Record::decode(&entry.bytes))
            && record.state(now) == State::Retired
            && let Status::Completed { value, .. } = &mut record.status
            && let Some(bytes) = value.replay()
        {
            *value = StoredValue::new(&bytes, false);
            entry.bytes = record.encode();
        }
    }
}

/// A handle to a shelf.
#[derive(Debug)]
struct Odd(Arc<Shelf>);

#[async_trait]
impl CompareAndSwap for Odd {
    async fn load(&self, key: &[u8]) -> Result<(Option<Versioned>, Timestamp), StoreError> {
        self.0.wait().await;
        let found = {
            let mut entries = lock(&self.0.entries);
            let now = self.0.now();
            if self.0.quirks.removes_by_itself {
                entries.retain(|_, kept| kept.entry.forget_at > now);
            }
            let found = entries.get_mut(key).map(|kept| {
                self.0.age(&mut kept.entry, now);
                Versioned { version: kept.version.into(), bytes: kept.entry.bytes.clone() }
            });
            (found, now)
        };
        self.0.wait().await;
        Ok(found)
    }

    async fn swap(
        &self,
        key: &[u8],
        expected: Option<&Version>,
        new: Option<Entry>,
    ) -> Result<bool, StoreError> {
        self.0.wait().await;
        let count = self.0.writes.fetch_add(1, Ordering::SeqCst);
        let is_unsure = {
            let mut entries = lock(&self.0.entries);
            let found = entries.get(key);
            if found.map(|found| Version::from(found.version)).as_ref() != expected {
                return match self.0.quirks.turns_losers_away {
                    true => Err(StoreError::new(ErrorKind::Unavailable, "swap")),
                    false => Ok(false),
                };
            }
            if found.is_none() && self.0.capacity.is_some_and(|room| entries.len() >= room) {
                return Err(StoreError::new(ErrorKind::Full, "swap"));
            }
            // After one write in the dark comes one that is certain, or a caller might never be.
            let in_the_dark = self.0.quirks.half_of_the_writes_are_unknown
                && found.is_none_or(|found| !found.in_the_dark);
            match new {
                Some(entry) => {
                    let kept = Kept { version: count, entry, in_the_dark };
                    entries.insert(key.to_vec(), kept);
                    in_the_dark
                }
                None => {
                    entries.remove(key);
                    false
                }
            }
        };
        self.0.notify();
        self.0.wait().await;
        if is_unsure {
            return Err(StoreError::new(ErrorKind::OutcomeUnknown, "swap"));
        }
        Ok(true)
    }

    async fn expired(&self, limit: usize) -> Result<Vec<Bytes>, StoreError> {
        self.0.wait().await;
        let now = self.0.now();
        let entries = lock(&self.0.entries);
        let due = entries
            .iter()
            .filter(|(_, kept)| kept.entry.forget_at <= now)
            .map(|(key, _)| Bytes::copy_from_slice(key));
        Ok(due.take(limit).collect())
    }

    fn watch(&self) -> Option<&dyn Watch> {
        self.0.quirks.channel.is_some().then_some(self)
    }
}

#[async_trait]
impl Watch for Odd {
    async fn subscribe(&self, _key: &Key) -> Result<Subscription, StoreError> {
        let (sender, receiver) = unbounded();
        lock(&self.0.subscribers).push(sender);
        Ok(Subscription::new(receiver))
    }
}

/// One shelf, with the quirks of the thread that made it.
#[derive(Debug)]
struct OddFixture(Arc<Shelf>);

#[async_trait]
impl Fixture for OddFixture {
    async fn create() -> Self {
        let clock = Arc::new(AtomicU64::new(1_800_000_000_000_000));
        Self(Shelf::new(QUIRKS.get(), clock, None))
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(CasStore::new(Odd(self.0.clone())))
    }

    async fn advance(&self, duration: Duration) {
        let now = Timestamp::from_micros(self.0.clock.load(Ordering::SeqCst));
        let later = now.saturating_add(duration).as_micros();
        self.0.clock.store(later, Ordering::SeqCst);
    }

    fn capabilities(&self) -> Capabilities {
        let capabilities = Capabilities::injected_time()
            .with(Capability::Damage)
            .with(Capability::Bounded)
            .with(Capability::ClockStep);
        match self.0.quirks.channel {
            Some(Channel::Sloppy) => capabilities.with(Capability::Watch),
            // What never comes is no capability.
            Some(Channel::Silent) | None => capabilities,
        }
    }

    async fn step_back(&self, by: Duration) {
        self.0.clock.fetch_sub(by.as_micros() as u64, Ordering::SeqCst);
    }

    async fn damage(&self, key: &Key, damage: Damage) {
        if let Some(Kept { entry, .. }) = lock(&self.0.entries).get_mut(key.as_bytes()) {
            let mut bytes = entry.bytes.to_vec();
            hurt(&mut bytes, damage);
            entry.bytes = bytes.into();
        }
    }

    async fn open_bounded(&self, keys: usize) -> Arc<dyn Store> {
        let shelf = Shelf::new(self.0.quirks, self.0.clock.clone(), Some(keys));
        Arc::new(CasStore::new(Odd(shelf)))
    }

    fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
        runner::block_on(future)
    }
}
