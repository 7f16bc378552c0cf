//! Other handles, and restarts.

use crate::{Fixture, Verdict, Violation};

/// What one handle was answered, every other handle sees at once.
pub async fn a_second_handle_agrees<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// What was acknowledged is in force after a restart.
pub async fn an_answer_survives<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// After a restart, the next grant of a remembered key has a higher token.
pub async fn tokens_increase_across_a_restart<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}
