//! Bad settings are refused before anything runs, and huge ones work.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

mod support;

use std::time::Duration;

use oncekey::runtime::Timer;
use oncekey::store::{ErrorKind, State};
use oncekey::{Idempotency, RunError, Verdict};
use support::{Declined, Verb, World, fingerprint, key, millis, seconds};

#[test]
fn each_bad_setting_is_named_before_anything_runs() {
    let world = World::new();
    let verified = || world.verified(|_| async { Verdict::Unknown });
    let bad: [(Idempotency, &str); 9] = [
        (world.at_least_once().lease(Duration::ZERO), "lease"),
        (world.at_least_once().lease(Duration::from_nanos(999)), "lease"),
        (world.at_least_once().retention(seconds(29)), "retention is shorter than the lease"),
        (world.at_least_once().retention(Duration::ZERO), "retention is shorter than the lease"),
        (world.at_least_once().lease(Duration::MAX), "retention is shorter than the lease"),
        (world.at_least_once().max_value_len(0), "value"),
        (world.at_most_once().hold(Duration::ZERO), "hold"),
        (verified().hold(Duration::ZERO), "hold"),
        (verified().hold(Duration::from_nanos(999)), "hold"),
    ];
    for (engine, named) in bad {
        let error = engine.validate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        assert!(error.to_string().contains(named), "{error}");

        let ran = world.run(&engine, &key("a"), |_| async { panic!("it must not run") });
        let Err(RunError::Store(refused)) = world.sim.finish(&ran) else {
            panic!("{engine:?} runs");
        };
        assert_eq!(refused.to_string(), error.to_string());
    }
    assert_eq!(world.store.count(Verb::Claim), 0);
}

#[test]
fn thirty_days_and_more_are_kept_exactly() {
    // In milliseconds these do not fit 32 bits.
    const LONG: Duration = Duration::from_secs(60 * 24 * 60 * 60);
    let world = World::new();
    let engine = world.at_least_once().lease(LONG).retention(LONG).hold(LONG);

    let crashed = world.start(&engine, &key("a"), seconds(1), "never");
    world.sim.settle();
    world.sim.crash(&crashed);
    world.sim.run_for(LONG - millis(1));
    assert_eq!(world.state(&key("a")), Some(State::Live));
    world.sim.run_for(millis(1));
    assert_eq!(world.state(&key("a")), Some(State::Lapsed));

    let ran = world.start(&engine, &key("a"), LONG, "receipt");
    assert_eq!(world.sim.finish(&ran).unwrap().value(), "receipt");
    world.sim.run_for(LONG - seconds(1));
    assert_eq!(world.state(&key("a")), Some(State::Completed));
    world.sim.run_for(seconds(2));
    assert_eq!(world.state(&key("a")), Some(State::Retired));
}

#[test]
fn the_longest_durations_neither_overflow_nor_spin() {
    let world = World::new();
    let forever = || {
        world
            .at_least_once()
            .retention(Duration::MAX)
            .lease(Duration::MAX)
            .hold(Duration::MAX)
            .wait_for_duplicate(Duration::MAX)
    };
    let engine = forever();
    let owner = world.start(&engine, &key("a"), seconds(3600), "receipt");
    let waiter = world.start(&engine, &key("a"), seconds(1), "second run");
    assert_eq!(world.sim.finish(&owner).unwrap().value(), "receipt");
    assert!(world.sim.finish(&waiter).unwrap().is_replay());

    // Errors, unknown outcomes and steps add durations of their own.
    world.store.script(Verb::Complete, [fail(), fail(), fail()]);
    world.store.script(Verb::Abandon, [fail(), fail()]);
    world.store.script(Verb::Renew, [fail(), fail()]);
    let steps = forever();
    let ran = world.run(&steps, &key("b"), |attempt| async move {
        let number = attempt.step("count", || async { Ok::<u32, Declined>(1) }).await?;
        Ok(number.to_string())
    });
    assert_eq!(world.sim.finish(&ran).unwrap().value(), "1");
    let failed = world.run(&engine, &key("c"), |_| async { Err(Declined) });
    assert!(matches!(world.sim.finish(&failed), Err(RunError::Unknown(Declined))));
}

#[test]
fn upkeep_at_any_interval_lets_others_run() {
    for interval in [Duration::ZERO, Duration::MAX] {
        let world = World::new();
        let engine = world.at_least_once();
        let sweeper = engine.sweeper().every(interval);
        let completer =
            engine.completer("POST /payments", |_| async { Verdict::Unknown }).every(interval);
        let sweeping = world.sim.spawn(async move { sweeper.run().await });
        let completing = world.sim.spawn(async move { completer.run().await });
        world.sim.run_for(millis(100));
        assert!(!sweeping.is_done() && !completing.is_done());
        assert!(world.store.count(Verb::Purge) >= 1 && world.store.count(Verb::List) >= 1);
        assert!(world.store.count(Verb::Purge) <= 1000, "it must not spin");
    }
}

#[test]
fn a_clone_with_other_settings_leaves_the_first_as_it_was() {
    let world = World::new();
    let engine = world.at_least_once();
    let bad = engine.clone().lease(Duration::ZERO);
    assert!(bad.validate().is_err());
    assert!(engine.validate().is_ok());
    let ran = world.sim.block_on(async move {
        engine.run(&key("a"), &fingerprint(), |_| async { Ok::<_, Declined>(1) }).await
    });
    assert_eq!(*ran.unwrap().value(), 1);
    assert_eq!(world.sim.timer.now(), Duration::ZERO);
}

fn fail() -> support::Fault {
    support::Fault::Fail(ErrorKind::Unavailable)
}
