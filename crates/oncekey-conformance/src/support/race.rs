//! Races: every way in which one call can stand at an await while others pass, then threads, until
//! calls were under way at the same time for sure.

use std::future::Future;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use oncekey::Key;
use oncekey::store::{Store, StoreError};

use super::call::{Answer, Call, Sent};
use super::step::{Stepped, step};
use crate::{Fixture, Verdict, Violation};

/// Awaits of one call at which others are let past it.
const MOST_PAUSES: usize = 32;
/// Rounds with threads in which calls met.
const ENOUGH: u32 = 12;
/// Fast stores get more rounds than that, since calls meet in few of them at the right place.
const BRIEF: Duration = Duration::from_millis(150);
/// Then a race that never took place is given up.
const HOPELESS: Duration = Duration::from_secs(20);

/// A race of several rounds, each with a new key.
pub(crate) struct Race {
    phase: Phase,
    /// Rounds in which two calls were under way at the same time.
    met: u32,
    started: Instant,
}

enum Phase {
    /// One call stands still after some polls, while the others run.
    Paused {
        call: usize,
        polls: usize,
    },
    Threads,
}

impl Race {
    pub(crate) fn new() -> Self {
        Self {
            phase: Phase::Paused { call: 0, polls: 1 },
            met: 0,
            started: Instant::now(),
        }
    }

    /// Whether another round is to be run.
    pub(crate) fn goes_on(&self) -> bool {
        let elapsed = self.started.elapsed();
        match self.phase {
            Phase::Paused { .. } => true,
            Phase::Threads => (self.met < ENOUGH || elapsed < BRIEF) && elapsed < HOPELESS,
        }
    }

    /// Sends `calls` on `key` at the same time, as far as it can be had, on both handles in turn.
    pub(crate) async fn calls<F: Fixture>(
        &mut self,
        handles: [&dyn Store; 2],
        key: &Key,
        calls: &[Call],
    ) -> Result<Vec<Answer>, StoreError> {
        let handles = handles.into_iter().cycle();
        let calls = calls.iter().zip(handles);
        let sent = calls.map(|(call, store)| call.send(store, key)).collect();
        self.round::<F>(sent).await
    }

    /// The same for calls of any kind.
    pub(crate) async fn round<F: Fixture>(
        &mut self,
        calls: Vec<Sent<'_>>,
    ) -> Result<Vec<Answer>, StoreError> {
        let answers = match self.phase {
            Phase::Paused { call, polls } => {
                let last = calls.len() == call + 1;
                let (met, answers) = around(calls, call, polls).await;
                self.phase = match met && polls < MOST_PAUSES {
                    true => Phase::Paused {
                        call,
                        polls: polls + 1,
                    },
                    false if !last => Phase::Paused {
                        call: call + 1,
                        polls: 1,
                    },
                    false => Phase::Threads,
                };
                self.started = Instant::now();
                answers
            }
            Phase::Threads => {
                let (met, answers) = on_threads::<F, _>(calls);
                self.met += u32::from(met);
                answers
            }
        };
        answers.into_iter().collect()
    }

    /// Fails unless calls met on threads.
    pub(crate) fn took_place(&self) -> Verdict {
        if self.met > 0 {
            return Ok(());
        }
        Err(Violation::new(
            "the race can be produced: two calls on two threads at the same time",
            format_args!("no two calls met within {HOPELESS:?}; use a machine with two cores"),
        ))
    }
}

/// All calls in turn, while the one at `place` stands at the await after `polls` polls. Whether it
/// did, and what came of them.
async fn around<T>(mut calls: Vec<BoxFuture<'_, T>>, place: usize, polls: usize) -> (bool, Vec<T>) {
    let mut outputs = Vec::with_capacity(calls.len());
    let (met, mut first) = match step(calls.remove(place), polls).await {
        Stepped::Done(output) => (false, Ok(output)),
        Stepped::Paused(paused) => (true, Err(paused)),
    };
    for call in calls {
        let output;
        (output, first) = match first {
            Ok(done) => (call.await, Ok(done)),
            Err(paused) => paused.beside(call).await,
        };
        outputs.push(output);
    }
    let first = match first {
        Ok(output) => output,
        Err(paused) => paused.resume().await,
    };
    outputs.insert(place, first);
    (met, outputs)
}

fn on_threads<F: Fixture, T: Send>(calls: Vec<BoxFuture<'_, T>>) -> (bool, Vec<T>) {
    let gate = Gate::new(calls.len());
    thread::scope(|scope| {
        let gate = &gate;
        let threads: Vec<_> = calls
            .into_iter()
            .map(|call| scope.spawn(move || gate.pass::<F, _>(call)))
            .collect();
        let (outputs, spans): (_, Vec<_>) = threads.into_iter().map(join).unzip();
        (any_met(&spans), outputs)
    })
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// When a call began, and when it had returned.
type Span = (Instant, Instant);

fn any_met(spans: &[Span]) -> bool {
    spans
        .iter()
        .enumerate()
        .any(|(index, a)| spans[index + 1..].iter().any(|b| a.0 < b.1 && b.0 < a.1))
}

/// Lets all threads go at the same instant. They spin: a thread that had to be woken would come too
/// late to meet a call that takes a microsecond.
struct Gate {
    missing: AtomicUsize,
}

impl Gate {
    const fn new(threads: usize) -> Self {
        Self {
            missing: AtomicUsize::new(threads),
        }
    }

    fn pass<F: Fixture, T: Send>(&self, call: impl Future<Output = T> + Send) -> (T, Span) {
        F::block_on(async {
            self.wait();
            let from = Instant::now();
            let output = call.await;
            (output, (from, Instant::now()))
        })
    }

    fn wait(&self) {
        self.missing.fetch_sub(1, Ordering::AcqRel);
        let mut spins = 0_u32;
        while self.missing.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins % 256 == 0 {
                thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}
