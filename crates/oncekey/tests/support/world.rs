//! A simulation with a store in it, and engines over that store.

use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use oncekey::runtime::SeededRandom;
use oncekey::store::{Observed, State, Store};
use oncekey::{Attempt, Idempotency, Key, Outcome, RunError, Verify};
use oncekey_memory::MemoryStore;

use super::executor::{Simulation, Task};
use super::faults::FaultyStore;
use super::recorder::Recorder;
use super::{Declined, fingerprint, seconds};

pub(crate) type Ran = Result<Outcome<String>, RunError<Declined>>;

/// Time, tasks, a store that can go wrong, and what was observed.
pub(crate) struct World {
    pub(crate) sim: Simulation,
    pub(crate) store: FaultyStore,
    pub(crate) memory: MemoryStore,
    pub(crate) recorder: Recorder,
    seed: u64,
    processes: Cell<u64>,
}

impl World {
    pub(crate) const LEASE: Duration = seconds(30);

    pub(crate) fn new() -> Self {
        Self::seeded(7)
    }

    pub(crate) fn seeded(seed: u64) -> Self {
        let sim = Simulation::new(seed);
        let memory = MemoryStore::builder().clock(sim.timer.clock()).build();
        let inner: Arc<dyn Store> = Arc::new(memory.clone());
        let store = FaultyStore::new(inner, sim.timer.clone(), sim.network());
        Self { sim, store, memory, recorder: Recorder::default(), seed, processes: Cell::new(0) }
    }

    pub(crate) fn at_least_once(&self) -> Idempotency {
        self.simulated(Idempotency::at_least_once(self.store.clone()))
    }

    pub(crate) fn at_most_once(&self) -> Idempotency {
        self.simulated(Idempotency::at_most_once(self.store.clone()))
    }

    pub(crate) fn verified(&self, hook: impl Verify + 'static) -> Idempotency {
        self.simulated(Idempotency::verified(self.store.clone(), hook))
    }

    /// Gives an engine simulated time and randomness: as if in a process of its own each time.
    pub(crate) fn simulated(&self, idempotency: Idempotency) -> Idempotency {
        let process = self.processes.get() + 1;
        self.processes.set(process);
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(process);
        idempotency
            .lease(Self::LEASE)
            .timer(self.sim.timer.clone())
            .random(SeededRandom::new(seed))
            .observer(self.recorder.clone())
    }

    /// Starts a run that returns `value` after `time`.
    pub(crate) fn start(
        &self,
        idempotency: &Idempotency,
        key: &Key,
        time: Duration,
        value: &str,
    ) -> Task<Ran> {
        let timer = self.sim.timer.clone();
        let value = value.to_owned();
        self.run(idempotency, key, move |_| async move {
            timer.sleep(time).await;
            Ok(value)
        })
    }

    pub(crate) fn run<F, Fut>(
        &self,
        idempotency: &Idempotency,
        key: &Key,
        operation: F,
    ) -> Task<Ran>
    where
        F: FnOnce(Attempt) -> Fut + 'static,
        Fut: Future<Output = Result<String, Declined>> + 'static,
    {
        let (idempotency, key) = (idempotency.clone(), key.clone());
        self.sim.spawn(async move { idempotency.run(&key, &fingerprint(), operation).await })
    }

    /// What the store knows of `key`, past all faults.
    pub(crate) fn observed(&self, key: &Key) -> Option<Observed> {
        let answer = self.memory.get(key).now_or_never();
        answer.expect("a store in memory answers at once").unwrap()
    }

    pub(crate) fn state(&self, key: &Key) -> Option<State> {
        self.observed(key).map(|observed| observed.state)
    }
}
