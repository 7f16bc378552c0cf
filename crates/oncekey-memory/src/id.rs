//! How a record is addressed within the store: [`KeyHash`] and [`RecordId`].
//!
//! The hash of a key decides its shard and its place in it. Equal hashes of different keys are told
//! apart by a number in the low bits, so an id names one record exactly, in eight bytes: that is
//! what the expiry queue and the cursors of a listing keep instead of keys.

use std::ops::RangeInclusive;

use oncekey::store::Cursor;

/// Bits of an id that tell equal hashes apart. What is left of the hash, 48 bits, makes two equal
/// hashes among a million keys a rarity, and 65,536 of them are out of reach.
const TIE_BITS: u32 = 16;
const TIE_MASK: u64 = (1 << TIE_BITS) - 1;

/// The highest bits of an id choose the shard, so the order of ids is an order of shards too.
const SHARD_BITS: u32 = 8;
pub(crate) const SHARDS: usize = 1 << SHARD_BITS;

/// The hash of a key, without the bits that tell ties apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyHash(u64);

impl KeyHash {
    pub(crate) const fn new(hash: u64) -> Self {
        Self(hash & !TIE_MASK)
    }

    pub(crate) const fn shard(self) -> usize {
        self.first_id().shard()
    }

    /// The id of the first record with this hash.
    pub(crate) const fn first_id(self) -> RecordId {
        RecordId(self.0)
    }

    /// The ids that records with this hash can have.
    pub(crate) const fn ids(self) -> RangeInclusive<RecordId> {
        self.first_id()..=RecordId(self.0 | TIE_MASK)
    }
}

/// Names a record for as long as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordId(u64);

impl RecordId {
    pub(crate) const FIRST: Self = Self(0);

    pub(crate) const fn hash(self) -> KeyHash {
        KeyHash::new(self.0)
    }

    /// Whether another record with the same hash was there first.
    pub(crate) const fn is_tie(self) -> bool {
        self.0 & TIE_MASK != 0
    }

    pub(crate) const fn shard(self) -> usize {
        (self.0 >> (u64::BITS - SHARD_BITS)) as usize
    }

    /// The id after this one, whatever its shard.
    pub(crate) const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The lowest id of the shard after this id's.
    pub(crate) const fn next_shard(self) -> Option<Self> {
        Self(self.0 | (u64::MAX >> SHARD_BITS)).next()
    }

    /// A place in a listing that goes on with this id.
    pub(crate) fn to_cursor(self) -> Cursor {
        Cursor::new(self.0.to_be_bytes().to_vec())
    }

    pub(crate) fn from_cursor(cursor: &Cursor) -> Option<Self> {
        let bytes = cursor.as_bytes().try_into().ok()?;
        Some(Self(u64::from_be_bytes(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_by_shard() {
        let mut id = RecordId::FIRST;
        for shard in 0..SHARDS {
            assert_eq!(id.shard(), shard);
            match id.next_shard() {
                Some(next) => id = next,
                None => assert_eq!(shard, SHARDS - 1),
            }
        }
    }

    #[test]
    fn a_hash_keeps_its_ties_in_its_shard() {
        for hash in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            let hash = KeyHash::new(hash);
            assert_eq!(hash.ids().start().shard(), hash.shard());
            assert_eq!(hash.ids().end().shard(), hash.shard());
            assert!(hash.ids().end().hash() == hash);
        }
        assert!(KeyHash::new(u64::MAX).ids().end().next().is_none());
    }

    #[test]
    fn a_cursor_survives_the_way_out_and_back() {
        let id = RecordId(0x0123_4567_89ab_cdef);
        assert!(RecordId::from_cursor(&id.to_cursor()) == Some(id));
        assert!(RecordId::from_cursor(&Cursor::new(vec![1, 2, 3])).is_none());
    }
}
