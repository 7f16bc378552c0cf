//! The steps of an attempt: what ran is saved, and what may have done something is counted.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Attempt, lock};
use crate::engine::flag::Flag;
use crate::engine::lease;
use crate::engine::outcome::{Failure, StepError};
use crate::engine::steps::Steps;
use crate::engine::value::CodecError;
use crate::store::{ErrorKind, Fenced, StoreError};

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
    /// Runs `work` once for all attempts: when an earlier attempt saved what the step `name` returned,
    /// that is returned, and `work` does not run.
    ///
    /// What `work` returns is saved in the store before this returns. An `Err` is not saved, and counts as
    /// unknown: work that timed out may have been done. If a value cannot be saved, this never returns: the
    /// engine stops the operation there and reports [`StepUnsaved`](crate::RunError::StepUnsaved) or
    /// [`LeaseLost`](crate::RunError::LeaseLost). The step may then run again in a takeover, so a step
    /// wants an effect that is itself safe to repeat, for example by [`Key::child`](crate::Key::child);
    /// steps only make repetition rare. No step starts to run once the lease is lost, or once the operation
    /// has returned: in a task that outlives it, this pends for ever.
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
            let error = StoreError::new(ErrorKind::TooLarge, "save a step")
                .with_message("all saved steps together exceed the largest value; save less");
            return Err(Parked::Unsaved(StepError::Store(error)));
        }
        // The step ran: saving it is worth one more lease, if nobody else has taken over.
        let until = self.now().saturating_add(settings.lease);
        match lease::renew(self, Some(progress), until).await {
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
}
