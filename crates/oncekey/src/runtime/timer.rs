//! Sleeping without a runtime: [`Timer`], and a default that is one small thread.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
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
        Box::pin(ThreadSleep { at, place: None })
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
    place: Option<Place>,
}

/// Where a sleep is registered: in which part of the queue, and under which number.
#[derive(Clone, Copy)]
struct Place {
    part: usize,
    id: u64,
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
        let part = self.place.map_or_else(own_part, |place| place.part);
        let mut queue = lock(&alarms.parts[part]);
        let place = self.place.unwrap_or_else(|| {
            queue.last_id += 1;
            Place { part, id: queue.last_id }
        });
        let replaced = queue.waiting.insert((self.at, place.id), waker);
        // Wakers may run anything when woken or dropped, also something that sleeps: not under the
        // lock.
        drop(queue);
        drop(replaced);
        self.place = Some(place);
        if !alarms.attend(self.at, now) {
            // No thread to be had: come back at once rather than never.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for ThreadSleep {
    fn drop(&mut self) {
        if let Some(Place { part, id }) = self.place {
            let mut queue = lock(&alarms().parts[part]);
            let waker = queue.waiting.remove(&(self.at, id));
            drop(queue);
            drop(waker);
        }
    }
}

/// Into how many parts the queue is divided, so that threads that begin and end sleeps seldom meet.
const PARTS: usize = 16;

/// The part that this thread uses.
fn own_part() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % PARTS;
    }
    // A thread that is about to end has none any more.
    OWN.try_with(|own| *own).unwrap_or(0)
}

struct Alarms {
    parts: [Mutex<Queue>; PARTS],
    /// When the thread wakes by itself, in nanoseconds. [`NEVER`] while it looks at the queue: it may have
    /// passed by whoever comes then, so that they call it.
    wakes_at: AtomicU64,
    /// When the process was last asked for its number, in nanoseconds; zero before the thread runs.
    asked_at: AtomicU64,
    thread: Mutex<Thread>,
    changed: Condvar,
}

struct Queue {
    waiting: BTreeMap<(Duration, u64), Waker>,
    last_id: u64,
}

struct Thread {
    /// The process whose thread runs. A forked one has the queue, and no thread.
    running_in: Option<u32>,
    /// To look at the queue once more before it waits.
    is_called: bool,
}

const NEVER: u64 = u64::MAX;

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(NEVER)
}

fn alarms() -> &'static Alarms {
    static ALARMS: Alarms = Alarms::new();
    &ALARMS
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Alarms {
    const fn new() -> Self {
        Self {
            parts: [const { Mutex::new(Queue { waiting: BTreeMap::new(), last_id: 0 }) }; PARTS],
            wakes_at: AtomicU64::new(NEVER),
            asked_at: AtomicU64::new(0),
            thread: Mutex::new(Thread { running_in: None, is_called: false }),
            changed: Condvar::new(),
        }
    }

    /// Sees to it that the thread wakes by `at`. Whether there is a thread.
    ///
    /// It stays unaware of sleeps that were dropped, which spares most runs any signal at all.
    fn attend(&'static self, at: Duration, now: Duration) -> bool {
        let runs = self.start(now);
        let at = nanos(at);
        if at < self.wakes_at.load(Ordering::SeqCst) {
            let mut thread = lock(&self.thread);
            thread.is_called = true;
            self.wakes_at.fetch_min(at, Ordering::SeqCst);
            self.changed.notify_one();
        }
        runs
    }

    /// Starts the thread unless it runs. Whether it does.
    fn start(&'static self, now: Duration) -> bool {
        let asked_at = Duration::from_nanos(self.asked_at.load(Ordering::Relaxed));
        if !asked_at.is_zero() && now.saturating_sub(asked_at) < SAME_PROCESS {
            return true;
        }
        let mut thread = lock(&self.thread);
        let process = std::process::id();
        if thread.running_in != Some(process) {
            self.wakes_at.store(NEVER, Ordering::SeqCst);
            let builder = thread::Builder::new().name("oncekey-timer".to_owned());
            thread.running_in = builder.spawn(|| self.run()).is_ok().then_some(process);
        }
        let runs = thread.running_in.is_some();
        self.asked_at.store(if runs { nanos(now) } else { 0 }, Ordering::Relaxed);
        runs
    }

    fn run(&self) {
        loop {
            {
                let mut thread = lock(&self.thread);
                thread.is_called = false;
                self.wakes_at.store(NEVER, Ordering::SeqCst);
            }
            let now = origin().elapsed();
            let (due, next) = self.look(now);
            if !due.is_empty() {
                for waker in due {
                    // A waker that panics must not take the sleeps of everybody else with it.
                    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
                }
                continue;
            }
            let thread = lock(&self.thread);
            if thread.is_called {
                continue;
            }
            self.wakes_at.store(next.map_or(NEVER, nanos), Ordering::SeqCst);
            let woken = match next {
                Some(at) => {
                    let woken = self.changed.wait_timeout(thread, at.saturating_sub(now));
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(thread).unwrap_or_else(PoisonError::into_inner),
            };
            drop(woken);
        }
    }

    /// Takes out who is due, in order; and when the next one is.
    fn look(&self, now: Duration) -> (Vec<Waker>, Option<Duration>) {
        let mut due = Vec::new();
        let mut next: Option<Duration> = None;
        for part in &self.parts {
            let mut queue = lock(part);
            let later = queue.waiting.split_off(&(now, u64::MAX));
            due.extend(std::mem::replace(&mut queue.waiting, later));
            if let Some((at, _)) = queue.waiting.keys().next() {
                next = Some(next.map_or(*at, |next| next.min(*at)));
            }
        }
        due.sort_by_key(|(place, _)| *place);
        (due.into_iter().map(|(_, waker)| waker).collect(), next)
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

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    struct Noted(u64, Arc<Mutex<Vec<u64>>>);

    impl Wake for Noted {
        fn wake(self: Arc<Self>) {
            lock(&self.1).push(self.0);
        }
    }

    #[test]
    fn the_parts_are_one_queue() {
        let alarms = Alarms::new();
        let woken = Arc::new(Mutex::new(Vec::new()));
        for (part, at) in [(3, 5), (0, 9), (7, 2), (3, 4), (1, 7)] {
            let waker = Waker::from(Arc::new(Noted(at, Arc::clone(&woken))));
            lock(&alarms.parts[part]).waiting.insert((Duration::from_secs(at), 1), waker);
        }
        for (now, expected, then) in
            [(1, &[][..], Some(2)), (5, &[2, 4, 5], Some(7)), (9, &[7, 9], None)]
        {
            let (due, next) = alarms.look(Duration::from_secs(now));
            due.into_iter().for_each(Waker::wake);
            assert_eq!(std::mem::take(&mut *lock(&woken)), expected);
            assert_eq!(next, then.map(Duration::from_secs));
        }
    }
}
