//! The timer thread: sleeps end, in order, never early; what was dropped leaves nothing behind.
//!
//! Nothing here depends on how fast the machine is. Where a fault would mean waiting for ever, the
//! test gives up after a time that no working timer needs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use futures::executor::block_on;
use futures::future::join_all;
use oncekey::runtime::{Clock, Sleep, ThreadTimer, Timer, TimerClock, Timestamp};

const MILLI: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3_600);
const NEVER_IN_A_WORKING_TIMER: Duration = Duration::from_secs(60);

/// Counts how often it was woken, and tells.
struct Bell {
    rung: AtomicUsize,
    tell: Mutex<mpsc::Sender<usize>>,
    name: usize,
}

impl Bell {
    fn new(name: usize, tell: &mpsc::Sender<usize>) -> Arc<Self> {
        Arc::new(Self { rung: AtomicUsize::new(0), tell: Mutex::new(tell.clone()), name })
    }

    fn rung(&self) -> usize {
        self.rung.load(Ordering::SeqCst)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.fetch_add(1, Ordering::SeqCst);
        // Nobody may be listening any more.
        let _ = self.tell.lock().unwrap().send(self.name);
    }
}

fn poll(sleep: &mut Sleep, bell: &Arc<Bell>) -> Poll<()> {
    let waker = Waker::from(Arc::clone(bell));
    sleep.as_mut().poll(&mut Context::from_waker(&waker))
}

/// Runs it elsewhere, and fails rather than wait for ever.
fn finish<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    thread::spawn(move || done.send(block_on(future)));
    wait.recv_timeout(NEVER_IN_A_WORKING_TIMER).expect("the sleep ends")
}

#[test]
fn a_sleep_never_ends_early() {
    let timer = ThreadTimer::new();
    for millis in [0, 1, 2, 5, 20] {
        let at = timer.now() + Duration::from_millis(millis) + Duration::from_nanos(1);
        let now = finish(async move {
            timer.sleep_until(at).await;
            timer.now()
        });
        assert!(now >= at, "{now:?} is before {at:?}");
    }
}

#[test]
fn a_sleep_in_the_past_is_over_at_once_and_waits_for_nothing() {
    let timer = ThreadTimer::new();
    let (tell, _told) = mpsc::channel();
    for at in [Duration::ZERO, timer.now()] {
        let bell = Bell::new(0, &tell);
        let mut sleep = timer.sleep_until(at);
        assert_eq!(poll(&mut sleep, &bell), Poll::Ready(()));
        assert_eq!(Arc::strong_count(&bell), 1);
    }
}

#[test]
fn sleeps_end_in_the_order_of_their_times() {
    let timer = ThreadTimer::new();
    // Until all of them were asleep before the first was due.
    for lead in [100, 200, 400, 800, 1_600].map(Duration::from_millis) {
        let (tell, told) = mpsc::channel();
        let start = timer.now() + lead;
        // As scattered as 7 is prime to 20.
        let order: Vec<usize> = (0..20).map(|index| index * 7 % 20).collect();
        let mut sleeps: Vec<_> = order
            .iter()
            .map(|name| (timer.sleep_until(start + *name as u32 * MILLI), Bell::new(*name, &tell)))
            .collect();
        let asleep = sleeps.iter_mut().all(|(sleep, bell)| poll(sleep, bell).is_pending());
        if !asleep || timer.now() >= start {
            continue;
        }
        let ended: Vec<usize> = (0..20)
            .map(|_| told.recv_timeout(NEVER_IN_A_WORKING_TIMER).expect("each sleep ends"))
            .collect();
        assert_eq!(ended, (0..20).collect::<Vec<_>>());
        return;
    }
    panic!("this machine takes seconds to begin twenty sleeps");
}

#[test]
fn a_nearer_sleep_does_not_wait_for_a_farther_one() {
    let timer = ThreadTimer::new();
    let (tell, told) = mpsc::channel();
    let far = Bell::new(1, &tell);
    let mut far_sleep = timer.sleep_until(timer.now() + HOUR);
    assert!(poll(&mut far_sleep, &far).is_pending());
    // The thread settles down for the hour before anything nearer comes.
    for _ in 0..3 {
        finish(timer.sleep_until(timer.now() + 5 * MILLI));
    }
    assert_eq!(far.rung(), 0);
    assert!(told.try_recv().is_err());
}

/// Whoever comes while the thread looks at what is there, or is about to wait, is not passed by.
#[test]
fn no_sleep_is_missed_however_it_meets_the_thread() {
    let threads: Vec<_> = (1..=3_u32)
        .map(|thread| {
            thread::spawn(move || {
                finish(async move {
                    let timer = ThreadTimer::new();
                    for index in 0..1_000 {
                        let micros = Duration::from_micros(1) * (index * 37 * thread % 150);
                        timer.sleep_until(timer.now() + micros).await;
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_dropped_sleep_is_forgotten() {
    let timer = ThreadTimer::new();
    let (tell, told) = mpsc::channel();
    let bell = Bell::new(0, &tell);
    for at in [10 * MILLI, HOUR] {
        let mut sleep = timer.sleep_until(timer.now() + at);
        let asleep = poll(&mut sleep, &bell).is_pending();
        if at == HOUR {
            assert!(asleep);
            assert_eq!(Arc::strong_count(&bell), 2);
        }
        drop(sleep);
    }
    let rung = bell.rung();
    // Neither is kept, nor is it woken when its time has come.
    finish(timer.sleep_until(timer.now() + 30 * MILLI));
    assert_eq!(bell.rung(), rung);
    assert_eq!(Arc::strong_count(&bell), 1);
    assert_eq!(told.try_iter().count(), rung);
}

#[test]
fn a_sleep_that_was_never_polled_costs_nothing() {
    let timer = ThreadTimer::new();
    drop(timer.sleep_until(HOUR));
    drop(timer.sleep_until(Duration::MAX));
}

#[test]
fn the_last_waker_is_the_one_that_is_woken() {
    let timer = ThreadTimer::new();
    let (tell, told) = mpsc::channel();
    let (first, last) = (Bell::new(1, &tell), Bell::new(2, &tell));
    let mut sleep = timer.sleep_until(timer.now() + 50 * MILLI);
    let both = poll(&mut sleep, &first).is_pending() && poll(&mut sleep, &last).is_pending();
    if both && first.rung() == 0 {
        assert_eq!(Arc::strong_count(&first), 1);
        assert_eq!(told.recv_timeout(NEVER_IN_A_WORKING_TIMER), Ok(2));
        assert_eq!(first.rung(), 0);
    }
    assert_eq!(poll(&mut sleep, &last), Poll::Ready(()));
}

/// A waker that begins a sleep of its own, as an executor may when it polls inside `wake`.
struct Sleeper(Mutex<Option<Sleep>>, Arc<Bell>);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        let timer = ThreadTimer::new();
        let mut sleep = timer.sleep_until(timer.now() + 5 * MILLI);
        if poll(&mut sleep, &self.1).is_pending() {
            *self.0.lock().unwrap() = Some(sleep);
        } else {
            Arc::clone(&self.1).wake();
        }
    }
}

#[test]
fn a_waker_may_sleep_itself() {
    let timer = ThreadTimer::new();
    let (tell, told) = mpsc::channel();
    let waker = Waker::from(Arc::new(Sleeper(Mutex::default(), Bell::new(0, &tell))));
    let mut sleep = timer.sleep_until(timer.now() + 5 * MILLI);
    if sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        assert_eq!(told.recv_timeout(NEVER_IN_A_WORKING_TIMER), Ok(0));
    }
}

#[test]
fn many_sleeps_from_many_threads_all_end() {
    let threads: Vec<_> = (0..4_u64)
        .map(|thread| {
            thread::spawn(move || {
                let timer = ThreadTimer::new();
                let sleeps = (0..500_u64).map(|index| {
                    let millis = (index * 31 + thread * 17) % 97;
                    let at = timer.now() + Duration::from_millis(millis);
                    async move {
                        timer.sleep_until(at).await;
                        timer.now() >= at
                    }
                });
                finish(join_all(sleeps)).into_iter().filter(|on_time| *on_time).count()
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), 500);
    }
}

#[test]
fn all_handles_are_one_timer() {
    let timer: Arc<dyn Timer> = Arc::new(ThreadTimer::new());
    let before = ThreadTimer::new().now();
    let between = timer.now();
    let after = ThreadTimer::default().now();
    assert!(before <= between && between <= after);
    finish(Arc::clone(&timer).sleep_until(timer.now() + MILLI));
}

/// A timer that stands still until it is moved.
#[derive(Debug, Default)]
struct ManualTimer(Mutex<Duration>);

impl Timer for ManualTimer {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn sleep_until(&self, _at: Duration) -> Sleep {
        Box::pin(std::future::pending())
    }
}

#[test]
fn a_timer_clock_shows_what_its_timer_measured() {
    let timer = Arc::new(ManualTimer::default());
    *timer.0.lock().unwrap() = Duration::from_secs(77);
    let start = Timestamp::from_micros(1_000_000);
    let clock = TimerClock::new(Arc::clone(&timer) as Arc<dyn Timer>, start);
    assert_eq!(clock.now(), start);
    *timer.0.lock().unwrap() += Duration::from_micros(5);
    assert_eq!(clock.now(), Timestamp::from_micros(1_000_005));
    // A copy goes on from the same origin.
    assert_eq!(clock.clone().now(), clock.now());
    *timer.0.lock().unwrap() = Duration::MAX;
    assert_eq!(clock.now(), Timestamp::MAX);
    // A timer must not go back; should one, the clock stops at its start.
    *timer.0.lock().unwrap() = Duration::ZERO;
    assert_eq!(clock.now(), start);
}

/// Panics when it is woken.
struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("a waker of this test, on purpose");
    }
}

#[test]
fn a_waker_that_panics_stops_nobody_else() {
    let timer = ThreadTimer::new();
    let mut armed = timer.sleep_until(timer.now() + MILLI);
    let waker = Waker::from(Arc::new(Bomb));
    let armed_poll = armed.as_mut().poll(&mut Context::from_waker(&waker));
    // Ready only on a machine that took a millisecond to get here: then there is nothing to wake.
    let after = timer.sleep_until(timer.now() + 20 * MILLI);
    finish(after);
    drop((armed, armed_poll));
    finish(timer.sleep_until(timer.now() + MILLI));
}

/// Ends a sleep when it is dropped, as the last reference to a task may.
struct Holder(#[allow(dead_code, reason = "kept to be dropped")] Mutex<Sleep>);

impl Wake for Holder {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_waker_may_hold_a_sleep_of_its_own() {
    finish(async {
        let timer = ThreadTimer::new();
        let mut inner = timer.sleep_until(timer.now() + HOUR);
        assert!(futures::poll!(inner.as_mut()).is_pending());
        let waker = Waker::from(Arc::new(Holder(Mutex::new(inner))));
        let mut outer = timer.sleep_until(timer.now() + HOUR);
        assert!(outer.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        // The queue holds the last reference: dropping the outer sleep drops the inner one.
        drop(outer);
    });
}
