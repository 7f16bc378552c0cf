//! The course of a run: who runs, who gets the answer, and what is left when it fails.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

mod support;

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use bytes::Bytes;
use futures::FutureExt;
use oncekey::store::{State, StoredValue};
use oncekey::{
    CodecError, Effect, Failure, Fingerprint, Idempotency, Key, Outcome, RunError, Scope,
};
use support::{Declined, Verb, World, fingerprint, key, millis, seconds};

#[test]
fn a_duplicate_gets_the_very_bytes_that_were_recorded() {
    let world = World::new();
    let engine = world.at_least_once();
    let key = key("a");
    let first = world.sim.finish(&world.start(&engine, &key, seconds(1), "receipt 1"));
    let again = world.sim.finish(&world.start(&engine, &key, seconds(1), "receipt 2"));

    let (first, again) = (first.unwrap(), again.unwrap());
    assert!(!first.is_replay());
    assert!(again.is_replay());
    assert_eq!(first.value(), again.value());
    let length = again.map(|receipt| receipt.len());
    assert_eq!((*length.value(), length.is_replay()), ("receipt 1".len(), true));
    assert_eq!(world.store.count(Verb::Complete), 1);
}

#[test]
fn an_error_that_says_nothing_else_may_have_done_anything() {
    let world = World::new();
    let engine = world.at_most_once();
    let run = world.run(&engine, &key("a"), |_| async {
        Err::<String, _>(Declined)?;
        unreachable!()
    });
    assert!(matches!(world.sim.finish(&run), Err(RunError::Unknown(Declined))));
}

#[test]
fn bytes_are_stored_as_they_are() {
    let world = World::new();
    let engine = world.at_least_once();
    let sent = Bytes::from_static(b"\x00\xff not JSON \x80");
    for _ in 0..2 {
        let (engine, sent) = (engine.clone(), sent.clone());
        let bytes = world.sim.block_on(async move {
            engine
                .run_bytes(&key("a"), &fingerprint(), |_| async {
                    Ok::<_, Failure<Declined>>(sent)
                })
                .await
        });
        assert_eq!(bytes.unwrap().value(), b"\x00\xff not JSON \x80".as_slice());
    }
    let observed = world.observed(&key("a")).unwrap();
    let oncekey::store::Status::Completed { value, .. } = observed.record.status else {
        panic!("it is completed");
    };
    assert!(matches!(value, StoredValue::Replayable(bytes) if bytes.ends_with(&sent)));
}

#[test]
fn another_request_under_the_same_key_is_a_mismatch() {
    let world = World::new();
    let engine = world.at_least_once();
    let key = key("a");
    world.sim.finish(&world.start(&engine, &key, seconds(1), "receipt")).unwrap();
    let refused = world.sim.block_on(async move {
        let other = Fingerprint::of("1,000,000 EUR to Ada");
        engine.run(&key, &other, |_| async { panic!("runs for another request") }).await
            as Result<Outcome<String>, RunError<Declined>>
    });
    assert!(matches!(refused, Err(RunError::Mismatch)));
}

#[test]
fn an_operation_that_did_nothing_frees_its_key_at_once() {
    let world = World::new();
    for engine in [world.at_least_once(), world.at_most_once()] {
        let key = key(&format!("{engine:?}"));
        let refused = run_classified(&world, &engine, &key, Err(Failure::NotStarted(Declined)));
        assert!(matches!(refused, Err(RunError::NotStarted(Declined))));
        assert_eq!(world.state(&key), Some(State::Released));

        let ran = run_classified(&world, &engine, &key, Ok("receipt".to_owned()));
        assert!(!ran.unwrap().is_replay());
    }
}

#[test]
fn an_unknown_outcome_is_for_the_guarantee_to_decide() {
    let world = World::new();
    let failed = || Err(Failure::Unknown(Declined));

    let at_least_once = world.at_least_once();
    let refused = run_classified(&world, &at_least_once, &key("a"), failed());
    assert!(matches!(refused, Err(RunError::Unknown(Declined))));
    assert_eq!(world.state(&key("a")), Some(State::GaveUp));
    let ran = run_classified(&world, &at_least_once, &key("a"), Ok("receipt".to_owned()));
    assert!(!ran.unwrap().is_replay());

    let at_most_once = world.at_most_once();
    let refused = run_classified(&world, &at_most_once, &key("b"), failed());
    assert!(matches!(refused, Err(RunError::Unknown(Declined))));
    let refused = run_classified(&world, &at_most_once, &key("b"), Ok("receipt".to_owned()));
    assert!(matches!(refused, Err(RunError::Interrupted)));
}

#[test]
fn a_takeover_that_did_nothing_does_not_free_what_was_interrupted() {
    let world = World::new();
    let engine = world.at_least_once();
    let refused = run_classified(&world, &engine, &key("a"), Err(Failure::Unknown(Declined)));
    assert!(matches!(refused, Err(RunError::Unknown(Declined))));
    let refused = run_classified(&world, &engine, &key("a"), Err(Failure::NotStarted(Declined)));
    let Err(error) = refused else { panic!("it ran") };
    assert!(
        matches!(error, RunError::Unknown(Declined)),
        "an earlier attempt is unknown: {error:?}"
    );
    assert_eq!(error.effect(), Effect::Unknown);
    assert_eq!(world.state(&key("a")), Some(State::GaveUp));
}

#[test]
fn a_panic_gives_the_key_up_and_goes_on() {
    let world = World::new();
    let engine = world.at_least_once();
    let key = key("a");
    let started = Rc::new(Cell::new(0));
    // One panics while it runs, one before it has made a future.
    for early in [false, true] {
        let (engine, key, started) = (engine.clone(), key.clone(), Rc::clone(&started));
        let timer = world.sim.timer.clone();
        let caught = world.sim.block_on(async move {
            let fingerprint = fingerprint();
            let run = engine.run(&key, &fingerprint, move |_| {
                started.set(started.get() + 1);
                assert!(!early, "before the first await");
                async move {
                    timer.sleep(seconds(1)).await;
                    panic!("in the middle");
                }
            });
            let run = AssertUnwindSafe(run).catch_unwind();
            run.await.map(|ran: Result<Outcome<String>, RunError<Declined>>| ran.is_ok())
        });
        let panic = caught.unwrap_err();
        let said = panic.downcast_ref::<&str>().copied().unwrap_or_default();
        assert_eq!(said, if early { "before the first await" } else { "in the middle" });
    }
    assert_eq!(started.get(), 2);
    assert_eq!(world.state(&key), Some(State::GaveUp));
    assert!(world.sim.now() < World::LEASE, "nobody had to wait for the lease");
}

#[test]
fn a_panic_while_the_result_is_encoded_gives_the_key_up() {
    #[derive(Debug, serde::Deserialize)]
    struct Bomb;
    impl serde::Serialize for Bomb {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("cannot be written")
        }
    }

    let world = World::new();
    let engine = world.at_least_once();
    let caught = world.sim.block_on(async move {
        let (key, fingerprint) = (key("a"), fingerprint());
        let run = engine.run(&key, &fingerprint, |_| async { Ok::<_, Declined>(Bomb) });
        AssertUnwindSafe(run).catch_unwind().await.is_err()
    });
    assert!(caught);
    assert_eq!(world.state(&key("a")), Some(State::GaveUp));
}

#[test]
fn a_dropped_run_is_taken_over_when_its_lease_lapses() {
    let world = World::new();
    let engine = world.at_least_once();
    let key = key("a");
    let crashed = world.start(&engine, &key, seconds(60), "never");
    world.sim.run_for(seconds(25));
    world.sim.crash(&crashed);

    let busy = world.sim.finish(&world.start(&engine, &key, seconds(1), "early"));
    let Err(RunError::Busy { retry_after }) = busy else {
        panic!("the lease has not lapsed: {busy:?}");
    };
    world.sim.run_for(retry_after);
    let ran = world.sim.finish(&world.start(&engine, &key, seconds(1), "taken over"));
    assert_eq!(ran.unwrap().value(), "taken over");
}

#[test]
fn number_and_token_grow_with_every_attempt() {
    let world = World::new();
    let engine = world.at_least_once();
    let mut last = None;
    for number in 1..=5 {
        let (engine, world_key) = (engine.clone(), key("a"));
        let attempt = Rc::new(Cell::new(None));
        let seen = Rc::clone(&attempt);
        let ran = world.sim.block_on(async move {
            engine
                .run(&world_key, &fingerprint(), |attempt| async move {
                    seen.set(Some((attempt.number(), attempt.token(), attempt.is_takeover())));
                    Err::<String, _>(Declined)
                })
                .await
        });
        assert!(matches!(ran, Err(RunError::Unknown(Declined))));
        let (seen_number, token, takeover) = attempt.get().unwrap();
        assert_eq!(seen_number, number);
        assert_eq!(takeover, number > 1);
        assert!(last.is_none_or(|last| last < token));
        last = Some(token);
    }
}

#[test]
fn a_result_over_the_limit_is_done_and_not_replayable() {
    let world = World::new();
    let engine = world.at_least_once().max_value_len(100);
    let long = "x".repeat(1000);
    let ran = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), &long));
    assert_eq!(ran.unwrap().value(), &long);
    let again = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "again"));
    assert!(matches!(again, Err(RunError::NotReplayable)));
    assert_eq!(world.state(&key("a")), Some(State::Completed));
}

#[test]
fn a_result_that_cannot_be_encoded_is_done_and_not_replayable() {
    let world = World::new();
    let engine = world.at_least_once();
    let runs = Rc::new(Cell::new(0));
    let run = |engine: Idempotency| {
        let runs = Rc::clone(&runs);
        world.sim.block_on(async move {
            engine
                .run(&key("a"), &fingerprint(), |_| async move {
                    runs.set(runs.get() + 1);
                    // JSON has no keys of more than one part.
                    Ok::<_, Declined>(HashMap::from([((1, 2), "receipt".to_owned())]))
                })
                .await
        })
    };
    assert!(!run(engine.clone()).unwrap().is_replay());
    assert!(matches!(run(engine), Err(RunError::NotReplayable)));
    assert_eq!(runs.get(), 1);
}

#[test]
fn a_stored_result_of_another_type_is_an_error_and_never_a_second_run() {
    let world = World::new();
    let engine = world.at_least_once();
    world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "receipt")).unwrap();
    let (numbers, bytes) = world.sim.block_on(async move {
        let numbers =
            engine.run(&key("a"), &fingerprint(), |_| async { Ok::<u64, Declined>(1) }).await;
        let bytes = engine
            .run_bytes(&key("a"), &fingerprint(), |_| async {
                Ok::<_, Failure<Declined>>(Bytes::new())
            })
            .await;
        (numbers, bytes)
    });
    assert!(matches!(numbers, Err(RunError::Codec(CodecError::Decode { .. }))));
    assert!(matches!(bytes, Err(RunError::Codec(CodecError::OtherCodec))));
}

#[test]
fn a_run_of_the_same_key_inside_a_run_is_told_busy() {
    let world = World::new();
    let engine = world.at_least_once().wait_for_duplicate(seconds(2));
    let inner = engine.clone();
    let timer = world.sim.timer.clone();
    let ran = world.run(&engine, &key("a"), move |_| async move {
        let again = inner
            .run(&key("a"), &fingerprint(), |_| async { Ok::<_, Declined>("inner".to_owned()) })
            .await;
        assert!(matches!(again, Err(RunError::Busy { .. })));
        timer.sleep(millis(1)).await;
        Ok("outer".to_owned())
    });
    assert_eq!(world.sim.finish(&ran).unwrap().value(), "outer");
}

#[test]
fn keys_are_arbitrary_bytes() {
    let world = World::new();
    let engine = world.at_least_once();
    let scope = Scope::new(b"\x00\xff", "\u{feff}").unwrap();
    let ids: [&[u8]; 5] = [b"\x00", b"\x00\x00", b"\xff\xfe", b"a", b"A"];
    for id in ids {
        let key = Key::new(&scope, id).unwrap();
        let ran = world.sim.finish(&world.start(&engine, &key, seconds(1), "receipt"));
        assert!(!ran.unwrap().is_replay(), "{id:?} is a key of its own");
    }
}

fn run_classified(
    world: &World,
    engine: &Idempotency,
    key: &Key,
    result: Result<String, Failure<Declined>>,
) -> support::Ran {
    let (engine, key, timer) = (engine.clone(), key.clone(), world.sim.timer.clone());
    world.sim.block_on(async move {
        engine
            .run_classified(&key, &fingerprint(), |_| async move {
                timer.sleep(millis(10)).await;
                result
            })
            .await
    })
}
