//! How long a call of the store is waited for, when it is sent again, and when it no longer is.
//!
//! A connection that breaks says so, if one is lucky; if not, there is silence. So one silent call must
//! not use up all the time there is: each copy of a command gets a part of it, more each time, since a
//! store that is slow is not helped by being asked more often. Every verb is safe to send again.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::runtime::{Random, Sleep, Timer};
use crate::store::{ErrorKind, StoreError};

/// Into how many parts the time is divided, of which the first copy gets one, the second two, the third
/// all that is left.
const PARTS: u32 = 6;

/// The time for one command, with all its copies.
#[derive(Debug)]
pub(crate) struct Patience {
    time: Duration,
    /// Looked up when the store first lets us wait, which most do not.
    until: Option<Duration>,
    sent: u32,
}

impl Patience {
    /// For as long as `time`, from when the store first lets us wait.
    pub(crate) const fn of(time: Duration) -> Self {
        Self { time, until: None, sent: 0 }
    }

    /// For the time from now until `until`.
    pub(crate) fn until(until: Duration, timer: &dyn Timer) -> Self {
        Self { time: until.saturating_sub(timer.now()), until: Some(until), sent: 0 }
    }

    /// The same time, which goes on until `until` if that is later.
    pub(crate) fn extend(&mut self, until: Duration) {
        self.until = self.until.max(Some(until));
    }

    /// What one copy is answered; unknown, if that takes longer than a copy is waited for.
    pub(crate) async fn answer<T>(
        &mut self,
        operation: &'static str,
        timer: &dyn Timer,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.sent = self.sent.saturating_add(1);
        let look = || {
            let now = timer.now();
            let until = *self.until.get_or_insert_with(|| now.saturating_add(self.time));
            let parts = 1_u32.checked_shl(self.sent - 1).unwrap_or(u32::MAX);
            let part = (self.time / PARTS).saturating_mul(parts);
            let left = until.saturating_sub(now);
            // A remainder that would be too short for another copy goes to this one.
            if left < part.saturating_mul(2) { until } else { now.saturating_add(part) }
        };
        within(timer, look, call).await.unwrap_or_else(|| {
            Err(StoreError::new(ErrorKind::OutcomeUnknown, operation)
                .with_message("the store did not answer in time"))
        })
    }

    /// Whether nothing is sent any more at `at`.
    pub(crate) fn is_over_at(&mut self, at: Duration, timer: &dyn Timer) -> bool {
        at >= *self.until.get_or_insert_with(|| timer.now().saturating_add(self.time))
    }
}

/// What `future` returns, unless `at` comes first. Costs no look at the timer if it is ready at once.
pub(crate) async fn within<F: Future>(
    timer: &dyn Timer,
    at: impl FnOnce() -> Duration,
    future: F,
) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut at = Some(at);
    let mut over: Option<Sleep> = None;
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        if let Some(at) = at.take() {
            over = Some(timer.sleep_until(at()));
        }
        over.as_mut().map_or(Poll::Pending, |over| over.as_mut().poll(context).map(|()| None))
    })
    .await
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
