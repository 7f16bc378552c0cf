//! Time that moves only when the simulation says so.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use oncekey::runtime::{Clock, Sleep, Timer, TimerClock, Timestamp};

/// What the clocks of stores show when a simulation begins.
pub(crate) const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

/// A timer whose time is set by hand. Clones share the time.
#[derive(Clone, Default)]
pub(crate) struct VirtualTimer {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    now: Duration,
    sleepers: BTreeMap<(Duration, u64), Waker>,
    last_id: u64,
    created: usize,
}

impl VirtualTimer {
    /// The clock of a store that lives by this time.
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(TimerClock::new(Arc::new(self.clone()), START))
    }

    /// How many sleeps were ever asked for.
    pub(crate) fn created(&self) -> usize {
        self.lock().created
    }

    /// How many sleeps wait for their time.
    pub(crate) fn sleeping(&self) -> usize {
        self.lock().sleepers.len()
    }

    /// When the next sleep ends.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.lock().sleepers.keys().next().map(|(at, _)| *at)
    }

    /// Moves the time forward and wakes whose sleep is over.
    pub(crate) fn set(&self, to: Duration) {
        let mut state = self.lock();
        let now = state.now.max(to);
        state.now = now;
        let later = state.sleepers.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut state.sleepers, later);
        drop(state);
        for waker in due.into_values() {
            waker.wake();
        }
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.set(self.now().saturating_add(by));
    }

    pub(crate) async fn sleep(&self, by: Duration) {
        self.sleep_until(self.now().saturating_add(by)).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl fmt::Debug for VirtualTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VirtualTimer({:?})", self.now())
    }
}

impl Timer for VirtualTimer {
    fn now(&self) -> Duration {
        self.lock().now
    }

    fn sleep_until(&self, at: Duration) -> Sleep {
        let mut state = self.lock();
        state.created += 1;
        state.last_id += 1;
        Box::pin(VirtualSleep { timer: self.clone(), place: (at, state.last_id) })
    }
}

struct VirtualSleep {
    timer: VirtualTimer,
    place: (Duration, u64),
}

impl Future for VirtualSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.timer.lock();
        if state.now >= self.place.0 {
            return Poll::Ready(());
        }
        state.sleepers.insert(self.place, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for VirtualSleep {
    fn drop(&mut self) {
        self.timer.lock().sleepers.remove(&self.place);
    }
}
