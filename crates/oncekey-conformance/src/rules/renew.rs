//! Extending the lease, saving progress.

use crate::{Fixture, Verdict, Violation};

/// A renewal moves the deadline to now plus the lease it names.
pub async fn extends_the_lease<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A renewal with a shorter lease leaves the later deadline.
pub async fn never_shortens_the_lease<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A lapsed lease that nobody took over is renewed, and lives.
pub async fn a_lapsed_lease_lives_again<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A renewal moves the time to forget by as much as the deadline.
pub async fn forgetting_moves_with_the_deadline<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Progress is saved together with the renewal.
pub async fn saves_progress<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A renewal without progress leaves the saved progress alone.
pub async fn without_progress_keeps_what_was_saved<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}
