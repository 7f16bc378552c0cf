//! What a retry may do after an interruption: the three guarantees, and the hook of the third.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

mod support;

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::BoxFuture;
use oncekey::observe::{Event, VerdictKind};
use oncekey::store::{Cause, ErrorKind, Expected, Fenced, FencingToken, State};
use oncekey::{Encoded, Failure, Idempotency, Interruption, RunError, Verdict, Verify};
use support::{Declined, Fault, Ran, Verb, World, fingerprint, key, seconds};

#[test]
fn at_most_once_refuses_until_the_key_is_settled() {
    let world = World::new();
    let engine = world.at_most_once();
    let crashed = world.start(&engine, &key("a"), seconds(60), "never");
    world.sim.run_for(seconds(1));
    world.sim.crash(&crashed);
    for _ in 0..20 {
        // Years go by.
        world.sim.run_for(seconds(365 * 24 * 60 * 60));
        let engine = world.at_most_once();
        let ran = world.run(&engine, &key("a"), |_| async { panic!("runs a second time") });
        assert!(matches!(world.sim.finish(&ran), Err(RunError::Interrupted)));
        let sweeper = engine.sweeper();
        world.sim.block_on(async move { sweeper.sweep().await }).unwrap();
    }

    let operator = engine.operator();
    let settled = world.sim.block_on(async move {
        let observed = operator.inspect(&key("a")).await.unwrap().unwrap();
        let token = Expected::Token(observed.record.token);
        let receipt = Encoded::json("found in the books").unwrap();
        operator.settle_done(&key("a"), token, &receipt).await
    });
    assert_eq!(settled.unwrap(), Fenced::Applied);
    let ran = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "again")).unwrap();
    assert!(ran.is_replay());
    assert_eq!(ran.value(), "found in the books");
}

#[test]
fn at_most_once_within_a_hold_forgets_after_it() {
    let world = World::new();
    let engine = world.at_most_once().hold(seconds(3600));
    let failed = world.run(&engine, &key("a"), |_| async { Err(Declined) });
    assert!(world.sim.finish(&failed).is_err());
    world.sim.run_for(seconds(3600 + 29));
    sweep(&world, &engine);
    let refused = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "early"));
    assert!(matches!(refused, Err(RunError::Interrupted)));
    world.sim.run_for(seconds(1));
    sweep(&world, &engine);
    let ran = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "receipt"));
    assert!(!ran.unwrap().is_replay());
}

#[test]
fn a_retired_key_is_told_at_most_once_and_forgotten_at_least_once() {
    let world = World::new();
    let day = seconds(24 * 60 * 60);
    for (engine, id) in [(world.at_most_once(), "most"), (world.at_least_once(), "least")] {
        world.sim.finish(&world.start(&engine, &key(id), seconds(1), "receipt")).unwrap();
    }
    world.sim.run_for(day);
    let told = world.sim.finish(&world.start(&world.at_most_once(), &key("most"), seconds(1), "2"));
    assert!(matches!(told, Err(RunError::Retired)));
    let ran =
        world.sim.finish(&world.start(&world.at_least_once(), &key("least"), seconds(1), "2"));
    assert!(!ran.unwrap().is_replay());

    world.sim.run_for(day * 30);
    sweep(&world, &world.at_most_once());
    let ran = world.sim.finish(&world.start(&world.at_most_once(), &key("most"), seconds(1), "2"));
    assert!(!ran.unwrap().is_replay(), "after thirty days it is forgotten");
}

#[test]
fn a_hook_that_found_it_done_has_its_result_recorded() {
    let world = World::new();
    let engine = world.verified(|_| async { Verdict::Done(Encoded::json("charge 1").unwrap()) });
    interrupt(&world, &engine);
    let ran = world.run(&engine, &key("a"), |_| async { panic!("it is done") });
    let ran = world.sim.finish(&ran).unwrap();
    assert!(ran.is_replay());
    assert_eq!(ran.value(), "charge 1");
    assert_eq!(world.state(&key("a")), Some(State::Completed));
    let verified = Event::Verified { verdict: VerdictKind::Done };
    assert_eq!(world.recorder.count(|event| *event == verified), 1);
}

#[test]
fn a_hook_that_found_it_not_done_lets_it_run() {
    let world = World::new();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    let engine = world.verified(move |interruption: Interruption| {
        let (cause, token) = (interruption.cause(), interruption.token());
        assert!(interruption.attempt().token() > token);
        noted.lock().unwrap().push((cause, token));
        async { Verdict::NotDone }
    });
    let first = interrupt(&world, &engine);
    let ran = world.start(&engine, &key("a"), seconds(60), "never");
    world.sim.run_for(seconds(1));
    world.sim.crash(&ran);
    world.sim.run_for(World::LEASE);
    let ran = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "receipt"));
    assert!(!ran.unwrap().is_replay());

    let asked = asked.lock().unwrap();
    assert_eq!(asked[0], (Cause::GaveUp, first));
    assert_eq!(asked[1].0, Cause::Lapsed, "asked again about the second attempt");
    assert_eq!(asked.len(), 2);
}

#[test]
fn a_hook_that_cannot_tell_is_asked_again_by_the_next_request() {
    let world = World::new();
    let answers = Mutex::new(vec![Verdict::NotDone, Verdict::Unknown, Verdict::Unknown]);
    let engine = world.verified(move |_| {
        let verdict = answers.lock().unwrap().pop().unwrap();
        async { verdict }
    });
    interrupt(&world, &engine);
    for _ in 0..2 {
        let ran = world.run(&engine, &key("a"), |_| async { panic!("nobody knows") });
        assert!(matches!(world.sim.finish(&ran), Err(RunError::Interrupted)));
        assert_eq!(world.state(&key("a")), Some(State::GaveUp));
    }
    let ran = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "receipt"));
    assert_eq!(ran.unwrap().value(), "receipt");
}

#[test]
fn a_first_attempt_and_a_released_one_are_not_asked_about() {
    let world = World::new();
    let engine = world.verified(|_| async { panic!("nothing was interrupted") });
    let engine = &engine;
    let released = world.sim.block_on({
        let engine = engine.clone();
        async move {
            let nothing = |_| async { Err::<String, _>(Failure::NotStarted(Declined)) };
            engine.run_classified(&key("a"), &fingerprint(), nothing).await
        }
    });
    assert!(matches!(released, Err(RunError::NotStarted(Declined))));
    let ran = world.sim.finish(&world.start(engine, &key("a"), seconds(1), "receipt"));
    assert!(ran.is_ok());
}

#[test]
fn a_panic_in_a_hook_gives_the_key_up_and_goes_on() {
    /// Panics before it has made a future.
    struct Early;
    impl Verify for Early {
        fn verify<'a, 'b>(&'a self, _: Interruption) -> BoxFuture<'b, Verdict>
        where
            'a: 'b,
            Self: 'b,
        {
            panic!("in the hook")
        }
    }

    let world = World::new();
    let engines = [world.verified(|_| async { panic!("in the hook") }), world.verified(Early)];
    for (engine, id) in engines.into_iter().zip(["a", "b"]) {
        let key = key(id);
        let failed = world.run(&engine, &key, |_| async { Err(Declined) });
        assert!(world.sim.finish(&failed).is_err());
        let asked = key.clone();
        let caught = world.sim.block_on(async move {
            let fingerprint = fingerprint();
            let run = engine.run(&asked, &fingerprint, |_| async { Ok::<i32, Declined>(1) });
            AssertUnwindSafe(run).catch_unwind().await.is_err()
        });
        assert!(caught);
        assert_eq!(world.state(&key), Some(State::GaveUp), "told at once, and not by a lapse");
    }
}

#[test]
fn a_hook_has_its_lease_renewed_and_the_key_to_itself() {
    let world = World::new();
    let timer = world.sim.timer.clone();
    let engine = world.verified(move |_| {
        let timer = timer.clone();
        async move {
            timer.sleep(seconds(100)).await;
            Verdict::NotDone
        }
    });
    interrupt(&world, &engine);
    let ran = world.start(&engine, &key("a"), seconds(1), "receipt");
    for _ in 0..99 {
        world.sim.run_for(seconds(1));
        let other = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "other"));
        assert!(matches!(other, Err(RunError::Busy { .. })));
    }
    assert_eq!(world.sim.finish(&ran).unwrap().value(), "receipt");
}

#[test]
fn a_verdict_that_comes_after_the_lease_was_lost_starts_nothing() {
    let world = World::new();
    let timer = world.sim.timer.clone();
    let engine = world.verified(move |_| {
        let timer = timer.clone();
        async move {
            timer.sleep(seconds(100)).await;
            Verdict::NotDone
        }
    });
    interrupt(&world, &engine);
    world.store.always(Verb::Renew, Fault::Fail(ErrorKind::Unavailable));
    let ran = world.run(&engine, &key("a"), |_| async { panic!("others may be at it") });
    assert!(matches!(world.sim.finish(&ran), Err(RunError::LeaseLost)));
    assert_eq!(world.state(&key("a")), Some(State::GaveUp), "still interrupted, not free");
}

#[test]
fn a_verdict_that_cannot_be_recorded_is_handed_to_the_caller() {
    let world = World::new();
    let engine = world.verified(|_| async { Verdict::Done(Encoded::json("charge 1").unwrap()) });
    interrupt(&world, &engine);
    world.store.always(Verb::Complete, Fault::Fail(ErrorKind::Unavailable));
    let ran = world.run(&engine, &key("a"), |_| async { panic!("it is done") });
    let Err(RunError::Unrecorded { value, .. }) = world.sim.finish(&ran) else {
        panic!("the store does not answer");
    };
    assert_eq!(value.unwrap().decode::<String>().unwrap(), "charge 1");
}

#[test]
fn a_hook_can_read_the_steps_that_were_saved() {
    let world = World::new();
    let engine = world.verified(|interruption: Interruption| async move {
        let missing = interruption.saved_step::<String>("book").unwrap();
        assert_eq!(missing, None);
        assert!(interruption.saved_step::<u64>("charge").is_err(), "it is no number");
        match interruption.saved_step::<String>("charge").unwrap() {
            Some(charge) => Verdict::Done(Encoded::json(&charge).unwrap()),
            None => Verdict::Unknown,
        }
    });
    let failed = world.run(&engine, &key("a"), |attempt| async move {
        attempt.step("charge", || async { Ok::<_, Declined>("charge 1".to_owned()) }).await?;
        Err(Declined)
    });
    assert!(world.sim.finish(&failed).is_err());
    let ran = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "again"));
    assert_eq!(ran.unwrap().value(), "charge 1");
}

#[test]
fn what_a_verified_operation_did_not_do_frees_its_key() {
    let world = World::new();
    let engine = world.verified(|_| async { Verdict::NotDone });
    interrupt(&world, &engine);
    let ran: Ran = world.sim.block_on(async move {
        let nothing = |_| async { Err(Failure::NotStarted(Declined)) };
        engine.run_classified(&key("a"), &fingerprint(), nothing).await
    });
    assert!(matches!(ran, Err(RunError::NotStarted(Declined))));
    assert_eq!(world.state(&key("a")), Some(State::Released), "the hook spoke for the one before");
}

/// Lets an attempt end with an unknown outcome, and returns its token.
fn interrupt(world: &World, engine: &Idempotency) -> FencingToken {
    let token = std::rc::Rc::new(Cell::new(None));
    let seen = std::rc::Rc::clone(&token);
    let failed = world.run(engine, &key("a"), move |attempt| async move {
        seen.set(Some(attempt.token()));
        Err(Declined)
    });
    assert!(matches!(world.sim.finish(&failed), Err(RunError::Unknown(Declined))));
    token.get().unwrap()
}

fn sweep(world: &World, engine: &Idempotency) {
    let sweeper = engine.sweeper();
    world.sim.block_on(async move { sweeper.sweep().await }).unwrap();
}
