//! What duplicates get.

use crate::{Fixture, Verdict, Violation};

/// A result is replayed byte for byte, whatever its bytes are.
pub async fn is_byte_for_byte<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// An empty result is replayed as an empty result, not as a result that was not kept.
pub async fn an_empty_result_is_a_result<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A result that was not to be kept is replayed as done, without bytes.
pub async fn a_result_that_was_not_kept_is_still_done<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}
