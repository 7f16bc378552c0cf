//! When to look at which record next: the expiry queue of a shard.

use std::collections::BTreeSet;

use oncekey::runtime::Timestamp;

use crate::id::RecordId;

/// The records of a shard in the order in which their time may be over.
///
/// A record is in the queue once, or not at all if it is kept for ever. Its place may be too early,
/// since most changes only push the time to forget back, and moving the place each time would cost
/// more than the change: whoever comes to a place that is too early moves it. It is never too late.
#[derive(Default)]
pub(crate) struct Expiry {
    queue: BTreeSet<(Timestamp, RecordId)>,
}

/// Where a record is in the queue; [`Timestamp::MAX`]: nowhere.
pub(crate) type QueuedAt = Timestamp;

impl Expiry {
    /// A new record is to be looked at when it is to be forgotten.
    pub(crate) fn add(&mut self, id: RecordId, forget_at: Timestamp) -> QueuedAt {
        if forget_at < Timestamp::MAX {
            self.queue.insert((forget_at, id));
        }
        forget_at
    }

    /// A record changed.
    pub(crate) fn adjust(&mut self, id: RecordId, queued_at: &mut QueuedAt, forget_at: Timestamp) {
        if forget_at < *queued_at {
            self.remove(id, *queued_at);
            *queued_at = self.add(id, forget_at);
        }
    }

    /// A record was removed.
    pub(crate) fn remove(&mut self, id: RecordId, queued_at: QueuedAt) {
        if queued_at < Timestamp::MAX {
            self.queue.remove(&(queued_at, id));
        }
    }

    /// The first place; [`Timestamp::MAX`] if there is none.
    pub(crate) fn first(&self) -> Timestamp {
        self.queue.first().map_or(Timestamp::MAX, |(at, _)| *at)
    }

    /// Takes the next record out whose place has come. It has to be added again unless it is removed.
    pub(crate) fn take_due(&mut self, now: Timestamp) -> Option<RecordId> {
        if self.first() > now {
            return None;
        }
        self.queue.pop_first().map(|(_, id)| id)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}
