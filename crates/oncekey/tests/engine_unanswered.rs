//! Claims whose answers were lost: the grant that went to nobody is found again, by one run only.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

mod support;

use std::cell::Cell;
use std::collections::HashSet;
use std::rc::Rc;

use oncekey::observe::Event;
use oncekey::store::{ErrorKind, State};
use oncekey::{Idempotency, RunError, Verdict};
use support::{Declined, Fault, Ran, Task, Verb, World, fingerprint, key, millis, seconds};

#[test]
fn a_claim_with_a_lost_answer_is_sent_again_under_the_same_attempt() {
    let world = World::new();
    let engine = world.at_least_once();
    world.store.script(Verb::Claim, [Fault::LostReply, Fault::LostRequest, Fault::Late(millis(1))]);
    let ran = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "receipt"));
    assert!(!ran.unwrap().is_replay());
    let claimed = world.store.claimed();
    assert_eq!(claimed.len(), 4);
    assert!(claimed.iter().all(|attempt| *attempt == claimed[0]));
    assert_eq!(world.state(&key("a")), Some(State::Completed));
}

#[test]
fn a_grant_that_nobody_learned_of_is_adopted_by_the_next_run() {
    for engine in [World::at_least_once as fn(&World) -> Idempotency, World::at_most_once] {
        let world = World::new();
        let engine = engine(&world);
        lose_a_claim(&world, &engine);
        assert_eq!(world.state(&key("a")), Some(State::Live), "granted to nobody");

        let ran = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "receipt"));
        assert!(!ran.unwrap().is_replay(), "it need not wait for the lease");
        assert!(world.sim.now() < seconds(2));
        assert_eq!(world.recorder.count(|event| *event == Event::Adopted), 1);
    }
}

#[test]
fn a_grant_is_adopted_also_when_its_lease_has_lapsed() {
    let world = World::new();
    let engine = world.at_most_once();
    lose_a_claim(&world, &engine);
    world.sim.run_for(World::LEASE);
    assert_eq!(world.state(&key("a")), Some(State::Lapsed));
    // Nothing ran under it: this process knows, another one cannot.
    let other_process = world.at_most_once();
    let refused = world.sim.finish(&world.start(&other_process, &key("a"), seconds(1), "other"));
    assert!(matches!(refused, Err(RunError::Interrupted)));
    let ran = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "receipt"));
    assert_eq!(ran.unwrap().value(), "receipt");
}

#[test]
fn a_run_dropped_while_it_claims_leaves_its_attempt_to_the_next() {
    let world = World::new();
    let engine = world.at_most_once();
    world.store.script(Verb::Claim, [Fault::HangApplied]);
    let dropped = world.start(&engine, &key("a"), seconds(1), "never");
    world.sim.settle();
    world.sim.crash(&dropped);
    let ran = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "receipt"));
    assert_eq!(ran.unwrap().value(), "receipt");
}

#[test]
fn of_runs_at_the_same_moment_one_adopts() {
    for seed in 0..50 {
        let world = World::seeded(seed);
        let engine = world.at_most_once().wait_for_duplicate(seconds(60));
        lose_a_claim(&world, &engine);
        world.store.always(Verb::Claim, Fault::Slow(millis(3)));
        let running = Rc::new(Cell::new(0));
        let runs: Vec<_> = (0..5).map(|_| counted(&world, &engine, &running)).collect();
        let executed = runs.iter().filter(|run| !world.sim.finish(run).unwrap().is_replay());
        assert_eq!(executed.count(), 1);
        assert_eq!(running.get(), 1, "it ran once");
        assert_eq!(world.recorder.count(|event| *event == Event::Adopted), 1);
    }
}

#[test]
fn a_request_that_still_waits_shares_its_attempt_with_nobody() {
    let world = World::new();
    let engine = world.at_least_once().wait_for_duplicate(seconds(300));
    let owner = world.start(&engine, &key("a"), seconds(10), "never");
    world.sim.settle();
    // All polls of the waiter get through, and none of their answers comes back in time.
    let waiter = counted(&world, &engine, &Rc::new(Cell::new(0)));
    world.sim.settle();
    world.store.always(Verb::Claim, Fault::SlowReply(seconds(3)));
    world.sim.crash(&owner);
    world.sim.run_for(World::LEASE + seconds(1));
    world.store.calm();

    let before: HashSet<_> = world.store.claimed().into_iter().collect();
    let second = counted(&world, &engine, &Rc::new(Cell::new(0)));
    world.sim.settle();
    let ids: Vec<_> = world.store.claimed();
    let new = ids.iter().filter(|id| !before.contains(id)).count();
    assert!(new >= 1, "the second run asks under an attempt of its own");
    assert_eq!(world.recorder.count(|event| *event == Event::Adopted), 0);
    assert!(world.sim.finish(&waiter).is_ok());
    assert!(world.sim.finish(&second).is_ok());
}

#[test]
fn an_attempt_is_never_used_again_once_it_was_granted() {
    let world = World::new();
    let engine = world.at_least_once();
    let crashed = world.start(&engine, &key("a"), seconds(60), "never");
    world.sim.settle();
    let granted = world.store.claimed();
    world.sim.crash(&crashed);
    for _ in 0..50 {
        let ran = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "receipt"));
        if ran.is_ok() {
            break;
        }
        world.sim.run_for(seconds(1));
    }
    let later = world.store.claimed().split_off(1);
    assert!(later.iter().all(|attempt| *attempt != granted[0]));
    assert_eq!(world.state(&key("a")), Some(State::Completed));
}

#[test]
fn what_a_completer_took_over_is_not_run_again_by_an_at_most_once_client() {
    for lapse in [false, true] {
        let world = World::new();
        let engine = world.at_most_once();
        let failed = world.run(&engine, &key("a"), |_| async { Err(Declined) });
        assert!(matches!(world.sim.finish(&failed), Err(RunError::Unknown(Declined))));

        // The completer takes the interrupted key over, and never learns of it.
        world.store.script(Verb::Claim, vec![Fault::LostReply; 4]);
        let completer = engine.completer("POST /payments", |_| async { Verdict::Unknown });
        let completions = world.sim.block_on(async move { completer.complete().await }).unwrap();
        assert_eq!(completions.unknown, 1);
        assert_eq!(world.state(&key("a")), Some(State::Live));
        if lapse {
            world.sim.run_for(World::LEASE);
        }

        // The first attempt may have charged: adopting the takeover does not make that unknown known.
        let ran = world.run(&engine, &key("a"), |_| async { panic!("runs a second time") });
        assert!(matches!(world.sim.finish(&ran), Err(RunError::Interrupted)));
        assert_eq!(world.state(&key("a")), Some(State::GaveUp), "it stays interrupted");
    }
}

#[test]
fn a_request_whose_attempt_was_ended_by_an_operator_goes_on_under_another() {
    let world = World::new();
    let engine = world.at_most_once();
    lose_a_claim(&world, &engine);
    world.sim.run_for(World::LEASE);
    let operator = engine.operator();
    let settled = world.sim.block_on(async move {
        operator.settle_not_done(&key("a"), oncekey::store::Expected::Any).await
    });
    assert_eq!(settled.unwrap(), oncekey::store::Fenced::Applied);
    let ran = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "receipt"));
    assert_eq!(ran.unwrap().value(), "receipt");
}

#[test]
fn what_is_remembered_is_bounded() {
    let world = World::new();
    let engine = world.at_least_once();
    world.store.always(Verb::Claim, Fault::HangApplied);
    for id in 0..3000 {
        let key = key(&id.to_string());
        let dropped = world.start(&engine, &key, seconds(1), "never");
        world.sim.settle();
        world.sim.crash(&dropped);
        world.sim.run_for(millis(1));
    }
    world.store.calm();
    // The latest are found again; of the oldest, the lease has to lapse.
    let ran = world.sim.finish(&world.start(&engine, &key("2999"), seconds(1), "receipt"));
    assert!(ran.is_ok());
    let ran = world.sim.finish(&world.start(&engine, &key("0"), seconds(1), "receipt"));
    assert!(matches!(ran, Err(RunError::Busy { .. })), "{ran:?}");
}

/// A run whose claim is granted and whose caller never learns of it.
fn lose_a_claim(world: &World, engine: &Idempotency) {
    world.store.script(Verb::Claim, vec![Fault::LostReply; 4]);
    let lost = world.sim.finish(&world.start(engine, &key("a"), seconds(1), "never"));
    let Err(RunError::Store(error)) = lost else {
        panic!("no answer came: {lost:?}");
    };
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
}

fn counted(world: &World, engine: &Idempotency, runs: &Rc<Cell<u32>>) -> Task<Ran> {
    let (engine, runs, timer) = (engine.clone(), Rc::clone(runs), world.sim.timer.clone());
    world.sim.spawn(async move {
        let operation = |_| async move {
            runs.set(runs.get() + 1);
            timer.sleep(seconds(1)).await;
            Ok::<_, Declined>("receipt".to_owned())
        };
        engine.run(&key("a"), &fingerprint(), operation).await
    })
}

#[test]
fn late_copies_of_an_ended_attempt_free_nothing_that_was_interrupted_since() {
    let world = World::new();
    let asked = std::sync::Arc::new(std::sync::Mutex::new(0));
    let count = std::sync::Arc::clone(&asked);
    let engine = world.verified(move |_| {
        *count.lock().unwrap() += 1;
        async { Verdict::done(&"charged").unwrap() }
    });
    // One copy of the first attempt's claim, and one of its release, stay on the way for a while.
    world.store.script(Verb::Claim, [Fault::Late(seconds(10)), Fault::None]);
    world.store.script(Verb::Abandon, [Fault::Late(seconds(20)), Fault::None]);
    let nothing = engine.clone();
    let nothing = world.sim.block_on(async move {
        let operation = |_| async { Err::<String, _>(oncekey::Failure::NotStarted(Declined)) };
        nothing.run_classified(&key("a"), &fingerprint(), operation).await
    });
    assert!(matches!(nothing, Err(RunError::NotStarted(Declined))));
    // The second attempt charges, and does not know it.
    let unknown = world.run(&engine, &key("a"), |_| async { Err(Declined) });
    assert!(matches!(world.sim.finish(&unknown), Err(RunError::Unknown(Declined))));
    assert_eq!(world.state(&key("a")), Some(State::GaveUp));

    world.sim.run_for(seconds(60));
    assert_ne!(world.state(&key("a")), Some(State::Released), "nobody has found out anything");
    let ran = world.run(&engine, &key("a"), |_| async { panic!("charges twice") });
    assert_eq!(world.sim.finish(&ran).unwrap().value(), "charged");
    assert_eq!(*asked.lock().unwrap(), 1);
}

#[test]
fn a_claim_that_may_have_been_applied_is_not_taken_back_by_a_later_error() {
    let world = World::new();
    let engine = world.at_least_once();
    let faults = [Fault::LostReply, Fault::Fail(ErrorKind::Unavailable)];
    world.store.script(Verb::Claim, faults);
    let ran = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "receipt"));
    let Err(RunError::Store(error)) = ran else { panic!("{ran:?}") };
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(world.state(&key("a")), Some(State::Live), "it was");
}

#[test]
fn one_claim_in_a_black_hole_is_sent_again() {
    for fault in [Fault::Hang, Fault::HangApplied, Fault::HangLate(seconds(8))] {
        let world = World::new();
        let engine = world.at_least_once();
        world.store.script(Verb::Claim, [fault]);
        let ran = world.sim.finish(&world.start(&engine, &key("a"), seconds(20), "receipt"));
        assert_eq!(ran.unwrap().value(), "receipt");
        assert_eq!(world.store.count(Verb::Claim), 2);
    }
}
