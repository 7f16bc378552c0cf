//! Waking those who wait.

use crate::{Fixture, Verdict, Violation};

/// A subscriber on another handle is woken by a completion.
pub async fn wakes_on_completion<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A subscriber is woken by a release.
pub async fn wakes_on_release<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A subscriber is woken when the owner gives up.
pub async fn wakes_on_giving_up<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A subscriber is woken by an operator's verdict.
pub async fn wakes_on_settlement<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A subscriber is woken by an eviction.
pub async fn wakes_on_eviction<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Every subscriber of a key is woken, also when others have gone.
pub async fn wakes_every_subscriber<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}
