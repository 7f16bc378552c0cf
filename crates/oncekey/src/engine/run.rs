//! The course of a run: admit, run, record.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures::TryFutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::admit::{admit, give_up_and_panic};
use super::attempt::{Attempt, Parked};
use super::finish::{Ended, NotRecorded};
use super::lease::{Driven, drive};
use super::outcome::{Failure, Outcome, RunError};
use super::settings::Guarantee;
use super::value::{CodecError, Encoded};
use super::{Admission, Idempotency};
use crate::observe::Event;
use crate::{Fingerprint, Key};

impl Idempotency {
    /// Runs `operation` once for `key`, and returns its result to this caller and to every duplicate.
    ///
    /// The result is stored as JSON, from which duplicates read it: what does not come back from JSON (a
    /// float that is no number) is an error for them. A refusal that is final (a declined card) is a result too: put it
    /// into `T`, for example `Result<Receipt, Declined>`, so that duplicates get the same refusal. An
    /// `Err` of the operation means that its effect is unknown; if it can know that nothing was done,
    /// use [`run_classified`](Self::run_classified).
    ///
    /// ```
    /// use oncekey::{Fingerprint, Idempotency, Key, Scope};
    /// use oncekey_memory::MemoryStore;
    ///
    /// # futures::executor::block_on(async {
    /// let idempotency = Idempotency::at_least_once(MemoryStore::new());
    /// let key = Key::new(&Scope::new("tenant-42", "POST /payments")?, "order-17")?;
    /// let fingerprint = Fingerprint::of("100 EUR to Ada");
    ///
    /// let charge = async || Ok::<_, std::io::Error>("receipt 1".to_owned());
    /// let first = idempotency.run(&key, &fingerprint, |_| charge()).await?;
    /// let again = idempotency.run(&key, &fingerprint, |_| charge()).await?;
    ///
    /// assert!(!first.is_replay() && again.is_replay());
    /// assert_eq!(first.value(), again.value());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Cancel safety
    /// Dropped before the operation starts: nothing ran. Dropped later: as a crash; the key is
    /// interrupted when the lease lapses.
    ///
    /// # Errors
    /// See [`RunError`], whose table says for each what is known of the effect.
    ///
    /// # Panics
    /// If the operation panics: the key is given up first, then the panic goes on.
    pub async fn run<T, E, F, Fut>(
        &self,
        key: &Key,
        fingerprint: &Fingerprint,
        operation: F,
    ) -> Result<Outcome<T>, RunError<E>>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let operation = |attempt| operation(attempt).map_err(Failure::Unknown);
        self.run_classified(key, fingerprint, operation).await
    }

    /// As [`run`](Self::run), for an operation that can tell whether it did anything. Of an error that is passed
    /// on with `?`, that is unknown.
    ///
    /// # Cancel safety, errors, panics
    /// As for [`run`](Self::run).
    /// ```
    /// # use oncekey::*;
    /// # use oncekey_memory::MemoryStore;
    /// # futures::executor::block_on(async {
    /// # let key = Key::new(&Scope::new("tenant-42", "pay")?, "order-17")?;
    /// # let fingerprint = Fingerprint::of("100 EUR");
    /// # let idempotency = Idempotency::at_most_once(MemoryStore::new());
    /// let refused = async || Err::<String, _>(Failure::NotStarted(std::fmt::Error));
    /// let run = idempotency.run_classified(&key, &fingerprint, |_| refused()).await;
    /// assert!(matches!(run, Err(RunError::NotStarted(_))));
    ///
    /// // Nothing was done, so the next request runs.
    /// let charge = async || -> Result<u32, Failure<std::num::ParseIntError>> {
    ///     Ok("100".parse::<u32>()?)
    /// };
    /// let run = idempotency.run_classified(&key, &fingerprint, |_| charge()).await?;
    /// assert!(!run.is_replay());
    /// assert_eq!(run.map(|cents| cents / 100).into_value(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn run_classified<T, E, F, Fut>(
        &self,
        key: &Key,
        fingerprint: &Fingerprint,
        operation: F,
    ) -> Result<Outcome<T>, RunError<E>>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce(Attempt) -> Fut,
        Fut: Future<Output = Result<T, Failure<E>>>,
    {
        run_as(self, key, fingerprint, operation, Encoded::json, |stored| stored.decode()).await
    }

    /// As [`run_classified`](Self::run_classified), for results that are bytes and stored as they are.
    ///
    /// # Cancel safety, errors, panics
    /// As for [`run`](Self::run).
    /// ```
    /// # use oncekey::*;
    /// # use oncekey_memory::MemoryStore;
    /// # futures::executor::block_on(async {
    /// # let key = Key::new(&Scope::new("tenant-42", "pay")?, "order-17")?;
    /// # let fingerprint = Fingerprint::of("100 EUR");
    /// # let idempotency = Idempotency::at_least_once(MemoryStore::new());
    /// let render = async || Ok::<_, Failure<std::io::Error>>(b"%PDF-1.7".as_slice().into());
    /// let outcome = idempotency.run_bytes(&key, &fingerprint, |_| render()).await?;
    /// assert_eq!(outcome.value().as_ref(), b"%PDF-1.7");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn run_bytes<E, F, Fut>(
        &self,
        key: &Key,
        fingerprint: &Fingerprint,
        operation: F,
    ) -> Result<Outcome<Bytes>, RunError<E>>
    where
        F: FnOnce(Attempt) -> Fut,
        Fut: Future<Output = Result<Bytes, Failure<E>>>,
    {
        let encode = |value: &Bytes| Ok(Encoded::raw(value));
        run_as(self, key, fingerprint, operation, encode, |stored| stored.decode_raw()).await
    }

    /// As [`run_bytes`](Self::run_bytes), for an operation that decides whether its result is kept:
    /// `None` is recorded as done, and duplicates get [`NotReplayable`](RunError::NotReplayable).
    ///
    /// For results that went elsewhere, such as a stream, or that must not be stored, such as a secret.
    /// The outcome of a replay is always `Some`.
    ///
    /// # Cancel safety, errors, panics
    /// As for [`run`](Self::run).
    /// ```
    /// # use oncekey::*;
    /// # use oncekey_memory::MemoryStore;
    /// # futures::executor::block_on(async {
    /// # let key = Key::new(&Scope::new("tenant-42", "pay")?, "order-17")?;
    /// # let fingerprint = Fingerprint::of("100 EUR");
    /// # let idempotency = Idempotency::at_least_once(MemoryStore::new());
    /// let stream = async || Ok::<_, Failure<std::io::Error>>(None);
    /// let first = idempotency.run_kept_bytes(&key, &fingerprint, |_| stream()).await?;
    /// assert_eq!(first.into_value(), None);
    ///
    /// let again = idempotency.run_kept_bytes(&key, &fingerprint, |_| stream()).await;
    /// assert!(matches!(again, Err(RunError::NotReplayable)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn run_kept_bytes<E, F, Fut>(
        &self,
        key: &Key,
        fingerprint: &Fingerprint,
        operation: F,
    ) -> Result<Outcome<Option<Bytes>>, RunError<E>>
    where
        F: FnOnce(Attempt) -> Fut,
        Fut: Future<Output = Result<Option<Bytes>, Failure<E>>>,
    {
        let encode =
            |value: &Option<Bytes>| value.as_ref().map(Encoded::raw).ok_or(CodecError::Encode);
        let decode = |stored: &Encoded| stored.decode_raw().map(Some);
        run_as(self, key, fingerprint, operation, encode, decode).await
    }
}

async fn run_as<T, E, F, Fut>(
    idempotency: &Idempotency,
    key: &Key,
    fingerprint: &Fingerprint,
    operation: F,
    encode: impl FnOnce(&T) -> Result<Encoded, CodecError>,
    decode: impl Fn(&Encoded) -> Result<T, CodecError> + Sync,
) -> Result<Outcome<T>, RunError<E>>
where
    F: FnOnce(Attempt) -> Fut,
    Fut: Future<Output = Result<T, Failure<E>>>,
{
    let engine = &idempotency.inner;
    // Only observers want to know how long it took.
    let observed = !engine.settings.observers.is_empty();
    let started = observed.then(|| engine.settings.timer.now());
    let readable = |value: &Encoded| decode(value).map(drop);
    let attempt = match admit(engine, key, fingerprint, started, &readable).await? {
        Admission::Run(attempt) => attempt,
        Admission::Replay(value) => {
            let settings = &engine.settings;
            let (event, answer) = replay(value, &decode, || settings.elapsed(started));
            settings.observe(&event);
            return answer;
        }
    };
    let watched = Watched(Some(&attempt));
    let ran = run_admitted(&attempt, fingerprint, operation, encode, started).await;
    watched.ended();
    ran.map(Outcome::executed)
}

/// What a duplicate gets of a stored result.
pub(crate) fn replay<T, E>(
    stored: Option<Bytes>,
    decode: impl FnOnce(&Encoded) -> Result<T, CodecError>,
    elapsed: impl FnOnce() -> Duration,
) -> (Event, Result<Outcome<T>, RunError<E>>) {
    let Some(stored) = stored else {
        return (Event::NotKept, Err(RunError::NotReplayable));
    };
    match decode(&Encoded::from_bytes(stored)) {
        Ok(value) => (Event::Replayed { elapsed: elapsed() }, Ok(Outcome::replayed(value))),
        Err(error) => (Event::Undecodable, Err(RunError::Codec(error))),
    }
}

/// Tells observers of a run that is dropped: nobody else can.
struct Watched<'a>(Option<&'a Attempt>);

impl Watched<'_> {
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        // A panic was told of when the key was given up.
        if let Some(attempt) = self.0
            && !std::thread::panicking()
        {
            let number = attempt.number();
            attempt.engine().settings.observe(&Event::Dropped { number });
        }
    }
}

async fn run_admitted<T, E, F, Fut>(
    attempt: &Attempt,
    fingerprint: &Fingerprint,
    operation: F,
    encode: impl FnOnce(&T) -> Result<Encoded, CodecError>,
    started: Option<Duration>,
) -> Result<T, RunError<E>>
where
    F: FnOnce(Attempt) -> Fut,
    Fut: Future<Output = Result<T, Failure<E>>>,
{
    // The block also catches a panic of the closure itself, before it made a future, and one of the
    // code of a user that encodes the value.
    let handed = attempt.clone();
    let work = async move {
        let value = operation(handed).await?;
        let encoded = encode(&value);
        Ok((value, encoded))
    };
    let (value, encoded) = match drive(attempt, work).await {
        Driven::Finished(Ok(done)) => done,
        Driven::Finished(Err(Failure::NotStarted(error))) => {
            // A hook has said that nothing was done before, either.
            let verified = matches!(attempt.engine().settings.guarantee, Guarantee::Verified(_));
            return Err(match attempt.release(verified).await {
                Ended::AsNotStarted | Ended::Unrecorded => RunError::NotStarted(error),
                Ended::AsUnknown => RunError::Unknown(error),
            });
        }
        Driven::Finished(Err(Failure::Unknown(error))) => {
            attempt.give_up().await;
            return Err(RunError::Unknown(error));
        }
        Driven::Parked(parked) => {
            if !matches!(parked, Parked::LeaseLost) {
                attempt.engine().settings.observe(&Event::StepFailed { number: attempt.number() });
            }
            attempt.give_up().await;
            return Err(stopped(parked));
        }
        Driven::Panicked(panic) => give_up_and_panic(attempt, panic).await,
    };
    let (encoded, replayable) = match encoded {
        Ok(encoded) => (encoded, true),
        // It ran, and that much can be recorded.
        Err(_) => (Encoded::raw([]), false),
    };
    record(attempt, fingerprint, encoded, replayable, started).await?;
    Ok(value)
}

async fn record<E>(
    attempt: &Attempt,
    fingerprint: &Fingerprint,
    value: Encoded,
    replayable: bool,
    started: Option<Duration>,
) -> Result<(), RunError<E>> {
    let settings = &attempt.engine().settings;
    match attempt.complete(fingerprint, value, replayable).await {
        Ok(()) => {
            let elapsed = settings.elapsed(started);
            let number = attempt.number();
            settings.observe(&Event::Executed { number, elapsed });
            Ok(())
        }
        Err(NotRecorded { value, error }) => {
            settings.observe(&Event::Unrecorded);
            Err(RunError::Unrecorded { value: replayable.then_some(value), error })
        }
    }
}

fn stopped<E>(parked: Parked) -> RunError<E> {
    match parked {
        Parked::LeaseLost => RunError::LeaseLost,
        Parked::Unsaved(error) => RunError::StepUnsaved(error),
        Parked::Unreadable(error) => RunError::StepUnreadable(error),
    }
}
