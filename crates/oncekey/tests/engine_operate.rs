//! Keeping keys in order: sweeping, completing, and what an operator can do with single keys.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

mod support;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oncekey::observe::Event;
use oncekey::operate::Completions;
use oncekey::store::{ErrorKind, Expected, Fenced, State};
use oncekey::{Encoded, Failure, Idempotency, Interruption, Key, KeyHasher, RunError, Verdict};
use oncekey_memory::MemoryStore;
use support::{Declined, Fault, PlainStore, Verb, World, fingerprint, key, seconds};

#[test]
fn a_sweep_removes_in_batches_what_is_over_and_nothing_else() {
    let world = World::new();
    let engine = world.at_least_once().hold(seconds(60)).retention(seconds(600));
    for id in 0..25 {
        interrupt(&world, &engine, &key(&format!("old {id}")));
    }
    world.sim.run_for(World::LEASE + seconds(60));
    interrupt(&world, &engine, &key("recent"));
    world.sim.finish(&world.start(&engine, &key("done"), seconds(1), "receipt")).unwrap();
    let owner = world.start(&engine, &key("live"), seconds(100), "late");
    world.sim.settle();

    let sweeper = engine.sweeper().batch(10);
    let removed = world.sim.block_on(async move { sweeper.sweep().await }).unwrap();
    assert!((20..=25).contains(&removed), "claims of new keys remove some as well: {removed}");
    assert_eq!(world.memory.len(), 3);
    assert!(world.store.count(Verb::Purge) >= 3);
    assert_eq!(world.recorder.count(|event| *event == Event::Purged { removed }), 1);
    assert_eq!(world.sim.finish(&owner).unwrap().value(), "late");
}

#[test]
fn a_sweeper_goes_on_after_an_error() {
    let world = World::new();
    world.store.script(Verb::Purge, vec![Fault::Fail(ErrorKind::Unavailable); 3]);
    let sweeper = world.at_least_once().sweeper().every(seconds(10));
    let sweeping = world.sim.spawn(async move { sweeper.run().await });
    world.sim.run_for(seconds(100));
    assert!((10..=20).contains(&world.store.count(Verb::Purge)));
    let failed = |event: &Event| matches!(event, Event::StoreFailed { operation: "purge", .. });
    assert_eq!(world.recorder.count(failed), 3);
    world.sim.crash(&sweeping);
    assert_eq!(world.sim.timer.sleeping(), 0);
}

#[test]
fn a_completer_finishes_every_key_as_its_hook_says() {
    let world = World::new();
    let engine = world.at_most_once();
    let ids = ["done", "not done", "unknown", "steps"];
    for id in ids {
        let failed = world.run(&engine, &key(id), move |attempt| async move {
            if id == "steps" {
                attempt
                    .step("charge", || async { Ok::<_, Declined>("charge 7".to_owned()) })
                    .await?;
            }
            Err(Declined)
        });
        assert!(world.sim.finish(&failed).is_err());
    }
    let completions = complete(&world, &engine, 1, |interruption: Interruption| async move {
        let saved: Option<String> = interruption.saved_step("charge").unwrap();
        match name_of(interruption.key()) {
            "done" => Verdict::Done(Encoded::json("charge 1").unwrap()),
            "not done" => Verdict::NotDone,
            "steps" => Verdict::Done(Encoded::json(&saved).unwrap()),
            _ => Verdict::Unknown,
        }
    });
    assert_eq!((completions.done, completions.not_done, completions.unknown), (2, 1, 1));
    assert_eq!(world.state(&key("done")), Some(State::Completed));
    assert_eq!(world.state(&key("not done")), Some(State::Released));
    assert_eq!(world.state(&key("unknown")), Some(State::GaveUp));
    assert!(world.store.count(Verb::List) >= 4, "one key a page");

    let replay = world.sim.finish(&world.start(&engine, &key("done"), seconds(1), "2")).unwrap();
    assert_eq!(replay.value(), "charge 1");
    let replay = world.sim.finish(&world.start(&engine, &key("steps"), seconds(1), "2")).unwrap();
    assert_eq!(replay.value(), "charge 7");
    let refused = world.sim.finish(&world.start(&engine, &key("unknown"), seconds(1), "2"));
    assert!(matches!(refused, Err(RunError::Interrupted)));
}

#[test]
fn a_completer_leaves_alone_what_clients_are_at() {
    let world = World::new();
    let engine = world.at_least_once();
    interrupt(&world, &engine, &key("a"));
    // The page is listed, and before the key is claimed a client has taken it over.
    world.store.script(Verb::List, [Fault::SlowReply(seconds(2))]);
    let completer = engine.completer("POST /payments", |_| async { panic!("a client is at it") });
    let completing = world.sim.spawn(async move { completer.complete().await });
    world.sim.run_for(seconds(1));
    let client = world.start(&engine, &key("a"), seconds(10), "receipt");
    let completions = world.sim.finish(&completing).unwrap();
    assert_eq!(completions.taken, 1);
    assert_eq!(world.sim.finish(&client).unwrap().value(), "receipt");

    // Or has ended it in one way or the other.
    for (result, state) in [
        (Ok("receipt".to_owned()), State::Completed),
        (Err(Failure::Unknown(Declined)), State::GaveUp),
    ] {
        interrupt(&world, &engine, &key("b"));
        world.store.script(Verb::List, [Fault::SlowReply(seconds(2))]);
        let completer = engine.completer("POST /payments", |_| async { Verdict::Unknown });
        let completing = world.sim.spawn(async move { completer.complete().await });
        world.sim.run_for(seconds(1));
        let client = engine.clone();
        let done = world.sim.block_on(async move {
            client.run_classified(&key("b"), &fingerprint(), |_| async { result }).await.is_ok()
        });
        let completions = world.sim.finish(&completing).unwrap();
        assert_eq!((completions.taken, completions.unknown), if done { (1, 0) } else { (0, 1) });
        assert_eq!(world.state(&key("b")), Some(state));
        evict(&world, &engine, &key("b"));
    }
}

#[test]
fn a_client_that_comes_while_a_completer_asks_is_told_to_wait() {
    let world = World::new();
    let timer = world.sim.timer.clone();
    let engine = world.at_most_once();
    interrupt(&world, &engine, &key("a"));
    let completer = engine.completer("POST /payments", move |_| {
        let timer = timer.clone();
        async move {
            timer.sleep(seconds(100)).await;
            Verdict::Done(Encoded::json("charge 1").unwrap())
        }
    });
    let completing = world.sim.spawn(async move { completer.complete().await });
    for _ in 0..9 {
        world.sim.run_for(seconds(10));
        let refused = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "2"));
        assert!(matches!(refused, Err(RunError::Busy { .. })));
    }
    let waiting = engine.clone().wait_for_duplicate(seconds(60));
    let replay = world.sim.finish(&world.start(&waiting, &key("a"), seconds(1), "2"));
    assert_eq!(replay.unwrap().value(), "charge 1");
    assert_eq!(world.sim.finish(&completing).unwrap().done, 1);
}

#[test]
fn a_completer_leaves_hashed_keys_alone_unless_its_hook_can_do_with_them() {
    let world = World::new();
    let hasher = KeyHasher::new("0123456789abcdef").unwrap();
    let engine = world.at_most_once().hash_keys(hasher);
    // The processor knows each charge by the key that the operation derived for it.
    let charges = Arc::new(Mutex::new(BTreeSet::new()));
    let processor = Arc::clone(&charges);
    let failed = world.run(&engine, &key("a"), move |attempt| async move {
        processor.lock().unwrap().insert(attempt.key().child("charge").as_str().to_owned());
        attempt.step("charge", || async { Ok::<_, Declined>("charge 7".to_owned()) }).await?;
        Err(Declined)
    });
    assert!(world.sim.finish(&failed).is_err());

    // Of the hashed key, the processor knows nothing: "not done" would charge a second time.
    let processor = Arc::clone(&charges);
    let look_up = move |interruption: Interruption| {
        let charge = interruption.key().child("charge");
        let charged = processor.lock().unwrap().contains(charge.as_str());
        async move { if charged { Verdict::Unknown } else { Verdict::NotDone } }
    };
    let completions = complete(&world, &engine, 100, look_up);
    assert_eq!((completions.not_done, completions.left_alone), (0, 1));
    assert_eq!(world.state(&hashed(&world)), Some(State::GaveUp));

    let saved_steps = |interruption: Interruption| async move {
        assert_eq!(interruption.key().id(), None);
        let charge: Option<String> = interruption.saved_step("charge").unwrap();
        charge.map_or(Verdict::NotDone, |charge| Verdict::done(&charge).unwrap())
    };
    let completer = engine.completer("POST /payments", saved_steps).only(|_| true);
    let completions = world.sim.block_on(async move { completer.complete().await }).unwrap();
    assert_eq!(completions.done, 1);
    let replay = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "2")).unwrap();
    assert_eq!(replay.value(), "charge 7");
}

#[test]
fn a_completer_does_not_count_as_free_what_keeps_its_steps() {
    let world = World::new();
    let engine = world.at_least_once();
    let failed = world.run(&engine, &key("a"), |attempt| async move {
        attempt.step("charge", || async { Ok::<_, Declined>("charge 7".to_owned()) }).await?;
        Err(Declined)
    });
    assert!(world.sim.finish(&failed).is_err());
    let completions = complete(&world, &engine, 10, |_| async { Verdict::NotDone });
    assert_eq!((completions.not_done, completions.unknown), (0, 1));
    assert_eq!(world.state(&key("a")), Some(State::GaveUp));
    let resumed = world.run(&engine, &key("a"), |attempt| async move {
        attempt.step("charge", || async { panic!("it was saved") }).await
    });
    assert_eq!(world.sim.finish(&resumed).unwrap().value(), "charge 7");
}

/// The key of the only interrupted record, as the store knows it.
fn hashed(world: &World) -> Key {
    let operator = world.at_least_once().operator();
    let listing = async move { operator.list_interrupted(None, 10).await };
    world.sim.block_on(listing).unwrap().entries[0].0.clone()
}

#[test]
fn a_completer_without_a_listing_store_says_so() {
    let world = World::new();
    let engine = world.simulated(Idempotency::at_least_once(PlainStore::new(MemoryStore::new())));
    let completer = engine.completer("POST /payments", |_| async { Verdict::Unknown });
    let operator = engine.operator();
    let (completed, listed) = world.sim.block_on(async move {
        (completer.complete().await, operator.list_interrupted(None, 10).await)
    });
    assert_eq!(completed.unwrap_err().kind(), ErrorKind::Misconfigured);
    assert_eq!(listed.unwrap_err().kind(), ErrorKind::Misconfigured);
}

#[test]
fn a_completer_runs_on_and_pages_through_all() {
    let world = World::new();
    let engine = world.at_least_once();
    for id in 0..250 {
        interrupt(&world, &engine, &key(&id.to_string()));
    }
    world.store.script(Verb::List, [Fault::Fail(ErrorKind::Unavailable)]);
    let done = |_| async { Verdict::Done(Encoded::json("found").unwrap()) };
    let completer = engine.completer("POST /payments", done).every(seconds(10)).page(7);
    let completing = world.sim.spawn(async move { completer.run().await });
    world.sim.run_for(seconds(25));
    for id in 0..250 {
        assert_eq!(world.state(&key(&id.to_string())), Some(State::Completed));
    }
    let failed = |event: &Event| matches!(event, Event::StoreFailed { operation: "list", .. });
    assert_eq!(world.recorder.count(failed), 1);
    world.sim.crash(&completing);
}

#[test]
fn an_operator_looks_settles_and_evicts() {
    let hasher = KeyHasher::new("0123456789abcdef").unwrap();
    for hashed in [false, true] {
        let world = World::new();
        let mut engine = world.at_most_once();
        if hashed {
            engine = engine.hash_keys(hasher.clone());
        }
        interrupt(&world, &engine, &key("a"));
        let operator = engine.operator();
        world.sim.block_on(async move {
            let observed = operator.inspect(&key("a")).await.unwrap().unwrap();
            assert_eq!(observed.state, State::GaveUp);
            assert!(operator.inspect(&key("other")).await.unwrap().is_none());

            // What is listed can be used as it is.
            let page = operator.list_interrupted(None, 10).await.unwrap();
            let (listed, _) = &page.entries[0];
            assert_eq!(operator.inspect(listed).await.unwrap().unwrap(), observed);
            assert_eq!(*listed == key("a"), !hashed);

            let wrong = Expected::Token(oncekey::store::FencingToken::new(1));
            let right = Expected::Token(observed.record.token);
            let (one, two) = (Encoded::json("1").unwrap(), Encoded::json("2").unwrap());
            let a = key("a");
            assert_eq!(operator.settle_done(&a, wrong, &one).await.unwrap(), Fenced::Lost);
            assert_eq!(operator.settle_not_done(&a, right).await.unwrap(), Fenced::Applied);
            assert_eq!(operator.settle_not_done(&a, right).await.unwrap(), Fenced::Applied);
            assert_eq!(operator.settle_done(&a, right, &one).await.unwrap(), Fenced::Applied);
            assert_eq!(operator.settle_done(&a, right, &one).await.unwrap(), Fenced::Applied);
            assert_eq!(operator.settle_done(&a, right, &two).await.unwrap(), Fenced::Conflict);
            assert_eq!(operator.settle_not_done(&a, right).await.unwrap(), Fenced::Lost);
            assert_eq!(operator.evict(&a, right, false).await.unwrap(), Fenced::Applied);
            assert_eq!(operator.evict(&a, right, false).await.unwrap(), Fenced::Gone);
            assert!(operator.inspect(&a).await.unwrap().is_none());
        });
    }
}

#[test]
fn a_live_owner_is_spared_unless_forced() {
    let world = World::new();
    let engine = world.at_least_once();
    let owner = world.start(&engine, &key("a"), seconds(10), "receipt");
    world.sim.settle();
    let operator = engine.operator();
    world.sim.block_on(async move {
        let (a, any) = (key("a"), Expected::Any);
        let value = Encoded::json("1").unwrap();
        assert_eq!(operator.settle_done(&a, any, &value).await.unwrap(), Fenced::Busy);
        assert_eq!(operator.settle_not_done(&a, any).await.unwrap(), Fenced::Busy);
        assert_eq!(operator.evict(&a, any, false).await.unwrap(), Fenced::Busy);
    });
    assert_eq!(world.sim.finish(&owner).unwrap().value(), "receipt");
}

#[test]
fn a_settled_value_over_the_limit_is_done_and_not_replayable() {
    let world = World::new();
    let engine = world.at_most_once().max_value_len(10);
    interrupt(&world, &engine, &key("a"));
    let operator = engine.operator();
    let settled = world.sim.block_on(async move {
        let value = Encoded::json(&"x".repeat(100)).unwrap();
        operator.settle_done(&key("a"), Expected::Any, &value).await
    });
    assert_eq!(settled.unwrap(), Fenced::Applied);
    let ran = world.sim.finish(&world.start(&engine, &key("a"), seconds(1), "2"));
    assert!(matches!(ran, Err(RunError::NotReplayable)));
}

fn complete(
    world: &World,
    engine: &Idempotency,
    page: usize,
    hook: impl oncekey::Verify + 'static,
) -> Completions {
    let completer = engine.completer("POST /payments", hook).page(page);
    world.sim.block_on(async move { completer.complete().await }).unwrap()
}

fn interrupt(world: &World, engine: &Idempotency, key: &Key) {
    let failed = world.run(engine, key, |_| async { Err(Declined) });
    assert!(matches!(world.sim.finish(&failed), Err(RunError::Unknown(Declined))));
}

fn evict(world: &World, engine: &Idempotency, key: &Key) {
    let (operator, key) = (engine.operator(), key.clone());
    let evicted =
        world.sim.block_on(async move { operator.evict(&key, Expected::Any, true).await });
    assert_eq!(evicted.unwrap(), Fenced::Applied);
}

fn name_of(found: &Key) -> &'static str {
    let names = ["done", "not done", "unknown", "steps"];
    names.into_iter().find(|name| key(name) == *found).unwrap()
}

#[test]
fn a_page_of_nothing_and_an_interval_of_nothing_still_work() {
    let world = World::new();
    let engine = world.at_least_once();
    interrupt(&world, &engine, &key("a"));
    let completions = complete(&world, &engine, 0, |_| async { Verdict::NotDone });
    assert_eq!(completions.not_done, 1);
    let sweeper = engine.sweeper().batch(0).every(Duration::ZERO);
    assert_eq!(world.sim.block_on(async move { sweeper.sweep().await }).unwrap(), 0);
}

#[test]
fn a_hook_that_cannot_tell_does_not_keep_a_key_for_longer() {
    let world = World::new();
    let engine = world.at_least_once();
    interrupt(&world, &engine, &key("a"));
    let forget_at = |world: &World| world.observed(&key("a")).unwrap().record.forget_at;
    let before = forget_at(&world);
    for _ in 0..10 {
        world.sim.run_for(seconds(3600));
        let completer = engine.completer("POST /payments", |_| async { Verdict::Unknown });
        let pass = world.sim.block_on(async move { completer.complete().await }).unwrap();
        assert_eq!(pass.unknown, 1);
        let after = forget_at(&world);
        assert!(
            after <= before && before.saturating_since(after) < seconds(1),
            "{before:?} {after:?}"
        );
    }
}
