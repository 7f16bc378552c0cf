//! What this store has written for the attempts that own a key now.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use oncekey::store::AttemptId;

use crate::layout::LONGEST_HEAD;

/// Half of the most records that are kept.
const MANY: usize = 8_192;

/// The records of grants, to complete them by comparing bytes. Bounded, in number and in bytes, and only to
/// save time: what is forgotten here, or has saved progress, or has changed since, a script decides.
#[derive(Debug, Default)]
pub(crate) struct OwnRecords {
    generations: Mutex<Generations>,
}

/// When the young are many they become the old, and the old are forgotten: those of attempts that ended
/// without a word.
#[derive(Default)]
struct Generations {
    young: HashMap<AttemptId, Bytes>,
    old: HashMap<AttemptId, Bytes>,
}

impl OwnRecords {
    pub(crate) fn put(&self, attempt: AttemptId, record: Bytes) {
        if record.len() > LONGEST_HEAD {
            return;
        }
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if generations.young.len() >= MANY {
            generations.old = mem::take(&mut generations.young);
        }
        generations.young.insert(attempt, record);
    }

    pub(crate) fn take(&self, attempt: AttemptId) -> Option<Bytes> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let Generations { young, old } = &mut *generations;
        let older = if old.is_empty() { None } else { old.remove(&attempt) };
        young.remove(&attempt).or(older)
    }
}

impl std::fmt::Debug for Generations {
    /// Shows how many there are.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generations")
            .field("young", &self.young.len())
            .field("old", &self.old.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept_and_all_are_bounded() {
        let own = OwnRecords::default();
        let attempt = |number: usize| AttemptId::from_bytes((number as u128).to_be_bytes());
        for number in 0..10 * MANY {
            own.put(attempt(number), Bytes::new());
        }
        {
            let generations = own.generations.lock().unwrap();
            assert!(generations.young.len() + generations.old.len() <= 2 * MANY);
        }
        assert!(own.take(attempt(10 * MANY - 1)).is_some());
        assert!(own.take(attempt(9 * MANY)).is_some());
        assert!(own.take(attempt(9 * MANY)).is_none());
        assert!(own.take(attempt(0)).is_none());
    }

    /// A takeover gets the saved progress, which may be of any length.
    #[test]
    fn what_has_content_is_not_kept() {
        let own = OwnRecords::default();
        let (short, long) = (AttemptId::from_bytes([1; 16]), AttemptId::from_bytes([2; 16]));
        own.put(short, vec![0; LONGEST_HEAD].into());
        own.put(long, vec![0; LONGEST_HEAD + 1].into());
        assert!(own.take(short).is_some());
        assert!(own.take(long).is_none());
    }
}
