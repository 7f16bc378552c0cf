//! Under tokio's paused clock, hours of renewing and waiting take no time.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use oncekey::runtime::{TimerClock, TokioTimer};
use oncekey::{Attempt, Idempotency, RunError};
use oncekey_memory::MemoryStore;
use support::{Declined, START, fingerprint, key, seconds};

const HOUR: Duration = seconds(60 * 60);

fn engine() -> Idempotency {
    let timer = TokioTimer::new();
    let clock = TimerClock::new(Arc::new(timer), START);
    let store = MemoryStore::builder().clock(Arc::new(clock)).build();
    Idempotency::at_least_once(store).timer(timer)
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_work_is_renewed_and_replayed() {
    let engine = engine();
    let begun = tokio::time::Instant::now();
    let work = |attempt: Attempt| async move {
        tokio::time::sleep(HOUR).await;
        assert!(!attempt.is_lease_lost());
        Ok::<_, Declined>("receipt".to_owned())
    };
    let first = engine.run(&key("a"), &fingerprint(), work).await.unwrap();
    assert!(!first.is_replay());
    assert!(begun.elapsed() >= HOUR && begun.elapsed() < HOUR + seconds(1));
    let again = engine
        .run(&key("a"), &fingerprint(), |_| async { Ok::<_, Declined>("2".to_owned()) })
        .await;
    assert_eq!(again.unwrap().value(), "receipt");
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_waits_for_hours_and_gives_up_at_its_deadline() {
    let engine = engine().wait_for_duplicate(HOUR * 2);
    let owner = engine.clone();
    let owner = tokio::spawn(async move {
        let work = |_| async {
            tokio::time::sleep(HOUR * 3).await;
            Ok::<_, Declined>("receipt".to_owned())
        };
        owner.run(&key("a"), &fingerprint(), work).await.is_ok()
    });
    tokio::time::sleep(seconds(1)).await;
    let (key, fingerprint) = (key("a"), fingerprint());
    let second = || engine.run(&key, &fingerprint, |_| async { Ok::<_, Declined>("2".to_owned()) });
    let begun = tokio::time::Instant::now();
    let refused = second().await;
    assert!(matches!(refused, Err(RunError::Busy { .. })));
    assert!(begun.elapsed() >= HOUR * 2 && begun.elapsed() < HOUR * 2 + seconds(1));
    let replay = second().await.unwrap();
    assert_eq!(replay.value(), "receipt");
    assert!(owner.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_aborted_task_is_taken_over_when_its_lease_lapses() {
    let engine = engine().wait_for_duplicate(HOUR);
    let aborted = engine.clone();
    let aborted = tokio::spawn(async move {
        let work = |_| std::future::pending::<Result<String, Declined>>();
        aborted.run(&key("a"), &fingerprint(), work).await.is_ok()
    });
    tokio::time::sleep(seconds(5)).await;
    aborted.abort();
    assert!(aborted.await.unwrap_err().is_cancelled());
    let begun = tokio::time::Instant::now();
    let ran = engine
        .run(&key("a"), &fingerprint(), |attempt| async move {
            assert!(attempt.is_takeover());
            Ok::<_, Declined>("receipt".to_owned())
        })
        .await;
    assert!(!ran.unwrap().is_replay());
    assert!(begun.elapsed() <= seconds(31));
}
