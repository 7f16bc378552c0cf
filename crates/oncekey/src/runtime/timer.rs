//! Sleeping without a runtime: [`Timer`], and a default that is one small thread.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use super::clock::{Clock, Timestamp};

/// What [`Timer::sleep_until`] returns. Dropping it ends the sleep.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A monotonic clock, and sleeping by it.
///
/// Both come from one place, so that they agree when time is simulated.
pub trait Timer: Send + Sync + fmt::Debug {
    /// The time since an origin of the timer's choice. Never goes back.
    fn now(&self) -> Duration;

    /// Sleeps until [`now`](Self::now) is at least `at`; ready at once if it is already.
    fn sleep_until(&self, at: Duration) -> Sleep;
}

impl<T: Timer + ?Sized> Timer for Arc<T> {
    fn now(&self) -> Duration {
        (**self).now()
    }

    fn sleep_until(&self, at: Duration) -> Sleep {
        (**self).sleep_until(at)
    }
}

/// The default: one thread for the whole process, started at the first sleep, for any runtime.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct ThreadTimer;

impl ThreadTimer {
    /// A handle to the process' timer thread.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Timer for ThreadTimer {
    fn now(&self) -> Duration {
        origin().elapsed()
    }

    fn sleep_until(&self, at: Duration) -> Sleep {
        Box::pin(ThreadSleep { at, id: None })
    }
}

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// For how long the process is taken to be the same without asking: that is a system call, which would cost
/// more than all the rest of a sleep. A fork takes longer, so whoever comes out of one asks.
const SAME_PROCESS: Duration = Duration::from_micros(50);

/// A sleep that registers itself when first polled.
struct ThreadSleep {
    at: Duration,
    id: Option<u64>,
}

impl Future for ThreadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let now = origin().elapsed();
        if now >= self.at {
            return Poll::Ready(());
        }
        let alarms = alarms();
        let waker = context.waker().clone();
        let mut queue = alarms.lock();
        let id = match self.id {
            Some(id) => id,
            None => {
                queue.last_id += 1;
                queue.last_id
            }
        };
        self.id = Some(id);
        let replaced = queue.waiting.insert((self.at, id), waker);
        let awake = alarms.start(&mut queue, now);
        // The thread looks at the queue when it next wakes; wake it only if that is too late. It
        // stays unaware of sleeps that were dropped, which spares most runs any signal at all.
        if queue.wakes_at.is_none_or(|wakes_at| self.at < wakes_at) {
            queue.wakes_at = Some(self.at);
            alarms.changed.notify_one();
        }
        // Wakers may run anything when woken or dropped, also something that sleeps: not under the
        // lock.
        drop(queue);
        drop(replaced);
        if !awake {
            // No thread to be had: come back at once rather than never.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for ThreadSleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let mut queue = alarms().lock();
            let waker = queue.waiting.remove(&(self.at, id));
            drop(queue);
            drop(waker);
        }
    }
}

struct Alarms {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: BTreeMap<(Duration, u64), Waker>,
    last_id: u64,
    /// The process whose thread runs. A forked one has the queue, and no thread.
    running_in: Option<u32>,
    /// When the process was last asked for its number.
    asked_at: Duration,
    /// When the thread wakes by itself; `None` while it waits for a first sleeper.
    wakes_at: Option<Duration>,
}

fn alarms() -> &'static Alarms {
    static ALARMS: OnceLock<Alarms> = OnceLock::new();
    ALARMS.get_or_init(|| Alarms { queue: Mutex::default(), changed: Condvar::new() })
}

impl Alarms {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread unless it runs. Whether it does.
    fn start(&'static self, queue: &mut Queue, now: Duration) -> bool {
        if queue.running_in.is_some() && now.saturating_sub(queue.asked_at) < SAME_PROCESS {
            return true;
        }
        queue.asked_at = now;
        let process = std::process::id();
        if queue.running_in != Some(process) {
            queue.wakes_at = None;
            let thread = thread::Builder::new().name("oncekey-timer".to_owned());
            queue.running_in = thread.spawn(|| self.run()).is_ok().then_some(process);
        }
        queue.running_in.is_some()
    }

    fn run(&self) {
        let mut queue = self.lock();
        loop {
            let now = origin().elapsed();
            let later = queue.waiting.split_off(&(now, u64::MAX));
            let due = std::mem::replace(&mut queue.waiting, later);
            if !due.is_empty() {
                drop(queue);
                for waker in due.into_values() {
                    // A waker that panics must not take the sleeps of everybody else with it.
                    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
                }
                queue = self.lock();
                continue;
            }
            queue.wakes_at = queue.waiting.keys().next().map(|(at, _)| *at);
            queue = match queue.wakes_at {
                Some(at) => {
                    let timeout = at.saturating_sub(now);
                    let woken = self.changed.wait_timeout(queue, timeout);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// The wall clock that a [`Timer`] implies: a fixed start, plus the time it has measured.
///
/// Gives a store in memory the same simulated time as the engine.
#[derive(Debug, Clone)]
pub struct TimerClock {
    timer: Arc<dyn Timer>,
    start: Timestamp,
    origin: Duration,
}

impl TimerClock {
    /// A clock that shows `start` now and goes on as `timer` does.
    #[must_use]
    pub fn new(timer: Arc<dyn Timer>, start: Timestamp) -> Self {
        let origin = timer.now();
        Self { timer, start, origin }
    }
}

impl Clock for TimerClock {
    fn now(&self) -> Timestamp {
        self.start.saturating_add(self.timer.now().saturating_sub(self.origin))
    }
}
