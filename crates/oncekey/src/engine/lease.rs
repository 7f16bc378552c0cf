//! Keeping a lease alive while an operation runs, inside the very same future.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};

use super::Settings;
use super::attempt::{Attempt, Parked};
use super::patience::{Backoff, Patience};
use crate::observe::Event;
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

/// Renews when two thirds of the lease are left, until the key is somebody else's.
///
/// Also when the lease is lost by the clock here: the operation is told, but it may go on, and while
/// nobody has taken over, a lease that lives again keeps others from starting beside it.
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
        let mut until = confirmed;
        loop {
            match renew(&attempt, None, until).await {
                Ok(Fenced::Applied) => break,
                Ok(_) => return,
                Err(_) => {}
            }
            settings.timer.sleep_until(until).await;
            if attempt.deadline() > confirmed {
                // While this renewal failed, that of a step did not.
                break;
            }
            attempt.lose();
            until = settings.timer.now().saturating_add(lease);
        }
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
    let mut patience = Patience::until(until.max(attempt.deadline()), &*settings.timer);
    loop {
        let sent = settings.timer.now();
        patience.extend(attempt.deadline());
        let call = engine.store.renew(attempt.stored_key(), &renewal);
        let error = match patience.answer("renew", &*settings.timer, call).await {
            Ok(Fenced::Applied) => {
                attempt.confirm(sent.saturating_add(Settings::usable(settings.lease)));
                return Ok(Fenced::Applied);
            }
            Ok(refused) => {
                attempt.lose();
                return Ok(refused);
            }
            Err(error) => error,
        };
        let kind = error.kind();
        settings.observe(&Event::StoreFailed { operation: "renew", kind });
        let pause = settings.timer.now() + backoff.next(&*settings.random);
        if kind == ErrorKind::TooLarge || patience.is_over_at(pause, &*settings.timer) {
            return Err(error);
        }
        settings.timer.sleep_until(pause).await;
    }
}
