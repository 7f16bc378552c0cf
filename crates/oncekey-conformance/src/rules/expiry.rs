//! What time does: lapsing, takeover, retention.

use crate::{Fixture, Verdict, Violation};

/// A lease lives until its deadline and has lapsed when the clock shows the deadline.
pub async fn a_lease_lapses_at_its_deadline<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A lapsed key is granted to another attempt, with a whole lease.
pub async fn a_lapsed_lease_is_taken_over<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A takeover says how the attempt before it ended, and its token.
pub async fn a_takeover_says_what_it_replaced<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A takeover gets the saved progress, also over several takeovers that save none.
pub async fn a_takeover_inherits_progress<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A takeover's first saved progress replaces what it inherited, whatever its number was.
pub async fn a_takeover_numbers_its_progress_anew<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A claim that asks to refuse is told `Interrupted` on a lapsed and on a given-up key.
pub async fn an_interrupted_key_is_refused_if_asked<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A lapsed key is remembered until its deadline plus the hold of its claim.
pub async fn a_lapsed_key_is_remembered_for_its_hold<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A result is replayed until its retention ends, and not after.
pub async fn a_result_is_replayed_until_its_retention_ends<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A retired key is granted as if it were new.
pub async fn a_retired_key_is_as_new<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A claim that asks to be told gets `Retired` while a retired key is remembered.
pub async fn a_retired_key_is_told_if_asked<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Durations of months work: no unit overflows.
pub async fn months_are_counted<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}
