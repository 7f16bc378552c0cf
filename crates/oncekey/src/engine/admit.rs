//! What comes before the operation: claiming, waiting for a duplicate, finding out what an interrupted
//! attempt did.

use std::any::Any;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use super::attempt::Attempt;
use super::finish::NotRecorded;
use super::lease::{Driven, drive};
use super::outcome::RunError;
use super::settings::Guarantee;
use super::value::{CodecError, Encoded};
use super::verify::{Interruption, Verdict, Verify};
use super::{Admission, Inner, Refusal, Request, wait};
use crate::observe::{Event, VerdictKind};
use crate::store::OnInterrupted;
use crate::{Fingerprint, Key};

/// Claims, waits for a duplicate, verifies: all that comes before the operation.
pub(crate) async fn admit<E>(
    engine: &Arc<Inner>,
    key: &Key,
    fingerprint: &Fingerprint,
    started: Option<Duration>,
    readable: Readable<'_>,
) -> Result<Admission, RunError<E>> {
    let settings = &engine.settings;
    let admitted = find_admission(engine, key, fingerprint, readable).await;
    let elapsed = || settings.elapsed(started);
    let (event, error) = match admitted {
        // What a stored result comes to is not known before it is decoded.
        Ok(admission) => return Ok(admission),
        Err(Refusal::Busy { retry_after }) => {
            (Event::Busy { elapsed: elapsed() }, RunError::Busy { retry_after })
        }
        Err(Refusal::Mismatch) => (Event::Mismatch, RunError::Mismatch),
        Err(Refusal::Interrupted) => (Event::Interrupted, RunError::Interrupted),
        Err(Refusal::Retired) => (Event::Retired, RunError::Retired),
        Err(Refusal::LeaseLost) => return Err(RunError::LeaseLost),
        Err(Refusal::Unrecorded { value, error }) => {
            (Event::Unrecorded, RunError::Unrecorded { value, error })
        }
        Err(Refusal::Codec(error)) => (Event::Undecodable, RunError::Codec(error)),
        Err(Refusal::Store(error)) => return Err(RunError::Store(error)),
    };
    settings.observe(&event);
    Err(error)
}

/// Whether a value is one that the caller can decode.
pub(crate) type Readable<'a> = &'a (dyn Fn(&Encoded) -> Result<(), CodecError> + Sync);

async fn find_admission(
    engine: &Arc<Inner>,
    key: &Key,
    fingerprint: &Fingerprint,
    readable: Readable<'_>,
) -> Result<Admission, Refusal> {
    engine.settings.check()?;
    let mut request = Request::new(engine, key, fingerprint);
    let admission = match request.ask().await {
        Err(Refusal::Busy { retry_after }) if !engine.settings.wait.is_zero() => {
            // Boxed, as all that is seldom needed: the future of a run stays small.
            Box::pin(wait::wait(engine, &mut request, retry_after)).await?
        }
        answer => answer?,
    };
    let Admission::Run(attempt) = admission else {
        return Ok(admission);
    };
    if attempt.is_lease_lost() {
        // The answer took longer than the lease lasts: nothing may start now.
        attempt.lose();
        attempt.release(false).await;
        return Err(Refusal::LeaseLost);
    }
    if attempt.is_takeover() && engine.settings.on_interrupted() == OnInterrupted::Refuse {
        // A grant to a completer that never learned of it, adopted here. Nobody has found out what the
        // interrupted attempt did.
        attempt.give_up().await;
        return Err(Refusal::Interrupted);
    }
    let Guarantee::Verified(hook) = &engine.settings.guarantee else {
        return Ok(Admission::Run(attempt));
    };
    if !attempt.is_takeover() {
        return Ok(Admission::Run(attempt));
    }
    match Box::pin(settle_interruption(&attempt, fingerprint, &**hook, readable)).await? {
        Settled::NotInterrupted | Settled::NotDone => Ok(Admission::Run(attempt)),
        Settled::Done(value) => Ok(Admission::Replay(Some(value.as_bytes().clone()))),
        Settled::Unknown => Err(Refusal::Interrupted),
    }
}

/// What became of the interruption that an attempt takes over from.
pub(crate) enum Settled {
    NotInterrupted,
    Done(Encoded),
    NotDone,
    Unknown,
}

/// Asks `hook` about the attempt before this one, under this one's lease, and records what it says.
/// After *not done* the attempt goes on; after any other verdict it has ended.
pub(crate) async fn settle_interruption(
    attempt: &Attempt,
    fingerprint: &Fingerprint,
    hook: &dyn Verify,
    readable: Readable<'_>,
) -> Result<Settled, Refusal> {
    let Some(previous) = attempt.previous() else {
        return Ok(Settled::NotInterrupted);
    };
    let settings = &attempt.engine().settings;
    let interruption = Interruption::new(attempt.clone(), previous.cause, previous.token);
    let verdict = match drive(attempt, async { hook.verify(interruption).await }).await {
        Driven::Finished(verdict) => verdict,
        Driven::Parked(_) => Verdict::Unknown,
        Driven::Panicked(panic) => give_up_and_panic(attempt, panic).await,
    };
    let kind = match &verdict {
        Verdict::Done(_) => VerdictKind::Done,
        Verdict::NotDone => VerdictKind::NotDone,
        Verdict::Unknown => VerdictKind::Unknown,
    };
    settings.observe(&Event::Verified { verdict: kind });
    // Recorded, a value that nobody can read would stay for the whole retention.
    if let Verdict::Done(value) = &verdict
        && let Err(error) = readable(value)
    {
        attempt.give_up().await;
        return Err(Refusal::Codec(error));
    }
    match verdict {
        Verdict::Done(value) => match attempt.complete(fingerprint, value.clone(), true).await {
            Ok(()) => Ok(Settled::Done(value)),
            Err(NotRecorded { value, error }) => {
                Err(Refusal::Unrecorded { value: Some(value), error })
            }
        },
        Verdict::NotDone if attempt.is_lease_lost() => {
            // Somebody else may have started since.
            attempt.lose();
            attempt.give_up().await;
            Err(Refusal::LeaseLost)
        }
        Verdict::NotDone => Ok(Settled::NotDone),
        Verdict::Unknown => {
            attempt.give_up().await;
            Ok(Settled::Unknown)
        }
    }
}

/// The effect is unknown, and whoever comes next should learn that at once.
pub(crate) async fn give_up_and_panic<T>(attempt: &Attempt, panic: Box<dyn Any + Send>) -> T {
    attempt.give_up().await;
    resume_unwind(panic)
}
