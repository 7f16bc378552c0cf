//! Asking for the right to run.

use crate::{Fixture, Verdict, Violation};

/// An absent key is granted, as attempt 1 and without a predecessor.
pub async fn grants_an_absent_key<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// While the owner's lease runs, every other attempt is told `Busy`, whatever its policies.
pub async fn refuses_while_the_owner_lives<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// `Busy` says how long the owner's lease still runs.
pub async fn busy_says_when_the_lease_lapses<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A claim that is refused or answered with a replay leaves the record as it was.
pub async fn a_refusal_changes_nothing<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Grants in a row without a result are numbered 1, 2, 3; a retired result starts over.
pub async fn counts_the_grants_without_a_result<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}
