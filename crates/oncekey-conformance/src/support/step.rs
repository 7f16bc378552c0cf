//! Calls that are stopped at an await, to be dropped there or to go on later.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::future::{BoxFuture, Either, select};
use futures::task::AtomicWaker;
use oncekey::runtime::{ThreadTimer, Timer};

/// How long a call may take to wake up before it is polled unasked, or another one is let past it.
const PATIENCE: Duration = Duration::from_millis(200);

/// A call after some polls.
pub(crate) enum Stepped<'a, T> {
    Done(T),
    Paused(Paused<'a, T>),
}

/// A call that stands at an await.
pub(crate) struct Paused<'a, T> {
    call: BoxFuture<'a, T>,
    bell: Arc<Bell>,
}

/// Polls `call` at most `polls` times, each time after it woke up.
pub(crate) async fn step<T>(call: BoxFuture<'_, T>, polls: usize) -> Stepped<'_, T> {
    let bell = Arc::new(Bell::default());
    let mut paused = Paused { call, bell };
    for poll in 0..polls {
        if poll > 0 {
            paused.woken().await;
        }
        let waker = Waker::from(paused.bell.clone());
        if let Poll::Ready(output) = paused.call.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Stepped::Done(output);
        }
    }
    Stepped::Paused(paused)
}

impl<'a, T> Paused<'a, T> {
    /// Waits until the call has been woken, but does not poll it.
    pub(crate) async fn woken(&mut self) {
        let bell = &self.bell;
        let rung = poll_fn(|context| {
            bell.listener.register(context.waker());
            if bell.rung.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
        });
        let _ = soon(PATIENCE, rung).await;
    }

    /// Runs `other` while this call stands still, if that does not stand in the way of the other.
    /// The second result is that of this call, if it had to go on.
    pub(crate) async fn beside<U>(self, other: BoxFuture<'_, U>) -> (U, Result<T, Self>) {
        let other = match soon(PATIENCE, other).await {
            Ok(output) => return (output, Err(self)),
            Err(other) => other,
        };
        let Self { call, bell } = self;
        match select(other, call).await {
            Either::Left((output, call)) => (output, Err(Self { call, bell })),
            Either::Right((own, other)) => (other.await, Ok(own)),
        }
    }

    pub(crate) fn resume(self) -> BoxFuture<'a, T> {
        self.call
    }
}

/// The output of `future`, or the future if it takes longer than `patience`.
pub(crate) async fn soon<F: Future + Unpin>(patience: Duration, future: F) -> Result<F::Output, F> {
    let timer = ThreadTimer::new();
    match select(future, timer.sleep_until(timer.now() + patience)).await {
        Either::Left((output, _)) => Ok(output),
        Either::Right(((), future)) => Err(future),
    }
}

/// Notes that a call was woken, and passes it on.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    listener: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.listener.wake();
    }
}
