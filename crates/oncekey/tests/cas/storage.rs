//! A map with versions whose next operations fail as a test says.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    CompareAndSwap, Entry, ErrorKind, Record, StoreError, Subscription, Version, Versioned, Watch,
};
use oncekey::{Key, Scope};

pub(crate) const NOON: u64 = 1_800_000_000_000_000;

/// What the next swap does instead of its work.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Swap {
    /// It is done, and the answer gets lost.
    DoneInTheDark,
    /// It is not done, and nobody knows.
    NotDoneInTheDark,
    /// It is still on its way, and done before whatever is swapped next.
    DoneLater,
    /// Somebody else was faster.
    Beaten,
    /// Somebody else was faster, with the entry that was set aside, and nobody knows.
    BeatenInTheDark,
    Fails(ErrorKind),
}

#[derive(Default)]
pub(crate) struct Storage {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<Bytes, (u64, Entry)>,
    last_version: u64,
    now: u64,
    swaps: VecDeque<Swap>,
    every_swap: Option<Swap>,
    loads: VecDeque<Option<ErrorKind>>,
    loaded: usize,
    set_aside: Option<Entry>,
    /// What somebody else puts in place before the load with this number.
    put_at_load: Option<(usize, Bytes, Option<Entry>)>,
    under_way: Option<(Bytes, Option<u64>, Option<Entry>)>,
}

impl State {
    fn swap(&mut self, key: &Bytes, expected: Option<u64>, new: Option<Entry>) -> bool {
        if self.entries.get(key).map(|(version, _)| *version) != expected {
            return false;
        }
        self.last_version += 1;
        match new {
            Some(entry) => self.entries.insert(key.clone(), (self.last_version, entry)),
            None => self.entries.remove(key),
        };
        true
    }
}

impl Storage {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the clock on, by microseconds.
    pub(crate) fn pass(&self, micros: u64) {
        self.state().now += micros;
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_micros(NOON + self.state().now)
    }

    pub(crate) fn next_swaps(&self, swaps: impl IntoIterator<Item = Swap>) {
        self.state().swaps.extend(swaps);
    }

    pub(crate) fn every_swap(&self, swap: Swap) {
        self.state().every_swap = Some(swap);
    }

    /// The kinds of error of the next loads; `None` for one that succeeds.
    pub(crate) fn next_loads(&self, loads: impl IntoIterator<Item = Option<ErrorKind>>) {
        self.state().loads.extend(loads);
    }

    pub(crate) fn loaded(&self) -> usize {
        self.state().loaded
    }

    pub(crate) fn put(&self, key: &Key, bytes: impl Into<Bytes>, forget_at: Timestamp) {
        let mut state = self.state();
        state.last_version += 1;
        let entry = Entry { bytes: bytes.into(), forget_at };
        let version = state.last_version;
        state.entries.insert(Bytes::copy_from_slice(key.as_bytes()), (version, entry));
    }

    /// Takes the entry away, for [`Swap::BeatenInTheDark`].
    pub(crate) fn set_aside(&self, key: &Key) {
        let mut state = self.state();
        state.set_aside = state.entries.remove(key.as_bytes()).map(|(_, entry)| entry);
    }

    /// Has somebody else replace the entry by `entry` right before the `load`th load from now.
    pub(crate) fn put_at_load(&self, load: usize, key: &Key, entry: Entry) {
        let mut state = self.state();
        let at = state.loaded + load;
        state.put_at_load = Some((at, Bytes::copy_from_slice(key.as_bytes()), Some(entry)));
    }

    /// Has somebody else remove the entry right before the `load`th load from now.
    pub(crate) fn remove_at_load(&self, load: usize, key: &Key) {
        let mut state = self.state();
        let at = state.loaded + load;
        state.put_at_load = Some((at, Bytes::copy_from_slice(key.as_bytes()), None));
    }

    pub(crate) fn entry(&self, key: &Key) -> Option<Entry> {
        self.state().entries.get(key.as_bytes()).map(|(_, entry)| entry.clone())
    }

    pub(crate) fn record(&self, key: &Key) -> Option<Record> {
        self.entry(key).and_then(|entry| Record::decode(&entry.bytes).ok())
    }
}

#[async_trait]
impl CompareAndSwap for Storage {
    async fn load(&self, key: &[u8]) -> Result<(Option<Versioned>, Timestamp), StoreError> {
        let mut state = self.state();
        state.loaded += 1;
        let loaded = state.loaded;
        if let Some((_, key, entry)) = state.put_at_load.take_if(|(at, ..)| *at == loaded) {
            state.last_version += 1;
            let version = state.last_version;
            match entry {
                Some(entry) => state.entries.insert(key, (version, entry)),
                None => state.entries.remove(&key),
            };
        }
        if let Some(Some(kind)) = state.loads.pop_front() {
            return Err(StoreError::new(kind, "load"));
        }
        let found = state.entries.get(key).map(|(version, entry)| Versioned {
            version: Version::from(*version),
            bytes: entry.bytes.clone(),
        });
        Ok((found, Timestamp::from_micros(NOON + state.now)))
    }

    async fn swap(
        &self,
        key: &[u8],
        expected: Option<&Version>,
        new: Option<Entry>,
    ) -> Result<bool, StoreError> {
        let mut state = self.state();
        let key = Bytes::copy_from_slice(key);
        let expected = expected.map(|version| {
            version.as_bytes().iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
        });
        if let Some((key, expected, new)) = state.under_way.take() {
            state.swap(&key, expected, new);
        }
        let unknown = Err(StoreError::new(ErrorKind::OutcomeUnknown, "swap"));
        match state.swaps.pop_front().or(state.every_swap) {
            None => Ok(state.swap(&key, expected, new)),
            Some(Swap::DoneInTheDark) => {
                state.swap(&key, expected, new);
                unknown
            }
            Some(Swap::NotDoneInTheDark) => unknown,
            Some(Swap::DoneLater) => {
                state.under_way = Some((key, expected, new));
                unknown
            }
            Some(Swap::Beaten) => Ok(false),
            Some(Swap::BeatenInTheDark) => {
                let rival = state.set_aside.take();
                state.swap(&key, expected, rival);
                unknown
            }
            Some(Swap::Fails(kind)) => Err(StoreError::new(kind, "swap")),
        }
    }

    async fn expired(&self, limit: usize) -> Result<Vec<Bytes>, StoreError> {
        let state = self.state();
        let now = Timestamp::from_micros(NOON + state.now);
        let mut keys: Vec<_> = (state.entries.iter())
            .filter(|(_, (_, entry))| entry.forget_at <= now)
            .map(|(key, _)| key.clone())
            .collect();
        keys.sort();
        keys.truncate(limit);
        Ok(keys)
    }

    fn watch(&self) -> Option<&dyn Watch> {
        Some(self)
    }
}

#[async_trait]
impl Watch for Storage {
    async fn subscribe(&self, _key: &Key) -> Result<Subscription, StoreError> {
        Ok(Subscription::new(stream::iter([()])))
    }
}

pub(crate) fn key(id: &str) -> Key {
    Key::new(&Scope::new("tenant", "operation").unwrap(), id).unwrap()
}
