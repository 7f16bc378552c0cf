//! Leases that lapse, and what is handed to whoever takes over.

use std::time::Duration;

use oncekey::store::{Abandon, Change, Claim, ClaimOutcome, Known, OnInterrupted, State, Status};

use crate::defect::{Defect, SOUND, edit, keep, refuse};

/// `now > deadline` where `now >= deadline` is meant.
pub(crate) fn one_tick_too_long() -> Defect {
    Defect {
        fault: "expiry::a_lease_lapses_at_its_deadline",
        claim: |seen, claim| match seen.deadline() {
            Some(deadline) if deadline == seen.now && !seen.is_of(claim.attempt) => {
                keep(ClaimOutcome::Busy { retry_after: Duration::ZERO })
            }
            _ => seen.decide(claim),
        },
        ..SOUND
    }
}

/// One time to live for claim and response: a crash blocks the key for a day. As in actor-ts and
/// express-idempotency.
pub(crate) fn claim_lives_like_a_response() -> Defect {
    Defect {
        fault: "expiry::a_lease_lapses_at_its_deadline",
        claim: |seen, claim| {
            edit(seen.decide(claim), |record| {
                let deadline = record.forget_at;
                record.status = Status::InProgress { deadline };
            })
        },
        ..SOUND
    }
}

/// A remaining time of zero is falsy, and falsy is "no limit": in progress for ever. As in
/// Powertools for Python.
pub(crate) fn zero_is_no_limit() -> Defect {
    Defect {
        fault: "expiry::a_lapsed_lease_is_taken_over",
        claim: |seen, claim| {
            refuse(seen.decide(claim), |_| {
                (seen.is(State::Lapsed) && !seen.is_of(claim.attempt))
                    .then_some(ClaimOutcome::Busy { retry_after: Duration::ZERO })
            })
        },
        ..SOUND
    }
}

/// A takeover counts its lease from where the last one ended: it may have lapsed already.
pub(crate) fn takeover_gets_what_is_left() -> Defect {
    Defect {
        fault: "expiry::a_lapsed_lease_is_taken_over",
        claim: |seen, claim| {
            let mut decided = seen.decide(claim);
            let from = seen.deadline().filter(|_| seen.is(State::Lapsed));
            if let (Some(from), ClaimOutcome::Acquired { lease_left, .. }, Change::Put(record)) =
                (from, &mut decided.outcome, &mut decided.change)
            {
                let deadline = from.saturating_add(claim.lease);
                *lease_left = deadline.saturating_since(seen.now);
                record.status = Status::InProgress { deadline };
                record.forget_at = deadline.saturating_add(claim.hold);
            }
            decided
        },
        ..SOUND
    }
}

/// A takeover looks like a first grant: nobody learns that an earlier attempt may have done
/// something.
pub(crate) fn takeover_is_silent() -> Defect {
    Defect {
        fault: "expiry::a_takeover_says_what_it_replaced",
        claim: |seen, claim| {
            let mut decided = edit(seen.decide(claim), |record| record.previous = None);
            if let ClaimOutcome::Acquired { previous, .. } = &mut decided.outcome {
                *previous = None;
            }
            decided
        },
        ..SOUND
    }
}

/// A takeover starts over: what the interrupted attempt had saved is lost.
pub(crate) fn takeover_starts_over() -> Defect {
    Defect {
        fault: "expiry::a_takeover_inherits_progress",
        claim: |seen, claim| match seen.is_of(claim.attempt) {
            true => seen.decide(claim),
            false => seen.decide_as(claim, |record| record.progress = None),
        },
        ..SOUND
    }
}

/// Progress is handed on once: the second takeover in a row gets none.
pub(crate) fn progress_is_handed_on_once() -> Defect {
    Defect {
        fault: "expiry::a_takeover_inherits_progress",
        claim: |seen, claim| match seen.is_of(claim.attempt) {
            true => seen.decide(claim),
            false => seen.decide_as(claim, |record| {
                // What was inherited has the number 0.
                record.progress.take_if(|progress| progress.sequence == 0);
            }),
        },
        ..SOUND
    }
}

/// Sequence numbers go on over a takeover: the first saves of the new attempt are taken for old.
pub(crate) fn takeover_keeps_the_sequence() -> Defect {
    Defect {
        fault: "expiry::a_takeover_numbers_its_progress_anew",
        claim: |seen, claim| {
            edit(seen.decide(claim), |record| {
                let old = seen.record.and_then(|record| record.progress.as_ref());
                if let (Some(new), Some(old)) = (&mut record.progress, old) {
                    new.sequence = old.sequence;
                }
            })
        },
        ..SOUND
    }
}

/// Takes over although it was told to refuse: an operation that must not run twice runs again.
pub(crate) fn always_takes_over() -> Defect {
    Defect {
        fault: "expiry::an_interrupted_key_is_refused_if_asked",
        claim: |seen, claim| {
            seen.decide(&Claim { on_interrupted: OnInterrupted::TakeOver, ..*claim })
        },
        ..SOUND
    }
}

/// The lease is the time to live: a crash erases what was known of the key.
pub(crate) fn lapsed_is_forgotten() -> Defect {
    Defect {
        fault: "expiry::a_lapsed_key_is_remembered_for_its_hold",
        claim: |seen, claim| {
            edit(seen.decide(claim), |record| {
                if let Status::InProgress { deadline } = record.status {
                    record.forget_at = deadline;
                }
            })
        },
        ..SOUND
    }
}

/// Milliseconds in 32 bits: fifty days are over at once.
pub(crate) fn thirty_two_bits() -> Defect {
    Defect {
        fault: "expiry::months_are_counted",
        claim: |seen, claim| {
            seen.decide(&Claim { lease: wrapped(claim.lease), hold: wrapped(claim.hold), ..*claim })
        },
        renew: |seen, renew| {
            seen.decide(&oncekey::store::Renew { lease: wrapped(renew.lease), ..renew.clone() })
        },
        complete: |seen, complete| {
            let mut complete = complete.clone();
            complete.completion.retention = wrapped(complete.completion.retention);
            complete.completion.hold = wrapped(complete.completion.hold);
            seen.decide(&complete)
        },
        abandon: |seen, abandon| {
            let known = match abandon.known {
                Known::NotStarted { hold } => Known::NotStarted { hold: wrapped(hold) },
                Known::Unknown => Known::Unknown,
            };
            seen.decide(&Abandon { known, ..*abandon })
        },
        ..SOUND
    }
}

/// Somebody thought of *never*, and of nothing else.
fn wrapped(duration: Duration) -> Duration {
    match u64::try_from(duration.as_micros()) {
        Ok(micros) if micros < 1 << 53 => Duration::from_millis(duration.as_millis() as u32 as u64),
        _ => duration,
    }
}
