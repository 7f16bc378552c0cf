//! Leases that lapse, and what is handed to whoever takes over.

use std::time::Duration;

use oncekey::runtime::Timestamp;
use oncekey::store::{Abandon, Claim, ClaimOutcome, Known, OnInterrupted, Record, State, Status};

use crate::base::lock;
use crate::defect::{Defect, SOUND, Seen, edit, keep, refuse};

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

/// `now + 1 >= deadline`: an owner that lives is replaced one tick too early.
pub(crate) fn one_tick_too_short() -> Defect {
    Defect {
        fault: "expiry::a_lease_lapses_at_its_deadline",
        claim: |seen, claim| {
            let soon = seen.now.saturating_add(Duration::from_micros(1));
            match seen.deadline() == Some(soon) && !seen.is_of(claim.attempt) {
                true => Seen { now: soon, ..seen }.decide(claim),
                false => seen.decide(claim),
            }
        },
        ..SOUND
    }
}

/// One time to live for claim and response: a crash blocks the key for a day. As in actor-ts and
/// express-idempotency.
pub(crate) fn claim_lives_like_a_response() -> Defect {
    Defect {
        fault: "expiry::a_lapsed_lease_is_taken_over",
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

/// A takeover is told what is left of its predecessor's lease: nothing.
pub(crate) fn takeover_is_told_the_old_lease() -> Defect {
    Defect {
        fault: "expiry::a_lapsed_lease_is_taken_over",
        claim: |seen, claim| {
            let mut decided = seen.decide(claim);
            if let (true, ClaimOutcome::Acquired { lease_left, .. }) =
                (seen.is_interrupted() && !seen.is_of(claim.attempt), &mut decided.outcome)
            {
                *lease_left = Duration::ZERO;
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

/// The predecessor's token is read after it was overwritten: the world is told to refuse the new
/// owner.
pub(crate) fn takeover_names_itself() -> Defect {
    Defect {
        fault: "expiry::a_takeover_says_what_it_replaced",
        claim: |seen, claim| {
            let mut decided = seen.decide(claim);
            if let (true, ClaimOutcome::Acquired { grant, previous: Some(previous), .. }) =
                (seen.is(State::Lapsed) && !seen.is_of(claim.attempt), &mut decided.outcome)
            {
                let token = grant.token;
                previous.token = token;
                return edit(decided, |next| {
                    if let Some(replaced) = &mut next.previous {
                        replaced.token = token;
                    }
                });
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

/// What was inherited counts as the first save: the first save of the new attempt is taken for a
/// copy.
pub(crate) fn inherited_is_number_one() -> Defect {
    Defect {
        fault: "expiry::a_takeover_numbers_its_progress_anew",
        renew: |seen, renew| {
            seen.decide_as(renew, |record| {
                if let Some(progress) = &mut record.progress {
                    progress.sequence = progress.sequence.max(1);
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

/// Notices a lapse when somebody reads the record, and not when a claim meets it: whoever asked to refuse
/// takes over what nobody has looked at.
pub(crate) fn lapses_are_noticed_by_readers() -> Defect {
    Defect {
        fault: "expiry::an_interrupted_key_is_refused_if_asked",
        get: |seen| {
            lock(&seen.notes.times).insert(seen.key.to_vec(), seen.now);
            (SOUND.get)(seen)
        },
        claim: |seen, claim| {
            let was_read = lock(&seen.notes.times).contains_key(seen.key);
            match seen.is(State::Lapsed) && !was_read {
                true => seen.decide(&Claim { on_interrupted: OnInterrupted::TakeOver, ..*claim }),
                false => seen.decide(claim),
            }
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

/// A lease under a minute counts for nothing: its key is forgotten a hold after the claim, and not after
/// the deadline.
pub(crate) fn short_leases_do_not_count() -> Defect {
    Defect {
        fault: "expiry::a_lapsed_key_is_remembered_for_its_hold",
        claim: |seen, claim| {
            edit(seen.decide(claim), |record| {
                if claim.lease < Duration::from_secs(60) && !seen.is_of(claim.attempt) {
                    record.forget_at = seen.now.saturating_add(claim.hold);
                }
            })
        },
        ..SOUND
    }
}

/// A heartbeat goes out in milliseconds of 31 bits, where 25 days are over at once; *never* is a case of
/// its own.
pub(crate) fn heartbeats_wrap() -> Defect {
    Defect {
        fault: "expiry::months_are_recorded",
        renew: |seen, renew| {
            const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
            let mut renew = renew.clone();
            if renew.lease < NEVER {
                let wrapped = renew.lease.as_millis() as u64 & 0x7fff_ffff;
                renew.lease = Duration::from_millis(wrapped);
            }
            seen.decide(&renew)
        },
        ..SOUND
    }
}

/// A server that keeps nothing for longer than 32 bits of milliseconds can say, whatever the record
/// says.
pub(crate) fn nothing_lasts_fifty_days() -> Defect {
    Defect {
        fault: "expiry::months_are_counted",
        is_due: |seen| {
            let granted = |record: &Record| Timestamp::from_micros(record.token.get());
            let age = seen.record.map(|record| seen.now.saturating_since(granted(record)));
            age.is_some_and(|age| age > Duration::from_millis(u64::from(u32::MAX)))
                || (SOUND.is_due)(seen)
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
