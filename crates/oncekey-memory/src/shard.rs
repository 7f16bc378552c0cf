//! One shard: some of the records, and all that is decided about them under one lock.
//!
//! What runs here is the core's rules and the standard library: nothing of a user's that could
//! panic, block or come back for the lock. Wakers run, and values are freed, after the lock is
//! released (see [`Leftovers`]).

use std::sync::Arc;

use oncekey::Key;
use oncekey::runtime::Timestamp;
use oncekey::store::{Change, Purge, Record, transition};

use crate::capacity::{Capacity, Place};
use crate::expiry::Expiry;
use crate::id::{KeyHash, RecordId};
use crate::records::{Absent, Kept, Records};
use crate::verb::Verb;
use crate::waiters::{Signal, Waiters};

/// How many queued records a claim of a new key looks at. Above one, so that what is due becomes less
/// with every new key.
const SWEEP_PER_CLAIM: usize = 2;

#[derive(Default)]
pub(crate) struct Shard {
    pub(crate) records: Records,
    expiry: Expiry,
    pub(crate) waiters: Waiters,
}

/// The store is full and the key is new.
#[derive(Debug)]
pub(crate) struct NoRoom;

/// What is to be done after the lock is released, by [`clear_up`](Self::clear_up).
#[derive(Default)]
pub(crate) struct Leftovers {
    replaced: Option<Record>,
    removed: Vec<Kept>,
    signals: Vec<Arc<Signal>>,
}

impl Leftovers {
    /// Wakes who waits and frees what was removed. A waker may panic: last of all, then.
    pub(crate) fn clear_up(self) {
        for signal in self.signals {
            signal.fire();
        }
    }
}

impl Shard {
    /// Decides `verb` on `key` by the core's rules. `place` is room that the caller made for it.
    pub(crate) fn apply<V: Verb>(
        &mut self,
        (hash, key): (KeyHash, &Key),
        verb: &V,
        now: Timestamp,
        capacity: &Capacity,
        place: Option<Place<'_>>,
        leftovers: &mut Leftovers,
    ) -> Result<V::Outcome, NoRoom> {
        let (id, kept) = match self.records.find(hash, key) {
            Ok(found) => found,
            Err(Absent(free)) => {
                let decided = transition(None, verb, now);
                if let Change::Put(record) = decided.change {
                    capacity.give_back(self.sweep(now, SWEEP_PER_CLAIM, leftovers).removed);
                    let place = place.or_else(|| capacity.take()).ok_or(NoRoom)?;
                    self.insert(free.ok_or(NoRoom)?, key.clone(), record);
                    place.fill();
                }
                return Ok(decided.outcome);
            }
        };
        let decided = transition(Some(&kept.record), verb, now);
        match decided.change {
            Change::Keep => return Ok(decided.outcome),
            Change::Put(record) => {
                self.expiry.adjust(id, &mut kept.queued_at, record.forget_at);
                leftovers.replaced = Some(std::mem::replace(&mut kept.record, record));
            }
            Change::Remove => {
                if let Some(kept) = self.records.remove(id) {
                    self.expiry.remove(id, kept.queued_at);
                    leftovers.removed.push(kept);
                    capacity.give_back(1);
                }
            }
        }
        if V::ENDS_ATTEMPT {
            self.waiters.collect(hash, &mut leftovers.signals);
        }
        Ok(decided.outcome)
    }

    /// No record's time is over before this.
    pub(crate) fn quiet_until(&self) -> Timestamp {
        self.expiry.first()
    }

    /// Looks at no more than `limit` records whose place in the queue has come, and removes those
    /// whose time is over. The caller gives their places back.
    pub(crate) fn sweep(
        &mut self,
        now: Timestamp,
        limit: usize,
        leftovers: &mut Leftovers,
    ) -> Swept {
        let mut swept = Swept::default();
        while swept.looked_at < limit
            && let Some(id) = self.expiry.take_due(now)
        {
            swept.looked_at += 1;
            let Some(kept) = self.records.get_mut(id) else {
                continue;
            };
            if transition(Some(&kept.record), &Purge, now).outcome {
                leftovers.removed.extend(self.records.remove(id));
                self.waiters.collect(id.hash(), &mut leftovers.signals);
                swept.removed += 1;
            } else {
                // Later than now in any case, so that a sweep comes to an end.
                let later = Timestamp::from_micros(now.as_micros().saturating_add(1));
                kept.queued_at = self.expiry.add(id, kept.record.forget_at.max(later));
            }
        }
        swept
    }

    fn insert(&mut self, id: RecordId, key: Key, record: Record) {
        let kept = Kept { queued_at: self.expiry.add(id, record.forget_at), key, record };
        self.records.insert(id, kept);
    }
}

/// What a sweep did.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    pub(crate) looked_at: usize,
    pub(crate) removed: usize,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use oncekey::store::{
        Abandon, AttemptId, Claim, Complete, Completion, Evict, Expected, FencingToken, Grant,
        Known, OnInterrupted, OnRetired, Renew,
    };
    use oncekey::{Fingerprint, Scope};

    use super::*;

    /// A shard under commands that a small generator picks, on a clock that goes both ways.
    struct Driven {
        shard: Shard,
        capacity: Capacity,
        now: u64,
        random: u64,
    }

    impl Driven {
        fn pick(&mut self, choices: u64) -> u64 {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.random >> 33) % choices
        }

        fn duration(&mut self) -> Duration {
            match self.pick(8) {
                0 => Duration::MAX,
                seconds => Duration::from_secs(seconds * 10),
            }
        }

        fn key(number: u64) -> (KeyHash, Key) {
            let scope = Scope::new("tenant", "operation").unwrap();
            let key = Key::new(&scope, number.to_be_bytes()).unwrap();
            // Hashes are shared by some of the keys.
            (KeyHash::new((number / 3) << 32), key)
        }

        fn last_grant(&mut self, number: u64) -> Option<Grant> {
            let (hash, key) = Self::key(number);
            self.shard.records.find(hash, &key).ok().map(|(_, kept)| kept.record.grant())
        }

        fn apply<V: Verb>(&mut self, number: u64, verb: &V) {
            let (hash, key) = Self::key(number);
            let now = Timestamp::from_micros(self.now);
            let mut leftovers = Leftovers::default();
            let _ = self.shard.apply((hash, &key), verb, now, &self.capacity, None, &mut leftovers);
        }

        fn step(&mut self) {
            let number = self.pick(40);
            // Few attempts, so that many commands come from the owner.
            let attempt = AttemptId::from_bytes([self.pick(2) as u8; 16]);
            let grant = self.last_grant(number).filter(|last| last.attempt == attempt);
            let grant = grant.unwrap_or(Grant { token: FencingToken::new(1), attempt });
            let (lease, hold) = (Duration::from_secs(5), self.duration());
            match self.pick(8) {
                0..=2 => self.apply(
                    number,
                    &Claim {
                        attempt,
                        fingerprint: Fingerprint::from_digest(1, [1; 32]),
                        lease,
                        hold,
                        on_interrupted: OnInterrupted::TakeOver,
                        on_retired: OnRetired::Forget,
                    },
                ),
                3 => self.apply(number, &Renew { grant, lease, progress: None }),
                4 => {
                    let retention = self.duration();
                    let completion =
                        Completion { value: "done".into(), replayable: true, retention, hold };
                    self.apply(number, &Complete { grant, completion });
                }
                5 => {
                    let known = Known::NotStarted { hold };
                    self.apply(number, &Abandon { grant, known });
                }
                6 => self.apply(number, &Evict { expected: Expected::Any, force: false }),
                _ => {
                    let mut leftovers = Leftovers::default();
                    let now = Timestamp::from_micros(self.now);
                    let swept = self.shard.sweep(now, 3, &mut leftovers);
                    assert_eq!(swept.removed, leftovers.removed.len());
                    self.capacity.give_back(swept.removed);
                }
            }
            let forward = self.pick(6) * 1_000_000;
            let back = self.pick(20) / 19 * 60_000_000;
            self.now = (self.now + forward).saturating_sub(back);
        }
    }

    #[test]
    fn a_record_is_queued_once_and_never_too_late() {
        let mut driven = Driven {
            shard: Shard::default(),
            capacity: Capacity::new(1_000),
            now: 1_800_000_000_000_000,
            random: 7,
        };
        let mut most_queued = 0;
        for step in 0..50_000 {
            driven.step();
            let shard = &driven.shard;
            let mut queued = 0;
            for (_, kept) in shard.records.range(RecordId::FIRST) {
                assert!(kept.queued_at <= kept.record.forget_at, "step {step}");
                queued += usize::from(kept.queued_at < Timestamp::MAX);
            }
            assert_eq!(shard.expiry.len(), queued, "step {step}");
            assert_eq!(driven.capacity.taken(), shard.records.len(), "step {step}");
            most_queued = most_queued.max(queued);
        }
        assert!(most_queued > 10);
    }
}
