//! Duplicates that wait for an owner: how they learn of the end, and what they may not cost.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

mod support;

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use futures::pin_mut;
use oncekey::observe::Event;
use oncekey::store::{ErrorKind, Expected, State};
use oncekey::{Failure, Fingerprint, Idempotency, RunError};
use support::{
    Declined, Fault, Ran, Task, Verb, WatchFault, World, fingerprint, key, millis, seconds,
};

/// The longest that a waiter without notifications takes to see a change.
const SLOWEST_POLL: Duration = seconds(1);

#[test]
fn a_notification_ends_the_waiting_at_once() {
    let world = World::new();
    let engine = world.at_least_once().wait_for_duplicate(seconds(60));
    let owner = world.start(&engine, &key("a"), seconds(10), "receipt");
    let waiter = waiter(&world, &engine);
    assert!(world.sim.finish(&waiter).unwrap().is_replay());
    assert_eq!(world.sim.now(), seconds(10));
    assert_eq!(world.sim.finish(&owner).unwrap().value(), "receipt");
    assert_eq!(world.recorder.count(|event| matches!(event, Event::Waiting)), 1);
    assert_eq!(world.sim.timer.sleeping(), 0, "no timer is left behind");
}

#[test]
fn waiting_works_without_any_notification() {
    let faults = [WatchFault::Silent, WatchFault::Fail, WatchFault::Absent, WatchFault::Hang];
    for fault in faults {
        let world = World::new();
        world.store.watch_fault(fault);
        let engine = world.at_least_once().wait_for_duplicate(seconds(60));
        let _owner = world.start(&engine, &key("a"), seconds(10), "receipt");
        let waiter = waiter(&world, &engine);
        assert!(world.sim.finish(&waiter).unwrap().is_replay());
        let late = world.sim.now() - seconds(10);
        assert!(late <= SLOWEST_POLL * 2, "{fault:?}: {late:?}");
        let asked = world.store.count(Verb::Claim);
        assert!((5..40).contains(&asked), "{fault:?}: polled {asked} times in 10 s");
    }
}

#[test]
fn an_end_between_subscribing_and_reading_is_not_missed() {
    for reply in [Fault::SlowReply(seconds(3)), Fault::Slow(seconds(3))] {
        let world = World::new();
        // The owner ends while the waiter subscribes; no poll comes to its help.
        world.store.script(Verb::Subscribe, [reply]);
        let engine = world.at_least_once().wait_for_duplicate(seconds(60));
        let _owner = world.start(&engine, &key("a"), seconds(2), "receipt");
        let waiter = waiter(&world, &engine);
        assert!(world.sim.finish(&waiter).unwrap().is_replay());
        assert!(world.sim.now() <= seconds(3) + millis(50), "{:?}", world.sim.now());
    }
}

#[test]
fn a_waiter_runs_by_itself_when_the_owner_did_nothing() {
    let world = World::new();
    let engine = world.at_least_once().wait_for_duplicate(seconds(60));
    let owner = classified(&world, &engine, seconds(10), Err(Failure::NotStarted(Declined)));
    let waiter = waiter(&world, &engine);
    let ran = world.sim.finish(&waiter).unwrap();
    assert!(!ran.is_replay());
    assert_eq!(world.sim.now(), seconds(11), "it was woken by the release");
    assert!(matches!(world.sim.finish(&owner), Err(RunError::NotStarted(Declined))));
}

#[test]
fn a_waiter_takes_over_when_the_lease_of_a_crashed_owner_lapses() {
    let world = World::new();
    let engine = world.at_least_once().wait_for_duplicate(seconds(60));
    let owner = world.start(&engine, &key("a"), seconds(100), "never");
    world.sim.run_for(seconds(1));
    world.sim.crash(&owner);
    let waiter = waiter(&world, &engine);
    assert!(!world.sim.finish(&waiter).unwrap().is_replay());
    // The end of the lease is worth a look of its own.
    assert!(world.sim.now() < World::LEASE + seconds(1) + millis(100), "{:?}", world.sim.now());
}

#[test]
fn waiting_ends_at_its_deadline() {
    let world = World::new();
    let engine = world.at_least_once().wait_for_duplicate(seconds(5));
    let _owner = world.start(&engine, &key("a"), seconds(100), "late");
    let waiters: Vec<_> = (0..10).map(|_| waiter(&world, &engine)).collect();
    for waiter in &waiters {
        let Err(RunError::Busy { retry_after }) = world.sim.finish(waiter) else {
            panic!("the owner is at work");
        };
        assert!(retry_after <= World::LEASE);
    }
    assert_eq!(world.sim.now(), seconds(5));
    let busy = |event: &Event| matches!(event, Event::Busy { elapsed } if *elapsed == seconds(5));
    assert_eq!(world.recorder.count(busy), 10);
}

#[test]
fn a_waiter_whose_poll_hangs_holds_up_nobody_beyond_their_deadline() {
    let world = World::new();
    let engine = world.at_least_once().wait_for_duplicate(seconds(5));
    let _owner = world.start(&engine, &key("a"), seconds(100), "late");
    world.sim.settle();
    let waiters: Vec<_> = (0..10).map(|_| waiter(&world, &engine)).collect();
    world.sim.settle();
    world.store.script(Verb::Claim, [Fault::Hang]);
    // A last look takes a second at the most.
    world.sim.run_for(seconds(6));
    let told = waiters.iter().filter(|waiter| waiter.is_done()).count();
    assert_eq!(told, 10);
}

#[test]
fn one_subscription_serves_a_thousand_waiters() {
    let world = World::new();
    let engine = world.at_least_once().wait_for_duplicate(seconds(60));
    let owner = world.start(&engine, &key("a"), seconds(10), "receipt");
    world.sim.settle();
    let waiters: Vec<_> = (0..1000).map(|_| waiter(&world, &engine)).collect();
    world.sim.run_for(seconds(9));
    let asked = world.store.count(Verb::Claim) - 1001;
    assert!(asked < 40, "polled {asked} times for all of them");
    assert!(waiters.iter().all(|waiter| !waiter.is_done()));

    world.sim.finish(&owner).unwrap();
    world.sim.settle();
    for waiter in waiters {
        assert_eq!(waiter.take().expect("woken with the others").unwrap().value(), "receipt");
    }
    assert_eq!(world.sim.now(), seconds(10));
    assert_eq!(world.store.count(Verb::Subscribe), 1);
    assert!(world.store.count(Verb::Claim) < 1001 + 40, "a replay is shared");
}

#[test]
fn waiters_of_operations_that_do_nothing_all_get_their_turn() {
    let world = World::new();
    let engine = world.at_least_once().wait_for_duplicate(seconds(600));
    let runs = Rc::new(Cell::new((0, 0)));
    let all: Vec<_> = (0..100)
        .map(|_| {
            let (engine, timer, runs) = (engine.clone(), world.sim.timer.clone(), runs.clone());
            world.sim.spawn(async move {
                let operation = |_| async move {
                    let (total, at_once) = runs.get();
                    assert_eq!(at_once, 0, "two at once");
                    runs.set((total + 1, 1));
                    timer.sleep(seconds(1)).await;
                    runs.set((total + 1, 0));
                    Err::<String, _>(Failure::NotStarted(Declined))
                };
                engine.run_classified(&key("a"), &fingerprint(), operation).await
            })
        })
        .collect();
    for run in &all {
        assert!(matches!(world.sim.finish(run), Err(RunError::NotStarted(Declined))));
    }
    assert_eq!(runs.get(), (100, 0));
    assert_eq!(world.sim.now(), seconds(100), "each release hands the key on at once");
}

#[test]
fn one_more_than_may_wait_is_turned_away_at_once() {
    let world = World::new();
    let engine = world.at_least_once().wait_for_duplicate(seconds(60)).max_waiters(3);
    let _owner = world.start(&engine, &key("a"), seconds(100), "late");
    world.sim.settle();
    for _ in 0..10 {
        let waiting: Vec<_> = (0..3).map(|_| waiter(&world, &engine)).collect();
        world.sim.settle();
        let turned_away = waiter(&world, &engine);
        world.sim.settle();
        assert!(matches!(turned_away.take(), Some(Err(RunError::Busy { .. }))));
        // Places are free again when those who had them are gone, however they went.
        for waiter in &waiting {
            world.sim.crash(waiter);
        }
    }
    assert_eq!(world.recorder.count(|event| *event == Event::TooManyWaiters), 10);
}

#[test]
fn an_error_stays_with_whoever_met_it() {
    let world = World::new();
    let engine = world.at_least_once().wait_for_duplicate(seconds(60));
    let _owner = world.start(&engine, &key("a"), seconds(10), "receipt");
    world.sim.settle();
    let waiters: Vec<_> = (0..10).map(|_| waiter(&world, &engine)).collect();
    world.sim.settle();
    world.store.script(Verb::Claim, vec![Fault::Fail(ErrorKind::Unavailable); 3]);
    let ran: Vec<_> = waiters.iter().map(|waiter| world.sim.finish(waiter)).collect();
    let failed = ran.iter().filter(|ran| matches!(ran, Err(RunError::Store(_)))).count();
    let replayed = ran.iter().filter(|ran| ran.as_ref().is_ok_and(|it| it.is_replay())).count();
    assert_eq!((failed, replayed), (3, 7));
}

#[test]
fn a_waiter_that_is_dropped_passes_its_turn_on() {
    // At every point of its course.
    for polls in 0..30 {
        let world = World::seeded(polls);
        let engine = world.at_least_once().wait_for_duplicate(seconds(60));
        for verb in [Verb::Subscribe, Verb::Claim] {
            world.store.always(verb, Fault::SlowReply(millis(10)));
        }
        let _owner = world.start(&engine, &key("a"), seconds(10), "receipt");
        world.sim.run_for(millis(20));
        let dropped = waiter(&world, &engine);
        let others: Vec<_> = (0..3).map(|_| waiter(&world, &engine)).collect();
        for _ in 0..polls {
            world.sim.advance();
        }
        world.sim.crash(&dropped);
        for other in &others {
            assert!(world.sim.finish(other).unwrap().is_replay(), "dropped after {polls} polls");
        }
        assert!(world.sim.now() < seconds(10) + millis(100), "dropped after {polls} polls");
    }
}

#[test]
fn a_store_that_knows_no_time_to_retry_is_not_hammered() {
    for retry_after in [Duration::ZERO, Duration::MAX] {
        let world = World::new();
        world.store.busy_says(retry_after);
        world.store.watch_fault(WatchFault::Silent);
        let engine = world.at_least_once().wait_for_duplicate(seconds(60));
        let _owner = world.start(&engine, &key("a"), seconds(10), "receipt");
        let waiter = waiter(&world, &engine);
        assert!(world.sim.finish(&waiter).unwrap().is_replay());
        assert!(world.sim.now() <= seconds(10) + SLOWEST_POLL);
        let asked = world.store.count(Verb::Claim);
        assert!(asked < 450, "asked {asked} times in 10 s");
    }
}

#[test]
fn a_result_is_shared_by_those_who_waited_for_it_and_by_nobody_after_them() {
    let world = World::new();
    let engine = world.at_least_once().wait_for_duplicate(seconds(60));
    let owner = world.start(&engine, &key("a"), seconds(10), "old");
    world.sim.settle();
    let first = waiter(&world, &engine);
    world.sim.settle();
    // A waiter whose task is never polled again, as in a set of futures that nobody drives.
    let (a, asked) = (key("a"), fingerprint());
    let stuck = engine.run(&a, &asked, |_| async { Ok::<String, Declined>("stuck".to_owned()) });
    pin_mut!(stuck);
    assert!(stuck.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(world.sim.finish(&first).unwrap().value(), "old");
    assert_eq!(world.sim.finish(&owner).unwrap().value(), "old");

    // The key starts over: what the group once found is not the answer any more.
    let operator = engine.operator();
    let evicted = world.sim.spawn(async move {
        let _ = operator.evict(&key("a"), Expected::Any, false).await.unwrap();
    });
    world.sim.finish(&evicted);
    let owner = world.start(&engine, &key("a"), seconds(10), "new");
    world.sim.settle();
    let later = waiter(&world, &engine);
    assert_eq!(world.sim.finish(&later).unwrap().value(), "new");
    assert_eq!(world.sim.finish(&owner).unwrap().value(), "new");
}

#[test]
fn another_request_does_not_wait_with_the_group() {
    let world = World::new();
    let engine = world.at_least_once().wait_for_duplicate(seconds(60));
    let _owner = world.start(&engine, &key("a"), seconds(10), "receipt");
    world.sim.settle();
    let _waiter = waiter(&world, &engine);
    world.sim.settle();
    let other = world.sim.spawn(async move {
        let other = Fingerprint::of("another body");
        let ran = engine.run(&key("a"), &other, |_| async { Ok::<_, Declined>(1) }).await;
        matches!(ran, Err(RunError::Mismatch))
    });
    world.sim.settle();
    assert_eq!(other.take(), Some(true));
}

#[test]
fn an_at_most_once_waiter_is_told_of_an_interruption() {
    let world = World::new();
    let engine = world.at_most_once().wait_for_duplicate(seconds(60));
    let owner = classified(&world, &engine, seconds(10), Err(Failure::Unknown(Declined)));
    let waiter = waiter(&world, &engine);
    assert!(matches!(world.sim.finish(&waiter), Err(RunError::Interrupted)));
    assert_eq!(world.sim.now(), seconds(10));
    assert!(world.sim.finish(&owner).is_err());
    assert_eq!(world.state(&key("a")), Some(State::GaveUp));
}

/// A duplicate that would run for a second.
fn waiter(world: &World, engine: &Idempotency) -> Task<Ran> {
    if world.store.count(Verb::Claim) == 0 {
        // The owner comes first.
        world.sim.settle();
    }
    world.start(engine, &key("a"), seconds(1), "second run")
}

fn classified(
    world: &World,
    engine: &Idempotency,
    time: Duration,
    result: Result<String, Failure<Declined>>,
) -> Task<Ran> {
    let (engine, timer) = (engine.clone(), world.sim.timer.clone());
    let ran = world.sim.spawn(async move {
        let operation = |_| async move {
            timer.sleep(time).await;
            result
        };
        engine.run_classified(&key("a"), &fingerprint(), operation).await
    });
    world.sim.settle();
    ran
}

/// Somebody may hold a waiter and not poll it, as one branch of a `select` that is busy elsewhere.
#[test]
fn a_waiter_that_is_not_polled_starves_nobody() {
    let world = World::new();
    let engine = world.at_least_once().wait_for_duplicate(seconds(20));
    let _owner = world.start(&engine, &key("a"), seconds(1), "receipt");
    world.sim.settle();
    let (idle, a, print) = (engine.clone(), key("a"), fingerprint());
    let mut unpolled =
        Box::pin(idle.run(&a, &print, async |_| Ok::<_, Declined>("again".to_owned())));
    let mut context = Context::from_waker(Waker::noop());
    assert!(unpolled.as_mut().poll(&mut context).is_pending());
    let polled = waiter(&world, &engine);
    world.sim.run_for(seconds(10));
    assert!(polled.take().unwrap().unwrap().is_replay(), "it looked for itself");
}

#[test]
fn who_has_waited_in_vain_is_told_when_to_come_back_as_of_now() {
    let world = World::new();
    let engine = world.at_least_once().wait_for_duplicate(seconds(5));
    let owner = world.start(&engine, &key("a"), seconds(100), "receipt");
    world.sim.settle();
    let waiters = [waiter(&world, &engine), waiter(&world, &engine)];
    let told = waiters.map(|waiter| match world.sim.finish(&waiter) {
        Err(RunError::Busy { retry_after }) => retry_after,
        other => panic!("{other:?}"),
    });
    assert_eq!(told[0], told[1]);
    assert!(told[0] <= World::LEASE - seconds(4), "{told:?}");
    assert!(world.sim.finish(&owner).is_ok());
}
