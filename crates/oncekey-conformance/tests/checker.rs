//! The checker tells true histories from false ones.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod ruled;
mod told;

use std::time::Duration;

use futures::executor::block_on;
use futures::future::BoxFuture;
use oncekey::Fingerprint;
use oncekey::runtime::{SeededRandom, Timestamp};
use oncekey::store::{
    AttemptId, Change, Claim, ClaimOutcome, ErrorKind, Fenced, FencingToken, Observed,
    OnInterrupted, OnRetired, Record, transition,
};
use oncekey_conformance::history::{Answer, History, Operation, Window, check, is_linearizable};
use oncekey_conformance::{Fixture, Verdict};

use ruled::{Fault, Right, Ruled, Rules};
use told::corrupt::CORRUPTIONS;
use told::simulate::{Size, below, simulate};
use told::tales::{is_explained, is_unexplained};
use told::{LONG, SHORT, START, Told, acquired, claims, completes, evicts, naive, releases};

const LARGE: Size = Size { clients: 4, keys: 2, calls: 40, unknown: 10, ticks: false };

#[test]
fn what_happened_is_explained() {
    for seed in 0..200 {
        is_explained(&simulate(&SeededRandom::new(seed), LARGE));
    }
}

#[test]
fn what_happened_is_explained_where_time_does_not_stop() {
    let size = Size { ticks: true, ..LARGE };
    for seed in 0..200 {
        is_explained(&simulate(&SeededRandom::new(seed), size));
    }
}

/// What is corrupted at random may be true all the same, above all where outcomes are unknown: a
/// command that is left out may have changed nothing that anybody saw.
#[test]
fn every_kind_of_corruption_is_noticed() {
    let size = Size { clients: 3, keys: 1, calls: 16, unknown: 16, ticks: false };
    let (mut all_corrupted, mut all_noticed) = (0, 0);
    for (what, corrupt) in CORRUPTIONS {
        let (mut corrupted, mut noticed) = (0, 0);
        for seed in 0..150 {
            let random = SeededRandom::new(seed);
            let mut history = simulate(&random, size);
            if corrupt(&mut history, &random) {
                corrupted += 1;
                noticed += u32::from(check(&history).is_err());
            }
        }
        println!("{what}: noticed in {noticed} of {corrupted}");
        assert!(2 * noticed > corrupted, "{what}: noticed in {noticed} of {corrupted} only");
        all_corrupted += corrupted;
        all_noticed += noticed;
    }
    println!("noticed in {all_noticed} of {all_corrupted}");
    assert!(10 * all_noticed > 9 * all_corrupted, "{all_noticed} of {all_corrupted} only");
}

/// Which of the corrupted histories are false is decided by trying every order.
#[test]
fn the_checker_agrees_with_a_naive_one() {
    let size = Size { clients: 3, keys: 1, calls: 6, unknown: 6, ticks: false };
    let (mut explained, mut unexplained) = (0, 0);
    for seed in 0..3_000 {
        let random = SeededRandom::new(seed);
        let mut history = simulate(&random, size);
        for _ in 0..below(&random, 4) {
            let (_, corrupt) = CORRUPTIONS[below(&random, CORRUPTIONS.len())];
            corrupt(&mut history, &random);
        }
        let verdict = naive::is_explained(&history);

        assert_eq!(check(&history).is_ok(), verdict, "seed {seed}:\n{history}");
        if verdict {
            explained += 1;
        } else {
            unexplained += 1;
        }
    }
    println!("{explained} explained, {unexplained} not");
    assert!(explained > 750 && unexplained > 750, "{explained} explained, {unexplained} not");
}

#[test]
fn a_counterexample_ends_with_the_first_answer_that_is_wrong() {
    for seed in 0..200 {
        let random = SeededRandom::new(seed);
        let mut history = simulate(&random, LARGE);
        let (_, corrupt) = CORRUPTIONS[below(&random, CORRUPTIONS.len())];
        corrupt(&mut history, &random);
        let Err(found) = check(&history) else { continue };

        let mut found = found.history;
        is_unexplained(&found);
        let answered = found.calls.iter_mut().filter(|call| call.reply.is_some());
        let last = answered.max_by_key(|call| call.reply.as_ref().unwrap().at).unwrap();
        last.reply = None;
        is_explained(&found);
    }
}

#[test]
fn a_counterexample_says_what_would_have_been_right() {
    let mut told = Told::new();
    told.ask(0, claims(1));
    told.ask(0, completes(1, "one"));
    told.ask(1, claims(2));
    let found = is_unexplained(&told.falsified(|answer| {
        *answer = Answer::Claim(ClaimOutcome::Busy { retry_after: SHORT });
    }));

    assert_eq!(found.allowed, [r#"Replay "one""#]);
    let shown = found.to_string();
    let lines: Vec<_> = shown.lines().map(str::trim).collect();
    assert_eq!(
        lines,
        [
            r#"no order of the calls explains the last answer below; the rules allow Replay "one""#,
            "the store's clock is at +0ns",
            "client 0 key 0 call 0: claim by A (fingerprint f2, lease 30s, hold 3600s) ..",
            "client 0 key 0 call 0: .. Acquired (A with token +0ns, number 1, lease left 30s)",
            r#"client 0 key 0 call 1: complete by A with token +0ns ("one", retention 30s, hold 3600s) .."#,
            "client 0 key 0 call 1: .. Applied",
            "client 1 key 0 call 2: claim by B (fingerprint f2, lease 30s, hold 3600s) ..",
            "client 1 key 0 call 2: .. Busy (retry after 30s)",
        ]
    );
}

mod unknown_outcomes {
    use super::*;

    #[test]
    fn may_have_taken_effect() {
        let mut told = Told::new();
        told.lose(0, claims(1));
        told.ask(1, claims(2));
        is_explained(&told.history);

        told.history.calls.remove(0);
        is_unexplained(&told.history);
    }

    #[test]
    fn may_never_take_effect() {
        let mut told = Told::new();
        told.begin(0, 0, claims(1));
        told.ask(1, claims(2));
        told.ask(1, completes(2, "two"));

        is_explained(&told.history);
    }

    #[test]
    fn may_take_effect_late() {
        let mut told = Told::new();
        told.ask(0, claims(1));
        let mut release = told.begin(0, 0, releases(1));
        told.ask(1, claims(2));
        assert_eq!(told.last(), &Answer::Claim(ClaimOutcome::Busy { retry_after: SHORT }));
        told.take_effect(&mut release);
        told.ask(1, claims(2));
        assert!(matches!(told.last(), Answer::Claim(ClaimOutcome::Acquired { number: 2, .. })));

        is_explained(&told.history);
    }

    #[test]
    fn do_not_take_effect_before_they_begin() {
        let mut told = Told::new();
        told.lose(0, claims(1));
        told.ask(1, claims(2));
        is_explained(&told.history);

        let [lost, asked] = &mut *told.history.calls else { panic!("two calls") };
        lost.invoked = asked.reply.as_ref().unwrap().at + 1;
        is_unexplained(&told.history);
    }

    #[test]
    fn take_effect_once() {
        let mut told = Told::new();
        told.ask(0, claims(1));
        told.lose(0, evicts());
        told.ask(1, claims(2));
        is_explained(&told.history);

        told.lose(0, evicts());
        told.ask(1, claims(3));
        is_explained(&told.history);
        told.history.calls.remove(3);
        is_unexplained(&told.history);
    }

    #[test]
    fn do_not_undo_themselves() {
        let mut told = Told::new();
        told.ask(0, claims(1));
        told.ask(1, Operation::Get);
        let live = told.last().clone();
        told.lose(0, completes(1, "one"));
        told.ask(1, Operation::Get);
        told.ask(1, Operation::Get);
        is_explained(&told.history);

        is_unexplained(&told.falsified(|answer| *answer = live));
    }

    #[test]
    fn take_effect_by_the_clock_of_that_time() {
        let mut told = Told::new();
        let mut claim = told.begin(0, 0, claims(1));
        told.advance(LONG);
        told.take_effect(&mut claim);
        told.ask(1, claims(2));
        is_explained(&told.history);

        let long = ClaimOutcome::Busy { retry_after: SHORT * 2 };
        is_unexplained(&told.falsified(|answer| *answer = Answer::Claim(long)));
    }

    #[test]
    fn explain_one_thing_at_a_time() {
        let mut told = Told::new();
        told.ask(0, claims(1));
        told.lose(0, completes(1, "one"));
        told.ask(1, completes(1, "two"));
        assert_eq!(told.last(), &Answer::Fenced(Fenced::Conflict));
        is_explained(&told.history);
        // Had the completion been late, the second one would have been first.
        told.ask(1, claims(2));
        is_explained(&told.history);

        let other = ClaimOutcome::Replay(Some("two".into()));
        is_unexplained(&told.falsified(|answer| *answer = Answer::Claim(other)));
    }
}

mod a_clock_that_is_not_exact {
    use super::*;

    /// Attempt 1 claims, and attempt 2 finds it busy, within `width` of the start.
    fn told_within(width: Duration) -> Told {
        let mut told = Told::new();
        told.ask(0, claims(1));
        told.ask(1, claims(2));
        told.history.phases[0].clock.latest = START.saturating_add(width);
        told
    }

    /// The token of the first grant, if it was decided `later` than at the start.
    fn grant_later(told: &mut Told, later: Duration) {
        let reply = told.history.calls[0].reply.as_mut().unwrap();
        let (grant, ..) = acquired(&mut reply.answer);
        grant.token = FencingToken::new(START.saturating_add(later).as_micros());
    }

    #[test]
    fn leaves_a_token_open_within_its_window() {
        let mut told = told_within(SHORT / 2);
        grant_later(&mut told, SHORT / 2);
        is_explained(&told.history);

        grant_later(&mut told, SHORT);
        is_unexplained(&told.history);
    }

    #[test]
    fn fixes_a_token_once_it_was_told() {
        let mut told = told_within(SHORT / 2);
        told.ask(0, claims(1));
        told.history.phases[0].clock.latest = START.saturating_add(SHORT / 2);
        is_explained(&told.history);

        grant_later(&mut told, SHORT / 2);
        is_unexplained(&told.history);
    }

    /// The answer to the claim is lost, so nobody was told the token by which its attempt completes.
    #[test]
    fn leaves_open_whether_a_command_names_a_token_that_was_not_told() {
        let mut told = Told::new();
        told.tick = SHORT / 8;
        told.lose(0, claims(1));
        told.ask(0, completes(1, "one"));
        is_explained(&told.history);
        let refused = told.falsified(|answer| *answer = Answer::Fenced(Fenced::Lost));
        is_explained(&refused);

        // Two tokens cannot both have been the one.
        told.ask(0, completes(1, "one"));
        is_explained(&told.history);
        let last = told.history.calls.last_mut().unwrap();
        let Operation::Complete(complete) = &mut last.operation else { panic!("{last:?}") };
        complete.grant.token = FencingToken::new(complete.grant.token.get() + 1);
        is_unexplained(&told.history);
    }

    #[test]
    fn leaves_open_whether_a_lease_lapsed_meanwhile() {
        let mut lapsed = Told::new();
        lapsed.ask(0, claims(1));
        lapsed.advance(SHORT);
        lapsed.ask(1, claims(2));
        let taken_over = |answer: &mut Answer| *answer = lapsed.last().clone();

        let wide = told_within(LONG);
        is_explained(&wide.history);
        is_explained(&wide.falsified(taken_over));

        let narrow = told_within(SHORT / 2);
        is_explained(&narrow.history);
        is_unexplained(&narrow.falsified(taken_over));
    }
}

mod races {
    use super::*;

    fn verdict_on<R: Rules>() -> Verdict {
        block_on(async {
            let fixture = Ruled::<R>::create().await;
            // The suite keeps its rules in boxes.
            let rule: BoxFuture<'_, Verdict> = Box::pin(is_linearizable(&fixture));
            rule.await
        })
    }

    #[test]
    fn of_a_store_that_decides_at_once_are_explained() {
        assert_eq!(verdict_on::<Right>(), Ok(()));
    }

    #[test]
    fn are_explained_where_time_does_not_stop() {
        #[derive(Debug)]
        struct RealTime;

        impl Rules for RealTime {
            const REAL_TIME: bool = true;
        }

        assert_eq!(verdict_on::<RealTime>(), Ok(()));
    }

    #[test]
    fn are_explained_where_records_are_forgotten_by_themselves() {
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
    fn are_explained_where_calls_pend_and_are_dropped() {
        #[derive(Debug)]
        struct Pending;

        impl Rules for Pending {
            const PENDS: bool = true;
        }

        assert_eq!(verdict_on::<Pending>(), Ok(()));
    }

    /// One command in eight fails, from the second on.
    const fn every_eighth(number: usize, fault: Fault) -> Option<Fault> {
        if number % 8 == 1 { Some(fault) } else { None }
    }

    #[test]
    fn are_explained_where_outcomes_are_unknown() {
        #[derive(Debug)]
        struct Unsure;

        impl Rules for Unsure {
            fn fault(number: usize) -> Option<Fault> {
                let applied = number % 16 == 1;
                every_eighth(number, Fault { kind: ErrorKind::OutcomeUnknown, applied })
            }
        }

        assert_eq!(verdict_on::<Unsure>(), Ok(()));
    }

    #[test]
    fn are_explained_where_calls_are_refused() {
        #[derive(Debug)]
        struct Refusing;

        impl Rules for Refusing {
            fn fault(number: usize) -> Option<Fault> {
                every_eighth(number, Fault { kind: ErrorKind::Unavailable, applied: false })
            }
        }

        assert_eq!(verdict_on::<Refusing>(), Ok(()));
    }

    #[test]
    fn show_a_store_that_denies_what_it_did() {
        #[derive(Debug)]
        struct Denying;

        impl Rules for Denying {
            fn fault(number: usize) -> Option<Fault> {
                every_eighth(number, Fault { kind: ErrorKind::Unavailable, applied: true })
            }
        }

        let violation = verdict_on::<Denying>().expect_err("an unknown outcome told as a refusal");
        println!("{violation}");
    }

    #[test]
    fn show_a_store_that_reads_first_and_writes_later() {
        #[derive(Debug)]
        struct Torn;

        impl Rules for Torn {
            const TORN: bool = true;
        }

        let violation = verdict_on::<Torn>().expect_err("a store that checks, then acts");
        println!("{violation}");
    }

    #[test]
    fn show_a_purge_that_does_not_look_again() {
        #[derive(Debug)]
        struct TornPurge;

        impl Rules for TornPurge {
            const TORN_PURGE: bool = true;
        }

        let violation = verdict_on::<TornPurge>().expect_err("a purge of what was claimed");
        println!("{violation}");
    }
}

/// A lease shorter than what is not known of the time: granted early in the window, and seen to have
/// lapsed in the middle of it.
#[test]
fn a_lease_may_come_and_go_within_one_window() {
    let at = Timestamp::from_micros;
    let mut history = History::new(Window { earliest: at(1_000_000), latest: at(3_000_000) });
    let claim = Claim {
        attempt: AttemptId::from_bytes([1; 16]),
        fingerprint: Fingerprint::of("x"),
        lease: Duration::from_millis(150),
        hold: Duration::from_secs(3600),
        on_interrupted: OnInterrupted::Refuse,
        on_retired: OnRetired::Tell,
    };
    let granted = transition(None, &claim, at(1_500_000));
    let Change::Put(record) = granted.change else { panic!("a new key is granted") };
    let call = history.invoke(0, 0, Operation::Claim(claim));
    history.answer(call, Answer::Claim(granted.outcome));
    let call = history.invoke(0, 0, Operation::Get);
    history.answer(call, Answer::Get(Some(Observed::new(record, at(1_700_000)))));
    check(&history).unwrap();
}
