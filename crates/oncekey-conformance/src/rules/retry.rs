//! The same command, sent again or delivered late.

use crate::{Fixture, Verdict, Violation};

/// An owner that claims again gets the same token, number and account of its predecessor.
pub async fn claim_again_gets_the_same_grant<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// An owner that claims again has its lease extended, never shortened.
pub async fn claim_again_moves_the_deadline_on<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A lapsed owner that claims again gets its grant back, even if it asks to refuse interrupted keys.
pub async fn claim_again_after_the_lease_lapsed<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A late copy of a claim whose attempt gave up, was released or is retired is told `Spent`.
pub async fn a_late_claim_of_an_ended_attempt_is_spent<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A late copy of a claim whose attempt completed gets the result.
pub async fn a_late_claim_after_completion_is_replayed<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Completing again with the same bytes is applied and changes nothing, not the retention either.
pub async fn complete_again_changes_nothing<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Completing again with other bytes is a conflict and changes nothing.
pub async fn complete_with_other_bytes_conflicts<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A result that was not kept is compared by its digest when it is completed again.
pub async fn complete_again_without_the_bytes<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Completing again after the retention still tells the same bytes from others.
pub async fn complete_again_after_the_retention<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Releasing again is applied and changes nothing, not the time to forget either.
pub async fn release_again_changes_nothing<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Giving up again is applied and changes nothing.
pub async fn give_up_again_changes_nothing<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A late copy of giving up does not interrupt a released key.
pub async fn give_up_after_release_is_lost<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A late copy of a renewal revives no attempt that ended.
pub async fn a_late_renew_of_an_ended_attempt_is_lost<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// An older or repeated progress extends the lease and leaves the newer progress alone.
pub async fn an_older_progress_never_replaces_a_newer<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}
