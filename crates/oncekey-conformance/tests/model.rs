//! The model finds mistakes in the rules of a store, and shows them in few steps.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod cells;
mod ruled;

use std::time::Duration;

use futures::executor::block_on;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    AttemptId, Claim, ClaimOutcome, Evict, Expected, Fenced, FencingToken, OnInterrupted, Record,
    Renew, State, Status, StoredValue,
};
use oncekey_conformance::history::{Answer, Operation};
use oncekey_conformance::{Fixture, model};

use cells::Watched;
use ruled::{Right, Ruled, Rules};

#[test]
fn the_rules_agree_with_themselves() {
    let verdict = verdict_on::<Right>();

    assert_eq!(verdict, Ok(()));
}

#[test]
fn a_store_whose_time_passes_by_itself_agrees() {
    #[derive(Debug)]
    struct RealTime;

    impl Rules for RealTime {
        const REAL_TIME: bool = true;
    }

    assert_eq!(verdict_on::<RealTime>(), Ok(()));
}

#[test]
fn a_store_that_forgets_by_itself_agrees() {
    #[derive(Debug)]
    struct Forgetful;

    impl Rules for Forgetful {
        fn aged(record: &Record, now: Timestamp) -> Option<Record> {
            (!record.is_purgeable(now)).then(|| record.clone())
        }
    }

    assert_eq!(verdict_on::<Forgetful>(), Ok(()));
}

#[test]
fn a_store_that_shrinks_retired_results_agrees() {
    #[derive(Debug)]
    struct Shrinking;

    impl Rules for Shrinking {
        fn aged(record: &Record, now: Timestamp) -> Option<Record> {
            let mut record = record.clone();
            let is_retired = record.state(now) == State::Retired;
            if let Status::Completed { value, .. } = &mut record.status
                && let (true, Some(bytes)) = (is_retired, value.replay())
            {
                *value = StoredValue::new(&bytes, false);
            }
            Some(record)
        }
    }

    assert_eq!(verdict_on::<Shrinking>(), Ok(()));
}

/// Every cell of the tables of the rules is visited by the sequences that are run by default.
#[test]
fn every_cell_of_the_rules_is_visited() {
    assert_eq!(verdict_on::<Watched>(), Ok(()));

    let (all, visited) = (cells::all(), cells::visited());
    let missing: Vec<_> = all.difference(&visited).collect();
    assert!(missing.is_empty(), "{} of {}: {missing:#?}", missing.len(), all.len());
}

/// Defines a store with one mistake each, and a test that the model shows it in at most so many steps.
macro_rules! mistakes {
    ($($(#[$doc:meta])* $name:ident in $steps:literal steps, $rules:ident {
        $($body:item)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        struct $rules;

        impl Rules for $rules {
            $($body)*
        }

        #[test]
        fn $name() {
            shows_in::<$rules>($steps);
        }
    )*};
}

type Decided = (Answer, Option<Record>);

mistakes! {
    a_token_that_stays_at_takeover in 3 steps, SameTokenAtTakeover {
        fn apply(operation: &Operation, record: Option<&Record>, now: Timestamp) -> Decided {
            let (mut answer, mut after) = operation.apply(record, now);
            if let (
                Answer::Claim(ClaimOutcome::Acquired { grant, previous: Some(previous), .. }),
                Some(after),
            ) = (&mut answer, &mut after) {
                grant.token = previous.token;
                after.token = previous.token;
            }
            (answer, after)
        }
    }

    a_renewal_that_shortens_the_lease in 3 steps, ShorteningRenew {
        fn apply(operation: &Operation, record: Option<&Record>, now: Timestamp) -> Decided {
            let (answer, mut after) = operation.apply(record, now);
            if let (
                Operation::Renew(Renew { lease, .. }),
                Answer::Fenced(Fenced::Applied),
                Some(Record { status: Status::InProgress { deadline }, .. }),
            ) = (operation, &answer, &mut after) {
                *deadline = now.saturating_add(*lease);
            }
            (answer, after)
        }
    }

    progress_that_a_takeover_does_not_inherit in 4 steps, LostProgress {
        fn apply(operation: &Operation, record: Option<&Record>, now: Timestamp) -> Decided {
            let (mut answer, mut after) = operation.apply(record, now);
            if let (
                Answer::Claim(ClaimOutcome::Acquired { previous: Some(previous), .. }),
                Some(after),
            ) = (&mut answer, &mut after) {
                previous.progress = None;
                after.progress = None;
            }
            (answer, after)
        }
    }

    a_fingerprint_that_is_not_compared_once_lapsed in 3 steps, LapsedFingerprint {
        fn apply(operation: &Operation, record: Option<&Record>, now: Timestamp) -> Decided {
            match (operation, record) {
                (Operation::Claim(claim), Some(record)) if record.state(now) == State::Lapsed => {
                    let same = Claim { fingerprint: record.fingerprint, ..*claim };
                    Operation::Claim(same).apply(Some(record), now)
                }
                _ => operation.apply(record, now),
            }
        }
    }

    an_ended_attempt_that_takes_over_from_itself in 3 steps, SpentTakesOver {
        fn apply(operation: &Operation, record: Option<&Record>, now: Timestamp) -> Decided {
            let (answer, after) = operation.apply(record, now);
            match (&answer, record) {
                (Answer::Claim(ClaimOutcome::Spent), Some(record))
                    if record.status == Status::GaveUp =>
                {
                    let others = Record {
                        attempt: AttemptId::from_bytes([0; 16]),
                        ..record.clone()
                    };
                    operation.apply(Some(&others), now)
                }
                _ => (answer, after),
            }
        }
    }

    a_repeated_completion_that_extends_the_retention in 4 steps, ExtendedRetention {
        fn apply(operation: &Operation, record: Option<&Record>, now: Timestamp) -> Decided {
            let (answer, mut after) = operation.apply(record, now);
            if let (
                Operation::Complete(complete),
                Answer::Fenced(Fenced::Applied),
                Some(Record { status: Status::Completed { retained_until, .. }, forget_at, .. }),
            ) = (operation, &answer, &mut after) {
                let anew = now.saturating_add(complete.completion.retention);
                *retained_until = anew.max(*retained_until);
                *forget_at = (*forget_at).max(anew);
            }
            (answer, after)
        }
    }

    an_eviction_of_whatever_is_there in 2 steps, EvictsAnything {
        fn apply(operation: &Operation, record: Option<&Record>, now: Timestamp) -> Decided {
            match operation {
                Operation::Evict(evict) => {
                    let any = Evict { expected: Expected::Any, ..*evict };
                    Operation::Evict(any).apply(record, now)
                }
                _ => operation.apply(record, now),
            }
        }
    }

    a_purge_at_the_deadline in 2 steps, PurgesAtDeadline {
        fn is_purgeable(record: &Record, now: Timestamp) -> bool {
            record.is_purgeable(now) || record.state(now) == State::Lapsed
        }
    }

    a_release_that_forgets_the_fingerprint in 3 steps, ForgetfulRelease {
        fn apply(operation: &Operation, record: Option<&Record>, now: Timestamp) -> Decided {
            let (answer, mut after) = operation.apply(record, now);
            if let Some(after) = &mut after
                && after.status == Status::Released
            {
                after.fingerprint = oncekey::Fingerprint::from_digest(0, [0; 32]);
            }
            (answer, after)
        }
    }

    a_wrong_time_to_retry_after in 2 steps, WrongRetryAfter {
        fn apply(operation: &Operation, record: Option<&Record>, now: Timestamp) -> Decided {
            let (mut answer, after) = operation.apply(record, now);
            if let Answer::Claim(ClaimOutcome::Busy { retry_after }) = &mut answer {
                *retry_after += Duration::from_micros(1);
            }
            (answer, after)
        }
    }

    /// The answer is right and the record is not: only reading it tells.
    a_refusal_that_writes in 2 steps, WritingRefusal {
        fn apply(operation: &Operation, record: Option<&Record>, now: Timestamp) -> Decided {
            let (answer, mut after) = operation.apply(record, now);
            if let (Answer::Claim(ClaimOutcome::Mismatch), Some(after)) = (&answer, &mut after) {
                after.forget_at = after.forget_at.saturating_add(Duration::from_secs(1));
            }
            (answer, after)
        }
    }

    a_takeover_where_the_claim_asked_to_refuse in 3 steps, NeverRefuses {
        fn apply(operation: &Operation, record: Option<&Record>, now: Timestamp) -> Decided {
            match operation {
                Operation::Claim(claim) => {
                    let over = Claim { on_interrupted: OnInterrupted::TakeOver, ..*claim };
                    Operation::Claim(over).apply(record, now)
                }
                _ => operation.apply(record, now),
            }
        }
    }

    an_owner_whose_token_is_not_compared in 2 steps, IgnoresTokens {
        fn apply(operation: &Operation, record: Option<&Record>, now: Timestamp) -> Decided {
            let mut operation = operation.clone();
            if let (Operation::Complete(complete), Some(record)) = (&mut operation, record) {
                complete.grant.token = record.token;
            }
            operation.apply(record, now)
        }
    }

    a_token_that_starts_at_one in 1 steps, TokensFromOne {
        fn apply(operation: &Operation, record: Option<&Record>, now: Timestamp) -> Decided {
            let (mut answer, mut after) = operation.apply(record, now);
            if let (
                None,
                Answer::Claim(ClaimOutcome::Acquired { grant, .. }),
                Some(after),
            ) = (record, &mut answer, &mut after) {
                grant.token = FencingToken::new(1);
                after.token = grant.token;
            }
            (answer, after)
        }
    }
}

fn verdict_on<R: Rules>() -> oncekey_conformance::Verdict {
    block_on(async {
        let fixture = Ruled::<R>::create().await;
        model::agrees_with_the_rules(&fixture).await
    })
}

/// The model finds the mistake in `R`, and shows it in no more than `steps` steps.
#[track_caller]
fn shows_in<R: Rules>(steps: usize) {
    let violation = verdict_on::<R>().expect_err("the mistake is found");
    let shown = violation.observed.lines().skip(1).count();

    println!("{violation}");
    assert!((1..=steps).contains(&shown), "{shown} steps, not {steps}: {violation}");
}
