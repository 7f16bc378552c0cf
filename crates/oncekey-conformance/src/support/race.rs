//! Races: every way in which one call can stand at an await while others pass, then threads, until
//! calls were under way at the same time for sure.

use std::future::Future;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use oncekey::Key;
use oncekey::store::Store;

use super::call::{Call, call};
use super::step::{Stepped, step};
use crate::history::{Answer, Operation};
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
    Paused(Pause),
    Threads,
}

/// One call stands still after some polls, while others run.
#[derive(Clone, Copy)]
struct Pause {
    /// Which call.
    place: usize,
    /// How many of the others are over before it begins.
    after: usize,
    polls: usize,
}

impl Pause {
    const FIRST: Self = Self { place: 0, after: 0, polls: 1 };

    /// The next of all, if the call stood still at this one.
    fn next(self, calls: usize, stood_still: bool) -> Option<Self> {
        if stood_still && self.polls < MOST_PAUSES {
            Some(Self { polls: self.polls + 1, ..self })
        } else if self.after + 2 < calls {
            Some(Self { after: self.after + 1, polls: 1, ..self })
        } else if self.place + 1 < calls {
            Some(Self { place: self.place + 1, ..Self::FIRST })
        } else {
            None
        }
    }
}

impl Race {
    pub(crate) fn new() -> Self {
        Self { phase: Phase::Paused(Pause::FIRST), met: 0, started: Instant::now() }
    }

    /// Whether another round is to be run.
    pub(crate) fn goes_on(&self) -> bool {
        let elapsed = self.started.elapsed();
        match self.phase {
            Phase::Paused(_) => true,
            Phase::Threads => (self.met < ENOUGH || elapsed < BRIEF) && elapsed < HOPELESS,
        }
    }

    /// Sends `operations` on `key` at the same time, as far as it can be had, on both handles in turn.
    pub(crate) async fn operations<F: Fixture>(
        &mut self,
        handles: [&dyn Store; 2],
        key: &Key,
        operations: &[Operation],
    ) -> Result<Vec<Answer>, Violation> {
        let handles = handles.into_iter().cycle();
        let operations = operations.iter().zip(handles);
        let calls = operations.map(|(operation, store)| call(operation, store, key));
        self.calls::<F>(calls.collect()).await
    }

    /// The same for calls of any kind. The answers are in the order of those that have one.
    pub(crate) async fn calls<F: Fixture>(
        &mut self,
        calls: Vec<Call<'_>>,
    ) -> Result<Vec<Answer>, Violation> {
        let answers = match self.phase {
            Phase::Paused(pause) => {
                let count = calls.len();
                let (stood_still, answers) = around(calls, pause).await;
                self.phase = pause.next(count, stood_still).map_or(Phase::Threads, Phase::Paused);
                self.started = Instant::now();
                answers
            }
            Phase::Threads => {
                let (met, answers) = on_threads::<F, _>(calls);
                self.met += u32::from(met);
                answers
            }
        };
        let answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(answers.into_iter().flatten().collect())
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

/// All calls in turn, but one stands still at an await while the rest goes by. Whether it did, and what
/// came of them.
async fn around<T>(mut calls: Vec<BoxFuture<'_, T>>, pause: Pause) -> (bool, Vec<T>) {
    let paused = calls.remove(pause.place);
    let mut outputs = Vec::with_capacity(calls.len() + 1);
    let mut others = calls.into_iter();
    for other in others.by_ref().take(pause.after) {
        outputs.push(other.await);
    }
    let (stood_still, mut paused) = match step(paused, pause.polls).await {
        Stepped::Done(output) => (false, Ok(output)),
        Stepped::Paused(paused) => (true, Err(paused)),
    };
    for other in others {
        let output;
        (output, paused) = match paused {
            Ok(done) => (other.await, Ok(done)),
            Err(paused) => paused.beside(other).await,
        };
        outputs.push(output);
    }
    let output = match paused {
        Ok(output) => output,
        Err(paused) => paused.resume().await,
    };
    outputs.insert(pause.place, output);
    (stood_still, outputs)
}

fn on_threads<F: Fixture, T: Send>(calls: Vec<BoxFuture<'_, T>>) -> (bool, Vec<T>) {
    let gate = Gate::new(calls.len());
    thread::scope(|scope| {
        let gate = &gate;
        let threads: Vec<_> =
            calls.into_iter().map(|call| scope.spawn(move || gate.pass::<F, _>(call))).collect();
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
        Self { missing: AtomicUsize::new(threads) }
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
            if spins.is_multiple_of(256) {
                thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}
