//! Finding out what an interrupted attempt did: [`Verify`].

use std::future::Future;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::attempt::Attempt;
use super::value::{CodecError, Encoded};
use crate::Key;
use crate::store::{Cause, FencingToken};

/// Finds out, from the outside world, what an interrupted attempt did.
///
/// Called under a lease of its own that is renewed meanwhile: nobody else runs the operation or
/// verifies it at the same time. A closure `Fn(Interruption) -> impl Future<Output = Verdict>` is a
/// `Verify`.
#[async_trait]
pub trait Verify: Send + Sync {
    /// Looks at the world, for example by asking the card processor for a charge under
    /// [`Key::child`], and says what it found.
    async fn verify(&self, interruption: Interruption) -> Verdict;
}

#[async_trait]
impl<F, Fut> Verify for F
where
    F: Fn(Interruption) -> Fut + Send + Sync,
    Fut: Future<Output = Verdict> + Send,
{
    async fn verify(&self, interruption: Interruption) -> Verdict {
        self(interruption).await
    }
}

/// What a [`Verify`] found out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "done, not done, or unknown: there is no fourth")]
pub enum Verdict {
    /// It was done, and this is its result: recorded and replayed.
    Done(Encoded),
    /// It was not done: it may run. An operation of several parts looks for what is done of it part by
    /// part: with [`step`](Attempt::step), or by asking as the hook did.
    NotDone,
    /// It cannot be found out now: the key stays interrupted.
    Unknown,
}

impl Verdict {
    /// [`Done`](Self::Done) with `value` as [`run`](crate::Idempotency::run) would have stored it: of
    /// the type that the operation returns.
    ///
    /// # Errors
    /// [`CodecError`] when the value cannot be JSON.
    pub fn done<T: Serialize>(value: &T) -> Result<Self, CodecError> {
        Encoded::json(value).map(Self::Done)
    }
}

/// An interrupted attempt, as a [`Verify`] sees it.
#[derive(Debug, Clone)]
pub struct Interruption {
    attempt: Attempt,
    cause: Cause,
    token: FencingToken,
}

impl Interruption {
    pub(crate) const fn new(attempt: Attempt, cause: Cause, token: FencingToken) -> Self {
        Self { attempt, cause, token }
    }

    /// The key of the operation.
    #[must_use]
    pub fn key(&self) -> &Key {
        self.attempt.key()
    }

    /// How the last attempt before this one ended. If that one only verified, and found nothing out, the
    /// attempt that ran the operation came before it.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        self.cause
    }

    /// The fencing token of the last attempt before this one.
    ///
    /// Any attempt at this key may have acted, under this token or a lower one: look in the world by the
    /// [`key`](Self::key), never by the token.
    #[must_use]
    pub const fn token(&self) -> FencingToken {
        self.token
    }

    /// The attempt under whose lease this is verified.
    #[must_use]
    pub const fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    /// What the step `name` returned, if its result was saved before the interruption.
    ///
    /// # Errors
    /// [`CodecError`] when the saved result is not of type `T`.
    pub fn saved_step<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, CodecError> {
        self.attempt.saved_step(name)
    }
}
