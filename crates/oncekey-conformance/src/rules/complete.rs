//! Recording a result.

use crate::{Fixture, Verdict, Violation};

/// An owner's completion is applied, and every duplicate gets the result.
pub async fn records_the_result<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A lapsed owner that nobody replaced completes: the effect happened.
pub async fn after_the_lease_lapsed<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// An attempt that was released and not replaced completes: the effect happened.
pub async fn after_release<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// An attempt that gave up and was not replaced completes: the effect happened.
pub async fn after_giving_up<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Retention and hold count from the completion, not from the claim.
pub async fn retention_counts_from_the_completion<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A completed record keeps neither progress nor the attempt it took over from.
pub async fn drops_what_was_saved<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}
