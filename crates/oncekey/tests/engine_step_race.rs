//! A step that starts while its operation ends: either it does not run, or the key is not free.
#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use futures::FutureExt;
use futures::executor::block_on;
use oncekey::store::State;
use oncekey::{Attempt, Failure, Fingerprint, Idempotency, Key, RunError, Scope};
use oncekey_memory::MemoryStore;

/// A step on another thread, and an operation that says at that moment that it did nothing.
#[test]
fn a_step_that_ran_never_leaves_a_key_that_is_free() {
    let engine = Idempotency::at_most_once(MemoryStore::new());
    let fingerprint = Fingerprint::of("body");
    let (mut ran, mut released) = (0, 0);
    for number in 0..3_000_u32 {
        let key = Key::new(&Scope::new("tenant", "pay").unwrap(), number.to_be_bytes()).unwrap();
        let has_run = Arc::new(AtomicBool::new(false));
        let meeting = Arc::new(Barrier::new(2));
        let mut other = None;
        let (runs, meets, spawned) = (Arc::clone(&has_run), Arc::clone(&meeting), &mut other);
        let operation = |attempt: Attempt| async move {
            let meets_too = Arc::clone(&meets);
            *spawned = Some(std::thread::spawn(move || {
                meets_too.wait();
                let work = async || {
                    runs.store(true, Ordering::SeqCst);
                    Ok::<_, ()>(1)
                };
                // Once: it may be parked for ever.
                let _ = attempt.step("charge", work).now_or_never();
            }));
            meets.wait();
            for _ in 0..number % 200 {
                std::hint::spin_loop();
            }
            Err::<String, _>(Failure::NotStarted(()))
        };
        let failed = block_on(engine.run_classified(&key, &fingerprint, operation));
        other.unwrap().join().unwrap();
        let seen = block_on(engine.operator().inspect(&key)).unwrap().unwrap();
        let (has_run, is_free) = (has_run.load(Ordering::SeqCst), seen.state == State::Released);
        assert!(!(has_run && is_free), "it ran, and the key is free");
        assert_eq!(matches!(failed, Err(RunError::NotStarted(_))), is_free);
        ran += u32::from(has_run);
        released += u32::from(is_free);
    }
    assert!(ran > 0 && released > 0, "the race took place: {ran} ran, {released} released");
}
