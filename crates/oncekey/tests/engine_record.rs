//! Recording a result: what is tried, for how long, and what a caller learns when it fails.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

mod support;

use std::time::Duration;

use oncekey::observe::Event;
use oncekey::store::{ErrorKind, Expected, Fenced, State};
use oncekey::{Failure, Idempotency, Outcome, RecordError, RunError};
use support::{Declined, Fault, Ran, Task, Verb, World, fingerprint, key, millis, seconds};

#[test]
fn a_lost_acknowledgement_is_settled_by_completing_again() {
    let faults = [Fault::LostReply, Fault::LostRequest, Fault::Late(millis(1)), unavailable()];
    for fault in faults {
        let world = World::new();
        let engine = world.at_least_once();
        world.store.script(Verb::Complete, [fault.clone(), fault]);
        let ran = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "receipt"));
        assert!(!ran.unwrap().is_replay());
        assert_eq!(world.store.count(Verb::Complete), 3);
        let again = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "again"));
        assert_eq!(again.unwrap().value(), "receipt");
    }
}

#[test]
fn a_store_that_fails_for_a_lease_leaves_the_value_with_the_caller() {
    let world = World::new();
    let engine = world.at_least_once();
    world.store.always(Verb::Complete, unavailable());
    let ran = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "receipt"));
    assert_eq!(unrecorded(ran), ("receipt".to_owned(), Some(ErrorKind::Unavailable)));
    assert!(world.store.count(Verb::Complete) > 20, "it is worth many tries");
    let waited = world.sim.now() - seconds(1);
    assert!(waited > World::LEASE - seconds(2) && waited <= World::LEASE, "{waited:?}");
    assert_eq!(world.recorder.count(|event| *event == Event::Unrecorded), 1);
}

#[test]
fn a_completion_that_may_have_happened_is_never_reported_as_not_applied() {
    // The last error says "not applied"; of an earlier copy, nobody knows.
    let courses = [
        (Fault::LostReply, unavailable()),
        (Fault::LostRequest, unavailable()),
        (unavailable(), Fault::Hang),
        (unavailable(), Fault::HangApplied),
    ];
    for (first, then) in courses {
        let world = World::new();
        let engine = world.at_least_once();
        world.store.script(Verb::Complete, [first.clone()]);
        world.store.always(Verb::Complete, then.clone());
        let ran = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "receipt"));
        let told = unrecorded(ran);
        let expected = ("receipt".to_owned(), Some(ErrorKind::OutcomeUnknown));
        assert_eq!(told, expected, "{first:?}, then {then:?}");
    }
}

#[test]
fn a_completion_that_arrives_late_is_what_duplicates_get() {
    let world = World::new();
    let engine = world.at_least_once();
    world.store.always(Verb::Complete, Fault::HangLate(seconds(29)));
    let ran = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "receipt"));
    assert_eq!(unrecorded(ran).1, Some(ErrorKind::OutcomeUnknown));
    world.store.calm();
    let again = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "again"));
    assert_eq!(again.unwrap().value(), "receipt");
}

#[test]
fn an_owner_whose_lease_lapsed_may_complete_until_it_is_replaced() {
    let world = World::new();
    let engine = world.at_least_once();
    world.store.always(Verb::Renew, unavailable());
    let late = world.start(&engine, &key("a"), seconds(100), "late");
    world.sim.run_for(seconds(99));
    assert_eq!(world.state(&key("a")), Some(State::Lapsed));
    assert_eq!(world.sim.finish(&late).unwrap().value(), "late");
    assert_eq!(world.state(&key("a")), Some(State::Completed));
}

#[test]
fn an_owner_that_was_replaced_keeps_its_value_and_changes_nothing() {
    let world = World::new();
    let engine = world.at_least_once();
    world.store.always(Verb::Renew, unavailable());
    let replaced = world.start(&engine, &key("a"), seconds(60), "replaced");
    world.sim.run_for(seconds(31));
    let other = world.start(&engine, &key("a"), seconds(1), "other");
    assert_eq!(world.sim.finish(&other).unwrap().value(), "other");

    let Err(RunError::Unrecorded { value, error: RecordError::Lost }) = world.sim.finish(&replaced)
    else {
        panic!("another attempt has the key");
    };
    assert_eq!(value.unwrap().decode::<String>().unwrap(), "replaced");
    let again = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "again"));
    assert_eq!(again.unwrap().value(), "other");
}

#[test]
fn a_record_that_vanished_is_made_anew() {
    let world = World::new();
    let engine = world.at_least_once();
    let ran = world.start(&engine, &key("a"), seconds(1), "receipt");
    world.sim.settle();
    evict(&world);
    world.store.script(Verb::Claim, [Fault::LostReply, unavailable()]);
    assert!(!world.sim.finish(&ran).unwrap().is_replay());
    let again = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "again"));
    assert_eq!(again.unwrap().value(), "receipt");
}

#[test]
fn making_a_record_anew_does_not_go_on_for_ever() {
    for fault in [Fault::Hang, Fault::HangApplied, unavailable(), Fault::LostRequest] {
        let world = World::new();
        let engine = world.at_least_once();
        let ran = world.start(&engine, &key("a"), seconds(1), "receipt");
        world.sim.settle();
        evict(&world);
        world.store.always(Verb::Claim, fault);
        let (value, _) = unrecorded(world.sim.finish(&ran));
        assert_eq!(value, "receipt");
        assert!(world.sim.now() <= World::LEASE + seconds(2));
    }
}

#[test]
fn a_record_that_vanished_is_not_made_anew_over_the_head_of_another() {
    // What the other one did by the time the first makes its record anew.
    let others = [
        (seconds(100), Ok("late"), "gone"),
        (seconds(1), Err(Failure::Unknown(Declined)), "gone"),
        (seconds(1), Ok("other"), "conflict"),
        (seconds(1), Ok("receipt"), "recorded"),
        (seconds(1), Err(Failure::NotStarted(Declined)), "recorded"),
    ];
    for (time, result, expected) in others {
        let world = World::new();
        let engine = world.at_least_once();
        let ran = world.start(&engine, &key("a"), seconds(9), "receipt");
        world.sim.settle();
        evict(&world);
        // It learns only after a while that its record is gone.
        world.store.script(Verb::Complete, [Fault::SlowReply(seconds(5))]);
        world.sim.run_for(seconds(10));
        let result = result.map(str::to_owned);
        let other = classified(&world, &world.at_least_once(), time, result.clone());
        let told = match world.sim.finish(&ran) {
            Ok(_) => "recorded",
            Err(RunError::Unrecorded { error: RecordError::Gone, .. }) => "gone",
            Err(RunError::Unrecorded { error: RecordError::Conflict, .. }) => "conflict",
            Err(error) => panic!("{result:?}: {error:?}"),
        };
        assert_eq!(told, expected, "the other one: {result:?}");
        assert!(world.store.count(Verb::Claim) == 3, "it claimed anew");
        drop(other);
    }
}

#[test]
fn what_the_store_cannot_keep_is_done_and_not_replayable() {
    let world = World::new();
    let engine = world.at_least_once();
    world.store.script(Verb::Complete, [Fault::Fail(ErrorKind::TooLarge), unavailable()]);
    let ran = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "receipt"));
    assert_eq!(ran.unwrap().value(), "receipt");
    let again = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "again"));
    assert!(matches!(again, Err(RunError::NotReplayable)));
    assert_eq!(world.recorder.count(|event| matches!(event, Event::NotReplayable { .. })), 1);
}

/// Under `at_most_once`, a key that nobody frees stays interrupted for ever.
#[test]
fn a_short_outage_does_not_keep_a_key_from_being_free() {
    let faults = [vec![unavailable(); 8], vec![Fault::Hang], vec![Fault::HangApplied]];
    for faults in faults {
        let world = World::new();
        let engine = world.at_most_once();
        world.store.script(Verb::Abandon, faults);
        let failed = classified(&world, &engine, seconds(1), Err(Failure::NotStarted(Declined)));
        assert!(matches!(world.sim.finish(&failed), Err(RunError::NotStarted(Declined))));
        assert_eq!(world.state(&key("a")), Some(State::Released));
    }
}

#[test]
fn a_lost_acknowledgement_that_shows_as_silence_is_settled_by_completing_again() {
    for fault in [Fault::Hang, Fault::HangApplied, Fault::HangLate(seconds(12))] {
        let world = World::new();
        let engine = world.at_least_once();
        world.store.script(Verb::Complete, [fault]);
        let ran = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "receipt"));
        assert_eq!(ran.unwrap().value(), "receipt");
        assert_eq!(world.store.count(Verb::Complete), 2);
        world.sim.run_for(seconds(20));
        assert_eq!(world.state(&key("a")), Some(State::Completed));
    }
}

#[test]
fn an_error_of_the_operation_does_not_wait_long_for_a_store_that_hangs() {
    let world = World::new();
    let engine = world.at_least_once();
    let unknown = || Failure::Unknown(Declined);
    for (failure, fault, longest) in [
        (Failure::NotStarted(Declined), Fault::Hang, seconds(5)),
        (Failure::NotStarted(Declined), unavailable(), seconds(5)),
        (unknown(), Fault::Hang, seconds(5)),
        (unknown(), unavailable(), seconds(1)),
    ] {
        world.store.calm();
        world.store.always(Verb::Abandon, fault);
        let failed = classified(&world, &engine, seconds(1), Err(failure));
        let before = world.sim.now();
        assert!(world.sim.finish(&failed).is_err());
        assert!(world.sim.now() <= before + seconds(1) + longest);
        // Nobody was told, so it comes about by itself.
        world.sim.run_for(World::LEASE);
        assert_eq!(world.state(&key("a")), Some(State::Lapsed));
    }
}

#[test]
fn a_run_that_is_dropped_anywhere_leaves_a_key_that_settles() {
    for guarantee in ["at least once", "at most once"] {
        let mut finished = false;
        let mut polls = 0;
        while !finished {
            let world = World::new();
            let engine = |world: &World| match guarantee {
                "at least once" => world.at_least_once(),
                _ => world.at_most_once(),
            };
            // Every call pends before it is applied, and before it is answered.
            for verb in [Verb::Claim, Verb::Renew, Verb::Complete, Verb::Abandon] {
                let faults = [Fault::Slow(millis(1)), Fault::SlowReply(millis(1))];
                world.store.script(verb, faults.into_iter().cycle().take(100));
            }
            let started = std::rc::Rc::new(std::cell::Cell::new(0));
            let first = counted(&world, &engine(&world), &started, "first");
            for _ in 0..polls {
                world.sim.advance();
            }
            finished = first.is_done();
            world.sim.crash(&first);
            world.sim.run_for(World::LEASE);

            let second = world.sim.finish(&counted(&world, &engine(&world), &started, "second"));
            match second {
                Ok(outcome) if outcome.is_replay() => assert_eq!(outcome.value(), "first"),
                Ok(outcome) => assert_eq!(outcome.value(), "second"),
                Err(RunError::Interrupted) => assert_eq!(guarantee, "at most once"),
                Err(error) => panic!("dropped after {polls} polls: {error:?}"),
            }
            let most = if guarantee == "at most once" { 1 } else { 2 };
            assert!(started.get() <= most, "dropped after {polls} polls");
            polls += 1;
        }
        assert!(polls > 10, "the run is dropped at many points: {polls}");
    }
}

fn counted(
    world: &World,
    engine: &Idempotency,
    started: &std::rc::Rc<std::cell::Cell<u32>>,
    value: &'static str,
) -> Task<Ran> {
    let (started, timer) = (std::rc::Rc::clone(started), world.sim.timer.clone());
    world.run(engine, &key("a"), move |_| async move {
        started.set(started.get() + 1);
        timer.sleep(seconds(40)).await;
        Ok(value.to_owned())
    })
}

const fn unavailable() -> Fault {
    Fault::Fail(ErrorKind::Unavailable)
}

/// The value that came with the error, and the kind of the error if the store made it.
fn unrecorded(ran: Result<Outcome<String>, RunError<Declined>>) -> (String, Option<ErrorKind>) {
    let Err(RunError::Unrecorded { value, error }) = ran else {
        panic!("it was recorded: {ran:?}");
    };
    let kind = match error {
        RecordError::Store(error) => Some(error.kind()),
        _ => None,
    };
    (value.unwrap().decode().unwrap(), kind)
}

fn evict(world: &World) {
    let operator = world.at_least_once().operator();
    let evicted = world
        .sim
        .spawn(async move { operator.evict(&key("a"), Expected::Any, true).await.unwrap() });
    world.sim.settle();
    assert_eq!(evicted.take(), Some(Fenced::Applied));
}

fn classified(
    world: &World,
    engine: &Idempotency,
    time: Duration,
    result: Result<String, Failure<Declined>>,
) -> Task<Ran> {
    let (engine, timer) = (engine.clone(), world.sim.timer.clone());
    world.sim.spawn(async move {
        let operation = |_| async move {
            timer.sleep(time).await;
            result
        };
        engine.run_classified(&key("a"), &fingerprint(), operation).await
    })
}
