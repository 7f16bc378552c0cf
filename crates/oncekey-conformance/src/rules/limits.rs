//! The ends of every range.

use crate::{Fixture, Verdict, Violation};

/// Keys that differ in one bit, in case, in length or in normal form are different keys.
pub async fn near_identical_keys_are_distinct<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Keys of the greatest length work, and differ if only their last byte does.
pub async fn the_longest_keys_are_distinct<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// The longest durations work: their sums stop at *never*.
pub async fn huge_durations_saturate<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A large result is kept whole or refused as too large; then the fact alone fits.
pub async fn a_large_result_fits_or_is_refused<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A full store refuses new keys as `Full` and goes on to serve every key that it knows.
pub async fn a_full_store_refuses_new_keys<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A full store takes new keys once old ones were evicted or their time is over.
pub async fn a_full_store_has_room_again<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}
