//! Commands that arrive twice, or late: stores that take a copy for a new command.

use std::time::Duration;

use oncekey::store::{
    AttemptId, Change, Claim, ClaimOutcome, Complete, Fenced, FencingToken, Known, OnInterrupted,
    Record, State, Status, StoredValue, Transition,
};

use crate::defect::{Defect, SOUND, Seen, edit, keep, refuse};

/// The network delivered the claim twice, and the owner is told that it is busy: it waits for
/// itself.
pub(crate) fn own_retry_is_busy() -> Defect {
    Defect {
        fault: "retry::claim_again_gets_the_same_grant",
        claim: |seen, claim| {
            refuse(seen.decide(claim), |outcome| match outcome {
                ClaimOutcome::Acquired { lease_left, .. } if seen.is(State::Live) => {
                    Some(ClaimOutcome::Busy { retry_after: *lease_left })
                }
                _ => None,
            })
        },
        ..SOUND
    }
}

/// A repeated claim gets a new token, and the world refuses the one that the owner works with.
pub(crate) fn own_retry_gets_a_new_token() -> Defect {
    Defect {
        fault: "retry::claim_again_gets_the_same_grant",
        claim: |seen, claim| {
            let mut decided = seen.decide(claim);
            if let (true, ClaimOutcome::Acquired { grant, .. }, Change::Put(record)) = (
                seen.is(State::Live) && seen.is_of(claim.attempt),
                &mut decided.outcome,
                &mut decided.change,
            ) {
                grant.token = FencingToken::new(grant.token.get() + 1);
                record.token = grant.token;
            }
            decided
        },
        ..SOUND
    }
}

/// The second copy of a takeover is told nothing of whom it replaced.
pub(crate) fn own_retry_has_no_past() -> Defect {
    Defect {
        fault: "retry::claim_again_gets_the_same_grant",
        claim: |seen, claim| {
            let mut decided = seen.decide(claim);
            if let (true, ClaimOutcome::Acquired { previous, .. }) =
                (seen.is_of(claim.attempt), &mut decided.outcome)
            {
                *previous = None;
            }
            decided
        },
        ..SOUND
    }
}

/// A copy of the claim, delivered late, sets the deadline back to what it was.
pub(crate) fn own_retry_shortens() -> Defect {
    Defect {
        fault: "retry::claim_again_moves_the_deadline_on",
        claim: |seen, claim| {
            let mut decided = seen.decide(claim);
            if let (ClaimOutcome::Acquired { lease_left, .. }, Change::Put(record)) =
                (&mut decided.outcome, &mut decided.change)
            {
                let deadline = seen.now.saturating_add(claim.lease);
                *lease_left = claim.lease;
                record.status = Status::InProgress { deadline };
                record.forget_at = deadline.saturating_add(claim.hold);
            }
            decided
        },
        ..SOUND
    }
}

/// Promises the lease that was asked for, whatever is left.
pub(crate) fn own_retry_is_promised_nothing_new() -> Defect {
    Defect {
        fault: "retry::claim_again_moves_the_deadline_on",
        claim: |seen, claim| match (seen.decide(claim), seen.record) {
            (Transition { outcome: outcome @ ClaimOutcome::Acquired { .. }, .. }, Some(record))
                if seen.is(State::Live) && record.attempt == claim.attempt =>
            {
                keep(outcome)
            }
            (decided, _) => decided,
        },
        ..SOUND
    }
}

/// A lapsed owner that asks again is told that it was interrupted, by itself.
pub(crate) fn interrupted_by_itself() -> Defect {
    Defect {
        fault: "retry::claim_again_after_the_lease_lapsed",
        claim: |seen, claim| {
            refuse(seen.decide(claim), |_| {
                let own = seen.is(State::Lapsed) && seen.is_of(claim.attempt);
                (own && claim.on_interrupted == OnInterrupted::Refuse)
                    .then_some(ClaimOutcome::Interrupted)
            })
        },
        ..SOUND
    }
}

/// A lapsed owner that asks again takes over from itself.
pub(crate) fn takes_over_from_itself() -> Defect {
    Defect {
        fault: "retry::claim_again_after_the_lease_lapsed",
        claim: |seen, claim| match seen.is(State::Lapsed) {
            true => as_a_stranger(seen, claim),
            false => seen.decide(claim),
        },
        ..SOUND
    }
}

/// A claim of an attempt that ended long ago is granted: to nobody.
pub(crate) fn late_copy_is_granted() -> Defect {
    Defect {
        fault: "retry::a_late_claim_of_an_ended_attempt_is_spent",
        claim: |seen, claim| match seen.decide(claim).outcome {
            ClaimOutcome::Spent => as_a_stranger(seen, claim),
            _ => seen.decide(claim),
        },
        ..SOUND
    }
}

fn as_a_stranger(seen: Seen<'_>, claim: &Claim) -> Transition<ClaimOutcome> {
    let nobody = AttemptId::from_bytes([0; 16]);
    seen.decide_as(claim, |record| record.attempt = nobody)
}

/// The owner lost the answer to its completion, claims again, and does not get its own result.
pub(crate) fn own_result_is_spent() -> Defect {
    Defect {
        fault: "retry::a_late_claim_after_completion_is_replayed",
        claim: |seen, claim| {
            refuse(seen.decide(claim), |outcome| match outcome {
                ClaimOutcome::Replay(Some(_)) if seen.is_of(claim.attempt) => {
                    Some(ClaimOutcome::Spent)
                }
                _ => None,
            })
        },
        ..SOUND
    }
}

/// The lost acknowledgement of a completion: sent again, it is refused, and the owner reports a
/// failure for what succeeded.
pub(crate) fn second_completion_is_lost() -> Defect {
    Defect {
        fault: "retry::complete_again_changes_nothing",
        complete: |seen, complete| {
            refuse(seen.decide(complete), |outcome| {
                (seen.is(State::Completed) && *outcome == Fenced::Applied).then_some(Fenced::Lost)
            })
        },
        ..SOUND
    }
}

/// Each copy of a completion starts the retention anew.
pub(crate) fn second_completion_extends() -> Defect {
    Defect {
        fault: "retry::complete_again_changes_nothing",
        complete: |seen, complete| match seen.decide(complete).outcome {
            Fenced::Applied if seen.is(State::Completed) => once_more(seen, complete),
            _ => seen.decide(complete),
        },
        ..SOUND
    }
}

/// The last result wins: one owner that answers twice changes what duplicates have seen.
pub(crate) fn last_result_wins() -> Defect {
    Defect {
        fault: "retry::complete_with_other_bytes_conflicts",
        complete: |seen, complete| match seen.decide(complete).outcome {
            Fenced::Conflict if has_bytes(seen) => once_more(seen, complete),
            _ => seen.decide(complete),
        },
        ..SOUND
    }
}

/// Any completion of what is complete is fine: the owner is never told that its answer is not the
/// one that duplicates get.
pub(crate) fn second_result_is_swallowed() -> Defect {
    Defect {
        fault: "retry::complete_with_other_bytes_conflicts",
        complete: |seen, complete| {
            refuse(seen.decide(complete), |outcome| {
                let conflict = *outcome == Fenced::Conflict && has_bytes(seen);
                (conflict && seen.is(State::Completed)).then_some(Fenced::Applied)
            })
        },
        ..SOUND
    }
}

/// Compares as many bytes as there are in the shorter one: a result that was cut off matches.
pub(crate) fn compares_the_beginning() -> Defect {
    Defect {
        fault: "retry::complete_with_other_bytes_conflicts",
        complete: |seen, complete| {
            refuse(seen.decide(complete), |outcome| match seen.record.map(|it| &it.status) {
                Some(Status::Completed { value: StoredValue::Replayable(value), .. })
                    if *outcome == Fenced::Conflict
                        && value.starts_with(&complete.completion.value) =>
                {
                    Some(Fenced::Applied)
                }
                _ => None,
            })
        },
        ..SOUND
    }
}

/// Without the bytes there is nothing to compare: any result matches.
pub(crate) fn no_digest() -> Defect {
    Defect {
        fault: "retry::complete_again_without_the_bytes",
        complete: |seen, complete| {
            refuse(seen.decide(complete), |outcome| {
                (*outcome == Fenced::Conflict && !has_bytes(seen)).then_some(Fenced::Applied)
            })
        },
        ..SOUND
    }
}

/// Once retired, any result matches.
pub(crate) fn retired_matches_anything() -> Defect {
    Defect {
        fault: "retry::complete_again_after_the_retention",
        complete: |seen, complete| {
            refuse(seen.decide(complete), |outcome| {
                (*outcome == Fenced::Conflict && seen.is(State::Retired)).then_some(Fenced::Applied)
            })
        },
        ..SOUND
    }
}

fn has_bytes(seen: Seen<'_>) -> bool {
    matches!(
        seen.record.map(|record| &record.status),
        Some(Status::Completed { value: StoredValue::Replayable(_), .. })
    )
}

fn once_more(seen: Seen<'_>, complete: &Complete) -> Transition<Fenced> {
    seen.decide_as(complete, |record| record.status = Status::GaveUp)
}

/// The second copy of a release finds no owner, and says so to the owner.
pub(crate) fn second_release_is_lost() -> Defect {
    Defect {
        fault: "retry::release_again_changes_nothing",
        abandon: |seen, abandon| {
            refuse(seen.decide(abandon), |_| seen.is(State::Released).then_some(Fenced::Lost))
        },
        ..SOUND
    }
}

/// Each copy of a release lets the key be remembered longer.
pub(crate) fn second_release_extends() -> Defect {
    Defect {
        fault: "retry::release_again_changes_nothing",
        abandon: |seen, abandon| match abandon.known {
            Known::NotStarted { .. } if seen.is(State::Released) => {
                seen.decide_as(abandon, |record| record.status = Status::GaveUp)
            }
            _ => seen.decide(abandon),
        },
        ..SOUND
    }
}

/// The second copy of giving up is told that it lost.
pub(crate) fn second_give_up_is_lost() -> Defect {
    Defect {
        fault: "retry::give_up_again_changes_nothing",
        abandon: |seen, abandon| {
            refuse(seen.decide(abandon), |_| {
                (seen.is(State::GaveUp) && abandon.known == Known::Unknown).then_some(Fenced::Lost)
            })
        },
        ..SOUND
    }
}

/// Each copy of giving up lets the key be remembered longer.
pub(crate) fn second_give_up_extends() -> Defect {
    Defect {
        fault: "retry::give_up_again_changes_nothing",
        abandon: |seen, abandon| {
            let mut decided = seen.decide(abandon);
            let again = seen.record.filter(|_| seen.is(State::GaveUp));
            if let (Known::Unknown, Fenced::Applied, Some(record)) =
                (abandon.known, decided.outcome, again)
            {
                let forget_at = record.forget_at.saturating_add(Duration::from_secs(60));
                decided.change = Change::Put(Record { forget_at, ..record.clone() });
            }
            decided
        },
        ..SOUND
    }
}

/// A late copy of giving up interrupts a key that was released.
pub(crate) fn give_up_undoes_a_release() -> Defect {
    Defect {
        fault: "retry::give_up_after_release_is_lost",
        abandon: |seen, abandon| match abandon.known {
            Known::Unknown if seen.is(State::Released) => {
                let deadline = seen.now;
                seen.decide_as(abandon, |record| {
                    record.status = Status::InProgress { deadline };
                })
            }
            _ => seen.decide(abandon),
        },
        ..SOUND
    }
}

/// A heartbeat that was under way when the owner ended brings the attempt back to life.
pub(crate) fn renewal_raises_the_dead() -> Defect {
    Defect {
        fault: "retry::a_late_renew_of_an_ended_attempt_is_lost",
        renew: |seen, renew| {
            let deadline = seen.now;
            seen.decide_as(renew, |record| {
                if matches!(record.status, Status::GaveUp | Status::Released) {
                    record.status = Status::InProgress { deadline };
                }
            })
        },
        ..SOUND
    }
}

/// Whatever arrives last is the newest: a delayed save puts the owner back a step.
pub(crate) fn last_save_wins() -> Defect {
    Defect {
        fault: "retry::an_older_progress_never_replaces_a_newer",
        renew: |seen, renew| {
            edit(seen.decide(renew), |record| {
                if let Some(progress) = &renew.progress {
                    record.progress = Some(Box::new(progress.clone()));
                }
            })
        },
        ..SOUND
    }
}

/// A delayed save is refused as a whole, and the lease that it was to extend runs out.
pub(crate) fn old_save_is_refused() -> Defect {
    Defect {
        fault: "retry::an_older_progress_never_replaces_a_newer",
        renew: |seen, renew| {
            let saved = seen.record.and_then(|record| record.progress.as_ref());
            refuse(seen.decide(renew), |_| match (saved, &renew.progress) {
                (Some(saved), Some(new)) if new.sequence <= saved.sequence => Some(Fenced::Lost),
                _ => None,
            })
        },
        ..SOUND
    }
}
