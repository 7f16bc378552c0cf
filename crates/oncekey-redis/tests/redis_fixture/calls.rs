//! Keys and commands, for tests that send them by hand.

use std::time::Duration;

use oncekey::runtime::{ProcessRandom, Random};
use oncekey::store::{
    Abandon, AttemptId, Claim, ClaimOutcome, Complete, Completion, Grant, Known, OnInterrupted,
    OnRetired, Renew, Store, StoreError,
};
use oncekey::{Fingerprint, Key, Scope};
use tokio::time::{Instant, sleep};

pub const LONG: Duration = Duration::from_secs(3600);

pub fn key(id: impl ToString) -> Key {
    Key::new(&Scope::new("tenant", "operation").unwrap(), id.to_string()).unwrap()
}

/// By a new attempt.
pub fn claim() -> Claim {
    Claim {
        attempt: AttemptId::from_bytes(ProcessRandom::new().next().to_be_bytes()),
        fingerprint: Fingerprint::of("the request"),
        lease: LONG,
        hold: LONG,
        on_interrupted: OnInterrupted::TakeOver,
        on_retired: OnRetired::Forget,
    }
}

pub fn completion(value: impl Into<bytes::Bytes>) -> Completion {
    Completion { value: value.into(), replayable: true, retention: LONG, hold: Duration::ZERO }
}

pub fn complete(grant: Grant, value: impl Into<bytes::Bytes>) -> Complete {
    Complete { grant, completion: completion(value) }
}

pub fn renew(grant: Grant, lease: Duration) -> Renew {
    Renew { grant, lease, progress: None }
}

pub fn release(grant: Grant) -> Abandon {
    Abandon { grant, known: Known::NotStarted { hold: LONG } }
}

pub async fn acquire(store: &impl Store, key: &Key) -> Grant {
    acquire_as(store, key, &claim()).await
}

pub async fn acquire_as(store: &impl Store, key: &Key, claim: &Claim) -> Grant {
    granted(store.claim(key, claim).await.unwrap())
}

pub fn granted(outcome: ClaimOutcome) -> Grant {
    match outcome {
        ClaimOutcome::Acquired { grant, .. } => grant,
        other => panic!("no grant: {other:?}"),
    }
}

/// Asks until there is an answer, for as long as a failover may take.
pub async fn insist<T>(ask: impl AsyncFn() -> Result<T, StoreError>) -> T {
    let start = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => {
                let source = std::error::Error::source(&error);
                assert!(error.is_retryable(), "{error}: {source:?}");
                assert!(start.elapsed() < Duration::from_secs(60), "{error}: {source:?}");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
