//! Simultaneous commands on one key.

use crate::{Fixture, Verdict, Violation};

/// Of simultaneous claims on an absent key, one is granted and the others are busy.
pub async fn one_claim_wins<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Of simultaneous claims on a lapsed key, one is granted and the others are busy.
pub async fn one_takeover_wins<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Simultaneous copies of one claim all get the same grant.
pub async fn copies_of_a_claim_agree<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Claims that race with a completion are busy or get the result, and are never granted.
pub async fn a_completion_never_frees_the_key<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Of claims that race with a release, at most one is granted, and the owner stays released.
pub async fn a_release_is_taken_once<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// When a lapsed owner's completion races with a takeover, one of them wins and the other is told.
pub async fn completion_or_takeover<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// When a lapsed owner's renewal races with a takeover, one of them wins and the other is told.
pub async fn renewal_or_takeover<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Of simultaneous completions with different bytes, one is recorded and the others conflict.
pub async fn one_result_is_recorded<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}
