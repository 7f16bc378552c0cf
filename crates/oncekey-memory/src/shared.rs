//! What the clones of a store share: the shards, the bound and the clock.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oncekey::Key;
use oncekey::runtime::{Clock, Timestamp};
use oncekey::store::{Claim, ClaimOutcome, ErrorKind, Fenced, Observed, Purged, StoreError};

use crate::builder::MemoryStoreBuilder;
use crate::capacity::{Capacity, Place};
use crate::id::{KeyHash, SHARDS};
use crate::shard::{Leftovers, NoRoom, Shard, Swept};
use crate::verb::Verb;

/// How many queued records are looked at under one lock before others get a turn.
const SWEEP_PER_LOCK: usize = 32;

/// How many queued records of each shard a claim on a full store looks at, to make room.
const RECLAIM_PER_SHARD: usize = 8;

pub(crate) struct Shared {
    shards: Box<[Slot]>,
    /// Seeded at random for each store: clients choose keys, and must not choose their hashes.
    hasher: RandomState,
    capacity: Capacity,
    max_value_len: usize,
    clock: Arc<dyn Clock>,
    /// Where the next sweep over all shards begins, so that no shard is always last.
    sweep_from: AtomicUsize,
}

/// A shard, on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Slot {
    /// No record's time is over before this, in microseconds: what a claim on a full store needs to
    /// know of all shards, without locking them. May be out of date by what happens at the moment.
    quiet_until: AtomicU64,
    shard: Mutex<Shard>,
}

impl Shared {
    pub(crate) fn new(builder: MemoryStoreBuilder) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Slot::default()).collect(),
            hasher: RandomState::new(),
            capacity: Capacity::new(builder.max_keys),
            max_value_len: builder.max_value_len,
            clock: builder.clock,
            sweep_from: AtomicUsize::new(0),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.capacity.taken()
    }

    pub(crate) const fn max_keys(&self) -> usize {
        self.capacity.max()
    }

    pub(crate) const fn max_value_len(&self) -> usize {
        self.max_value_len
    }

    pub(crate) fn claim(&self, key: &Key, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        self.decide(key, claim, None)
            .or_else(|NoRoom| {
                // What is over may be in any shard, so this one has to be let go of first.
                let place = self.reclaim().ok_or(NoRoom)?;
                self.decide(key, claim, Some(place))
            })
            .map_err(|NoRoom| self.full())
    }

    /// Runs a verb that never adds a record.
    pub(crate) fn run<V: Verb<Outcome = Fenced>>(&self, key: &Key, verb: &V) -> Fenced {
        self.decide(key, verb, None).unwrap_or(Fenced::Gone)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Observed> {
        let hash = self.hash(key);
        let mut shard = self.lock(hash);
        let now = self.now();
        let (_, kept) = shard.records.find(hash, key).ok()?;
        Some(Observed::new(kept.record.clone(), now))
    }

    pub(crate) fn purge(&self, limit: usize) -> Purged {
        let mut removed = 0;
        let mut left = limit;
        for shard in self.all_shards() {
            while left > 0 {
                let step = left.min(SWEEP_PER_LOCK);
                let (swept, leftovers) = self.sweep(shard, step);
                self.capacity.give_back(swept.removed);
                leftovers.clear_up();
                removed += swept.removed;
                left -= swept.looked_at;
                if swept.looked_at < step {
                    break;
                }
            }
        }
        let more = limit > 0 && left == 0;
        Purged { removed, more }
    }

    pub(crate) fn hash(&self, key: &Key) -> KeyHash {
        KeyHash::new(self.hasher.hash_one(key))
    }

    pub(crate) fn lock(&self, hash: KeyHash) -> MutexGuard<'_, Shard> {
        self.lock_shard(hash.shard())
    }

    pub(crate) fn lock_shard(&self, shard: usize) -> MutexGuard<'_, Shard> {
        // Only the clock may panic under a lock, and it is read before anything changes: what a
        // poisoned lock guards is whole.
        let lock = &self.shards[shard].shard;
        lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time. To be read under the lock of what it decides on.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Decides `verb` under the lock of its key. `place` is room that the caller made for it.
    fn decide<V: Verb>(
        &self,
        key: &Key,
        verb: &V,
        place: Option<Place<'_>>,
    ) -> Result<V::Outcome, NoRoom> {
        let hash = self.hash(key);
        let mut leftovers = Leftovers::default();
        let mut shard = self.lock(hash);
        let now = self.now();
        let outcome = shard.apply((hash, key), verb, now, &self.capacity, place, &mut leftovers);
        self.unlock(hash.shard(), shard);
        leftovers.clear_up();
        outcome
    }

    /// Removes records whose time is over, from whatever shard, until there is room for one more.
    /// Bounded: each shard is visited once, if there may be something to do.
    fn reclaim(&self) -> Option<Place<'_>> {
        let now = self.now().as_micros();
        self.all_shards()
            .filter(|shard| self.shards[*shard].quiet_until.load(Ordering::Relaxed) <= now)
            .find_map(|shard| {
                let (swept, leftovers) = self.sweep(shard, RECLAIM_PER_SHARD);
                let place = self.capacity.hand_over(swept.removed);
                leftovers.clear_up();
                place
            })
    }

    /// Sweeps one shard. The caller gives the places of what was removed back, then clears up.
    fn sweep(&self, index: usize, limit: usize) -> (Swept, Leftovers) {
        let mut leftovers = Leftovers::default();
        let mut shard = self.lock_shard(index);
        let now = self.now();
        let swept = shard.sweep(now, limit, &mut leftovers);
        self.unlock(index, shard);
        (swept, leftovers)
    }

    /// Releases the lock of a shard that may have changed.
    fn unlock(&self, index: usize, shard: MutexGuard<'_, Shard>) {
        let quiet_until = shard.quiet_until().as_micros();
        self.shards[index].quiet_until.store(quiet_until, Ordering::Relaxed);
    }

    fn all_shards(&self) -> impl Iterator<Item = usize> {
        let first = self.sweep_from.fetch_add(1, Ordering::Relaxed);
        (0..SHARDS).map(move |offset| first.wrapping_add(offset) % SHARDS)
    }

    fn full(&self) -> StoreError {
        let max = self.max_keys();
        StoreError::new(ErrorKind::Full, "claim").with_message(format!(
            "all {max} keys that it may hold have to be remembered still; raise `max_keys`, \
             or shorten retention and hold"
        ))
    }
}
