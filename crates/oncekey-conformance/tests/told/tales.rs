//! One true tale for each way to be false: the last answer, or the order, is what is wrong with it.

use std::time::Duration;

use bytes::Bytes;
use oncekey::Fingerprint;
use oncekey::store::{Cause, ClaimOutcome, Fenced, FencingToken, Observed, OnInterrupted};
use oncekey_conformance::history::{Answer, Counterexample, History, Operation, check};

use super::{
    LONG, SHORT, Told, acquired, claim, claims, completes, evicts, first_grant, gives_up, releases,
    renews, settles,
};

/// `told` is explained, and with `falsify` applied to its last answer it is not.
#[track_caller]
fn is_true_unless(told: &Told, falsify: impl FnOnce(&mut Answer)) -> Counterexample {
    is_explained(&told.history);
    is_unexplained(&told.falsified(falsify))
}

#[track_caller]
pub(crate) fn is_explained(history: &History) {
    if let Err(found) = check(history) {
        panic!("true, and rejected: {found}");
    }
}

#[track_caller]
pub(crate) fn is_unexplained(history: &History) -> Counterexample {
    check(history).expect_err(&format!("false, and accepted:\n{history}"))
}

fn told(tell: impl FnOnce(&mut Told)) -> Told {
    let mut told = Told::new();
    tell(&mut told);
    told
}

/// What is not asked about one by one.
fn fenced(outcome: Fenced) -> impl FnOnce(&mut Answer) {
    move |answer| *answer = Answer::Fenced(outcome)
}

fn outcome(outcome: ClaimOutcome) -> impl FnOnce(&mut Answer) {
    move |answer| *answer = Answer::Claim(outcome)
}

#[test]
fn there_is_one_owner() {
    let told = told(|it| {
        it.ask(0, claims(1));
        it.ask(1, claims(2));
    });
    is_true_unless(&told, |answer| *answer = first_grant(2));
}

#[test]
fn the_same_attempt_has_the_same_token() {
    let told = told(|it| {
        it.ask(0, claims(1));
        it.ask(0, claims(1));
    });
    is_true_unless(&told, |answer| {
        let (grant, ..) = acquired(answer);
        grant.token = FencingToken::new(grant.token.get() + 1);
    });
}

#[test]
fn a_takeover_has_a_higher_token() {
    let told = told(|it| {
        it.ask(0, claims(1));
        it.ask(0, gives_up(1));
        it.ask(1, claims(2));
    });
    is_true_unless(&told, |answer| {
        let (grant, .., previous) = acquired(answer);
        grant.token = previous.as_ref().unwrap().token;
    });
}

#[test]
fn a_takeover_is_told_how_the_last_attempt_ended() {
    let told = told(|it| {
        it.ask(0, claims(1));
        it.ask(0, gives_up(1));
        it.ask(1, claims(2));
    });
    is_true_unless(&told, |answer| {
        acquired(answer).3.as_mut().unwrap().cause = Cause::Lapsed;
    });
}

#[test]
fn attempts_are_counted() {
    let told = told(|it| {
        it.ask(0, claims(1));
        it.ask(0, releases(1));
        it.ask(1, claims(2));
    });
    is_true_unless(&told, |answer| *acquired(answer).1 = 1);
}

#[test]
fn what_is_left_of_a_lease_is_exact() {
    let told = told(|it| {
        it.ask(0, claims(1));
        it.ask(1, claims(2));
    });
    is_true_unless(&told, outcome(ClaimOutcome::Busy { retry_after: SHORT / 2 }));
}

#[test]
fn a_lease_does_not_lapse_early() {
    let told = told(|it| {
        it.ask(0, claims(1));
        it.advance(SHORT - Duration::from_micros(1));
        it.ask(1, claims(2));
    });
    let mut later = Told::new();
    later.ask(0, claims(1));
    later.advance(SHORT);
    later.ask(1, claims(2));
    is_explained(&later.history);

    is_true_unless(&told, |answer| *answer = later.last().clone());
}

#[test]
fn progress_is_handed_on() {
    let told = told(|it| {
        it.ask(0, claims(1));
        it.ask(0, renews(1, Some((1, "saved"))));
        it.ask(0, gives_up(1));
        it.ask(1, claims(2));
    });
    is_true_unless(&told, |answer| acquired(answer).3.as_mut().unwrap().progress = None);
}

#[test]
fn older_progress_does_not_replace_newer() {
    let told = told(|it| {
        it.ask(0, claims(1));
        it.ask(0, renews(1, Some((2, "newer"))));
        it.ask(0, renews(1, Some((1, "older"))));
        it.ask(0, gives_up(1));
        it.ask(1, claims(2));
    });
    is_true_unless(&told, |answer| {
        acquired(answer).3.as_mut().unwrap().progress = Some(Bytes::from_static(b"older"));
    });
}

#[test]
fn a_replay_is_byte_for_byte() {
    let told = told(|it| {
        it.ask(0, claims(1));
        it.ask(0, completes(1, "one"));
        it.ask(1, claims(2));
    });
    is_true_unless(&told, outcome(ClaimOutcome::Replay(Some(Bytes::from_static(b"One")))));
}

#[test]
fn a_replay_is_of_something_that_was_completed() {
    let mut told = told(|it| {
        it.ask(0, claims(1));
        it.ask(0, completes(1, "one"));
        it.ask(1, claims(2));
    });
    is_explained(&told.history);
    told.history.calls.remove(1);

    is_unexplained(&told.history);
}

#[test]
fn a_replaced_owner_changes_nothing() {
    let told = told(|it| {
        it.ask(0, claims(1));
        it.advance(SHORT);
        it.ask(1, claims(2));
        it.ask(0, completes(1, "one"));
    });
    is_true_unless(&told, fenced(Fenced::Applied));
}

#[test]
fn an_owner_that_was_not_replaced_completes() {
    let told = told(|it| {
        it.ask(0, claims(1));
        it.advance(SHORT);
        it.ask(0, completes(1, "one"));
    });
    is_true_unless(&told, fenced(Fenced::Lost));
}

#[test]
fn another_result_conflicts() {
    let told = told(|it| {
        it.ask(0, claims(1));
        it.ask(0, completes(1, "one"));
        it.ask(0, completes(1, "two"));
    });
    is_true_unless(&told, fenced(Fenced::Applied));
}

#[test]
fn nothing_is_known_of_an_absent_key() {
    let told = told(|it| it.ask(0, renews(1, None)));

    is_true_unless(&told, fenced(Fenced::Lost));
}

#[test]
fn an_ended_attempt_is_spent() {
    let told = told(|it| {
        it.ask(0, claims(1));
        it.ask(0, gives_up(1));
        it.ask(0, claims(1));
    });
    is_true_unless(&told, |answer| *answer = first_grant(1));
}

#[test]
fn a_released_key_is_free() {
    let told = told(|it| {
        it.ask(0, claims(1));
        it.ask(0, releases(1));
        it.ask(1, claims(2));
    });
    is_true_unless(&told, outcome(ClaimOutcome::Busy { retry_after: SHORT }));
}

#[test]
fn another_fingerprint_is_a_mismatch() {
    let mut other = claim(2);
    other.fingerprint = Fingerprint::of("other");
    let told = told(|it| {
        it.ask(0, claims(1));
        it.ask(1, Operation::Claim(other));
    });
    is_true_unless(&told, outcome(ClaimOutcome::Busy { retry_after: SHORT }));
}

#[test]
fn a_claim_that_asks_to_refuse_is_refused() {
    let mut careful = claim(2);
    careful.on_interrupted = OnInterrupted::Refuse;
    let lapsed = |it: &mut Told| {
        it.ask(0, claims(1));
        it.advance(SHORT);
    };
    let mut bold = told(lapsed);
    bold.ask(1, claims(2));
    let mut told = told(lapsed);
    told.ask(1, Operation::Claim(careful));

    is_true_unless(&told, |answer| *answer = bold.last().clone());
}

#[test]
fn a_retired_result_is_not_replayed() {
    let told = told(|it| {
        it.ask(0, claims(1));
        it.ask(0, completes(1, "one"));
        it.advance(SHORT);
        it.ask(1, claims(2));
    });
    is_true_unless(&told, outcome(ClaimOutcome::Replay(Some(Bytes::from_static(b"one")))));
}

#[test]
fn a_live_owner_is_not_overruled() {
    let told = told(|it| {
        it.ask(0, claims(1));
        it.ask(1, settles(1, "one"));
    });
    is_true_unless(&told, fenced(Fenced::Applied));
}

#[test]
fn a_record_is_evicted_once() {
    let told = told(|it| {
        it.ask(0, claims(1));
        it.ask(1, evicts());
        it.ask(1, evicts());
    });
    is_true_unless(&told, fenced(Fenced::Applied));
}

#[test]
fn a_read_is_not_stale() {
    let told = told(|it| {
        it.ask(0, claims(1));
        it.ask(1, Operation::Get);
        it.ask(0, completes(1, "one"));
        it.ask(1, Operation::Get);
    });
    let stale = told.history.calls[1].reply.clone().unwrap().answer;

    is_true_unless(&told, |answer| *answer = stale);
}

#[test]
fn a_result_is_not_purged_before_its_time() {
    let told = told(|it| {
        it.ask(0, claims(1));
        it.ask(0, completes(1, "one"));
        it.advance(SHORT);
        it.ask(1, Operation::Get);
    });
    is_true_unless(&told, |answer| *answer = Answer::Get(None));
}

#[test]
fn what_was_purged_does_not_come_back() {
    let mut before = None;
    let told = told(|it| {
        it.ask(0, claims(1));
        it.ask(0, releases(1));
        it.advance(LONG);
        it.ask(1, Operation::Get);
        before = Some(it.last().clone());
        it.purge();
        it.ask(1, Operation::Get);
        it.ask(1, Operation::Get);
    });
    is_true_unless(&told, |answer| *answer = before.unwrap());
}

#[test]
fn a_record_is_as_it_was_written() {
    let told = told(|it| {
        it.ask(0, claims(1));
        it.ask(0, Operation::Get);
    });
    is_true_unless(&told, |answer| {
        let Answer::Get(Some(Observed { record, .. })) = answer else { panic!("{answer:?}") };
        record.forget_at = record.forget_at.saturating_add(SHORT);
    });
}

/// What overlaps may have happened in either order; what does not, only in one.
#[test]
fn an_answer_does_not_depend_on_what_comes_later() {
    let mut told = Told::new();
    let mut late = told.begin(0, 0, claims(1));
    let mut early = told.begin(1, 0, claims(2));
    told.take_effect(&mut early);
    told.take_effect(&mut late);
    told.end(late);
    told.end(early);
    is_explained(&told.history);

    let [late, early] = &mut *told.history.calls else { panic!("two calls") };
    early.invoked = late.reply.as_ref().unwrap().at + 1;
    early.reply.as_mut().unwrap().at = early.invoked + 1;
    is_unexplained(&told.history);
}
