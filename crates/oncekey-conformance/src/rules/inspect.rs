//! Reading and listing.

use crate::{Fixture, Verdict, Violation};

/// Reading shows the record, its state and the store's now, in every state.
pub async fn get_shows_every_state<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Reading an expired record does not change what a later claim is told.
pub async fn get_changes_nothing<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A listing shows every record, page by page, and ends.
pub async fn lists_every_record<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A listing shows only records in the states it asks for.
pub async fn lists_only_the_wanted_states<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A listing passes over a damaged record, counts it, and goes on.
pub async fn counts_what_it_cannot_decode<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}
