//! Futures that are dropped.

use crate::{Fixture, Verdict, Violation};

/// Calls dropped at any await leave no lock, connection or transaction behind.
pub async fn a_dropped_call_leaves_nothing_behind<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A call dropped at any await took place as a whole or not at all, and can be sent again.
pub async fn a_dropped_call_happened_or_did_not<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A call dropped at any await takes no other call of its handle down with it.
pub async fn a_dropped_call_disturbs_no_other<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}
