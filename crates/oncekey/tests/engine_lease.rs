//! Keeping a lease: when it is renewed, when it counts as lost, and what never extends it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

mod support;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use futures::future::{Either, select};
use futures::{FutureExt, pin_mut};
use oncekey::observe::Event;
use oncekey::runtime::{Clock, Timer, Timestamp};
use oncekey::store::{ErrorKind, State};
use oncekey::{Attempt, Idempotency, RunError};
use oncekey_memory::{ManualClock, MemoryStore};
use support::{Declined, Fault, Ran, Task, Verb, World, fingerprint, key, millis, seconds};

#[test]
fn an_operation_that_never_pends_costs_no_timer_and_no_renewal() {
    let world = World::new();
    let engine = world.at_least_once();
    let ran = world.run(&engine, &key("a"), |_| async { Ok("receipt".to_owned()) });
    assert_eq!(world.sim.finish(&ran).unwrap().value(), "receipt");
    assert_eq!(world.sim.timer.created(), 0);
    assert_eq!(world.store.count(Verb::Renew), 0);
    assert_eq!((world.store.count(Verb::Claim), world.store.count(Verb::Complete)), (1, 1));
}

#[test]
fn a_pending_operation_is_renewed_until_it_ends() {
    let world = World::new();
    let engine = world.at_least_once();
    let ran = world.start(&engine, &key("a"), seconds(300), "receipt");
    for _ in 0..290 {
        world.sim.run_for(seconds(1));
        assert_eq!(world.state(&key("a")), Some(State::Live));
    }
    assert_eq!(world.sim.finish(&ran).unwrap().value(), "receipt");
    let renewed = world.store.times(Verb::Renew);
    assert!((30..=40).contains(&renewed.len()), "{renewed:?}");
    assert!(renewed[0] < World::LEASE / 2);
    assert_eq!(world.sim.timer.sleeping(), 0, "no timer is left behind");
}

#[test]
fn renewal_errors_are_retried_until_the_confirmed_deadline() {
    let world = World::new();
    let engine = world.at_least_once();
    world.store.always(Verb::Renew, Fault::Fail(ErrorKind::Unavailable));
    let (ran, lost_at) = watch_lease(&world, &engine, seconds(100));
    world.sim.run_for(seconds(29));
    assert!(world.store.count(Verb::Renew) > 10, "one failed call is no reason to give up");
    assert_eq!(lost_at.get(), None);

    world.sim.run_for(seconds(1));
    let lost_at = lost_at.get().expect("the confirmed lease is over");
    assert!(lost_at > seconds(29) && lost_at <= World::LEASE, "{lost_at:?}");
    let tried = world.store.count(Verb::Renew);

    // Nobody took over: the effect happened, and its result is recorded.
    assert_eq!(world.sim.finish(&ran).unwrap().value(), "receipt");
    assert!(world.store.count(Verb::Renew) > tried, "the store may be back before anybody comes");
    assert_eq!(world.recorder.count(|event| matches!(event, Event::LeaseLost { .. })), 1);
}

#[test]
fn a_lease_that_lapsed_lives_again_with_the_store() {
    let world = World::new();
    let engine = world.at_least_once();
    world.store.always(Verb::Renew, Fault::Fail(ErrorKind::Unavailable));
    let first = world.start(&engine, &key("a"), seconds(100), "first");
    world.sim.run_for(seconds(31));
    world.store.calm();
    world.sim.run_for(seconds(20));
    let second = world.start(&engine, &key("a"), seconds(1), "second");
    let second = world.sim.finish(&second);
    assert!(matches!(second, Err(RunError::Busy { .. })), "beside the first: {second:?}");
    assert_eq!(world.sim.finish(&first).unwrap().value(), "first");
}

#[test]
fn one_renewal_in_a_black_hole_does_not_lose_the_lease() {
    for fault in [Fault::Hang, Fault::HangApplied, Fault::HangLate(seconds(20))] {
        let world = World::new();
        let engine = world.at_least_once();
        world.store.script(Verb::Renew, [fault]);
        let (ran, lost_at) = watch_lease(&world, &engine, seconds(100));
        assert_eq!(world.sim.finish(&ran).unwrap().value(), "receipt");
        assert_eq!(lost_at.get(), None);
    }
}

#[test]
fn a_renewal_that_works_again_in_time_keeps_the_lease() {
    let world = World::new();
    let engine = world.at_least_once();
    world.store.script(Verb::Renew, vec![Fault::Fail(ErrorKind::Timeout); 20]);
    let (ran, lost_at) = watch_lease(&world, &engine, seconds(100));
    assert_eq!(world.sim.finish(&ran).unwrap().value(), "receipt");
    assert_eq!(lost_at.get(), None);
    assert!(world.store.count(Verb::Renew) > 20);
}

#[test]
fn a_hanging_renewal_never_extends_the_lease() {
    for fault in [Fault::Hang, Fault::HangApplied, Fault::HangLate(seconds(5))] {
        let world = World::new();
        let engine = world.at_least_once();
        world.store.always(Verb::Renew, fault);
        let (ran, lost_at) = watch_lease(&world, &engine, seconds(100));
        assert_eq!(world.sim.finish(&ran).unwrap().value(), "receipt");
        let lost_at = lost_at.get().expect("it was never confirmed");
        assert!(lost_at > seconds(29) && lost_at <= World::LEASE, "{lost_at:?}");
    }
}

#[test]
fn a_renewal_counts_from_when_it_was_sent() {
    let world = World::new();
    let engine = world.at_least_once();
    // Applied at once, answered so late that a lease counted from the answer would be wrong.
    world.store.script(Verb::Renew, [Fault::SlowReply(seconds(3))]);
    world.store.always(Verb::Renew, Fault::Hang);
    let (ran, lost_at) = watch_lease(&world, &engine, seconds(100));
    world.sim.finish(&ran).unwrap();
    let sent = world.store.times(Verb::Renew)[0];
    let lost_at = lost_at.get().unwrap();
    assert!(lost_at <= sent + World::LEASE, "{sent:?} {lost_at:?}");
    assert!(lost_at > World::LEASE, "it was extended once");
}

#[test]
fn a_refused_renewal_ends_the_lease_at_once() {
    let world = World::new();
    let engine = world.at_least_once();
    let (ran, lost_at) = watch_lease(&world, &engine, seconds(100));
    world.sim.run_for(seconds(5));
    evict(&world);
    let other = world.start(&engine, &key("a"), seconds(1), "other");
    assert_eq!(world.sim.finish(&other).unwrap().value(), "other");

    let first_renewal = {
        world.sim.run_for(seconds(10));
        world.store.times(Verb::Renew)[0]
    };
    assert_eq!(lost_at.get(), Some(first_renewal));
    // Superseded: the value is handed back with the error, and the other result stands.
    let Err(RunError::Unrecorded { value, .. }) = world.sim.finish(&ran) else {
        panic!("another attempt has recorded its result");
    };
    assert_eq!(value.unwrap().decode::<String>().unwrap(), "receipt");
    let replay = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "third"));
    assert_eq!(replay.unwrap().value(), "other");
}

#[test]
fn an_attempt_that_outlives_its_run_learns_that_its_lease_is_lost() {
    let world = World::new();
    let engine = world.at_least_once();
    let handed = Rc::new(RefCell::new(None::<Attempt>));
    let (slot, timer) = (Rc::clone(&handed), world.sim.timer.clone());
    let ran = world.run(&engine, &key("a"), move |attempt| async move {
        *slot.borrow_mut() = Some(attempt);
        timer.sleep(seconds(100)).await;
        Ok("never".to_owned())
    });
    world.sim.run_for(seconds(1));
    let attempt = handed.borrow_mut().take().unwrap();
    let watched = attempt.clone();
    // As a task that the operation has spawned, and that goes on when the run is dropped.
    let told = world.sim.spawn(async move { watched.lease_lost().await });
    world.sim.crash(&ran);
    world.sim.run_for(seconds(28));
    assert!(!attempt.is_lease_lost() && !told.is_done());
    world.sim.run_for(seconds(2));
    assert!(attempt.is_lease_lost() && told.is_done());
}

#[test]
fn waiting_for_the_loss_of_a_lease_leaves_nothing_behind() {
    let world = World::new();
    let engine = world.at_least_once();
    let timer = world.sim.timer.clone();
    let counter = Arc::new(());
    let held = Arc::clone(&counter);
    let ran = world.run(&engine, &key("a"), move |attempt| async move {
        for _ in 0..100 {
            // A waker of its own each time, as from a set of futures.
            let waker = Waker::from(Arc::new(Holds(Arc::clone(&held))));
            let lost = attempt.lease_lost();
            pin_mut!(lost);
            assert!(lost.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        timer.sleep(seconds(1)).await;
        Ok("receipt".to_owned())
    });
    world.sim.settle();
    assert!(Arc::strong_count(&counter) <= 2, "dropped waits keep their wakers");
    world.sim.finish(&ran).unwrap();
}

struct Holds(#[allow(dead_code, reason = "counted by its owners")] Arc<()>);

impl std::task::Wake for Holds {
    fn wake(self: Arc<Self>) {}
}

/// A run in a process that stands still between its claim and the answer, for longer than the lease.
fn stalled_while_it_claims(world: &World, engine: &Idempotency) -> Task<Ran> {
    world.store.script(Verb::Claim, [Fault::SlowReply(seconds(1))]);
    let ran = world.run(engine, &key("a"), |_| async { panic!("it must not start") });
    world.sim.settle();
    world.sim.timer.advance(seconds(29) + millis(900));
    ran
}

#[test]
fn a_slow_answer_to_the_claim_starts_nothing() {
    let world = World::new();
    let engine = world.at_least_once();
    let ran = stalled_while_it_claims(&world, &engine);
    assert!(matches!(world.sim.finish(&ran), Err(RunError::LeaseLost)));
    assert_eq!(world.state(&key("a")), Some(State::Released), "nothing was done");
}

#[test]
fn a_slow_answer_to_a_takeover_frees_nothing() {
    let world = World::new();
    let engine = world.at_least_once();
    let failed = world.run(&engine, &key("a"), |_| async { Err(Declined) });
    assert!(world.sim.finish(&failed).is_err());
    let ran = stalled_while_it_claims(&world, &engine);
    assert!(matches!(world.sim.finish(&ran), Err(RunError::LeaseLost)));
    assert_eq!(world.state(&key("a")), Some(State::GaveUp), "what was interrupted stays so");
}

#[test]
fn an_operation_that_blocks_sees_by_the_clock_that_its_lease_is_over() {
    let world = World::new();
    let engine = world.at_least_once();
    let timer = world.sim.timer.clone();
    let ran = world.run(&engine, &key("a"), move |attempt| async move {
        assert!(!attempt.is_lease_lost());
        timer.advance(seconds(31));
        assert!(attempt.is_lease_lost());
        assert!(attempt.lease_lost().now_or_never().is_some());
        Ok("receipt".to_owned())
    });
    assert_eq!(world.sim.finish(&ran).unwrap().value(), "receipt");
}

/// Starts an operation of `time`, and notes when it is told that its lease is lost.
fn watch_lease(
    world: &World,
    engine: &Idempotency,
    time: Duration,
) -> (support::Task<support::Ran>, Rc<Cell<Option<Duration>>>) {
    let lost_at = Rc::new(Cell::new(None));
    let (noted, timer) = (Rc::clone(&lost_at), world.sim.timer.clone());
    let ran = world.run(engine, &key("a"), move |attempt| async move {
        let end = timer.sleep(time);
        pin_mut!(end);
        let lost = attempt.lease_lost();
        pin_mut!(lost);
        if let Either::Right(((), end)) = select(end, lost).await {
            assert!(attempt.is_lease_lost());
            noted.set(Some(timer.now()));
            end.await;
        }
        Ok("receipt".to_owned())
    });
    (ran, lost_at)
}

fn evict(world: &World) {
    let operator = world.at_least_once().operator();
    let evicted = world.sim.spawn(async move {
        let any = oncekey::store::Expected::Any;
        operator.evict(&key("a"), any, true).await
    });
    world.sim.settle();
    assert_eq!(evicted.take().unwrap().unwrap(), oncekey::store::Fenced::Applied);
}

#[test]
fn the_clock_of_the_engine_decides_nothing_for_others() {
    // Two processes of which one has its lease renewed and one never: the second may only wait.
    let world = World::new();
    let (first, second) = (world.at_least_once(), world.at_least_once());
    let ran = world.start(&first, &key("a"), seconds(120), "receipt");
    let refused = Rc::new(Cell::new(0));
    let (count, timer) = (Rc::clone(&refused), world.sim.timer.clone());
    let asking = world.sim.spawn(async move {
        for _ in 0..100 {
            timer.sleep(seconds(1)).await;
            let ran = second
                .run(&key("a"), &fingerprint(), |_| async { Ok::<String, Declined>("2".into()) })
                .await;
            assert!(matches!(ran, Err(RunError::Busy { .. })));
            count.set(count.get() + 1);
        }
    });
    world.sim.finish(&asking);
    assert_eq!(refused.get(), 100);
    assert_eq!(world.sim.finish(&ran).unwrap().value(), "receipt");
    assert!(world.sim.now() >= seconds(120) - millis(1));
}

#[test]
fn a_step_that_is_saved_keeps_the_lease_while_a_renewal_hangs() {
    let world = World::new();
    let engine = world.at_least_once();
    world.store.script(Verb::Renew, [Fault::Hang]);
    let timer = world.sim.timer.clone();
    let ran = world.run(&engine, &key("a"), move |attempt| async move {
        timer.sleep(seconds(20)).await;
        attempt.step("charge", || async { Ok::<_, Declined>(1) }).await?;
        timer.sleep(seconds(100)).await;
        assert!(!attempt.is_lease_lost());
        Ok("receipt".to_owned())
    });
    assert_eq!(world.sim.finish(&ran).unwrap().value(), "receipt");
    assert_eq!(world.recorder.count(|event| matches!(event, Event::LeaseLost { .. })), 0);
}

#[test]
fn a_jump_of_the_clock_of_the_store_takes_the_key_and_nothing_else() {
    let world = World::new();
    let clock = ManualClock::default();
    let store = MemoryStore::builder().clock(Arc::new(clock.clone())).build();
    let engine = |_| world.simulated(Idempotency::at_least_once(store.clone()));
    let lost_at = Rc::new(Cell::new(None));
    let (noted, timer) = (Rc::clone(&lost_at), world.sim.timer.clone());
    let first = world.run(&engine(1), &key("a"), move |attempt| async move {
        attempt.lease_lost().await;
        noted.set(Some(timer.now()));
        Ok("first".to_owned())
    });
    world.sim.run_for(seconds(5));
    clock.advance(seconds(3600));
    let second = world.start(&engine(2), &key("a"), seconds(1), "second");
    assert_eq!(world.sim.finish(&second).unwrap().value(), "second");

    // The first cannot know before it asks, and then it knows at once.
    assert!(matches!(world.sim.finish(&first), Err(RunError::Unrecorded { .. })));
    assert!(lost_at.get().unwrap() < World::LEASE / 2);

    // Backwards, a lease lasts longer; nobody gets what is owned.
    let third = world.start(&engine(3), &key("b"), seconds(100), "third");
    world.sim.settle();
    clock.set(Timestamp::from_micros(clock.now().as_micros() - 3_600_000_000));
    for _ in 0..50 {
        let refused = world.sim.finish(&world.start(&engine(4), &key("b"), seconds(1), "4"));
        assert!(matches!(refused, Err(RunError::Busy { .. })));
        world.sim.run_for(seconds(1));
        clock.advance(seconds(1));
    }
    assert_eq!(world.sim.finish(&third).unwrap().value(), "third");
}
