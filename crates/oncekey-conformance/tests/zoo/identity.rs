//! Which request is which: stores that take one fingerprint, or one key, for another.

use oncekey::Fingerprint;
use oncekey::store::{Claim, ClaimOutcome, OnInterrupted, Record, State, Transition};

use crate::defect::{Defect, SOUND, Seen, edit, refuse};

/// The fingerprint is stored with the result: until then another request is merely busy.
pub(crate) fn fingerprint_comes_with_the_result() -> Defect {
    Defect {
        fault: "fingerprint::differs_in_progress",
        claim: |seen, claim| match seen.is_of(claim.attempt) {
            true => seen.decide(claim),
            false => blind(seen, claim, State::Live),
        },
        ..SOUND
    }
}

/// A live key is busy before anything else, says a claim that asks to refuse: a client that reuses a
/// key is told to wait for another's answer.
pub(crate) fn busy_before_mismatch() -> Defect {
    Defect {
        fault: "fingerprint::differs_in_progress",
        claim: |seen, claim| busy_first(seen, claim, |record| record.previous.is_none()),
        ..SOUND
    }
}

/// The same on a key that was taken over, where the fingerprint is not looked up any more.
pub(crate) fn takeover_is_busy_before_mismatch() -> Defect {
    Defect {
        fault: "fingerprint::is_kept_through_takeover",
        claim: |seen, claim| busy_first(seen, claim, |record| record.previous.is_some()),
        ..SOUND
    }
}

fn busy_first(
    seen: Seen<'_>,
    claim: &Claim,
    concerns: impl Fn(&Record) -> bool,
) -> Transition<ClaimOutcome> {
    let deadline = seen.deadline().filter(|_| seen.is(State::Live));
    refuse(seen.decide(claim), |outcome| match (outcome, deadline) {
        (ClaimOutcome::Mismatch, Some(deadline))
            if claim.on_interrupted == OnInterrupted::Refuse
                && seen.record.is_some_and(concerns) =>
        {
            Some(ClaimOutcome::Busy { retry_after: deadline.saturating_since(seen.now) })
        }
        _ => None,
    })
}

/// A result is replayed to whatever comes with the key. As in lakekeeper: dropping a table answered
/// with the outcome of creating it.
pub(crate) fn replays_to_anything() -> Defect {
    Defect {
        fault: "fingerprint::differs_after_completion",
        claim: |seen, claim| match seen.is_of(claim.attempt) {
            true => seen.decide(claim),
            false => blind(seen, claim, State::Completed),
        },
        ..SOUND
    }
}

/// An interrupted key is "interrupted" to any request that asks to refuse.
pub(crate) fn interrupted_before_mismatch() -> Defect {
    Defect {
        fault: "fingerprint::differs_after_the_lease_lapsed",
        claim: |seen, claim| {
            refuse(seen.decide(claim), |outcome| match outcome {
                ClaimOutcome::Mismatch
                    if seen.is(State::Lapsed) && claim.on_interrupted == OnInterrupted::Refuse =>
                {
                    Some(ClaimOutcome::Interrupted)
                }
                _ => None,
            })
        },
        ..SOUND
    }
}

/// A takeover brings its own fingerprint: the client that retries what it began gets a mismatch.
pub(crate) fn takeover_brings_its_own() -> Defect {
    Defect {
        fault: "fingerprint::differs_after_the_lease_lapsed",
        claim: |seen, claim| adopting(seen, claim, State::Lapsed),
        ..SOUND
    }
}

/// A takeover is recorded without the fingerprint.
pub(crate) fn takeover_drops_the_fingerprint() -> Defect {
    Defect {
        fault: "fingerprint::is_kept_through_takeover",
        claim: |seen, claim| {
            let interrupted = seen.is_interrupted() && !seen.is_of(claim.attempt);
            match interrupted {
                true => edit(seen.decide(claim), |record| {
                    record.fingerprint = Fingerprint::from_digest(0, [0; 32]);
                }),
                false => seen.decide(claim),
            }
        },
        ..SOUND
    }
}

/// A released key may be used for anything.
pub(crate) fn released_is_for_anybody() -> Defect {
    Defect {
        fault: "fingerprint::is_kept_through_release",
        claim: |seen, claim| adopting(seen, claim, State::Released),
        ..SOUND
    }
}

/// A key that was given up may be used for anything.
pub(crate) fn given_up_is_for_anybody() -> Defect {
    Defect {
        fault: "fingerprint::is_kept_through_give_up",
        claim: |seen, claim| adopting(seen, claim, State::GaveUp),
        ..SOUND
    }
}

/// The fingerprint outlives the result: a key can never be used for another request.
pub(crate) fn fingerprint_is_for_ever() -> Defect {
    Defect {
        fault: "fingerprint::is_forgotten_with_the_result",
        claim: |seen, claim| {
            refuse(seen.decide(claim), |_| match seen.record {
                Some(record)
                    if seen.is(State::Retired) && record.fingerprint != claim.fingerprint =>
                {
                    Some(ClaimOutcome::Mismatch)
                }
                _ => None,
            })
        },
        ..SOUND
    }
}

/// A retired key is granted to a new request, and keeps the fingerprint of the old one.
pub(crate) fn retired_keeps_its_fingerprint() -> Defect {
    Defect {
        fault: "fingerprint::is_forgotten_with_the_result",
        claim: |seen, claim| match seen.record {
            Some(record) if seen.is(State::Retired) => edit(seen.decide(claim), |next| {
                next.fingerprint = record.fingerprint;
            }),
            _ => seen.decide(claim),
        },
        ..SOUND
    }
}

/// Compares eight bytes, like a checksum: whoever wants can find two orders that match.
pub(crate) fn compares_a_checksum() -> Defect {
    Defect {
        fault: "fingerprint::is_compared_whole",
        claim: |seen, claim| match seen.record {
            Some(record) if checksum(record.fingerprint) == checksum(claim.fingerprint) => {
                seen.decide(&Claim { fingerprint: record.fingerprint, ..*claim })
            }
            _ => seen.decide(claim),
        },
        ..SOUND
    }
}

fn checksum(fingerprint: Fingerprint) -> Vec<u8> {
    fingerprint.digest()[..8].to_vec()
}

/// Keeps the digest without its algorithm: digests of two algorithms match.
pub(crate) fn forgets_the_algorithm() -> Defect {
    Defect {
        fault: "fingerprint::is_compared_whole",
        claim: |seen, claim| match seen.record {
            Some(record) if record.fingerprint.digest() == claim.fingerprint.digest() => {
                seen.decide(&Claim { fingerprint: record.fingerprint, ..*claim })
            }
            _ => seen.decide(claim),
        },
        ..SOUND
    }
}

/// An attempt is trusted to ask for what it asked before.
pub(crate) fn trusts_its_own_attempt() -> Defect {
    Defect {
        fault: "fingerprint::binds_the_own_attempt_too",
        claim: |seen, claim| match seen.is_of(claim.attempt) {
            true => blind(seen, claim, State::Live),
            false => seen.decide(claim),
        },
        ..SOUND
    }
}

/// What is decided when the fingerprint is not looked at in this state.
fn blind(seen: Seen<'_>, claim: &Claim, state: State) -> Transition<ClaimOutcome> {
    match seen.record {
        Some(record) if seen.is(state) => {
            seen.decide(&Claim { fingerprint: record.fingerprint, ..*claim })
        }
        _ => seen.decide(claim),
    }
}

/// The same, and the claim's own fingerprint is kept from then on.
fn adopting(seen: Seen<'_>, claim: &Claim, state: State) -> Transition<ClaimOutcome> {
    match seen.is(state) && !seen.is_of(claim.attempt) {
        true => edit(blind(seen, claim, state), |record| {
            record.fingerprint = claim.fingerprint;
        }),
        false => seen.decide(claim),
    }
}
