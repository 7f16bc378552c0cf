//! The commands that name a key: [`Verb`], and [`Keeping`] for those that carry a result.

use std::cell::Cell;

use bytes::Bytes;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    Abandon, Change, Claim, Command, Complete, Evict, Record, Renew, Settle, Status, StoredValue,
    Transition, transition,
};

/// A command that names a key.
pub(crate) trait Verb: Command {
    /// Whether waiters want to know when it changes something.
    const ENDS_ATTEMPT: bool;
}

impl Verb for Claim {
    const ENDS_ATTEMPT: bool = false;
}

impl Verb for Renew {
    const ENDS_ATTEMPT: bool = false;
}

impl Verb for Complete {
    const ENDS_ATTEMPT: bool = true;
}

impl Verb for Abandon {
    const ENDS_ATTEMPT: bool = true;
}

impl Verb for Settle {
    const ENDS_ATTEMPT: bool = true;
}

impl Verb for Evict {
    const ENDS_ATTEMPT: bool = true;
}

/// A command whose result, if it is recorded, is kept as `copy`: made before the lock was taken, and
/// handed over without the reference count that a clone of it would need.
pub(crate) struct Keeping<'a, V> {
    verb: &'a V,
    copy: Cell<Option<Bytes>>,
}

impl<'a, V: Verb> Keeping<'a, V> {
    /// `copy` has the bytes of the command's replayable result; `None` if it has none.
    pub(crate) const fn new(verb: &'a V, copy: Option<Bytes>) -> Self {
        Self { verb, copy: Cell::new(copy) }
    }
}

impl<V: Verb> Command for Keeping<'_, V> {
    type Outcome = V::Outcome;

    fn apply(&self, record: Option<&Record>, now: Timestamp) -> Transition<V::Outcome> {
        let mut decided = transition(record, self.verb, now);
        if let Change::Put(Record {
            status: Status::Completed { value: StoredValue::Replayable(value), .. },
            ..
        }) = &mut decided.change
            && let Some(copy) = self.copy.take()
        {
            *value = copy;
        }
        decided
    }
}

impl<V: Verb> Verb for Keeping<'_, V> {
    const ENDS_ATTEMPT: bool = V::ENDS_ATTEMPT;
}
