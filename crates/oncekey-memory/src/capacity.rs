//! The bound on the number of records: one count for the whole store.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How many records there may be, and how many there are at most.
///
/// A place is taken before its record is inserted and given back after its record is removed, so the
/// count is never below the number of records, and the bound holds at every moment.
pub(crate) struct Capacity {
    max: usize,
    taken: AtomicUsize,
}

impl Capacity {
    pub(crate) const fn new(max: usize) -> Self {
        Self { max, taken: AtomicUsize::new(0) }
    }

    pub(crate) const fn max(&self) -> usize {
        self.max
    }

    pub(crate) fn taken(&self) -> usize {
        // Nothing is read by virtue of the count: the records are behind the locks of their shards.
        self.taken.load(Ordering::Relaxed)
    }

    /// Room for one record, unless all places are taken.
    pub(crate) fn take(&self) -> Option<Place<'_>> {
        let one_more = |taken| (taken < self.max).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok().then(|| Place(self))
    }

    /// Gives back the places of `removed` records.
    pub(crate) fn give_back(&self, removed: usize) {
        if removed > 0 {
            self.taken.fetch_sub(removed, Ordering::Relaxed);
        }
    }

    /// Gives back the places of `removed` records but one, which goes straight to the caller: whoever
    /// made room gets it, however many others are waiting for some.
    pub(crate) fn hand_over(&self, removed: usize) -> Option<Place<'_>> {
        let others = removed.checked_sub(1)?;
        self.give_back(others);
        Some(Place(self))
    }
}

/// Room for one record. Dropping it gives the room back.
pub(crate) struct Place<'a>(&'a Capacity);

impl Place<'_> {
    /// The record is in its place.
    pub(crate) fn fill(self) {
        std::mem::forget(self);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.give_back(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_not_filled_is_given_back() {
        let capacity = Capacity::new(2);
        let first = capacity.take();
        assert!(first.is_some());
        capacity.take().unwrap().fill();
        assert!(capacity.take().is_none());
        assert_eq!(capacity.taken(), 2);
        drop(first);
        assert_eq!(capacity.taken(), 1);
        capacity.give_back(1);
        assert_eq!(capacity.taken(), 0);
    }

    #[test]
    fn whoever_made_room_gets_one_place_of_it() {
        let capacity = Capacity::new(3);
        for _ in 0..3 {
            capacity.take().unwrap().fill();
        }
        assert!(capacity.hand_over(0).is_none());
        let place = capacity.hand_over(2);
        assert_eq!(capacity.taken(), 2);
        assert!(capacity.take().is_some());
        place.unwrap().fill();
        assert_eq!(capacity.taken(), 2);
    }
}
