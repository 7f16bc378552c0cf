//! Results: stores that refuse them, change them, or lose them.

use bytes::Bytes;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    ClaimOutcome, Complete, Fenced, Record, Settlement, State, Status, StoredValue, Transition,
};

use crate::defect::{Defect, SOUND, Seen, edit, refuse};

/// A result ends the count: whoever looks at it cannot tell how many attempts it took.
pub(crate) fn result_ends_the_count() -> Defect {
    Defect {
        fault: "complete::records_the_result",
        complete: |seen, complete| edit(seen.decide(complete), |record| record.number = 1),
        ..SOUND
    }
}

/// A result after the lease lapsed is refused although nobody took over: what was done is done
/// again.
pub(crate) fn too_late_to_complete() -> Defect {
    Defect {
        fault: "complete::after_the_lease_lapsed",
        complete: |seen, complete| lost_when(seen, complete, State::Lapsed),
        ..SOUND
    }
}

/// Only what is in progress can be completed, not what a late copy of a message released.
pub(crate) fn released_for_good() -> Defect {
    Defect {
        fault: "complete::after_release",
        complete: |seen, complete| lost_when(seen, complete, State::Released),
        ..SOUND
    }
}

/// Whoever gave up and finds out that it was done cannot say so.
pub(crate) fn given_up_for_good() -> Defect {
    Defect {
        fault: "complete::after_giving_up",
        complete: |seen, complete| lost_when(seen, complete, State::GaveUp),
        ..SOUND
    }
}

fn lost_when(seen: Seen<'_>, complete: &Complete, state: State) -> Transition<Fenced> {
    refuse(seen.decide(complete), |_| {
        (seen.is(state) && seen.is_of(complete.grant.attempt)).then_some(Fenced::Lost)
    })
}

/// The retention is set with the claim, as if the operation took no time.
pub(crate) fn retention_counts_from_the_claim() -> Defect {
    Defect {
        fault: "complete::retention_counts_from_the_completion",
        complete: |seen, complete| {
            edit(seen.decide(complete), |record| {
                // A first token is the time of its grant.
                let granted = Timestamp::from_micros(record.token.get());
                if let Status::Completed { retained_until, .. } = &mut record.status {
                    *retained_until = granted.saturating_add(complete.completion.retention);
                    record.forget_at = retained_until.saturating_add(complete.completion.hold);
                }
            })
        },
        ..SOUND
    }
}

/// A result is forgotten with its retention: the hold that was asked for is not kept.
pub(crate) fn result_has_no_hold() -> Defect {
    Defect {
        fault: "complete::retention_counts_from_the_completion",
        complete: |seen, complete| {
            edit(seen.decide(complete), |record| {
                if let Status::Completed { retained_until, .. } = record.status {
                    record.forget_at = retained_until;
                }
            })
        },
        ..SOUND
    }
}

/// The saved steps stay beside the result, for as long as it is kept.
pub(crate) fn keeps_the_scaffolding() -> Defect {
    Defect {
        fault: "complete::drops_what_was_saved",
        complete: |seen, complete| {
            edit(seen.decide(complete), |record| {
                if let Some(before) = seen.record {
                    record.progress.clone_from(&before.progress);
                    record.previous = before.previous;
                }
            })
        },
        ..SOUND
    }
}

/// Keeps the result as text: bytes that are no UTF-8 come back as replacement characters.
pub(crate) fn results_are_text() -> Defect {
    Defect {
        fault: "replay::is_byte_for_byte",
        stored: |_, _, record| {
            change_value(record, |value| Some(String::from_utf8_lossy(value).into_owned().into()));
        },
        ..SOUND
    }
}

/// An operator's verdict comes through a form, and its bytes as text.
pub(crate) fn verdicts_are_text() -> Defect {
    Defect {
        fault: "replay::is_byte_for_byte",
        settle: |seen, settle| {
            let mut settle = settle.clone();
            if let Settlement::Done(completion) = &mut settle.settlement {
                let text = String::from_utf8_lossy(&completion.value).into_owned();
                completion.value = text.into();
            }
            seen.decide(&settle)
        },
        ..SOUND
    }
}

/// A streaming body is serialised as `{}`. As in actor-ts.
pub(crate) fn streams_are_braces() -> Defect {
    Defect {
        fault: "replay::is_byte_for_byte",
        stored: |_, _, record| {
            change_value(record, |value| std::str::from_utf8(value).is_err().then(|| "{}".into()));
        },
        ..SOUND
    }
}

/// A column that ends at a mebibyte, and a database that cuts without a word.
pub(crate) fn cuts_large_results() -> Defect {
    Defect {
        fault: "limits::a_large_result_fits_or_is_refused",
        stored: |_, _, record| {
            change_value(record, |value| (value.len() > 1 << 20).then(|| value.slice(..1 << 20)));
        },
        ..SOUND
    }
}

/// A column with number affinity: the result `007` comes back as `7`. As in SQLite without STRICT.
pub(crate) fn results_have_affinity() -> Defect {
    Defect {
        fault: "replay::is_byte_for_byte",
        stored: |_, _, record| {
            change_value(record, |value| {
                let number = std::str::from_utf8(value).ok()?.parse::<u64>().ok()?;
                Some(number.to_string().into())
            });
        },
        ..SOUND
    }
}

fn change_value(record: &mut Record, change: impl FnOnce(&Bytes) -> Option<Bytes>) {
    if let Status::Completed { value: StoredValue::Replayable(value), .. } = &mut record.status
        && let Some(changed) = change(value)
    {
        *value = changed;
    }
}

/// An empty result is "no result": the duplicate of a 204 is told that nothing was kept.
pub(crate) fn empty_is_nothing() -> Defect {
    Defect {
        fault: "replay::an_empty_result_is_a_result",
        claim: |seen, claim| {
            refuse(seen.decide(claim), |outcome| match outcome {
                ClaimOutcome::Replay(Some(value)) if value.is_empty() => {
                    Some(ClaimOutcome::Replay(None))
                }
                _ => None,
            })
        },
        ..SOUND
    }
}

/// What was not kept is replayed as an empty result: the duplicate believes that there was none.
pub(crate) fn nothing_is_empty() -> Defect {
    Defect {
        fault: "replay::a_result_that_was_not_kept_is_still_done",
        claim: |seen, claim| {
            refuse(seen.decide(claim), |outcome| match outcome {
                ClaimOutcome::Replay(None) => Some(ClaimOutcome::Replay(Some(Bytes::new()))),
                _ => None,
            })
        },
        ..SOUND
    }
}

/// Without a body there is nothing to replay, so the operation is run again. As with caches that
/// store only what fits.
pub(crate) fn not_kept_is_not_done() -> Defect {
    Defect {
        fault: "replay::a_result_that_was_not_kept_is_still_done",
        claim: |seen, claim| match seen.decide(claim).outcome {
            ClaimOutcome::Replay(None) if !seen.is_of(claim.attempt) => {
                seen.decide_as(claim, |record| record.status = Status::Released)
            }
            _ => seen.decide(claim),
        },
        ..SOUND
    }
}

/// Replays to whoever holds the grant, and to nobody else.
pub(crate) fn replays_to_the_owner_only() -> Defect {
    Defect {
        fault: "complete::records_the_result",
        claim: |seen, claim| {
            refuse(seen.decide(claim), |outcome| match outcome {
                ClaimOutcome::Replay(_) if !seen.is_of(claim.attempt) => {
                    Some(ClaimOutcome::Retired)
                }
                _ => None,
            })
        },
        ..SOUND
    }
}
