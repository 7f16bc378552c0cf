//! Verdicts and evictions.

use crate::{Fixture, Verdict, Violation};

/// A verdict about a live attempt is refused as `Busy`.
pub async fn settle_spares_a_live_owner<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A verdict applies only to the attempt or token it names.
pub async fn settle_names_its_attempt<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A verdict of done records the result on lapsed, given-up and released keys.
pub async fn settle_as_done_records_the_result<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A verdict of not done releases lapsed and given-up keys, with their progress.
pub async fn settle_as_not_done_frees_the_key<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A repeated verdict of not done is applied and changes nothing.
pub async fn settle_as_not_done_again_changes_nothing<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// No verdict changes a result, not after its retention either.
pub async fn settle_never_overrules_a_result<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Evicting a live owner without force is refused as `Busy`.
pub async fn evict_spares_a_live_owner<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Evicting with force removes a live owner.
pub async fn evict_by_force_removes_a_live_owner<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// An eviction removes only the attempt or token it names, also with force.
pub async fn evict_names_its_attempt<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A key that nobody owns is evicted in any state, and is as good as new.
pub async fn an_evicted_key_is_as_new<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}
