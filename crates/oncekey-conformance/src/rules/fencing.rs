//! Who lost its lease can change nothing.

use crate::{Fixture, Verdict, Violation};

/// Every grant has a higher token than the one before, however that one ended.
pub async fn tokens_increase<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A key that was evicted and claimed again has a higher token, once the clock went on.
pub async fn tokens_increase_across_eviction<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// An attempt that was replaced can change nothing while its successor runs.
pub async fn a_replaced_owner_changes_nothing<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// An attempt that was replaced can change nothing after its successor completed, not even with the same bytes.
pub async fn a_replaced_owner_changes_nothing_after_completion<F: Fixture>(
    _fixture: &F,
) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// An attempt that was replaced can change nothing after its successor released or gave up.
pub async fn a_replaced_owner_changes_nothing_after_release<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// An attempt whose record was evicted can change nothing of the next one.
pub async fn an_evicted_owner_changes_nothing<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// An attempt whose record was purged can change nothing of the next one.
pub async fn a_purged_owner_changes_nothing<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A grant is compared by its attempt id alone.
pub async fn the_attempt_decides_not_the_token<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Every command but a claim answers `Gone` on an absent key, and leaves it absent.
pub async fn nothing_is_known_of_an_absent_key<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A completion that is under way while its key is evicted and claimed anew does not overwrite the new owner.
pub async fn a_version_never_comes_back<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}
