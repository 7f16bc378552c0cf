//! What became of a transaction whose connection was lost: found out by reading, never by running again.

use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use oncekey::store::{ErrorKind, Status, StoreError};
use oncekey::transaction::Prepared;

use super::answer::{self, Row};
use super::fault::{Purpose, rolled_back};
use super::sleep;

/// What a look is for.
pub const SETTLE: Purpose = Purpose::read("read what became of a commit");

/// How often, and how long apart, it is asked about while it is under way.
const ASKED: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);
/// How long a look is waited for, its connection included, and how many may come to nothing: a network that
/// swallows everything says nothing for ever.
const LONGEST_LOOK: Duration = Duration::from_secs(3);
const MOST_SILENT: u32 = 3;

/// What a look has seen of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "these are all the cases there are")]
pub enum Became {
    /// The result is there.
    Completed,
    /// By what the server says of its number, which after a crash may be another's.
    Committed,
    /// Nothing was done.
    RolledBack,
    /// It is under way, or too long ago.
    Unknown,
}

impl Became {
    /// By the row that [`Call::status_of`](super::Call::status_of) was answered by, and then that of
    /// [`Tables::get`](super::Tables::get), if there was one. In this order: a commit between the two is seen
    /// by the next look.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt).
    pub fn read<R: Row>(
        prepared: &Prepared,
        status: &R,
        record: Option<&R>,
    ) -> Result<Self, StoreError> {
        let observed = record.map(|row| answer::observed(SETTLE, row)).transpose()?;
        let is_completed = observed.is_some_and(|observed| {
            observed.record.attempt == prepared.claim().attempt
                && matches!(observed.record.status, Status::Completed { .. })
        });
        Ok(match status.text(0) {
            _ if is_completed => Self::Completed,
            Some("aborted") => Self::RolledBack,
            Some("committed") => Self::Committed,
            _ => Self::Unknown,
        })
    }
}

/// Whether a commit that failed with `error` happened. A `look` that is dropped must leave its connection to
/// nobody else.
///
/// # Errors
/// `error`, if it tells that nothing was done, or if nobody tells; else that it was rolled back.
pub async fn commit<F>(error: StoreError, look: impl FnMut() -> F) -> Result<(), StoreError>
where
    F: Future<Output = Result<Became, StoreError>>,
{
    if error.kind() != ErrorKind::OutcomeUnknown {
        return Err(error);
    }
    // While it is not completed, it is still at it, whatever else the server says.
    let told = |became| matches!(became, Became::Completed | Became::RolledBack);
    match ask(look, told).await {
        Some(Became::Completed) => Ok(()),
        Some(_) => Err(rolled_back(error)),
        None => Err(error),
    }
}

/// Whether a transaction is rolled back that was never told to commit, and whose connection was lost with
/// `error`. A `look` that is dropped must leave its connection to nobody else.
///
/// # Errors
/// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown): somebody else told it to, or nobody tells.
pub async fn lost<F>(
    run: Purpose,
    error: StoreError,
    look: impl FnMut() -> F,
) -> Result<(), StoreError>
where
    F: Future<Output = Result<Became, StoreError>>,
{
    match ask(look, |became| became != Became::Unknown).await {
        Some(Became::RolledBack) => Ok(()),
        Some(_) => Err(ended_by_business(run)),
        None => Err(StoreError::new(ErrorKind::OutcomeUnknown, run.operation())
            .with_message(
                "the connection was lost, and the server did not tell whether it rolled the \
                 transaction back; run again with the same key",
            )
            .with_source(error)),
    }
}

/// The error of a run whose transaction is no longer the one that was begun.
#[must_use]
pub fn ended_by_business(run: Purpose) -> StoreError {
    StoreError::new(ErrorKind::OutcomeUnknown, run.operation()).with_message(
        "the closure ended the transaction itself, so what it wrote may be committed without a result; \
         it must leave BEGIN, COMMIT and ROLLBACK to its caller",
    )
}

/// Looks until what is seen tells something. `None` if it does not, or nobody can be asked.
async fn ask<F>(mut look: impl FnMut() -> F, told: impl Fn(Became) -> bool) -> Option<Became>
where
    F: Future<Output = Result<Became, StoreError>>,
{
    let mut silent = 0;
    for asked in 0..ASKED {
        if asked > 0 {
            sleep(PAUSE).await;
        }
        match select(pin!(look()), sleep(LONGEST_LOOK)).await {
            Either::Left((Ok(became), _)) if told(became) => return Some(became),
            Either::Left((Ok(_), _)) => {}
            // The server may be about to come back.
            Either::Left((Err(error), _)) if error.is_retryable() => {}
            Either::Left((Err(_), _)) => return None,
            Either::Right(_) => silent += 1,
        }
        if silent == MOST_SILENT {
            return None;
        }
    }
    None
}
