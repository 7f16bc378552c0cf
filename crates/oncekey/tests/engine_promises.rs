//! Promises that are easy to break from outside: what an ended attempt may still do, what a completer
//! touches, and what errors show.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

mod support;

use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;

use futures::FutureExt;
use futures::future::join;
use oncekey::runtime::Timestamp;
use oncekey::store::{State, Subscription};
use oncekey::{Attempt, Effect, Idempotency, Key, RunError, Scope, Verdict};
use support::{Declined, World, fingerprint, key, seconds};

#[test]
fn an_attempt_that_has_ended_owns_nothing() {
    for ending in [Ok("receipt".to_owned()), Err(Declined)] {
        let world = World::new();
        let engine = world.at_least_once();
        let kept = Rc::new(RefCell::new(None));
        let keep = Rc::clone(&kept);
        let ran = world.run(&engine, &key("a"), move |attempt| async move {
            assert!(!attempt.is_lease_lost());
            *keep.borrow_mut() = Some(attempt);
            ending
        });
        let _ = world.sim.finish(&ran);
        let attempt: Attempt = kept.borrow_mut().take().unwrap();
        assert!(attempt.is_lease_lost());
        assert!(attempt.lease_lost().now_or_never().is_some());
        let work = async || -> Result<u32, Declined> { panic!("the key is somebody else's") };
        assert!(attempt.step("late", work).now_or_never().is_none(), "it never runs");
    }
}

#[test]
fn two_uses_of_one_step_at_once_run_it_once() {
    let world = World::new();
    let engine = world.at_least_once();
    let timer = world.sim.timer.clone();
    let ran = world.run(&engine, &key("a"), move |attempt| async move {
        let charge = async |receipt: u32| {
            timer.sleep(seconds(1)).await;
            Ok::<_, Declined>(receipt)
        };
        let first = attempt.step("charge", || charge(1));
        let second = attempt.step("charge", || charge(2));
        let (first, second) = join(first, second).await;
        Ok(format!("{} {}", first?, second?))
    });
    assert_eq!(world.sim.finish(&ran).unwrap().value(), "1 1");
}

/// A completer that knows charges says of everything else that it was not done.
#[test]
fn a_completer_leaves_other_operations_alone() {
    let world = World::new();
    let engine = world.at_most_once();
    let refund = Key::new(&Scope::new("tenant-42", "POST /refunds").unwrap(), "a").unwrap();
    for key in [&key("a"), &refund] {
        let failed = world.run(&engine, key, |_| async { Err(Declined) });
        assert!(world.sim.finish(&failed).is_err());
    }
    let completer = engine.completer("POST /payments", |_| async { Verdict::NotDone });
    let completed = world.sim.spawn(async move { completer.complete().await.unwrap() });
    let completions = world.sim.finish(&completed);
    assert_eq!((completions.not_done, completions.left_alone), (1, 1));
    assert_eq!(world.state(&key("a")), Some(State::Released));
    assert_eq!(world.state(&refund), Some(State::GaveUp));
}

#[test]
fn a_completer_never_shortens_how_long_a_key_is_kept() {
    let world = World::new();
    let strict = world.at_most_once();
    let failed = world.run(&strict, &key("a"), |_| async { Err(Declined) });
    assert!(world.sim.finish(&failed).is_err());
    assert_eq!(world.observed(&key("a")).unwrap().record.forget_at, Timestamp::MAX);

    let lax = world.at_least_once();
    let completer = lax.completer("POST /payments", |_| async { Verdict::Unknown });
    let completed = world.sim.spawn(async move { completer.complete().await.unwrap() });
    assert_eq!(world.sim.finish(&completed).unknown, 1);
    assert_eq!(world.observed(&key("a")).unwrap().record.forget_at, Timestamp::MAX);
}

#[test]
fn a_hook_that_panics_about_one_key_does_not_stop_a_completer() {
    let world = World::new();
    let engine = world.at_most_once();
    for id in ["a", "b"] {
        let failed = world.run(&engine, &key(id), |_| async { Err(Declined) });
        assert!(world.sim.finish(&failed).is_err());
    }
    let hook = async |interruption: oncekey::Interruption| {
        assert_ne!(interruption.key().id(), Some(b"a".as_slice()), "on purpose");
        Verdict::NotDone
    };
    let completer = engine.completer("POST /payments", hook);
    let completed = world.sim.spawn(async move { completer.complete().await.unwrap() });
    let completions = world.sim.finish(&completed);
    assert_eq!((completions.unknown, completions.not_done), (1, 1));
}

/// What a hook found must be what the caller asks for, or it would stay unreadable for the retention.
#[test]
fn a_verdict_of_another_type_is_not_recorded() {
    let world = World::new();
    let engine = world.verified(|_| async { Verdict::done(&17_u32).unwrap_or(Verdict::Unknown) });
    let failed = world.run(&engine, &key("a"), |_| async { Err(Declined) });
    assert!(world.sim.finish(&failed).is_err());
    let retried = world.run(&engine, &key("a"), |_| async { panic!("it was done") });
    assert!(matches!(world.sim.finish(&retried), Err(RunError::Codec(_))));
    assert_eq!(world.state(&key("a")), Some(State::GaveUp));
}

#[test]
fn an_interrupted_key_of_a_verified_engine_is_kept_until_the_hook_knows() {
    let world = World::new();
    let engine = world.verified(|_| async { Verdict::Unknown });
    let failed = world.run(&engine, &key("a"), |_| async { Err(Declined) });
    assert!(world.sim.finish(&failed).is_err());
    assert_eq!(world.observed(&key("a")).unwrap().record.forget_at, Timestamp::MAX);
}

#[test]
fn no_stored_content_shows_in_errors_or_debug_output() {
    const CANARY: &str = "4111-1111-1111-1111";
    let world = World::new();
    let engine = world.at_least_once();
    let ran = world.start(&engine, &key(CANARY), seconds(1), CANARY);
    let outcome = world.sim.finish(&ran);
    let mut shown = format!("{outcome:?} {engine:?}");
    let numbers = world.sim.spawn({
        let (engine, key) = (engine.clone(), key(CANARY));
        async move { engine.run(&key, &fingerprint(), async |_| Ok::<u64, Declined>(1)).await }
    });
    let error = world.sim.finish(&numbers).unwrap_err();
    let mut cause: Option<&dyn Error> = Some(&error);
    while let Some(error) = cause {
        shown += &format!(" {error} {error:?}");
        cause = error.source();
    }
    shown += &format!(" {:?} {:?}", world.observed(&key(CANARY)), world.recorder.events());
    assert!(!shown.contains(CANARY), "{shown}");
}

#[test]
fn a_subscription_whose_channel_closed_pends() {
    let unfolded =
        futures::stream::unfold(1, async |left: u32| left.checked_sub(1).map(|left| ((), left)));
    let mut subscription = Subscription::new(Box::pin(unfolded));
    assert!(subscription.changed().now_or_never().is_some());
    for _ in 0..3 {
        assert!(subscription.changed().now_or_never().is_none());
    }
}

#[test]
fn errors_say_what_is_known_of_the_effect() {
    let not_started: RunError<Declined> = RunError::NotStarted(Declined);
    assert_eq!(not_started.effect(), Effect::NotDone);
    assert_eq!(RunError::<Declined>::NotReplayable.effect(), Effect::Done);
    assert_eq!(RunError::<Declined>::Interrupted.effect(), Effect::Unknown);
}

#[test]
fn listing_by_pages_of_nothing_comes_to_an_end() {
    let world = World::new();
    let engine: Idempotency = world.at_most_once();
    let failed = world.run(&engine, &key("a"), |_| async { Err(Declined) });
    assert!(world.sim.finish(&failed).is_err());
    let operator = engine.operator();
    let listed = world.sim.spawn(async move {
        let (mut found, mut after) = (0, None);
        loop {
            let page = operator.list_interrupted(after, 0).await.unwrap();
            found += page.entries.len();
            match page.next {
                Some(next) => after = Some(next),
                None => return found,
            }
        }
    });
    assert_eq!(world.sim.finish(&listed), 1);
}
