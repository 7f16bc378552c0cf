//! Claims on a key that somebody holds, and the account that a grant gives of the past.

use std::time::Duration;

use oncekey::store::{
    Cause, Change, Claim, ClaimOutcome, FencingToken, OnInterrupted, OnRetired, Previous, Record,
    Replaced, State,
};

use crate::defect::{Defect, Op, SOUND, Seen, Source, edit, keep, refuse, remove};

/// Finds a predecessor for the first attempt, which then looks for work that nobody did.
pub(crate) fn first_grant_has_a_past() -> Defect {
    Defect {
        fault: "claim::grants_an_absent_key",
        claim: |seen, claim| {
            let mut decided = seen.decide(claim);
            if seen.record.is_none()
                && let ClaimOutcome::Acquired { previous, .. } = &mut decided.outcome
            {
                let (cause, token) = (Cause::Lapsed, FencingToken::new(1));
                *previous = Some(Previous { cause, token, progress: None });
                return edit(decided, |record| {
                    record.previous = Some(Replaced { cause, token });
                });
            }
            decided
        },
        ..SOUND
    }
}

/// The answer is made before the row: the first owner is told that nothing is left of its lease.
pub(crate) fn first_grant_says_no_lease() -> Defect {
    Defect {
        fault: "claim::grants_an_absent_key",
        claim: |seen, claim| {
            let mut decided = seen.decide(claim);
            if let (None, ClaimOutcome::Acquired { lease_left, .. }) =
                (seen.record, &mut decided.outcome)
            {
                *lease_left = Duration::ZERO;
            }
            decided
        },
        ..SOUND
    }
}

/// A second claim overwrites the first. As in idempot-js: `SETEX` on a key that is in flight.
pub(crate) fn overwrites_in_flight() -> Defect {
    Defect {
        fault: "claim::refuses_while_the_owner_lives",
        claim: |seen, claim| match seen.decide(claim).outcome {
            ClaimOutcome::Busy { .. } => seen.decide_absent(claim),
            _ => seen.decide(claim),
        },
        ..SOUND
    }
}

/// Reads back and compares the fingerprint: identical requests both believe that they won. As in
/// hono-idempotency, where only races of different requests were tested.
pub(crate) fn reads_back_the_fingerprint() -> Defect {
    Defect {
        fault: "claim::refuses_while_the_owner_lives",
        claim: |seen, claim| match (seen.decide(claim).outcome, seen.record) {
            (ClaimOutcome::Busy { .. }, Some(record)) => {
                seen.decide(&Claim { attempt: record.attempt, ..*claim })
            }
            _ => seen.decide(claim),
        },
        ..SOUND
    }
}

/// Claims are decided by a replica that lags: what it calls absent is no more.
pub(crate) fn claims_on_a_replica() -> Defect {
    Defect {
        fault: "claim::refuses_while_the_owner_lives",
        source: |op| match op {
            Op::Claim => Source::Replica,
            _ => Source::Primary,
        },
        ..SOUND
    }
}

/// "In progress elsewhere" is "interrupted" to whoever asks to refuse: an operator is called for
/// every duplicate.
pub(crate) fn busy_is_interrupted() -> Defect {
    Defect {
        fault: "claim::refuses_while_the_owner_lives",
        claim: |seen, claim| {
            refuse(seen.decide(claim), |outcome| match outcome {
                ClaimOutcome::Busy { .. } if claim.on_interrupted == OnInterrupted::Refuse => {
                    Some(ClaimOutcome::Interrupted)
                }
                _ => None,
            })
        },
        ..SOUND
    }
}

/// Whoever runs for more than an hour is stuck, says a claim that asks to refuse: an operator is
/// called although the owner renews.
pub(crate) fn an_hour_is_stuck() -> Defect {
    Defect {
        fault: "claim::refuses_while_the_owner_lives",
        claim: |seen, claim| {
            refuse(seen.decide(claim), |outcome| match outcome {
                ClaimOutcome::Busy { retry_after }
                    if claim.on_interrupted == OnInterrupted::Refuse
                        && *retry_after > Duration::from_secs(3600) =>
                {
                    Some(ClaimOutcome::Interrupted)
                }
                _ => None,
            })
        },
        ..SOUND
    }
}

/// Tells duplicates to come back at once: they storm the store.
pub(crate) fn come_back_at_once() -> Defect {
    Defect {
        fault: "claim::busy_says_when_the_lease_lapses",
        claim: |seen, claim| {
            refuse(seen.decide(claim), |outcome| match outcome {
                ClaimOutcome::Busy { .. } => {
                    Some(ClaimOutcome::Busy { retry_after: Duration::ZERO })
                }
                _ => None,
            })
        },
        ..SOUND
    }
}

/// A refused duplicate deletes the record that it never acquired. As in Powertools for TypeScript.
pub(crate) fn refused_claim_deletes() -> Defect {
    Defect {
        fault: "claim::a_refusal_changes_nothing",
        claim: |seen, claim| match seen.decide(claim).outcome {
            refusal @ ClaimOutcome::Busy { .. } => remove(refusal),
            _ => seen.decide(claim),
        },
        ..SOUND
    }
}

/// A sliding expiration: every look at a key lets it live longer, and a key that is polled never
/// gets free.
pub(crate) fn polling_extends() -> Defect {
    Defect {
        fault: "claim::a_refusal_changes_nothing",
        claim: |seen, claim| {
            let mut decided = seen.decide(claim);
            if let (ClaimOutcome::Busy { .. }, Some(record)) = (&decided.outcome, seen.record) {
                let as_owner = Claim { attempt: record.attempt, ..*claim };
                decided.change = seen.decide(&as_owner).change;
            }
            decided
        },
        ..SOUND
    }
}

/// A request that does not match keeps the key remembered: who guesses at keys fills the store.
pub(crate) fn mismatch_refreshes() -> Defect {
    Defect {
        fault: "claim::a_refusal_changes_nothing",
        claim: |seen, claim| {
            let mut decided = seen.decide(claim);
            if let (ClaimOutcome::Mismatch, Some(record)) = (&decided.outcome, seen.record) {
                let forget_at = record.forget_at.max(seen.now.saturating_add(claim.hold));
                decided.change = Change::Put(Record { forget_at, ..record.clone() });
            }
            decided
        },
        ..SOUND
    }
}

/// Attempts are not counted, so nobody can stop after the hundredth.
pub(crate) fn every_attempt_is_the_first() -> Defect {
    Defect {
        fault: "claim::counts_the_grants_without_a_result",
        claim: |seen, claim| numbered(seen, claim, |_| 1),
        ..SOUND
    }
}

/// The count goes on after a result, over months of orders with one key.
pub(crate) fn counts_for_ever() -> Defect {
    Defect {
        fault: "claim::counts_the_grants_without_a_result",
        claim: |seen, claim| match seen.record {
            Some(record) if seen.is(State::Retired) => {
                numbered(seen, claim, |_| record.number.saturating_add(1))
            }
            _ => seen.decide(claim),
        },
        ..SOUND
    }
}

fn numbered(
    seen: Seen<'_>,
    claim: &Claim,
    count: impl Fn(u32) -> u32,
) -> oncekey::store::Transition<ClaimOutcome> {
    let mut decided = edit(seen.decide(claim), |record| {
        record.number = count(record.number);
    });
    if let ClaimOutcome::Acquired { number, .. } = &mut decided.outcome {
        *number = count(*number);
    }
    decided
}

/// Answers a claim on a finished key as if it were running, and a duplicate waits for a day. As in
/// the dotnet starter kit of fullstackhero: written through one cache, read through another.
pub(crate) fn never_replays() -> Defect {
    Defect {
        fault: "complete::records_the_result",
        claim: |seen, claim| {
            refuse(seen.decide(claim), |outcome| match outcome {
                ClaimOutcome::Replay(_) if !seen.is_of(claim.attempt) => {
                    Some(ClaimOutcome::Busy { retry_after: Duration::from_secs(1) })
                }
                _ => None,
            })
        },
        ..SOUND
    }
}

/// Refuses a retired key to a claim that asked to forget: the client's new order is never run.
pub(crate) fn remembers_the_retired() -> Defect {
    Defect {
        fault: "expiry::a_retired_key_is_as_new",
        claim: |seen, claim| seen.decide(&Claim { on_retired: OnRetired::Tell, ..*claim }),
        ..SOUND
    }
}

/// The result is still there, so the next grant has a predecessor, which did nothing of its kind.
pub(crate) fn retired_has_a_past() -> Defect {
    Defect {
        fault: "expiry::a_retired_key_is_as_new",
        claim: |seen, claim| {
            let mut decided = seen.decide(claim);
            if let (true, Some(record), ClaimOutcome::Acquired { previous, .. }) =
                (seen.is(State::Retired), seen.record, &mut decided.outcome)
            {
                let (cause, token) = (Cause::Lapsed, record.token);
                *previous = Some(Previous { cause, token, progress: None });
                return edit(decided, |next| next.previous = Some(Replaced { cause, token }));
            }
            decided
        },
        ..SOUND
    }
}

/// Grants a retired key to a claim that asked to be told.
pub(crate) fn forgets_the_retired() -> Defect {
    Defect {
        fault: "expiry::a_retired_key_is_told_if_asked",
        claim: |seen, claim| seen.decide(&Claim { on_retired: OnRetired::Forget, ..*claim }),
        ..SOUND
    }
}

/// A retired key still has a fingerprint: another request is refused before it is told.
pub(crate) fn retired_is_a_mismatch_first() -> Defect {
    Defect {
        fault: "expiry::a_retired_key_is_told_if_asked",
        claim: |seen, claim| {
            refuse(seen.decide(claim), |outcome| match (outcome, seen.record) {
                (ClaimOutcome::Retired, Some(record))
                    if record.fingerprint != claim.fingerprint =>
                {
                    Some(ClaimOutcome::Mismatch)
                }
                _ => None,
            })
        },
        ..SOUND
    }
}

/// `now + 1 >= end`: a result that is replayed is retired one tick too early.
pub(crate) fn retired_one_tick_early() -> Defect {
    Defect {
        fault: "expiry::a_result_is_replayed_until_its_retention_ends",
        claim: |seen, claim| {
            let soon = seen.now.saturating_add(Duration::from_micros(1));
            match seen.is(State::Completed) && !seen.is_of(claim.attempt) {
                true => Seen { now: soon, ..seen }.decide(claim),
                false => seen.decide(claim),
            }
        },
        ..SOUND
    }
}

/// A result is for ever: the key can never be used again.
pub(crate) fn replays_for_ever() -> Defect {
    Defect {
        fault: "expiry::a_result_is_replayed_until_its_retention_ends",
        claim: |seen, claim| match seen.record.map(|record| &record.status) {
            Some(oncekey::store::Status::Completed { value, .. }) if seen.is(State::Retired) => {
                keep(ClaimOutcome::Replay(value.replay()))
            }
            _ => seen.decide(claim),
        },
        ..SOUND
    }
}
