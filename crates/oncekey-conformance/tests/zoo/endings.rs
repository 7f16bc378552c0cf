//! Ends without a result: stores that forget too much, or free what must not be freed.

use std::time::Duration;

use oncekey::store::{
    Abandon, Change, ClaimOutcome, Fenced, Known, OnInterrupted, Record, State, Status, Transition,
};

use crate::base::lock;
use crate::defect::{Defect, SOUND, Seen, edit, refuse, remove};

/// A released key stays blocked until its lease would have lapsed.
pub(crate) fn release_waits_for_the_lease() -> Defect {
    Defect {
        fault: "release::frees_the_key_at_once",
        claim: |seen, claim| {
            // Where the lease would have ended: the hold of these releases is not shorter.
            refuse(seen.decide(claim), |outcome| match outcome {
                ClaimOutcome::Acquired { .. } if seen.is(State::Released) => {
                    Some(ClaimOutcome::Busy { retry_after: Duration::from_secs(1) })
                }
                _ => None,
            })
        },
        ..SOUND
    }
}

/// A key that its owner released is "interrupted" to whoever asks to refuse: only an operator's
/// verdict counts.
pub(crate) fn released_is_interrupted() -> Defect {
    Defect {
        fault: "release::frees_the_key_at_once",
        abandon: |seen, abandon| {
            if matches!(abandon.known, Known::NotStarted { .. }) {
                lock(&seen.notes.attempts).insert(abandon.grant.attempt);
            }
            seen.decide(abandon)
        },
        claim: |seen, claim| {
            refuse(seen.decide(claim), |outcome| match (outcome, seen.record) {
                (ClaimOutcome::Acquired { .. }, Some(record))
                    if seen.is(State::Released)
                        && claim.on_interrupted == OnInterrupted::Refuse
                        && lock(&seen.notes.attempts).contains(&record.attempt) =>
                {
                    Some(ClaimOutcome::Interrupted)
                }
                _ => None,
            })
        },
        ..SOUND
    }
}

/// A lapsed owner cannot say that nothing was done: the key stays interrupted.
pub(crate) fn lapsed_cannot_release() -> Defect {
    Defect {
        fault: "release::after_the_lease_lapsed",
        abandon: |seen, abandon| match abandon.known {
            Known::NotStarted { .. } => refuse(seen.decide(abandon), |_| match seen.record {
                Some(record)
                    if seen.is(State::Lapsed)
                        && record.attempt == abandon.grant.attempt
                        && record.progress.is_none() =>
                {
                    Some(Fenced::Lost)
                }
                _ => None,
            }),
            Known::Unknown => seen.decide(abandon),
        },
        ..SOUND
    }
}

/// An attempt that gave up cannot say later that nothing was done.
pub(crate) fn given_up_cannot_release() -> Defect {
    Defect {
        fault: "release::after_giving_up",
        abandon: |seen, abandon| {
            refuse(seen.decide(abandon), |outcome| {
                (seen.is(State::GaveUp) && *outcome == Fenced::Applied).then_some(Fenced::Applied)
            })
        },
        ..SOUND
    }
}

/// A release frees the key although steps were saved: they are done again. As in actor-ts: delete
/// on throw re-runs partial work.
pub(crate) fn releases_done_work() -> Defect {
    Defect {
        fault: "release::with_progress_is_giving_up",
        abandon: |seen, abandon| release_despite(seen, abandon, |sequence| sequence > 0),
        ..SOUND
    }
}

/// Only what this attempt saved counts, not what it was handed.
pub(crate) fn releases_inherited_work() -> Defect {
    Defect {
        fault: "release::with_inherited_progress_is_giving_up",
        abandon: |seen, abandon| release_despite(seen, abandon, |sequence| sequence == 0),
        ..SOUND
    }
}

fn release_despite(
    seen: Seen<'_>,
    abandon: &Abandon,
    ignored: impl Fn(u64) -> bool,
) -> Transition<Fenced> {
    match abandon.known {
        Known::NotStarted { .. } if !seen.is(State::GaveUp) => seen.decide_as(abandon, |record| {
            record.progress.take_if(|progress| ignored(progress.sequence));
        }),
        _ => seen.decide(abandon),
    }
}

/// A released key is remembered for as long as its claim said, or less, but not longer.
pub(crate) fn release_has_no_hold_of_its_own() -> Defect {
    Defect {
        fault: "release::is_remembered_for_its_hold",
        abandon: |seen, abandon| {
            edit(seen.decide(abandon), |next| {
                if let Some(record) = seen.record {
                    next.forget_at = next.forget_at.min(record.forget_at);
                }
            })
        },
        ..SOUND
    }
}

/// A late release, sent before the completion, deletes the result.
pub(crate) fn release_deletes_the_result() -> Defect {
    Defect {
        fault: "release::never_after_completion",
        abandon: |seen, abandon| {
            let done = seen.is(State::Completed) || seen.is(State::Retired);
            match abandon.known {
                Known::NotStarted { .. } if done && seen.is_of(abandon.grant.attempt) => {
                    remove(Fenced::Applied)
                }
                _ => seen.decide(abandon),
            }
        },
        ..SOUND
    }
}

/// Giving up is "stop renewing": the key is interrupted once the lease has run out.
pub(crate) fn giving_up_waits_for_the_lease() -> Defect {
    Defect {
        fault: "release::giving_up_interrupts_at_once",
        abandon: |seen, abandon| match abandon.known {
            Known::Unknown if seen.is(State::Live) => refuse(seen.decide(abandon), |outcome| {
                (*outcome == Fenced::Applied).then_some(Fenced::Applied)
            }),
            _ => seen.decide(abandon),
        },
        ..SOUND
    }
}

/// Giving up with saved steps counts the hold from now and not from the deadline: they are forgotten too
/// early.
pub(crate) fn given_up_is_soon_forgotten() -> Defect {
    Defect {
        fault: "release::giving_up_interrupts_at_once",
        abandon: |seen, abandon| {
            edit(seen.decide(abandon), |next| {
                if let (Known::Unknown, Some(deadline)) = (abandon.known, seen.deadline())
                    && next.progress.is_some()
                {
                    let hold = next.forget_at.saturating_since(deadline);
                    next.forget_at = seen.now.saturating_add(hold);
                }
            })
        },
        ..SOUND
    }
}

/// A given-up key stays blocked for whoever may take over. As in OpenInspection, where a dead holder
/// blocked a key for ever.
pub(crate) fn given_up_is_blocked() -> Defect {
    Defect {
        fault: "expiry::a_takeover_says_what_it_replaced",
        claim: |seen, claim| {
            refuse(seen.decide(claim), |outcome| match outcome {
                ClaimOutcome::Acquired { .. } if seen.is(State::GaveUp) => {
                    Some(ClaimOutcome::Interrupted)
                }
                _ => None,
            })
        },
        ..SOUND
    }
}

/// A lapsed owner that gives up is refused: the cause of the interruption is a guess.
pub(crate) fn lapsed_cannot_give_up() -> Defect {
    Defect {
        fault: "release::giving_up_after_the_lease_lapsed",
        abandon: |seen, abandon| match abandon.known {
            Known::Unknown if seen.is(State::Lapsed) => refuse(seen.decide(abandon), |outcome| {
                (*outcome == Fenced::Applied).then_some(Fenced::Applied)
            }),
            _ => seen.decide(abandon),
        },
        ..SOUND
    }
}

/// A lapsed owner that gives up takes its saved steps with it.
pub(crate) fn lapsed_gives_up_its_steps() -> Defect {
    Defect {
        fault: "model::agrees_with_the_rules",
        abandon: |seen, abandon| {
            edit(seen.decide(abandon), |next| {
                if abandon.known == Known::Unknown && seen.is(State::Lapsed) {
                    next.progress = None;
                }
            })
        },
        ..SOUND
    }
}

/// A release deletes the row, and with it the fingerprint and the last token.
pub(crate) fn release_forgets() -> Defect {
    Defect {
        fault: "fingerprint::is_kept_through_release",
        abandon: |seen, abandon| {
            let decided = seen.decide(abandon);
            match &decided.change {
                Change::Put(Record { status: Status::Released, .. }) => remove(Fenced::Applied),
                _ => decided,
            }
        },
        ..SOUND
    }
}

/// "I do not know" is taken for "nothing was done". As in Powertools and others that delete the
/// record when the handler throws.
pub(crate) fn unknown_is_nothing() -> Defect {
    Defect {
        fault: "release::giving_up_interrupts_at_once",
        abandon: |seen, abandon| {
            let hold = Duration::from_secs(3600);
            match abandon.known {
                Known::Unknown if seen.is(State::Live) => {
                    seen.decide(&Abandon { known: Known::NotStarted { hold }, ..*abandon })
                }
                _ => seen.decide(abandon),
            }
        },
        ..SOUND
    }
}
