//! Ending an attempt: recording its result, or what is known without one.

use std::time::Duration;

use super::attempt::Attempt;
use super::outcome::RecordError;
use super::patience::{Backoff, Patience};
use super::value::Encoded;
use crate::Fingerprint;
use crate::observe::Event;
use crate::store::{
    Abandon, Claim, ClaimOutcome, Complete, Completion, ErrorKind, Fenced, Known, OnInterrupted,
    Store,
};
use crate::transaction::check_completed;

/// How often giving up is tried: what it would record comes about by itself when the lease lapses.
const GIVE_UP_TRIES: usize = 3;
/// How long a release is tried, which does not: a key that nobody frees may stay interrupted for ever.
const LONGEST_ABANDON: Duration = Duration::from_secs(5);
/// How often a claim for a result whose record vanished is tried.
const ANEW_TRIES: usize = 3;

/// What an attempt that says that it did nothing is remembered as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nothing was done.
    AsNotStarted,
    /// A step ran, or an earlier attempt may have done something.
    AsUnknown,
    /// Nothing was done, and the store did not take it: the key is interrupted when the lease lapses.
    Unrecorded,
}

/// A result that could not be recorded, and why: never lost on the way.
pub(crate) struct NotRecorded {
    pub(crate) value: Encoded,
    pub(crate) error: RecordError,
}

impl Attempt {
    /// Records that the operation is done.
    ///
    /// A lost acknowledgement is settled by completing again with the very same bytes. It is tried for
    /// one lease; a result is never dropped because of one failed call.
    pub(crate) async fn complete(
        &self,
        fingerprint: &Fingerprint,
        value: Encoded,
        replayable: bool,
    ) -> Result<(), NotRecorded> {
        self.end();
        let settings = &self.engine().settings;
        let value = value.into_bytes();
        let completion = Completion {
            replayable: replayable && value.len() <= settings.max_value_len,
            value,
            retention: settings.retention,
            hold: settings.retired_hold(),
        };
        if !completion.replayable {
            settings.observe(&Event::NotReplayable { len: completion.value.len() });
        }
        let mut complete = Complete { grant: self.grant(), completion };
        let recorded = match self.try_complete(&mut complete).await {
            Ok(Fenced::Gone) => Box::pin(self.complete_anew(fingerprint, &mut complete)).await,
            Ok(fenced) => check_completed(fenced),
            Err(error) => Err(error),
        };
        recorded.map_err(|error| NotRecorded {
            value: Encoded::from_bytes(complete.completion.value),
            error,
        })
    }

    async fn try_complete(&self, complete: &mut Complete) -> Result<Fenced, RecordError> {
        let engine = self.engine();
        let settings = &engine.settings;
        let mut patience = Patience::of(settings.lease);
        let mut backoff = Backoff::within(settings.lease);
        // Of one copy that may have been applied; no later error of another copy takes that back.
        let mut unknown = None;
        loop {
            let call = engine.store.complete(self.stored_key(), complete);
            let error = match patience.answer("complete", &*settings.timer, call).await {
                Ok(fenced) => return Ok(fenced),
                Err(error) => error,
            };
            let kind = error.kind();
            settings.observe(&Event::StoreFailed { operation: "complete", kind });
            if matches!(kind, ErrorKind::TooLarge | ErrorKind::Full)
                && complete.completion.replayable
            {
                // The effect happened: keep the fact, if not the value.
                complete.completion.replayable = false;
                let len = complete.completion.value.len();
                settings.observe(&Event::NotReplayable { len });
                continue;
            }
            if kind == ErrorKind::OutcomeUnknown {
                unknown = Some(error.clone());
            }
            let pause = settings.timer.now() + backoff.next(&*settings.random);
            if !error.is_retryable() || patience.is_over_at(pause, &*settings.timer) {
                return Err(RecordError::Store(unknown.unwrap_or(error)));
            }
            settings.timer.sleep_until(pause).await;
        }
    }

    /// Records the result under a new grant, if the record vanished and nobody has the key since.
    async fn complete_anew(
        &self,
        fingerprint: &Fingerprint,
        complete: &mut Complete,
    ) -> Result<(), RecordError> {
        let engine = self.engine();
        let settings = &engine.settings;
        let claim = Claim {
            attempt: engine.mint(),
            fingerprint: *fingerprint,
            lease: settings.lease,
            hold: settings.interrupted_hold(),
            on_interrupted: OnInterrupted::Refuse,
            on_retired: settings.on_retired(),
        };
        let mut patience = Patience::of(settings.lease);
        let mut backoff = Backoff::within(settings.lease);
        let mut tries = ANEW_TRIES;
        loop {
            let call = engine.store.claim(self.stored_key(), &claim);
            let answer = patience.answer("claim", &*settings.timer, call).await;
            if let Err(error) = &answer {
                let kind = error.kind();
                settings.observe(&Event::StoreFailed { operation: "claim", kind });
            }
            match answer {
                Ok(ClaimOutcome::Acquired { grant, .. }) => {
                    complete.grant = grant;
                    return check_completed(self.try_complete(complete).await?);
                }
                // Recorded meanwhile by an earlier copy of ours, or by somebody who ran it again.
                Ok(ClaimOutcome::Replay(Some(stored))) if stored == complete.completion.value => {
                    return Ok(());
                }
                Ok(ClaimOutcome::Replay(_)) => return Err(RecordError::Conflict),
                Ok(_) => return Err(RecordError::Gone),
                Err(error) if error.is_retryable() && tries > 0 => tries -= 1,
                Err(error) => return Err(RecordError::Store(error)),
            }
            let pause = settings.timer.now() + backoff.next(&*settings.random);
            settings.timer.sleep_until(pause).await;
        }
    }

    /// Says that this attempt did nothing: the key is free at once.
    ///
    /// An attempt that took over speaks for itself alone. Unless it is known (`previous_settled`) that
    /// the one before did nothing either, the key stays interrupted. It also does if a step of this
    /// attempt ran.
    pub(crate) async fn release(&self, previous_settled: bool) -> Ended {
        // First, so that no step starts any more, and then what has started is counted.
        self.end();
        let inherited = self.previous().is_some_and(|previous| previous.progress.is_some());
        if (self.is_takeover() && !previous_settled) || inherited || self.has_effects() {
            self.give_up().await;
            return Ended::AsUnknown;
        }
        let hold = self.engine().settings.released_hold();
        if !self.abandon(Known::NotStarted { hold }, usize::MAX).await {
            return Ended::Unrecorded;
        }
        self.engine().settings.observe(&Event::Released { number: self.number() });
        Ended::AsNotStarted
    }

    /// Says that the outcome is unknown: nobody need wait for the lease to lapse.
    pub(crate) async fn give_up(&self) {
        if self.abandon(Known::Unknown, GIVE_UP_TRIES).await {
            self.engine().settings.observe(&Event::GaveUp { number: self.number() });
        }
    }

    async fn abandon(&self, known: Known, tries: usize) -> bool {
        self.end();
        let engine = self.engine();
        let settings = &engine.settings;
        let mut patience = Patience::of(settings.lease.min(LONGEST_ABANDON));
        let abandon = Abandon { grant: self.grant(), known };
        let mut backoff = Backoff::within(settings.lease);
        for tried in 1.. {
            let call = engine.store.abandon(self.stored_key(), &abandon);
            let answer = patience.answer("abandon", &*settings.timer, call).await;
            let error = match answer {
                Ok(fenced) => return fenced == Fenced::Applied,
                Err(error) => error,
            };
            settings.observe(&Event::StoreFailed { operation: "abandon", kind: error.kind() });
            let pause = settings.timer.now() + backoff.next(&*settings.random);
            if !error.is_retryable()
                || tried >= tries
                || patience.is_over_at(pause, &*settings.timer)
            {
                break;
            }
            settings.timer.sleep_until(pause).await;
        }
        false
    }
}
