//! Removing what is over.

use crate::{Fixture, Verdict, Violation};

/// Live and completed records, and ended ones within their hold, are not purged.
pub async fn spares_what_matters<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// After a purge, no record is left whose time to forget has come.
pub async fn removes_what_is_over<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A purge removes at most its limit, and goes on to the end when it is repeated.
pub async fn heeds_its_limit<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A record whose time to forget moved on is not purged at the earlier time.
pub async fn goes_by_the_latest_time_to_forget<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A claim that races with a purge of its key gets a true grant, which stays.
pub async fn races_with_claims<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A renewal that races with a purge of its key is in force, or the key is gone.
pub async fn races_with_renewals<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}
