//! Running rules on threads that make fixtures of their own.

use std::cell::Cell;
use std::future::Future;
use std::panic::{catch_unwind, set_hook, take_hook};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::Duration;

use oncekey_conformance::{Fixture, rules, run_rule};

use crate::base::lock;

thread_local! {
    /// Whether this thread runs a rule; not so the threads that a rule starts.
    static RUNS_A_RULE: Cell<bool> = const { Cell::new(false) };
    static HAS_SLEPT: Cell<bool> = const { Cell::new(false) };
}

/// What a rule says of the fixtures that this thread makes: nothing, or what it found.
pub(crate) fn verdict<F: Fixture>(rule: &str) -> Result<(), String> {
    silence_rejections();
    RUNS_A_RULE.set(true);
    let verdict = catch_unwind(|| run_rule::<F>(rule, &[]));
    RUNS_A_RULE.set(false);
    verdict.map_err(|panic| {
        let message = panic.downcast_ref::<String>();
        message.map_or_else(|| "a panic".to_owned(), String::clone)
    })
}

/// A rejection is a panic, and here it is what is wanted: no message, no backtrace.
fn silence_rejections() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = take_hook();
        set_hook(Box::new(move |panic| {
            if !RUNS_A_RULE.get() {
                loud(panic);
            }
        }));
    });
}

/// The rules that reject the fixtures that `prepare` makes this thread create, with what they say.
pub(crate) fn rejections<F: Fixture>(prepare: impl Fn() + Sync) -> Vec<String> {
    let found = Mutex::new(Vec::new());
    in_parallel(rules().len(), |index| {
        prepare();
        if let Err(message) = verdict::<F>(rules()[index].name) {
            lock(&found).push(message);
        }
    });
    found.into_inner().unwrap_or_default()
}

/// Runs all jobs, on more threads than there are processors: rules about races and notifications wait
/// more than they work.
pub(crate) fn in_parallel(jobs: usize, run: impl Fn(usize) + Sync) {
    const THREADS: usize = 24;
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS.min(jobs) {
            scope.spawn(|| {
                loop {
                    match next.fetch_add(1, Ordering::Relaxed) {
                        job if job < jobs => run(job),
                        _ => break,
                    }
                }
            });
        }
    });
}

/// How the fixtures of the zoo run a future. The threads of a race sleep at first, so that a race that
/// goes on for some time takes few rounds and leaves the processor to others. What they are here to
/// find is found before, where each call stands still at each await.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    if !RUNS_A_RULE.get() && !HAS_SLEPT.replace(true) {
        thread::sleep(Duration::from_millis(12));
    }
    futures::executor::block_on(future)
}

/// Makes the calls of a race long enough to meet.
pub(crate) fn linger() {
    if !RUNS_A_RULE.get() {
        thread::sleep(Duration::from_micros(100));
    }
}
