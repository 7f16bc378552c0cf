//! Steps: what is saved before the operation goes on, and what a takeover finds.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

mod support;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;

use futures::future::{Either, join, select};
use futures::pin_mut;
use oncekey::store::{ErrorKind, Renew, State, Store};
use oncekey::{Attempt, CodecError, Failure, Idempotency, RunError, StepError};
use support::{Declined, Fault, Ran, Task, Verb, World, fingerprint, key, millis, seconds};

/// What the steps of a test did, in order.
type Log = Rc<RefCell<Vec<String>>>;

#[test]
fn a_takeover_goes_on_after_the_last_saved_step() {
    let world = World::new();
    let engine = world.at_least_once();
    let log = Log::default();
    let course = |log: Log, timer: support::VirtualTimer| {
        move |attempt: Attempt| async move {
            let charge = step(&attempt, "charge", &log, "charge 1").await?;
            timer.sleep(seconds(20)).await;
            let booking = step(&attempt, "book", &log, "booking 1").await?;
            timer.sleep(seconds(20)).await;
            Ok(format!("{charge}, {booking}"))
        }
    };
    for crash_after in [seconds(10), seconds(30)] {
        let run = world.run(&engine, &key("a"), course(log.clone(), world.sim.timer.clone()));
        world.sim.run_for(crash_after);
        world.sim.crash(&run);
        world.sim.run_for(World::LEASE);
    }
    let run = world.run(&engine, &key("a"), course(log.clone(), world.sim.timer.clone()));
    assert_eq!(world.sim.finish(&run).unwrap().value(), "charge 1, booking 1");
    assert_eq!(*log.borrow(), ["charge", "book"], "each step ran once in three attempts");
}

#[test]
fn a_step_is_saved_before_it_returns() {
    let world = World::new();
    let engine = world.at_least_once();
    // The reply takes a while: the step may not return before it.
    world.store.script(Verb::Renew, [Fault::Slow(seconds(3))]);
    let returned = Rc::new(Cell::new(None));
    let (seen, timer) = (Rc::clone(&returned), world.sim.timer.clone());
    let ran = world.run(&engine, &key("a"), move |attempt| async move {
        attempt.step("charge", || async { Ok::<_, Declined>(1) }).await?;
        seen.set(Some(oncekey::runtime::Timer::now(&timer)));
        Ok("receipt".to_owned())
    });
    world.sim.run_for(seconds(2));
    assert!(world.observed(&key("a")).unwrap().record.progress.is_none());
    assert_eq!(returned.get(), None);
    world.sim.run_for(seconds(1));
    assert_eq!(returned.get(), Some(seconds(3)));
    assert!(ran.is_done());
}

#[test]
fn a_result_that_was_not_saved_is_not_returned_by_using_its_name_again() {
    let world = World::new();
    let engine = world.at_least_once();
    let log = Log::default();
    let (noted, timer) = (log.clone(), world.sim.timer.clone());
    // The first save gets lost, and the operation does not wait for it.
    world.store.script(Verb::Renew, [Fault::Hang]);
    let run = world.run(&engine, &key("a"), move |attempt| async move {
        {
            let first = step(&attempt, "charge", &noted, "charge 1");
            let patience = timer.sleep(seconds(1));
            pin_mut!(first, patience);
            assert!(matches!(select(first, patience).await, Either::Right(_)));
        }
        let charge = step(&attempt, "charge", &noted, "charge 2").await?;
        assert_eq!(charge, "charge 1");
        noted.borrow_mut().push("went on".to_owned());
        timer.sleep(seconds(100)).await;
        Ok("never".to_owned())
    });
    world.sim.run_for(seconds(2));
    assert_eq!(*log.borrow(), ["charge", "went on"]);
    world.sim.crash(&run);
    world.sim.run_for(World::LEASE);

    let noted = log.clone();
    let run = world.run(&engine, &key("a"), move |attempt| async move {
        step(&attempt, "charge", &noted, "charge 3").await
    });
    assert_eq!(world.sim.finish(&run).unwrap().value(), "charge 1", "what it went on with stands");
}

#[test]
fn a_step_that_cannot_be_saved_stops_the_operation() {
    let world = World::new();
    let engine = world.at_least_once();
    world.store.always(Verb::Renew, Fault::Fail(ErrorKind::Unavailable));
    let run = world.run(&engine, &key("a"), |attempt| async move {
        attempt.step("charge", || async { Ok::<_, Declined>(1) }).await?;
        panic!("it goes on without its step");
    });
    let Err(RunError::StepUnsaved(StepError::Store(error))) = world.sim.finish(&run) else {
        panic!("the step was not saved");
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(world.store.count(Verb::Renew) > 20, "it is tried for a lease");
    assert_eq!(world.state(&key("a")), Some(State::GaveUp));
}

#[test]
fn a_step_of_a_replaced_owner_reports_the_lost_lease() {
    let world = World::new();
    let engine = world.at_least_once();
    world.store.always(Verb::Renew, Fault::Hang);
    let timer = world.sim.timer.clone();
    let run = world.run(&engine, &key("a"), move |attempt| async move {
        let charge = || async {
            timer.sleep(seconds(60)).await;
            Ok::<_, Declined>(1)
        };
        attempt.step("charge", charge).await?;
        panic!("it goes on without its key");
    });
    world.sim.run_for(seconds(31));
    let other = world.start(&engine, &key("a"), seconds(1), "other");
    assert_eq!(world.sim.finish(&other).unwrap().value(), "other");
    world.store.calm();
    assert!(matches!(world.sim.finish(&run), Err(RunError::LeaseLost)));
}

#[test]
fn no_step_starts_once_the_lease_is_lost() {
    let world = World::new();
    let engine = world.at_least_once();
    world.store.always(Verb::Renew, Fault::Hang);
    let timer = world.sim.timer.clone();
    let run = world.run(&engine, &key("a"), move |attempt| async move {
        timer.sleep(seconds(60)).await;
        let late = || async { panic!("somebody else may be at it") };
        attempt.step("charge", late).await
    });
    assert!(matches!(world.sim.finish(&run), Err(RunError::LeaseLost)));
    assert_eq!(world.state(&key("a")), Some(State::GaveUp));
}

#[test]
fn a_step_whose_work_outlasts_the_lease_is_saved_if_nobody_took_over() {
    let world = World::new();
    let engine = world.at_least_once();
    world.store.script(Verb::Renew, [Fault::Hang]);
    let log = Log::default();
    let (noted, timer) = (log.clone(), world.sim.timer.clone());
    let run = world.run(&engine, &key("a"), move |attempt| async move {
        let work = || async {
            noted.borrow_mut().push("charge".to_owned());
            timer.sleep(seconds(60)).await;
            Ok("charge 1".to_owned())
        };
        attempt.step("charge", work).await?;
        Err(Declined)
    });
    assert!(matches!(world.sim.finish(&run), Err(RunError::Unknown(Declined))));
    let noted = log.clone();
    let run = world.run(&engine, &key("a"), move |attempt| async move {
        step(&attempt, "charge", &noted, "charge 2").await
    });
    assert_eq!(world.sim.finish(&run).unwrap().value(), "charge 1");
    assert_eq!(*log.borrow(), ["charge"]);
}

#[test]
fn steps_side_by_side_are_all_saved_in_whatever_order_they_arrive() {
    let slow = [seconds(5), seconds(3), seconds(1)];
    for first in 0..slow.len() {
        let world = World::new();
        let engine = world.at_least_once();
        let mut order = slow;
        order.rotate_left(first);
        world.store.script(Verb::Renew, order.map(Fault::Slow));
        let log = Log::default();
        let course = |log: Log| {
            move |attempt: Attempt| async move {
                let both = join(
                    step(&attempt, "one", &log, "1"),
                    join(step(&attempt, "two", &log, "2"), step(&attempt, "three", &log, "3")),
                );
                let (one, (two, three)) = both.await;
                Ok(format!("{} {} {}", one?, two?, three?))
            }
        };
        let run = world.run(&engine, &key("a"), {
            let course = course(log.clone());
            move |attempt| async move {
                course(attempt).await?;
                Err(Declined)
            }
        });
        assert!(matches!(world.sim.finish(&run), Err(RunError::Unknown(Declined))));
        let run = world.run(&engine, &key("a"), course(log.clone()));
        assert_eq!(world.sim.finish(&run).unwrap().value(), "1 2 3");
        assert_eq!(log.borrow().len(), 3, "each ran once");
    }
}

#[test]
fn an_older_save_that_arrives_late_takes_nothing_back() {
    let world = World::new();
    let engine = world.at_least_once();
    world.store.script(Verb::Renew, [Fault::Late(seconds(5)), Fault::None, Fault::None]);
    let timer = world.sim.timer.clone();
    let run = world.run(&engine, &key("a"), move |attempt| async move {
        for name in ["one", "two"] {
            attempt.step(name, || async { Ok::<_, Declined>(name.to_owned()) }).await?;
        }
        timer.sleep(seconds(6)).await;
        Err(Declined)
    });
    assert!(world.sim.finish(&run).is_err());
    let run = world.run(&engine, &key("a"), |attempt| async move {
        let never = || async { panic!("it was saved") };
        let one: String = attempt.step::<_, Declined, _, _>("one", never).await?;
        let never = || async { panic!("it was saved") };
        let two: String = attempt.step("two", never).await?;
        Ok(format!("{one} {two}"))
    });
    assert_eq!(world.sim.finish(&run).unwrap().value(), "one two");
}

#[test]
fn doing_nothing_after_a_saved_step_is_giving_up() {
    let world = World::new();
    let engine = world.at_least_once();
    let run = world.sim.block_on(async move {
        let operation = |attempt: Attempt| async move {
            let step = attempt.step("charge", || async { Ok::<_, Declined>(1) }).await;
            step.map_err(Failure::Unknown)?;
            Err::<String, _>(Failure::NotStarted(Declined))
        };
        engine.run_classified(&key("a"), &fingerprint(), operation).await
    });
    assert!(matches!(run, Err(RunError::Unknown(Declined))), "a saved step is something done");
    assert_eq!(world.state(&key("a")), Some(State::GaveUp));
}

#[test]
fn an_error_of_a_step_is_not_saved() {
    let world = World::new();
    let engine = world.at_least_once();
    let run = world.run(&engine, &key("a"), |attempt| async move {
        attempt.step("charge", || async { Err::<String, _>(Declined) }).await
    });
    assert!(matches!(world.sim.finish(&run), Err(RunError::Unknown(Declined))));
    assert_eq!(world.store.count(Verb::Renew), 0);
    let run = world.run(&engine, &key("a"), |attempt| async move {
        attempt.step("charge", || async { Ok("charged".to_owned()) }).await
    });
    assert_eq!(world.sim.finish(&run).unwrap().value(), "charged");
}

#[test]
fn a_name_that_is_used_again_returns_the_first_result() {
    let world = World::new();
    let engine = world.at_least_once();
    let run = world.run(&engine, &key("a"), |attempt| async move {
        let first = attempt.step("charge", || async { Ok::<_, Declined>(1) }).await?;
        let again = attempt.step("charge", || async { panic!("one name, one step") });
        let again: Result<i32, Declined> = again.await;
        Ok(format!("{first} {}", again?))
    });
    assert_eq!(world.sim.finish(&run).unwrap().value(), "1 1");
    assert_eq!(world.store.count(Verb::Renew), 1, "what is saved is not saved again");
}

#[test]
fn saved_steps_that_cannot_be_read_stop_the_operation() {
    let world = World::new();
    let engine = world.at_least_once();
    let run = world.run(&engine, &key("a"), |attempt| async move {
        attempt.step("charge", || async { Ok::<_, Declined>("text".to_owned()) }).await?;
        Err(Declined)
    });
    assert!(world.sim.finish(&run).is_err());
    // The type of the result has changed since.
    let run = world.run(&engine, &key("a"), |attempt| async move {
        let charge = attempt.step("charge", || async { Ok::<u64, Declined>(1) }).await?;
        Ok(charge.to_string())
    });
    let ran = world.sim.finish(&run);
    let Err(RunError::StepUnreadable(CodecError::Decode { .. })) = ran else {
        panic!("it is no number: {ran:?}");
    };
    // Everything that was saved is of another make.
    overwrite_progress(&world, b"not written by this library");
    let run = world.run(&engine, &key("a"), |attempt| async move {
        attempt.step("other", || async { panic!("what was done before is unknown") }).await
    });
    let ran = world.sim.finish(&run);
    let Err(RunError::StepUnreadable(CodecError::UnknownVersion)) = ran else {
        panic!("nobody can tell what was saved: {ran:?}");
    };
}

#[test]
fn a_result_that_cannot_be_saved_is_refused() {
    let world = World::new();
    let engine = world.at_least_once().max_value_len(100);
    let run = world.run(&engine, &key("a"), |attempt| async move {
        let map = || async { Ok::<_, Declined>(HashMap::from([((1, 2), 3)])) };
        attempt.step("pairs", map).await?;
        panic!("it goes on without its step");
    });
    let ran = world.sim.finish(&run);
    assert!(matches!(ran, Err(RunError::StepUnsaved(StepError::Codec(CodecError::Encode)))));

    let run = world.run(&engine, &key("b"), |attempt| async move {
        for name in ["one", "two", "three"] {
            attempt.step(name, || async { Ok::<_, Declined>("x".repeat(30)) }).await?;
        }
        panic!("it goes on without its step");
    });
    let Err(RunError::StepUnsaved(StepError::Store(error))) = world.sim.finish(&run) else {
        panic!("together they are too large");
    };
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(world.store.count(Verb::Renew), 2, "the two that fit were saved");
}

#[test]
fn a_step_in_a_spawned_task_stops_the_operation_too() {
    let world = World::new();
    let engine = world.at_least_once();
    world.store.always(Verb::Renew, Fault::Fail(ErrorKind::TooLarge));
    let handed = Rc::new(RefCell::new(None::<Attempt>));
    let slot = Rc::clone(&handed);
    let run = world.run(&engine, &key("a"), move |attempt| async move {
        *slot.borrow_mut() = Some(attempt);
        std::future::pending().await
    });
    world.sim.run_for(seconds(1));
    let attempt = handed.borrow_mut().take().unwrap();
    let spawned = world
        .sim
        .spawn(async move { attempt.step("charge", || async { Ok::<_, Declined>(1) }).await });
    world.sim.settle();
    assert!(!spawned.is_done(), "it never returns");
    assert!(matches!(run.take(), Some(Err(RunError::StepUnsaved(_)))));
}

/// A step that returns `value` and notes that it ran.
fn step<'a>(
    attempt: &'a Attempt,
    name: &'a str,
    log: &'a Log,
    value: &'a str,
) -> impl Future<Output = Result<String, Declined>> + 'a {
    attempt.step(name, move || async move {
        log.borrow_mut().push(name.to_owned());
        Ok(value.to_owned())
    })
}

/// Takes the key over and gives it up, with other progress.
fn overwrite_progress(world: &World, data: &'static [u8]) {
    let (engine, memory): (Idempotency, _) = (world.at_least_once(), world.memory.clone());
    let run: Task<Ran> = world.run(&engine, &key("a"), move |_| async move {
        let grant = memory.get(&key("a")).await.unwrap().unwrap().record.grant();
        let progress = oncekey::store::Progress { sequence: 1, data: data.into() };
        let renew = Renew { grant, lease: millis(1), progress: Some(progress) };
        let saved = memory.renew(&key("a"), &renew).await.unwrap();
        assert_eq!(saved, oncekey::store::Fenced::Applied);
        Err(Declined)
    });
    assert!(world.sim.finish(&run).is_err());
}

/// The work of a step ran, and the operation was too impatient to see it saved. It may say that it did
/// nothing; the step says otherwise.
#[test]
fn an_attempt_whose_step_ran_is_never_released() {
    let unsaved = |saving: bool| {
        let world = World::new();
        let engine = world.at_most_once();
        // The renewal that saves the step hangs.
        world.store.script(Verb::Renew, [Fault::Slow(seconds(20))]);
        let timer = world.sim.timer.clone();
        let operation = move |attempt: Attempt| async move {
            let work = async || {
                if !saving {
                    timer.sleep(seconds(20)).await;
                }
                Ok::<_, Declined>(1)
            };
            let step = attempt.step("charge", work);
            pin_mut!(step);
            let impatience = timer.sleep(seconds(1));
            pin_mut!(impatience);
            assert!(matches!(select(step, impatience).await, Either::Right(_)));
            Err::<String, _>(Failure::NotStarted(Declined))
        };
        let ran = world.sim.spawn(async move {
            engine.run_classified(&key("a"), &fingerprint(), operation).await
        });
        assert!(matches!(world.sim.finish(&ran), Err(RunError::Unknown(Declined))));
        world.observed(&key("a")).unwrap().state
    };
    assert_eq!(unsaved(true), State::GaveUp, "dropped while it was saved");
    assert_eq!(unsaved(false), State::GaveUp, "dropped in the middle of its work");
}

/// What an operation at most once comes to that says, after this step, that it did nothing.
fn released_after<E>(step: impl Fn(Attempt) -> E + 'static) -> (bool, State)
where
    E: Future<Output = Result<u32, Failure<Declined>>> + 'static,
{
    let world = World::new();
    let engine = world.at_most_once();
    let ran = world.sim.spawn(async move {
        let operation = |attempt: Attempt| async move {
            let refused = step(attempt).await;
            assert!(refused.is_err());
            Err::<String, _>(Failure::NotStarted(Declined))
        };
        engine.run_classified(&key("a"), &fingerprint(), operation).await
    });
    let released = match world.sim.finish(&ran) {
        Err(RunError::NotStarted(Declined)) => true,
        Err(RunError::Unknown(Declined)) => false,
        other => panic!("it fails: {other:?}"),
    };
    (released, world.observed(&key("a")).unwrap().state)
}

/// A step that timed out in mid-charge may have charged, whatever the operation makes of it.
#[test]
fn an_attempt_whose_step_failed_is_never_released() {
    let timed_out = |attempt: Attempt| async move {
        attempt.step("charge", async || Err::<u32, _>(Failure::Unknown(Declined))).await
    };
    assert_eq!(released_after(timed_out), (false, State::GaveUp));
    let timed_out = |attempt: Attempt| async move {
        attempt.step_classified("charge", async || Err::<u32, _>(Failure::Unknown(Declined))).await
    };
    assert_eq!(released_after(timed_out), (false, State::GaveUp));
    // The error of a plain step says nothing, whatever its type is.
    let refused = |attempt: Attempt| async move {
        attempt.step("charge", async || Err::<u32, _>(Failure::NotStarted(Declined))).await
    };
    assert_eq!(released_after(refused), (false, State::GaveUp));
}

#[test]
fn an_attempt_whose_step_says_that_it_did_nothing_can_be_released() {
    let refused = |attempt: Attempt| async move {
        let work = async || Err::<u32, _>(Failure::NotStarted(Declined));
        attempt.step_classified("charge", work).await
    };
    assert_eq!(released_after(refused), (true, State::Released));
    // But not one that was in doubt before.
    let twice = |attempt: Attempt| async move {
        for failure in [Failure::Unknown(Declined), Failure::NotStarted(Declined)] {
            attempt.step_classified("charge", async || Err::<u32, _>(failure)).await.unwrap_err();
        }
        Err(Failure::NotStarted(Declined))
    };
    assert_eq!(released_after(twice), (false, State::GaveUp));
}
