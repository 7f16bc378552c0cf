//! Attempts whose claim was never answered, so that a grant to nobody is found again.
//!
//! A claim whose reply was lost may have been granted. To its own caller's next try it looks like a
//! stranger's lease. The engine therefore remembers such attempt ids and, when it meets a key in use,
//! asks once more under the remembered id: if the key answers to it, the grant is adopted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Key;
use crate::store::AttemptId;

/// Enough for the calls that are in the air when a connection breaks.
const CAPACITY: usize = 1024;

#[derive(Debug, Default)]
pub(crate) struct Unanswered {
    /// Read without the lock: nearly always zero.
    len: AtomicUsize,
    attempts: Mutex<VecDeque<(Key, AttemptId)>>,
}

impl Unanswered {
    pub(crate) fn remember(&self, key: &Key, attempt: AttemptId) {
        let mut attempts = self.lock();
        if attempts.iter().any(|(_, known)| *known == attempt) {
            return;
        }
        if attempts.len() >= CAPACITY {
            attempts.pop_front();
        }
        attempts.push_back((key.clone(), attempt));
        self.len.store(attempts.len(), Ordering::Release);
    }

    /// Takes one attempt at `key` out, so that no two runs can adopt the same grant.
    pub(crate) fn take(&self, key: &Key) -> Option<AttemptId> {
        if self.len.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut attempts = self.lock();
        let index = attempts.iter().position(|(known, _)| known == key)?;
        let (_, attempt) = attempts.remove(index)?;
        self.len.store(attempts.len(), Ordering::Release);
        Some(attempt)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Key, AttemptId)>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
