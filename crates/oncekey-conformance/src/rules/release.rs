//! Ending an attempt without a result: release and give up.

use crate::{Fixture, Verdict, Violation};

/// A released key is granted to the next attempt at once, whatever its policies, with no predecessor.
pub async fn frees_the_key_at_once<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A lapsed owner that nobody replaced can still say that nothing was done.
pub async fn after_the_lease_lapsed<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// An attempt that gave up without progress can still say that nothing was done.
pub async fn after_giving_up<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Whoever saved progress did something: its release is recorded as given up.
pub async fn with_progress_is_giving_up<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A takeover that inherited progress cannot say that nothing was done.
pub async fn with_inherited_progress_is_giving_up<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A released key is remembered for the hold that the release names.
pub async fn is_remembered_for_its_hold<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A completed attempt is neither released nor given up, not after its retention either.
pub async fn never_after_completion<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A key whose owner gave up is interrupted at once, long before its lease ends.
pub async fn giving_up_interrupts_at_once<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A lapsed owner that gives up is recorded as given up, not as lapsed.
pub async fn giving_up_after_the_lease_lapsed<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}
