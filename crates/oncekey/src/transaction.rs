//! For authors of stores with transactions: a run inside one transaction, as steps without I/O.
//!
//! Where the effect of an operation is a write to the same database as the key, claim, business writes
//! and completion can commit together or not at all: exactly-once *effects*. How a transaction is
//! begun, borrowed and committed differs too much between drivers for one trait, so each store offers
//! its own `run_in_transaction`, `claim_in` and `complete_in`. What they share is here: what to claim
//! with, what an answer to the claim means, and what to complete with.
//!
//! The order of things, all on one transaction:
//!
//! 1. [`Idempotency::prepare`], before the transaction begins: bad settings are refused here.
//! 2. Apply [`Prepared::claim`] to the record of [`Prepared::key`]; hand the outcome to
//!    [`Prepared::admit`]. Anything but [`Admitted::Run`] ends the transaction with a rollback: a
//!    refusal writes nothing.
//! 3. Do the business writes. An error rolls everything back: [`business_error`] says what that means.
//! 4. Apply [`Prepared::complete`]; hand the outcome to [`check_completed`]. Anything but applied MUST
//!    roll back: the business writes belong to an owner that was replaced.
//! 5. Commit. A commit with an unknown outcome is settled by reading the key: *completed* by this
//!    attempt means that it happened. It is never settled by running again.
//! 6. Tell observers, by [`Prepared::committed`] or [`Prepared::failed`].
//!
//! Nobody else sees the claim before the commit; the lock on the row is what keeps others out, so
//! nothing is renewed meanwhile.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::{CodecError, Encoded, Inner, Outcome, RecordError, RunError, replay};
use crate::observe::Event;
use crate::store::{
    Claim, ClaimOutcome, Complete, Completion, ErrorKind, Fenced, Grant, OnInterrupted, StoreError,
};
use crate::{Fingerprint, Idempotency, Key};

impl Idempotency {
    /// Prepares a run inside a transaction. For stores; see [`transaction`](self).
    ///
    /// An interrupted key is taken over by an engine that runs at least once, and refused by the other
    /// two: a hook cannot be asked while a transaction is open.
    ///
    /// # Errors
    /// [`Misconfigured`](crate::store::ErrorKind::Misconfigured), as
    /// [`validate`](Self::validate).
    pub fn prepare(&self, key: &Key, fingerprint: &Fingerprint) -> Result<Prepared, StoreError> {
        let engine = &self.inner;
        let settings = &engine.settings;
        settings.check()?;
        let on_interrupted = match settings.guarantee {
            crate::engine::Guarantee::AtLeastOnce => OnInterrupted::TakeOver,
            _ => OnInterrupted::Refuse,
        };
        let claim = Claim {
            attempt: engine.mint(),
            fingerprint: *fingerprint,
            lease: settings.lease,
            hold: settings.interrupted_hold(),
            on_interrupted,
            on_retired: settings.on_retired(),
        };
        let started = settings.timer.now();
        Ok(Prepared { engine: Arc::clone(engine), key: settings.stored_key(key), claim, started })
    }
}

/// A run that is about to happen inside a transaction.
#[derive(Clone)]
pub struct Prepared {
    engine: Arc<Inner>,
    key: Key,
    claim: Claim,
    started: Duration,
}

/// What a transaction may do, by the answer to its claim.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "run or replay: a store must handle both")]
pub enum Admitted<T> {
    /// Do the business writes, then complete under this grant.
    Run {
        /// What to complete under. Its token may be passed on.
        grant: Grant,
        /// Which attempt in a row this is.
        number: u32,
        /// Whether it takes over from an attempt that was interrupted. If this one is rolled back, the key is
        /// interrupted as before, and what that one did stays unknown.
        took_over: bool,
    },
    /// Roll back, and return this.
    Replay(Outcome<T>),
}

impl Prepared {
    /// The key as the store sees it.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// What to claim with. Its attempt id is this run's alone, and stays the same if the transaction
    /// is retried as a whole before it did anything.
    #[must_use]
    pub const fn claim(&self) -> &Claim {
        &self.claim
    }

    /// What the answer to the claim means.
    ///
    /// # Errors
    /// The refusals of [`RunError`], and [`RunError::Codec`] when a stored result is not a `T`.
    pub fn admit<T: DeserializeOwned, E>(
        &self,
        outcome: ClaimOutcome,
    ) -> Result<Admitted<T>, RunError<E>> {
        let stored = match outcome {
            ClaimOutcome::Acquired { grant, number, previous, .. } => {
                let took_over = previous.is_some();
                if let Some(previous) = previous {
                    self.observe(&Event::TakenOver { cause: previous.cause, number });
                }
                return Ok(Admitted::Run { grant, number, took_over });
            }
            ClaimOutcome::Replay(stored) => stored,
            ClaimOutcome::Busy { retry_after } => {
                self.observe(&Event::Busy { elapsed: self.elapsed() });
                return Err(RunError::Busy { retry_after });
            }
            ClaimOutcome::Mismatch => {
                self.observe(&Event::Mismatch);
                return Err(RunError::Mismatch);
            }
            ClaimOutcome::Interrupted => {
                self.observe(&Event::Interrupted);
                return Err(RunError::Interrupted);
            }
            ClaimOutcome::Retired => {
                self.observe(&Event::Retired);
                return Err(RunError::Retired);
            }
            // The attempt ran and ended: its transaction is over, one way or the other.
            ClaimOutcome::Spent => return Err(RunError::LeaseLost),
        };
        let (event, answer) = replay(stored, Encoded::decode, || self.elapsed());
        self.observe(&event);
        answer.map(Admitted::Replay)
    }

    /// What to complete with.
    ///
    /// # Errors
    /// [`CodecError`] when the value cannot be encoded: roll back, nothing was done.
    pub fn complete<T: Serialize>(&self, grant: Grant, value: &T) -> Result<Complete, CodecError> {
        let settings = &self.engine.settings;
        let value = Encoded::json(value)?.as_bytes().clone();
        let completion = Completion {
            replayable: value.len() <= settings.max_value_len,
            value,
            retention: settings.retention,
            hold: settings.retired_hold(),
        };
        if !completion.replayable {
            self.observe(&Event::NotReplayable { len: completion.value.len() });
        }
        Ok(Complete { grant, completion })
    }

    /// The error of attempt `number` in a row that was admitted and did not commit, as it is.
    pub fn failed<E>(&self, number: u32, error: RunError<E>) -> RunError<E> {
        match &error {
            RunError::NotStarted(_) => self.observe(&Event::Released { number }),
            RunError::Unknown(_) => self.observe(&Event::GaveUp { number }),
            RunError::LeaseLost => self.observe(&Event::LeaseLost { number }),
            RunError::Store(error) | RunError::InDoubt(error) => {
                self.observe(&Event::StoreFailed {
                    operation: error.operation(),
                    kind: error.kind(),
                });
            }
            _ => {}
        }
        error
    }

    /// The result of a run whose transaction committed, as attempt `number` in a row.
    pub fn committed<T>(&self, number: u32, value: T) -> Outcome<T> {
        self.observe(&Event::Executed { number, elapsed: self.elapsed() });
        Outcome::executed(value)
    }

    fn elapsed(&self) -> Duration {
        self.engine.settings.timer.now().saturating_sub(self.started)
    }

    fn observe(&self, event: &Event) {
        self.engine.settings.observe(event);
    }
}

impl std::fmt::Debug for Prepared {
    /// Shows neither key nor fingerprint.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("attempt", &self.claim.attempt).finish_non_exhaustive()
    }
}

/// What an error of the business writes means once they are rolled back: nothing was done, unless this attempt
/// [took over](Admitted::Run::took_over) from one of which nobody has found out what it did.
pub fn business_error<E>(took_over: bool, error: E) -> RunError<E> {
    if took_over { RunError::Unknown(error) } else { RunError::NotStarted(error) }
}

/// What an error of the store means after the business writes: [in doubt](RunError::InDoubt) if its outcome is
/// unknown, and rolled back if it is anything else.
pub fn store_error<E>(error: StoreError) -> RunError<E> {
    match error.kind() {
        ErrorKind::OutcomeUnknown => RunError::InDoubt(error),
        _ => RunError::Store(error),
    }
}

/// Whether a completion inside a transaction allows the commit. On an error, roll back.
///
/// # Errors
/// [`RecordError`]: another attempt has the key.
pub const fn check_completed(fenced: Fenced) -> Result<(), RecordError> {
    match fenced {
        Fenced::Applied => Ok(()),
        Fenced::Conflict => Err(RecordError::Conflict),
        Fenced::Gone => Err(RecordError::Gone),
        Fenced::Lost | Fenced::Busy => Err(RecordError::Lost),
    }
}
