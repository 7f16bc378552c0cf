//! The copies in the fast store: looked up, made and removed by the verbs that every store has.
//!
//! A copy is a record of its own: claimed by the attempt whose result it is, and completed with that
//! result for what is left of its retention. So whoever makes the same copy makes it once.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{Either, select};
use oncekey::runtime::Timer;
use oncekey::store::{
    AttemptId, Claim, ClaimOutcome, Complete, Completion, ErrorKind, Evict, Expected, Fenced,
    Observed, OnInterrupted, OnRetired, State, Status, Store, StoreError,
};
use oncekey::{Fingerprint, Key};

/// How long before the end of its retention a copy ends, and how long it may take to make one. What
/// takes longer is given up, so no copy outlives its original.
const MARGIN: Duration = Duration::from_secs(1);

/// How long no copy is made of a key that was evicted: longer than it can take to make one of what was
/// read before the eviction.
const BARRED: Duration = Duration::from_secs(10);

/// How long the fast store is left alone after it failed.
const REST: Duration = Duration::from_secs(1);

/// How often a copy is removed that others make again at once.
const MAX_BARS: usize = 16;

/// By whom the place of a copy is taken while none is to be made.
const BAR: AttemptId = AttemptId::from_bytes(*b"oncekey: evicted");

pub(crate) struct Copies {
    fast: Arc<dyn Store>,
    pub(crate) timer: Arc<dyn Timer>,
    pub(crate) patience: Duration,
    /// Until when the fast store is left alone, in nanoseconds of the timer.
    rests_until: AtomicU64,
}

impl Copies {
    pub(crate) fn new(fast: Arc<dyn Store>, timer: Arc<dyn Timer>, patience: Duration) -> Self {
        Self { fast, timer, patience, rests_until: AtomicU64::new(0) }
    }

    /// The same copies, with settings of their own.
    pub(crate) fn anew(&self) -> Self {
        Self::new(Arc::clone(&self.fast), Arc::clone(&self.timer), self.patience)
    }

    /// What the copy of `key` says to `claim`, if there is one.
    pub(crate) async fn answer(&self, key: &Key, claim: &Claim) -> Option<ClaimOutcome> {
        let Observed { record, state, .. } = self.ask(self.fast.get(key)).await??;
        let Status::Completed { value, .. } = &record.status else { return None };
        if state != State::Completed {
            return None;
        }
        if record.fingerprint != claim.fingerprint {
            return Some(ClaimOutcome::Mismatch);
        }
        value.replay().map(|bytes| ClaimOutcome::Replay(Some(bytes)))
    }

    /// Makes a copy of what `durable` has for `key`, if that is a result. Whatever fails, fails in
    /// silence: the next duplicate comes here again.
    pub(crate) async fn make(&self, key: &Key, durable: &dyn Store) {
        let since = self.timer.now();
        if self.rests() {
            return;
        }
        let Ok(Some(Observed { record, state: State::Completed, now })) = durable.get(key).await
        else {
            return;
        };
        let Status::Completed { value, retained_until } = &record.status else { return };
        let (Some(value), left) = (value.replay(), retained_until.saturating_since(now)) else {
            return;
        };
        let Some(retention) = left.checked_sub(2 * MARGIN) else { return };
        let claim = claim(record.attempt, record.fingerprint, MARGIN);
        let Some(mut claimed) = self.ask(self.fast.claim(key, &claim)).await else { return };
        if claimed == ClaimOutcome::Mismatch {
            // What is left of an older copy, or of a bar that is over; a bar in force is not removed.
            let over = Evict { expected: Expected::Any, force: false };
            match self.ask(self.fast.evict(key, &over)).await {
                Some(Fenced::Applied | Fenced::Gone) => {}
                _ => return,
            }
            let Some(again) = self.ask(self.fast.claim(key, &claim)).await else { return };
            claimed = again;
        }
        let ClaimOutcome::Acquired { grant, .. } = claimed else { return };
        if self.timer.now().saturating_sub(since) >= MARGIN {
            return;
        }
        let completion = Completion { value, replayable: true, retention, hold: Duration::ZERO };
        let _ = self.ask(self.fast.complete(key, &Complete { grant, completion })).await;
        if self.timer.now().saturating_sub(since) >= 2 * MARGIN {
            let late = Evict { expected: Expected::Token(grant.token), force: true };
            let _ = self.ask(self.fast.evict(key, &late)).await;
        }
    }

    /// Removes the copy of `key`, and keeps others from making one for a while.
    pub(crate) async fn bar(&self, key: &Key) -> Result<(), StoreError> {
        let claim = claim(BAR, Fingerprint::of("oncekey: evicted"), BARRED);
        for _ in 0..MAX_BARS {
            self.remove(key).await?;
            match self.bounded(self.fast.claim(key, &claim)).await {
                Ok(ClaimOutcome::Acquired { .. }) => return Ok(()),
                // Somebody began a copy in between.
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Full => return self.outlast(key).await,
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::new(ErrorKind::Unavailable, "evict a copy")
            .with_message("others make a new copy each time"))
    }

    /// The same where there is no room for a bar: whoever makes a copy of what was read before has done so
    /// after [`MARGIN`], or gives up.
    async fn outlast(&self, key: &Key) -> Result<(), StoreError> {
        self.timer.sleep_until(self.timer.now().saturating_add(2 * MARGIN)).await;
        self.remove(key).await
    }

    async fn remove(&self, key: &Key) -> Result<(), StoreError> {
        let evict = Evict { expected: Expected::Any, force: true };
        // Whatever was there is gone.
        self.bounded(self.fast.evict(key, &evict)).await.map(drop)
    }

    pub(crate) async fn purge(&self, limit: usize) {
        let _ = self.ask(self.fast.purge(limit)).await;
    }

    /// The answer of the fast store, if it has one soon.
    async fn ask<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
        if self.rests() {
            return None;
        }
        match self.bounded(call).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                // A full store, or a record that it cannot read, is no reason not to ask for others.
                if error.is_retryable() {
                    let until = self.timer.now().saturating_add(REST).as_nanos();
                    let until = u64::try_from(until).unwrap_or(u64::MAX);
                    self.rests_until.fetch_max(until, Ordering::Relaxed);
                }
                None
            }
        }
    }

    async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let call = std::pin::pin!(call);
        let over = self.timer.sleep_until(self.timer.now().saturating_add(self.patience));
        match select(call, over).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => {
                Err(StoreError::new(ErrorKind::OutcomeUnknown, "ask the fast store"))
            }
        }
    }

    fn rests(&self) -> bool {
        let until = self.rests_until.load(Ordering::Relaxed);
        self.timer.now() < Duration::from_nanos(until)
    }
}

fn claim(attempt: AttemptId, fingerprint: Fingerprint, lease: Duration) -> Claim {
    Claim {
        attempt,
        fingerprint,
        lease,
        hold: Duration::ZERO,
        on_interrupted: OnInterrupted::TakeOver,
        on_retired: OnRetired::Forget,
    }
}
