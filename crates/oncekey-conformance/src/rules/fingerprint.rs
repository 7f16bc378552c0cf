//! The same key with another request.

use crate::{Fixture, Verdict, Violation};

/// Another fingerprint is a mismatch while the owner lives.
pub async fn differs_in_progress<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Another fingerprint is a mismatch while the result is replayed.
pub async fn differs_after_completion<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Another fingerprint is a mismatch on a lapsed key, whatever the policy.
pub async fn differs_after_the_lease_lapsed<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A takeover keeps the fingerprint.
pub async fn is_kept_through_takeover<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A release keeps the fingerprint, and so does a verdict that nothing was done.
pub async fn is_kept_through_release<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Giving up keeps the fingerprint.
pub async fn is_kept_through_give_up<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A retired key accepts another fingerprint, and keeps that from then on.
pub async fn is_forgotten_with_the_result<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// Fingerprints that differ in one bit, or only in their algorithm, differ.
pub async fn is_compared_whole<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// An attempt that claims again with another fingerprint is a mismatch.
pub async fn binds_the_own_attempt_too<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}
