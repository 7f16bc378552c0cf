//! What an operation is handed: [`Attempt`], its right to run and what it can do with it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::select;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Inner;
use super::flag::Flag;
use super::outcome::{Failure, StepError};
use super::steps::Steps;
use super::value::CodecError;
use crate::Key;
use crate::observe::Event;
use crate::store::{Fenced, FencingToken, Grant, Previous, StoreError};

/// One granted attempt at an operation. Cheap to clone, and `'static`: it can go anywhere.
///
/// The engine keeps its lease renewed for as long as the future of `run` is polled. An operation that
/// blocks its thread for longer than the lease cannot be helped: the lease lapses, and
/// [`is_lease_lost`](Self::is_lease_lost) says so by the local clock.
#[derive(Clone)]
pub struct Attempt {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Arc<Inner>,
    key: Key,
    stored_key: Key,
    grant: Grant,
    number: u32,
    previous: Option<Previous>,
    /// Until when the lease is known to last, in nanoseconds of the engine's timer.
    deadline: AtomicU64,
    lost: Flag,
    /// Raised when a step is parked for ever, because going on would break a promise.
    parked: Flag,
    parked_by: Mutex<Option<Parked>>,
    steps: Mutex<Option<Steps>>,
    /// How many steps did something, or may have: those that started, less those that said that nothing
    /// was done.
    effects: AtomicUsize,
    /// The steps under way, and what their next users wait for.
    running: Mutex<BTreeMap<String, Arc<Flag>>>,
}

/// The right to run one step. Dropping it passes it on.
struct StepTurn<'a> {
    attempt: &'a Attempt,
    name: String,
}

impl Drop for StepTurn<'_> {
    fn drop(&mut self) {
        let done = lock(&self.attempt.shared.running).remove(&self.name);
        if let Some(done) = done {
            done.raise();
        }
    }
}

/// Why a step will not return.
#[derive(Debug)]
pub(crate) enum Parked {
    LeaseLost,
    Unsaved(StepError),
    Unreadable(CodecError),
}

impl Attempt {
    pub(crate) fn new(
        engine: &Arc<Inner>,
        keys: (&Key, Key),
        grant: Grant,
        number: u32,
        previous: Option<Previous>,
        deadline: Duration,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                engine: Arc::clone(engine),
                key: keys.0.clone(),
                stored_key: keys.1,
                grant,
                number,
                previous,
                deadline: AtomicU64::new(nanos(deadline)),
                lost: Flag::default(),
                parked: Flag::default(),
                parked_by: Mutex::default(),
                steps: Mutex::default(),
                effects: AtomicUsize::new(0),
                running: Mutex::default(),
            }),
        }
    }

    /// The fencing token: pass it on with every write to another system, and let that system refuse
    /// tokens lower than the highest it has seen for this key.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.shared.grant.token
    }

    /// Which attempt in a row this is: 1 for the first, more after a release or an interruption.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.shared.number
    }

    /// The key of the operation. [`Key::child`] makes keys for calls to others.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.shared.key
    }

    /// Whether this attempt takes over from one that was interrupted.
    #[must_use]
    pub fn is_takeover(&self) -> bool {
        self.shared.previous.is_some()
    }

    /// Whether somebody else may own the key by now: the lease is lost, or this attempt has ended. Look
    /// before every effect that cannot be undone.
    ///
    /// Goes by the monotonic clock of this machine. Where that stands still while the machine sleeps, it
    /// is late by as much: an effect that must not happen late carries the [`token`](Self::token) too.
    #[must_use]
    pub fn is_lease_lost(&self) -> bool {
        self.shared.lost.is_raised() || self.now() >= self.deadline()
    }

    /// Waits until the lease is lost; pends for as long as it is renewed. Cancel safe.
    ///
    /// Made for `select`: stop what should not go on when another attempt may have started. It also
    /// tells what the operation has spawned, and what goes on when the run was dropped.
    pub async fn lease_lost(&self) {
        let mut told = pin!(self.shared.lost.wait());
        // By the clock too: when the run is gone, nobody is there to tell.
        while !self.is_lease_lost() {
            let over = self.shared.engine.settings.timer.sleep_until(self.deadline());
            select(told.as_mut(), over).await;
        }
    }

    /// Runs `work` once for all attempts: when an earlier attempt saved what the step `name` returned,
    /// that is returned, and `work` does not run.
    ///
    /// What `work` returns is saved in the store before this returns. An `Err` is not saved, and counts as
    /// unknown: work that timed out may have been done. If a value cannot be saved, this never returns: the engine stops the operation there and reports
    /// [`StepUnsaved`](crate::RunError::StepUnsaved) or [`LeaseLost`](crate::RunError::LeaseLost).
    /// The step may then run again in a takeover, so a step wants an effect that is itself safe to
    /// repeat, for example by [`Key::child`]; steps only make repetition rare. No step starts to run
    /// once the lease is lost, or once the operation has returned: in a task that outlives it, this pends
    /// for ever.
    ///
    /// A name stands for one step: using it again in one operation returns the first result, and using it
    /// within its own `work` waits for ever.
    ///
    /// # Cancel safety
    /// Dropped while `work` runs: nothing is saved. Dropped later: saved or not. Either way the attempt
    /// is never released, also if the operation says [`NotStarted`](Failure::NotStarted).
    ///
    /// # Errors
    /// Those of `work`. After one, the attempt is never released either;
    /// [`step_classified`](Self::step_classified) is for work that knows that it did nothing.
    ///
    /// # Example
    /// ```
    /// # use oncekey::*;
    /// # use oncekey_memory::MemoryStore;
    /// # futures::executor::block_on(async {
    /// # let key = Key::new(&Scope::new("tenant-42", "pay")?, "order-17")?;
    /// # let fingerprint = Fingerprint::of("100 EUR");
    /// # let idempotency = Idempotency::at_least_once(MemoryStore::new());
    /// # async fn charge() -> Result<String, std::io::Error> { Ok("charge 1".to_owned()) }
    /// # async fn book(_: &str) -> Result<u32, std::io::Error> { Ok(7) }
    /// let outcome = idempotency
    ///     .run(&key, &fingerprint, |attempt| async move {
    ///         let charge = attempt.step("charge", charge).await?;
    ///         // A takeover after a crash here goes on with the saved charge.
    ///         attempt.step("book", || book(&charge)).await
    ///     })
    ///     .await?;
    /// assert_eq!(outcome.into_value(), 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn step<T, E, F, Fut>(&self, name: &str, work: F) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.step_that(name, work, |_| false).await
    }

    /// As [`step`](Self::step), for work that knows what its failure means: after
    /// [`NotStarted`](Failure::NotStarted) the step counts as if it had not run, and an operation that did
    /// nothing else can be released. In [`run_classified`](crate::Idempotency::run_classified), `?` hands
    /// the failure on.
    ///
    /// # Cancel safety
    /// That of [`step`](Self::step).
    ///
    /// # Errors
    /// Those of `work`.
    ///
    /// # Example
    /// ```
    /// # use oncekey::*;
    /// # use oncekey_memory::MemoryStore;
    /// # futures::executor::block_on(async {
    /// # let key = Key::new(&Scope::new("tenant-42", "pay")?, "order-17")?;
    /// # let fingerprint = Fingerprint::of("100 EUR");
    /// # let idempotency = Idempotency::at_most_once(MemoryStore::new());
    /// // The processor is closed, and says so before it does anything.
    /// let charge = async || Err::<u32, _>(Failure::NotStarted("closed"));
    /// let run = idempotency
    ///     .run_classified(&key, &fingerprint, |attempt| async move {
    ///         attempt.step_classified("charge", charge).await
    ///     })
    ///     .await;
    /// // The key is free for a retry.
    /// assert!(matches!(run, Err(RunError::NotStarted("closed"))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn step_classified<T, E, F, Fut>(&self, name: &str, work: F) -> Result<T, Failure<E>>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, Failure<E>>>,
    {
        self.step_that(name, work, |failure| matches!(failure, Failure::NotStarted(_))).await
    }

    async fn step_that<T, E, F, Fut>(
        &self,
        name: &str,
        work: F,
        did_nothing: fn(&E) -> bool,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let _turn = self.turn_of_step(name).await;
        let value = match self.saved_step(name) {
            Ok(Some(value)) if self.is_saved(name) => return Ok(value),
            // An earlier use of the name was dropped before it was saved.
            Ok(Some(value)) => Ok(value),
            Err(error) => match self.park(Parked::Unreadable(error)).await {},
            Ok(None) => {
                // Until it says otherwise: dropped in the middle, nobody knows what it did. Counted
                // before the look at the lease; whoever ends the attempt does it the other way round, so
                // that either this step does not start or that end knows of it.
                self.shared.effects.fetch_add(1, Ordering::SeqCst);
                if self.is_lease_lost() {
                    self.shared.effects.fetch_sub(1, Ordering::SeqCst);
                    match self.park(Parked::LeaseLost).await {}
                }
                let value = match work().await {
                    Ok(value) => value,
                    Err(error) => {
                        if did_nothing(&error) {
                            self.shared.effects.fetch_sub(1, Ordering::SeqCst);
                        }
                        return Err(error);
                    }
                };
                self.keep_step(name, &value).map(|()| value)
            }
        };
        let saved = match value {
            Ok(value) => self.save_steps().await.map(|()| value),
            Err(error) => Err(Parked::Unsaved(StepError::Codec(error))),
        };
        match saved {
            Ok(value) => Ok(value),
            Err(parked) => match self.park(parked).await {},
        }
    }

    /// Waits until no other use of the step `name` is under way: it runs once.
    async fn turn_of_step(&self, name: &str) -> StepTurn<'_> {
        loop {
            let running = {
                let mut running = lock(&self.shared.running);
                match running.get(name) {
                    Some(done) => Arc::clone(done),
                    None => {
                        running.insert(name.to_owned(), Arc::default());
                        return StepTurn { attempt: self, name: name.to_owned() };
                    }
                }
            };
            running.wait().await;
        }
    }

    pub(crate) fn saved_step<T: DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<Option<T>, CodecError> {
        self.with_steps(|steps| steps.get(name))?
    }

    /// Whether a step did something or may have, whatever the operation says in the end.
    pub(crate) fn has_effects(&self) -> bool {
        self.shared.effects.load(Ordering::SeqCst) > 0
    }

    fn is_saved(&self, name: &str) -> bool {
        self.with_steps(|steps| steps.is_saved(name)).unwrap_or(false)
    }

    fn keep_step<T: Serialize>(&self, name: &str, value: &T) -> Result<(), CodecError> {
        self.with_steps(|steps| steps.put(name, value))?
    }

    async fn save_steps(&self) -> Result<(), Parked> {
        let unsaved = |error| Parked::Unsaved(StepError::Codec(error));
        let progress = self.with_steps(Steps::progress).and_then(|it| it).map_err(unsaved)?;
        let sequence = progress.sequence;
        let settings = &self.shared.engine.settings;
        if progress.data.len() > settings.max_value_len {
            let error = StoreError::new(crate::store::ErrorKind::TooLarge, "save a step")
                .with_message("all saved steps together exceed the largest value; save less");
            return Err(Parked::Unsaved(StepError::Store(error)));
        }
        // The step ran: saving it is worth one more lease, if nobody else has taken over.
        let until = self.now().saturating_add(settings.lease);
        match super::lease::renew(self, Some(progress), until).await {
            Ok(Fenced::Applied) => {
                self.with_steps(|steps| steps.confirm(sequence)).map_err(unsaved)
            }
            Ok(_) => Err(Parked::LeaseLost),
            Err(error) => Err(Parked::Unsaved(StepError::Store(error))),
        }
    }

    fn with_steps<R>(&self, work: impl FnOnce(&mut Steps) -> R) -> Result<R, CodecError> {
        let mut steps = lock(&self.shared.steps);
        let steps = match &mut *steps {
            Some(steps) => steps,
            none => {
                let saved = self.shared.previous.as_ref().and_then(|it| it.progress.as_ref());
                none.insert(Steps::resume(saved)?)
            }
        };
        Ok(work(steps))
    }

    /// Tells the engine to stop the operation, and never returns.
    async fn park(&self, why: Parked) -> Infallible {
        lock(&self.shared.parked_by).get_or_insert(why);
        self.shared.parked.raise();
        std::future::pending().await
    }

    pub(crate) fn parked(&self) -> &Flag {
        &self.shared.parked
    }

    pub(crate) fn take_parked(&self) -> Parked {
        lock(&self.shared.parked_by).take().unwrap_or(Parked::LeaseLost)
    }

    pub(crate) fn engine(&self) -> &Arc<Inner> {
        &self.shared.engine
    }

    pub(crate) fn stored_key(&self) -> &Key {
        &self.shared.stored_key
    }

    pub(crate) fn grant(&self) -> Grant {
        self.shared.grant
    }

    pub(crate) fn previous(&self) -> Option<&Previous> {
        self.shared.previous.as_ref()
    }

    pub(crate) fn now(&self) -> Duration {
        self.shared.engine.settings.timer.now()
    }

    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_nanos(self.shared.deadline.load(Ordering::Acquire))
    }

    /// The store confirmed the lease until `deadline`; it never gets shorter.
    pub(crate) fn confirm(&self, deadline: Duration) {
        self.shared.deadline.fetch_max(nanos(deadline), Ordering::AcqRel);
    }

    /// The attempt is about to be ended: whatever still runs of it owns nothing any more.
    pub(crate) fn end(&self) {
        self.shared.lost.raise();
    }

    pub(crate) fn lose(&self) {
        if self.shared.lost.raise() {
            self.shared.engine.settings.observe(&Event::LeaseLost { number: self.number() });
        }
    }
}

impl fmt::Debug for Attempt {
    /// Shows neither key nor progress.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("token", &self.token())
            .field("number", &self.number())
            .field("takeover", &self.is_takeover())
            .finish_non_exhaustive()
    }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
