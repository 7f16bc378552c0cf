//! Keeping a lease alive while an operation runs, inside the very same future.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures::future::{BoxFuture, Either, FutureExt, select};

use super::Settings;
use super::attempt::{Attempt, Parked};
use crate::observe::Event;
use crate::runtime::{Random, Timer};
use crate::store::{ErrorKind, Fenced, Progress, Renew, Store, StoreError};

/// No lease need be renewed long before it ends, however long it is.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How the work of an attempt ended.
pub(crate) enum Driven<R> {
    Finished(R),
    Panicked(Box<dyn Any + Send>),
    Parked(Parked),
}

/// Polls `work` to its end, and from when it first pends renews the lease of `attempt` besides.
///
/// Work that never pends costs no timer. Nothing is spawned: when this future is dropped, work and
/// renewal end together, and the lease lapses as after a crash.
pub(crate) async fn drive<W: Future>(attempt: &Attempt, work: W) -> Driven<W::Output> {
    let mut work = pin!(AssertUnwindSafe(work).catch_unwind());
    let mut parked = pin!(attempt.parked().wait());
    let mut keeper: Option<BoxFuture<'static, ()>> = None;
    let mut pended = false;
    poll_fn(|context| {
        // Before the work: some runtimes give a task a budget for each of its turns, and work that is
        // always busy would leave nothing of it.
        if keeper.as_mut().is_some_and(|keeper| keeper.as_mut().poll(context).is_ready()) {
            keeper = None;
        }
        match work.as_mut().poll(context) {
            Poll::Ready(Ok(result)) => return Poll::Ready(Driven::Finished(result)),
            Poll::Ready(Err(panic)) => return Poll::Ready(Driven::Panicked(panic)),
            Poll::Pending => {}
        }
        if parked.as_mut().poll(context).is_ready() {
            return Poll::Ready(Driven::Parked(attempt.take_parked()));
        }
        if !pended {
            pended = true;
            let mut keep = keep(attempt.clone()).boxed();
            keeper = keep.as_mut().poll(context).is_pending().then_some(keep);
        }
        Poll::Pending
    })
    .await
}

/// Renews at two thirds of what is left, until the lease is lost.
async fn keep(attempt: Attempt) {
    loop {
        let confirmed = attempt.deadline();
        let settings = &attempt.engine().settings;
        // A deadline can be nearer than a lease that goes beyond the end of time; renewing would then
        // never move it.
        let lease = settings.lease.min(LONGEST);
        let renew_at = confirmed.saturating_sub(lease / 3 * 2);
        settings.timer.sleep_until(renew_at).await;
        if attempt.deadline() > confirmed {
            // A step has renewed it meanwhile.
            continue;
        }
        match renew(&attempt, None, confirmed).await {
            Ok(Fenced::Applied) => continue,
            Ok(_) => {}
            Err(_) => {
                settings.timer.sleep_until(confirmed).await;
                if attempt.deadline() > confirmed {
                    // While this renewal failed, that of a step did not.
                    continue;
                }
            }
        }
        attempt.lose();
        return;
    }
}

/// Renews, and retries what fails until `until`, or for as long as the lease is known to last.
///
/// One failed call is no reason to give a lease up, and no call goes on for ever. Whether a lease that
/// lapsed here lives again is for the store to say, so it is asked at least once.
pub(crate) async fn renew(
    attempt: &Attempt,
    progress: Option<Progress>,
    until: Duration,
) -> Result<Fenced, StoreError> {
    let engine = attempt.engine();
    let settings = &engine.settings;
    let renewal = Renew { grant: attempt.grant(), lease: settings.lease, progress };
    let mut backoff = Backoff::within(settings.lease);
    loop {
        let sent = settings.timer.now();
        let until = until.max(attempt.deadline());
        let call = engine.store.renew(attempt.stored_key(), &renewal);
        match within(&*settings.timer, || until, call).await {
            Some(Ok(Fenced::Applied)) => {
                attempt.confirm(sent.saturating_add(Settings::usable(settings.lease)));
                return Ok(Fenced::Applied);
            }
            Some(Ok(refused)) => {
                attempt.lose();
                return Ok(refused);
            }
            Some(Err(error)) => {
                let kind = error.kind();
                settings.observe(&Event::StoreFailed { operation: "renew", kind });
                let pause = settings.timer.now() + backoff.next(&*settings.random);
                if kind == ErrorKind::TooLarge || pause >= until {
                    return Err(error);
                }
                settings.timer.sleep_until(pause).await;
            }
            None => {
                return Err(StoreError::new(ErrorKind::OutcomeUnknown, "renew")
                    .with_message("the store did not answer before the lease ended"));
            }
        }
    }
}

/// What `future` returns, unless `at` comes first. Costs no look at the timer if it is ready at once.
pub(crate) async fn within<F: Future>(
    timer: &dyn Timer,
    at: impl FnOnce() -> Duration,
    future: F,
) -> Option<F::Output> {
    let mut future = pin!(future);
    if let Poll::Ready(output) = futures::poll!(future.as_mut()) {
        return Some(output);
    }
    match select(future, timer.sleep_until(at())).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

/// Pauses between tries: doubling, jittered, and in proportion to the time that there is.
#[derive(Debug)]
pub(crate) struct Backoff {
    pace: Pace,
    tries: u32,
}

#[derive(Debug)]
enum Pace {
    Within(Duration),
    Doubling { first: Duration, max: Duration },
}

impl Backoff {
    /// For tries that make sense for as long as `time`.
    pub(crate) const fn within(time: Duration) -> Self {
        Self { pace: Pace::Within(time), tries: 0 }
    }

    pub(crate) const fn doubling(first: Duration, max: Duration) -> Self {
        Self { pace: Pace::Doubling { first, max }, tries: 0 }
    }

    /// Between half and all of the pause that is due.
    pub(crate) fn next(&mut self, random: &dyn Random) -> Duration {
        let (first, max) = match self.pace {
            Pace::Within(time) => {
                let max = (time / 10).clamp(Duration::from_millis(1), Duration::from_secs(1));
                (max / 20, max)
            }
            Pace::Doubling { first, max } => (first, max),
        };
        let pause = first.saturating_mul(1 << self.tries.min(16)).min(max);
        self.tries = self.tries.saturating_add(1);
        let thousandths = u32::try_from(random.next() % 501).unwrap_or(0) + 500;
        pause.saturating_mul(thousandths) / 1000
    }
}
