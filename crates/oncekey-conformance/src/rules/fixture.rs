//! What the fixture itself promises.

use crate::{Fixture, Verdict, Violation};

/// The fixture has the capabilities that its store shows, and its time passes as it is told.
pub async fn is_what_it_says<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}
