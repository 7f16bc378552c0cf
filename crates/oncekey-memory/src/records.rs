//! The records of a shard, by id.

use std::collections::BTreeMap;

use oncekey::Key;
use oncekey::store::Record;

use crate::expiry::QueuedAt;
use crate::id::{KeyHash, RecordId};

/// Records in the order of their ids. An ordered map, since its order is what a listing follows while
/// records come and go, and since it never stops to move all of its records at once.
#[derive(Default)]
pub(crate) struct Records {
    by_id: BTreeMap<RecordId, Box<Kept>>,
    /// How many records do not have the first id of their hash: as good as always none, and then a
    /// key is found by one look at one id.
    ties: usize,
}

/// A record with its key. Boxed, since maps have room to spare.
pub(crate) struct Kept {
    pub(crate) key: Key,
    pub(crate) record: Record,
    pub(crate) queued_at: QueuedAt,
}

/// The id that a record of a key without one can have; `None` when all ids of its hash are taken.
pub(crate) struct Absent(pub(crate) Option<RecordId>);

impl Records {
    /// The record of `key`, whose hash is `hash`.
    pub(crate) fn find(
        &mut self,
        hash: KeyHash,
        key: &Key,
    ) -> Result<(RecordId, &mut Kept), Absent> {
        let mut free = hash.first_id();
        if self.ties == 0 {
            return match self.by_id.get_mut(&free) {
                Some(kept) if kept.key == *key => Ok((free, kept)),
                Some(_) => Err(Absent(free.next())),
                None => Err(Absent(Some(free))),
            };
        }
        for (id, kept) in self.by_id.range_mut(hash.ids()) {
            if kept.key == *key {
                return Ok((*id, kept));
            }
            if free == *id {
                match id.next().filter(|next| next.hash() == hash) {
                    Some(next) => free = next,
                    None => return Err(Absent(None)),
                }
            }
        }
        Err(Absent(Some(free)))
    }

    /// Adds a record with an id that [`find`](Self::find) said is free.
    pub(crate) fn insert(&mut self, id: RecordId, kept: Kept) {
        self.ties += usize::from(id.is_tie());
        self.by_id.insert(id, Box::new(kept));
    }

    pub(crate) fn get_mut(&mut self, id: RecordId) -> Option<&mut Kept> {
        self.by_id.get_mut(&id).map(|kept| &mut **kept)
    }

    pub(crate) fn remove(&mut self, id: RecordId) -> Option<Kept> {
        let kept = self.by_id.remove(&id)?;
        self.ties -= usize::from(id.is_tie());
        Some(*kept)
    }

    /// The records from `from` on.
    pub(crate) fn range(&self, from: RecordId) -> impl Iterator<Item = (RecordId, &Kept)> {
        self.by_id.range(from..).map(|(id, kept)| (*id, &**kept))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use oncekey::runtime::Timestamp;
    use oncekey::store::{AttemptId, Change, Claim, OnInterrupted, OnRetired, transition};
    use oncekey::{Fingerprint, Scope};

    use super::*;

    fn key(number: u64) -> Key {
        let scope = Scope::new("tenant", "operation").unwrap();
        Key::new(&scope, number.to_be_bytes()).unwrap()
    }

    fn kept(number: u64) -> Kept {
        let claim = Claim {
            attempt: AttemptId::from_bytes(u128::from(number).to_be_bytes()),
            fingerprint: Fingerprint::of("request"),
            lease: Duration::from_secs(1),
            hold: Duration::ZERO,
            on_interrupted: OnInterrupted::Refuse,
            on_retired: OnRetired::Tell,
        };
        match transition(None, &claim, Timestamp::default()).change {
            Change::Put(record) => Kept { key: key(number), record, queued_at: Timestamp::MAX },
            _ => panic!("a new key is granted"),
        }
    }

    fn attempt(number: u64) -> AttemptId {
        AttemptId::from_bytes(u128::from(number).to_be_bytes())
    }

    /// Keys of two hashes only, inserted and removed in every order that a small generator finds.
    #[test]
    fn keys_with_equal_hashes_are_kept_apart() {
        let mut records = Records::default();
        let mut expected = HashMap::new();
        let mut random = 1_u64;
        for step in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = random >> 60;
            let hash = KeyHash::new((number & 1) << 40);
            match records.find(hash, &key(number)) {
                Ok((id, found)) => {
                    assert_eq!(found.record.attempt, attempt(number));
                    assert_eq!(expected.get(&number), Some(&id), "step {step}");
                    if random >> 59 & 1 == 0 {
                        assert!(records.remove(id).is_some());
                        expected.remove(&number);
                    }
                }
                Err(Absent(free)) => {
                    assert!(!expected.contains_key(&number), "step {step}");
                    let free = free.unwrap();
                    assert!(free.hash() == hash);
                    assert!(!expected.values().any(|id| *id == free), "step {step}");
                    records.insert(free, kept(number));
                    expected.insert(number, free);
                }
            }
            assert_eq!(records.len(), expected.len());
        }
        let ties = expected.values().filter(|id| id.is_tie()).count();
        assert_eq!(records.ties, ties);
    }
}
