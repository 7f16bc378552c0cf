//! What holds for any record, any command and any time, also for records that no rule ever made.

mod arbitrary;

use std::fmt::Debug;
use std::time::Duration;

use arbitrary::{
    abandon, claim, complete, config, evict, progress, record, renew, settle, timestamp,
};
use oncekey::runtime::Timestamp;
use oncekey::store::{
    Change, Claim, ClaimOutcome, Command, Fenced, FencingToken, Purge, Record, Renew, State,
    Status, Transition, transition,
};
use proptest::option;
use proptest::prelude::*;

/// What is on record afterwards.
fn after<O>(record: Option<&Record>, decided: &Transition<O>) -> Option<Record> {
    match &decided.change {
        Change::Keep => record.cloned(),
        Change::Put(next) => Some(next.clone()),
        Change::Remove => None,
    }
}

/// Sends a command twice. The second answer must be the first, and change nothing more.
fn repeat<C: Command>(record: Option<&Record>, command: &C, now: Timestamp)
where
    C::Outcome: Debug + PartialEq,
{
    let first = transition(record, command, now);
    let kept = after(record, &first);
    let second = transition(kept.as_ref(), command, now);
    assert_eq!(second.outcome, first.outcome);
    assert_eq!(after(kept.as_ref(), &second), kept);
}

fn deadline(record: &Record) -> Option<Timestamp> {
    match record.status {
        Status::InProgress { deadline } => Some(deadline),
        _ => None,
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_refused_claim_changes_nothing(
        record in option::of(record()), claim in claim(), now in timestamp(),
    ) {
        let decided = transition(record.as_ref(), &claim, now);
        let acquired = matches!(decided.outcome, ClaimOutcome::Acquired { .. });
        prop_assert_eq!(acquired, decided.change != Change::Keep);
    }

    #[test]
    fn a_refused_command_changes_nothing(
        record in option::of(record()), now in timestamp(),
        renew in renew(), complete in complete(), abandon in abandon(),
        settle in settle(), evict in evict(),
    ) {
        let record = record.as_ref();
        for decided in [
            transition(record, &renew, now),
            transition(record, &complete, now),
            transition(record, &abandon, now),
            transition(record, &settle, now),
            transition(record, &evict, now),
        ] {
            prop_assert!(decided.outcome == Fenced::Applied || decided.change == Change::Keep);
            prop_assert_eq!(decided.outcome == Fenced::Gone, record.is_none());
        }
    }

    #[test]
    fn every_command_can_be_sent_twice(
        record in option::of(record()), now in timestamp(),
        claim in claim(), renew in renew(), complete in complete(),
        abandon in abandon(), settle in settle(),
    ) {
        let record = record.as_ref();
        repeat(record, &claim, now);
        repeat(record, &renew, now);
        repeat(record, &complete, now);
        repeat(record, &abandon, now);
        repeat(record, &settle, now);
    }

    #[test]
    fn an_eviction_that_is_sent_again_finds_nothing(
        record in option::of(record()), evict in evict(), now in timestamp(),
    ) {
        let first = transition(record.as_ref(), &evict, now);
        if first.outcome == Fenced::Applied {
            prop_assert_eq!(&first.change, &Change::Remove);
            prop_assert_eq!(transition(None, &evict, now).outcome, Fenced::Gone);
        }
    }

    #[test]
    fn completing_again_at_any_later_time_changes_nothing(
        record in record(), complete in complete(), now in timestamp(), later in timestamp(),
    ) {
        let first = transition(Some(&record), &complete, now);
        let kept = after(Some(&record), &first);
        if first.outcome == Fenced::Applied {
            let again = transition(kept.as_ref(), &complete, later);
            prop_assert_eq!(again.outcome, Fenced::Applied);
            prop_assert_eq!(again.change, Change::Keep);
        }
    }

    #[test]
    fn a_clock_that_goes_back_shortens_no_lease(
        record in record(), claim in claim(), renew in renew(),
        now in timestamp(), earlier in timestamp(),
    ) {
        let claim = Claim { attempt: record.attempt, fingerprint: record.fingerprint, ..claim };
        let mut renew = renew;
        renew.grant.attempt = record.attempt;
        let mut record = record;
        for now in [now, earlier] {
            let next = after(Some(&record), &transition(Some(&record), &claim, now));
            let next = next.expect("a claim removes nothing");
            let renewed = after(Some(&next), &transition(Some(&next), &renew, now));
            let renewed = renewed.expect("a renewal removes nothing");
            if let Some(deadline_before) = deadline(&record) {
                prop_assert!(deadline(&next) >= Some(deadline_before));
                prop_assert!(deadline(&renewed) >= deadline(&next));
                prop_assert!(next.forget_at >= record.forget_at);
                prop_assert!(renewed.forget_at >= next.forget_at);
            }
            record = renewed;
        }
    }

    #[test]
    fn a_key_is_remembered_for_as_long_as_it_is_needed(
        record in option::of(record()), claim in claim(), complete in complete(),
        now in timestamp(),
    ) {
        let record = record.as_ref();
        let granted = transition(record, &claim, now);
        if let Change::Put(next) = &granted.change {
            let deadline = deadline(next).expect("a grant is in progress");
            prop_assert!(deadline >= now.saturating_add(claim.lease));
            prop_assert!(next.forget_at >= deadline.saturating_add(claim.hold));
        }
        if let Change::Put(next) = transition(record, &complete, now).change {
            let retained = now.saturating_add(complete.completion.retention);
            let Status::Completed { retained_until, .. } = next.status else {
                panic!("it is completed");
            };
            prop_assert_eq!(retained_until, retained);
            prop_assert_eq!(next.forget_at, retained.saturating_add(complete.completion.hold));
        }
    }

    #[test]
    fn tokens_grow_and_stay_exact(
        record in option::of(record()), claim in claim(), now in timestamp(),
    ) {
        let outcome = transition(record.as_ref(), &claim, now).outcome;
        if let ClaimOutcome::Acquired { grant, .. } = outcome {
            prop_assert!(grant.token.get() < 1 << 53);
            match &record {
                Some(record) if record.attempt == claim.attempt => {
                    prop_assert_eq!(grant.token, record.token);
                }
                Some(record) => {
                    prop_assert!(grant.token > record.token || record.token == FencingToken::MAX);
                    prop_assert!(grant.token.get() >= now.as_micros());
                }
                None => prop_assert_eq!(grant.token.get(), now.as_micros().max(1)),
            }
        }
    }

    #[test]
    fn durations_without_end_never_end(
        record in option::of(record()), claim in claim(), renew in renew(),
        complete in complete(), now in timestamp(),
    ) {
        let forever = Duration::MAX;
        let claim = Claim { lease: forever, hold: forever, ..claim };
        let renew = Renew { lease: forever, ..renew };
        let mut complete = complete;
        complete.completion.retention = forever;
        let record = record.as_ref();
        let changes = [
            transition(record, &claim, now).change,
            transition(record, &renew, now).change,
            transition(record, &complete, now).change,
        ];
        for change in changes {
            if let Change::Put(next) = change {
                prop_assert_eq!(next.forget_at, Timestamp::MAX);
                let late = Timestamp::from_micros(Timestamp::MAX.as_micros() - 1);
                prop_assert!(matches!(next.state(late), State::Live | State::Completed));
            }
        }
    }

    #[test]
    fn what_was_saved_last_is_handed_to_whoever_takes_over(
        record in record(), claim in claim(), renew in renew(), progress in progress(),
        now in timestamp(),
    ) {
        let mut renew = Renew { progress: Some(progress.clone()), ..renew };
        renew.grant.attempt = record.attempt;
        let claim = Claim {
            on_interrupted: oncekey::store::OnInterrupted::TakeOver,
            fingerprint: record.fingerprint,
            ..claim
        };
        let saved = transition(Some(&record), &renew, now);
        let Change::Put(saved) = saved.change else { return Ok(()) };
        let lapse = deadline(&saved).expect("a renewed attempt is in progress");
        let last = saved.progress.clone().map(|progress| progress.data);
        if let ClaimOutcome::Acquired { previous: Some(previous), .. } =
            transition(Some(&saved), &claim, lapse).outcome
        {
            prop_assert_eq!(previous.progress, last);
        }
    }

    #[test]
    fn a_purge_takes_what_is_due_and_nothing_else(record in record(), now in timestamp()) {
        let decided = transition(Some(&record), &Purge, now);
        prop_assert_eq!(decided.outcome, record.is_purgeable(now));
        prop_assert_eq!(decided.change == Change::Remove, decided.outcome);
        if decided.outcome {
            prop_assert!(now >= record.forget_at);
            prop_assert!(!matches!(record.state(now), State::Live | State::Completed));
        }
    }
}
