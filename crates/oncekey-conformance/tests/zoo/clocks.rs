//! Clocks that step back: stores that take the past for something else.

use std::time::Duration;

use oncekey::runtime::Timestamp;
use oncekey::store::{Change, ClaimOutcome, FencingToken, State, Status};

use crate::defect::{Defect, SOUND, Seen};

/// A sequence within the clock's tick: two grants at one time differ, and a clock that steps back takes the
/// token with it. As in many makers of sortable ids.
pub(crate) fn token_follows_the_clock() -> Defect {
    Defect {
        fault: "clock::tokens_increase_when_it_steps_back",
        claim: |seen, claim| {
            let mut decided = seen.decide(claim);
            if is_from_the_future(seen)
                && !seen.is_of(claim.attempt)
                && let (ClaimOutcome::Acquired { grant, .. }, Change::Put(record)) =
                    (&mut decided.outcome, &mut decided.change)
            {
                grant.token = FencingToken::new(seen.now.as_micros());
                record.token = grant.token;
            }
            decided
        },
        ..SOUND
    }
}

/// A lock that was taken in the future is taken for garbage.
pub(crate) fn future_locks_are_stale() -> Defect {
    Defect {
        fault: "clock::a_live_lease_outlasts_a_step_back",
        claim: |seen, claim| match seen.is(State::Live) && is_from_the_future(seen) {
            true if !seen.is_of(claim.attempt) => seen.decide_as(claim, |record| {
                record.status = Status::InProgress { deadline: seen.now };
            }),
            _ => seen.decide(claim),
        },
        ..SOUND
    }
}

/// A result that is younger than none was never made, and runs again.
pub(crate) fn future_results_are_stale() -> Defect {
    Defect {
        fault: "clock::a_result_outlasts_a_step_back",
        claim: |seen, claim| match seen.is(State::Completed) && is_from_the_future(seen) {
            true if !seen.is_of(claim.attempt) => seen.decide_absent(claim),
            _ => seen.decide(claim),
        },
        ..SOUND
    }
}

/// Computes for how long an operation was stuck before it is settled, in numbers that are never negative.
pub(crate) fn ages_are_unsigned() -> Defect {
    Defect {
        fault: "clock::every_command_is_answered_after_a_step_back",
        settle: |seen, settle| {
            assert!(!is_from_the_future(seen), "attempt to subtract with overflow");
            seen.decide(settle)
        },
        ..SOUND
    }
}

/// Whether the record was granted later than now.
fn is_from_the_future(seen: Seen<'_>) -> bool {
    let granted = seen.record.map(|record| Timestamp::from_micros(record.token.get()));
    granted.is_some_and(|at| at.saturating_since(seen.now) > Duration::from_secs(1))
}
