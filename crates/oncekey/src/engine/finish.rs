//! Ending an attempt: recording its result, or what is known without one.

use std::time::Duration;

use super::attempt::Attempt;
use super::lease::{Backoff, within};
use super::outcome::RecordError;
use super::value::Encoded;
use crate::Fingerprint;
use crate::observe::Event;
use crate::store::{
    Abandon, Claim, ClaimOutcome, Complete, Completion, ErrorKind, Fenced, Known, OnInterrupted,
    Store, StoreError,
};
use crate::transaction::check_completed;

/// How often abandoning is tried: what it would record comes about by itself when the lease lapses.
const ABANDON_TRIES: usize = 3;
const LONGEST_ABANDON: Duration = Duration::from_secs(5);

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
            Ok(Fenced::Gone) => self.complete_anew(fingerprint, &mut complete).await,
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
        // Looked up when the store first lets us wait, which most do not.
        let mut give_up_at = None;
        let mut patience = || {
            *give_up_at.get_or_insert_with(|| settings.timer.now().saturating_add(settings.lease))
        };
        let mut backoff = Backoff::within(settings.lease);
        // Of one copy that may have been applied; no later error of another copy takes that back.
        let mut unknown = None;
        loop {
            let call = engine.store.complete(self.stored_key(), complete);
            match within(&*settings.timer, &mut patience, call).await {
                Some(Ok(fenced)) => return Ok(fenced),
                Some(Err(error)) => {
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
                    if !error.is_retryable() || pause >= patience() {
                        return Err(RecordError::Store(unknown.unwrap_or(error)));
                    }
                    settings.timer.sleep_until(pause).await;
                }
                None => return Err(RecordError::Store(no_answer("complete"))),
            }
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
        let give_up_at = settings.timer.now().saturating_add(settings.lease);
        let mut backoff = Backoff::within(settings.lease);
        let mut tries = ABANDON_TRIES;
        loop {
            let call = engine.store.claim(self.stored_key(), &claim);
            let Some(answer) = within(&*settings.timer, || give_up_at, call).await else {
                return Err(RecordError::Store(no_answer("claim")));
            };
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
    /// attempt ran. Returns whether the key is free.
    pub(crate) async fn release(&self, previous_settled: bool) -> bool {
        let inherited = self.previous().is_some_and(|previous| previous.progress.is_some());
        if (self.is_takeover() && !previous_settled) || inherited || self.has_effects() {
            self.give_up().await;
            return false;
        }
        let hold = self.engine().settings.released_hold();
        let released = self.abandon(Known::NotStarted { hold }).await;
        if released {
            self.engine().settings.observe(&Event::Released { number: self.number() });
        }
        released
    }

    /// Says that the outcome is unknown: nobody need wait for the lease to lapse.
    pub(crate) async fn give_up(&self) {
        if self.abandon(Known::Unknown).await {
            self.engine().settings.observe(&Event::GaveUp { number: self.number() });
        }
    }

    async fn abandon(&self, known: Known) -> bool {
        self.end();
        let engine = self.engine();
        let settings = &engine.settings;
        let mut give_up_at = None;
        let mut patience = || {
            let longest = settings.lease.min(LONGEST_ABANDON);
            *give_up_at.get_or_insert_with(|| settings.timer.now().saturating_add(longest))
        };
        let abandon = Abandon { grant: self.grant(), known };
        let mut backoff = Backoff::within(settings.lease);
        for _ in 0..ABANDON_TRIES {
            let call = engine.store.abandon(self.stored_key(), &abandon);
            match within(&*settings.timer, &mut patience, call).await {
                Some(Ok(fenced)) => return fenced == Fenced::Applied,
                Some(Err(error)) => {
                    let kind = error.kind();
                    settings.observe(&Event::StoreFailed { operation: "abandon", kind });
                    if !error.is_retryable() {
                        return false;
                    }
                }
                None => return false,
            }
            let pause = settings.timer.now() + backoff.next(&*settings.random);
            settings.timer.sleep_until(pause.min(patience())).await;
        }
        false
    }
}

/// Whether a command that was not answered was applied, nobody knows.
pub(crate) fn no_answer(operation: &'static str) -> StoreError {
    StoreError::new(ErrorKind::OutcomeUnknown, operation)
        .with_message("the store did not answer for as long as a lease lasts")
}
