//! What an observer is told of each outcome.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

mod support;

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use oncekey::observe::{Event, Observer, VerdictKind};
use oncekey::store::{Cause, ErrorKind, State};
use oncekey::{Attempt, Failure, Fingerprint, Idempotency, Key, Verdict};
use support::{Declined, Fault, Recorder, Verb, World, fingerprint, key, millis, seconds};

#[test]
fn every_outcome_is_told_once_with_its_numbers() {
    let world = World::new();
    let engine = world.at_least_once();
    let told = |course: &dyn Fn()| {
        world.recorder.clear();
        course();
        world.recorder.events()
    };
    let run = |id: &str, time, value: &str| {
        drop(world.sim.finish(&world.start(&engine, &key(id), time, value)));
    };

    let executed = Event::Executed { number: 1, elapsed: seconds(2) };
    assert_eq!(told(&|| run("a", seconds(2), "receipt")), [executed]);
    let replayed = Event::Replayed { elapsed: seconds(0) };
    assert_eq!(told(&|| run("a", seconds(2), "receipt")), [replayed]);

    let mismatch = || {
        let engine = engine.clone();
        world.sim.block_on(async move {
            let other = Fingerprint::of("other");
            drop(engine.run(&key("a"), &other, |_| async { Ok::<_, Declined>(1) }).await);
        });
    };
    assert_eq!(told(&mismatch), [Event::Mismatch]);

    let fail = |id: &'static str, failure: fn() -> Failure<Declined>| {
        let engine = engine.clone();
        world.sim.block_on(async move {
            let operation = |_| async move { Err::<String, _>(failure()) };
            drop(engine.run_classified(&key(id), &fingerprint(), operation).await);
        });
    };
    let nothing = || fail("b", || Failure::NotStarted(Declined));
    assert_eq!(told(&nothing), [Event::Released { number: 1 }]);
    let unknown = || fail("b", || Failure::Unknown(Declined));
    assert_eq!(told(&unknown), [Event::GaveUp { number: 2 }]);
    let taken_over = Event::TakenOver { cause: Cause::GaveUp, number: 3 };
    let executed = Event::Executed { number: 3, elapsed: seconds(1) };
    assert_eq!(told(&|| run("b", seconds(1), "receipt")), [taken_over, executed]);

    let long = "x".repeat(2 << 20);
    let events = told(&|| run("c", seconds(1), &long));
    let len = long.len() + 4;
    let executed = Event::Executed { number: 1, elapsed: seconds(1) };
    assert_eq!(events, [Event::NotReplayable { len }, executed]);

    world.store.always(Verb::Complete, Fault::Fail(ErrorKind::Corrupt));
    let events = told(&|| run("d", seconds(1), "receipt"));
    let failed = Event::StoreFailed { operation: "complete", kind: ErrorKind::Corrupt };
    assert_eq!(events, [failed, Event::Unrecorded]);
}

#[test]
fn waiting_and_its_end_are_told() {
    let world = World::new();
    let engine = world.at_least_once().wait_for_duplicate(seconds(3)).max_waiters(1);
    let owner = world.start(&engine, &key("a"), seconds(10), "receipt");
    world.sim.settle();
    let waiter = world.start(&engine, &key("a"), seconds(1), "2");
    world.sim.settle();
    let turned_away = world.start(&engine, &key("a"), seconds(1), "3");
    assert!(world.sim.finish(&turned_away).is_err());
    assert!(world.sim.finish(&waiter).is_err());
    assert_eq!(
        world.recorder.events(),
        [
            Event::Waiting,
            Event::TooManyWaiters,
            Event::Busy { elapsed: seconds(0) },
            Event::Busy { elapsed: seconds(3) },
        ]
    );
    world.sim.run_for(seconds(5));
    let waiter = world.start(&engine, &key("a"), seconds(1), "2");
    assert!(world.sim.finish(&waiter).unwrap().is_replay());
    assert!(world.sim.finish(&owner).is_ok());
    let replayed = Event::Replayed { elapsed: seconds(2) };
    assert_eq!(world.recorder.count(|event| *event == replayed), 1);
}

#[test]
fn interruptions_verdicts_and_retired_keys_are_told() {
    let world = World::new();
    let engine = world.at_most_once();
    let failed = world.run(&engine, &key("a"), |_| async { Err(Declined) });
    assert!(world.sim.finish(&failed).is_err());
    assert!(world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "2")).is_err());
    let receipt = world.start(&engine, &key("b"), seconds(1), "receipt");
    assert!(world.sim.finish(&receipt).is_ok());
    world.sim.run_for(seconds(24 * 60 * 60));
    assert!(world.sim.finish(&world.start(&engine, &key("b"), seconds(1), "2")).is_err());
    for event in [Event::Interrupted, Event::Retired] {
        assert_eq!(world.recorder.count(|told| *told == event), 1, "{event:?}");
    }

    let kinds = [
        (Verdict::Unknown, VerdictKind::Unknown),
        (Verdict::NotDone, VerdictKind::NotDone),
        (Verdict::done(&"charge 1").unwrap(), VerdictKind::Done),
    ];
    for (verdict, kind) in kinds {
        let key = key(&format!("{kind:?}"));
        world.recorder.clear();
        let engine = world.verified(move |_| {
            let verdict = verdict.clone();
            async { verdict }
        });
        let failed = world.run(&engine, &key, |_| async { Err(Declined) });
        drop(world.sim.finish(&failed));
        drop(world.sim.finish(&world.start(&engine, &key, seconds(1), "2")));
        let told = |event: &Event| *event == Event::Verified { verdict: kind };
        assert_eq!(world.recorder.count(told), 1, "{kind:?}");
    }
}

#[test]
fn a_lost_lease_is_told_once() {
    let world = World::new();
    let engine = world.at_least_once();
    world.store.always(Verb::Renew, Fault::Hang);
    let ran = world.run(&engine, &key("a"), |attempt: Attempt| async move {
        attempt.lease_lost().await;
        attempt.lease_lost().await;
        attempt.step("late", || async { Ok::<_, Declined>("2".to_owned()) }).await
    });
    assert!(world.sim.finish(&ran).is_err());
    let mut events = world.recorder.events();
    events.retain(|event| !matches!(event, Event::StoreFailed { .. }));
    assert_eq!(events, [Event::LeaseLost { number: 1 }, Event::GaveUp { number: 1 }]);
}

#[test]
fn observers_are_told_the_name_of_the_operation() {
    struct Named(Recorder);
    impl Observer for Named {
        fn observe(&self, operation: &str, event: &Event) {
            assert_eq!(operation, "payments");
            self.0.observe(operation, event);
        }
    }
    let world = World::new();
    let second = Recorder::default();
    let engine = world.at_least_once().named("payments").observer(Named(second.clone()));
    assert!(world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "receipt")).is_ok());
    assert_eq!(second.events(), world.recorder.events(), "both observers are told");
    assert_eq!(second.events().len(), 1);
}

#[test]
fn an_observer_may_use_the_engine() {
    /// Looks a key up whenever something happens.
    struct Curious(Idempotency, Key);
    impl Observer for Curious {
        fn observe(&self, _: &str, _: &Event) {
            let operator = self.0.operator();
            assert!(operator.inspect(&self.1).now_or_never().is_some());
        }
    }
    let world = World::new();
    let engine = world.at_least_once().wait_for_duplicate(seconds(5));
    let curious = Curious(engine.clone(), key("a"));
    let engine = engine.observer(curious);
    let owner = world.start(&engine, &key("a"), seconds(3), "receipt");
    let waiter = world.start(&engine, &key("a"), seconds(3), "2");
    assert!(world.sim.finish(&owner).is_ok());
    assert!(world.sim.finish(&waiter).is_ok());
}

#[test]
fn a_panic_in_an_observer_is_a_crash_of_the_run_and_no_more() {
    type Wanted = fn(&Event) -> bool;
    struct Bomb(Wanted);
    impl Observer for Bomb {
        fn observe(&self, _: &str, event: &Event) {
            assert!(!(self.0)(event), "an observer that panics");
        }
    }
    // At the end of the run, when it is recorded; and in the middle, while it is renewed.
    let cases: [(Wanted, State, &str); 2] = [
        (|event| matches!(event, Event::Executed { .. }), State::Completed, "first"),
        (|event| matches!(event, Event::StoreFailed { .. }), State::Lapsed, "second"),
    ];
    for (wanted, left, result) in cases {
        let world = World::new();
        let engine = world.at_least_once().observer(Bomb(wanted));
        world.store.script(Verb::Renew, [Fault::Fail(ErrorKind::Timeout)]);
        let timer = world.sim.timer.clone();
        let caught = world.sim.block_on(async move {
            let (key, fingerprint) = (key("a"), fingerprint());
            let run = engine.run(&key, &fingerprint, |_| async move {
                timer.sleep(seconds(60)).await;
                Ok::<_, Declined>("first".to_owned())
            });
            AssertUnwindSafe(run).catch_unwind().await.is_err()
        });
        assert!(caught);
        world.sim.run_for(World::LEASE + millis(1));
        assert_eq!(world.state(&key("a")), Some(left));
        let engine = world.at_least_once();
        let next = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "second"));
        assert_eq!(next.unwrap().value(), result);
    }
}

#[test]
fn a_run_that_is_dropped_is_told_of_once() {
    let world = World::new();
    let engine = world.at_least_once();
    let dropped = |key: Key, time| {
        let engine = engine.clone();
        let work = move |_| async move { std::future::pending::<Result<String, Declined>>().await };
        world.recorder.clear();
        world.sim.block_on(async move {
            let fingerprint = fingerprint();
            let mut run = std::pin::pin!(engine.run(&key, &fingerprint, work));
            for _ in 0..time {
                assert!(futures::poll!(run.as_mut()).is_pending());
            }
        });
        world.recorder.events()
    };
    assert_eq!(dropped(key("a"), 3), [Event::Dropped { number: 1 }]);
    assert_eq!(dropped(key("b"), 0), [], "it never started");
}

#[test]
fn a_step_that_cannot_be_saved_and_a_value_that_cannot_be_read_are_told_of() {
    let world = World::new();
    let engine = world.at_least_once();
    world.store.always(Verb::Renew, Fault::Fail(ErrorKind::Corrupt));
    let step = |attempt: Attempt| async move {
        attempt.step("charge", || async { Ok::<_, Declined>("charged".to_owned()) }).await
    };
    let ran = world.run(&engine, &key("a"), step);
    assert!(world.sim.finish(&ran).is_err());
    assert!(world.recorder.events().contains(&Event::StepFailed { number: 1 }));

    let ran = world.start(&engine, &key("b"), seconds(1), "a receipt");
    assert!(world.sim.finish(&ran).is_ok());
    world.recorder.clear();
    world.sim.block_on(async move {
        let number = |_| async { Ok::<u32, Declined>(7) };
        assert!(engine.run(&key("b"), &fingerprint(), number).await.is_err());
    });
    assert_eq!(world.recorder.events().last(), Some(&Event::Undecodable));
}
