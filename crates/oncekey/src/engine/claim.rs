//! Getting the right to run: one claim, asked until it is answered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::attempt::Attempt;
use super::outcome::RecordError;
use super::patience::{Backoff, Patience};
use super::value::{CodecError, Encoded};
use super::{Inner, Settings};
use crate::observe::Event;
use crate::store::{Claim, ClaimOutcome, ErrorKind, OnInterrupted, Store, StoreError};
use crate::{Fingerprint, Key};

/// How often a claim with an unknown outcome is sent in all, before its caller is told.
const SENDS: usize = 4;

/// What a run may do.
pub(crate) enum Admission {
    Run(Attempt),
    Replay(Option<Bytes>),
}

/// Why it may do nothing.
#[derive(Debug)]
pub(crate) enum Refusal {
    Busy { retry_after: Duration },
    Mismatch,
    Interrupted,
    Retired,
    LeaseLost,
    Unrecorded { value: Option<Encoded>, error: RecordError },
    Codec(CodecError),
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// One request for a key: what to claim it with, for all its polls.
pub(crate) struct Request<'a> {
    engine: &'a Arc<Inner>,
    key: &'a Key,
    question: Question<'a>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(engine: &'a Arc<Inner>, key: &'a Key, fingerprint: &Fingerprint) -> Self {
        let settings = &engine.settings;
        let stored_key = settings.stored_key(key);
        let claim = Claim {
            attempt: engine.mint(),
            fingerprint: *fingerprint,
            lease: settings.lease,
            hold: settings.interrupted_hold(),
            on_interrupted: settings.on_interrupted(),
            on_retired: settings.on_retired(),
        };
        Self { engine, key, question: Question::new(engine, stored_key, claim) }
    }

    /// A request for a key as a store has listed it, be it hashed or not.
    pub(crate) fn listed(engine: &'a Arc<Inner>, key: &'a Key, fingerprint: &Fingerprint) -> Self {
        let mut request = Self::new(engine, key, fingerprint);
        request.question.stored_key = key.clone();
        request
    }

    /// Takes an interrupted key over, whatever the guarantee, and remembers it for `hold`.
    pub(crate) const fn take_over(&mut self, hold: Duration) {
        self.question.claim.on_interrupted = OnInterrupted::TakeOver;
        self.question.claim.hold = hold;
    }

    pub(crate) const fn stored_key(&self) -> &Key {
        &self.question.stored_key
    }

    pub(crate) const fn fingerprint(&self) -> Fingerprint {
        self.question.claim.fingerprint
    }

    /// Claims once, and adopts a grant of ours that was never answered.
    pub(crate) async fn ask(&mut self) -> Result<Admission, Refusal> {
        let mut spent = 0;
        loop {
            let (outcome, sent) = self.question.send().await?;
            match outcome {
                ClaimOutcome::Busy { .. } | ClaimOutcome::Interrupted => {
                    if let Some(admission) = self.adopt().await {
                        return Ok(admission);
                    }
                }
                ClaimOutcome::Spent if spent < SENDS => {
                    spent += 1;
                    // An operator ended the attempt while its answer was lost. The id is used up.
                    let claim = Claim { attempt: self.engine.mint(), ..self.question.claim };
                    self.question = Question::new(self.engine, self.stored_key().clone(), claim);
                    continue;
                }
                _ => {}
            }
            return self.admit(outcome, sent);
        }
    }

    async fn adopt(&self) -> Option<Admission> {
        let attempt = self.engine.shared.unanswered.take(self.stored_key())?;
        let claim = Claim { attempt, ..self.question.claim };
        let mut question = Question::new(self.engine, self.stored_key().clone(), claim);
        question.in_doubt = true;
        match question.send().await {
            Ok((outcome @ ClaimOutcome::Acquired { .. }, sent)) => {
                self.engine.settings.observe(&Event::Adopted);
                self.admit(outcome, sent).ok()
            }
            Ok((ClaimOutcome::Replay(value), _)) => Some(Admission::Replay(value)),
            // Not ours, or not granted yet.
            Ok(_) | Err(_) => None,
        }
    }

    fn admit(&self, outcome: ClaimOutcome, sent: Duration) -> Result<Admission, Refusal> {
        match outcome {
            ClaimOutcome::Acquired { grant, number, lease_left, previous } => {
                // Counted from before the claim was sent: however long the answer took, the store's
                // deadline is not earlier.
                let deadline = sent.saturating_add(Settings::usable(lease_left));
                if let Some(previous) = &previous {
                    let cause = previous.cause;
                    self.engine.settings.observe(&Event::TakenOver { cause, number });
                }
                let keys = (self.key, self.stored_key().clone());
                let attempt = Attempt::new(self.engine, keys, grant, number, previous, deadline);
                Ok(Admission::Run(attempt))
            }
            ClaimOutcome::Replay(value) => Ok(Admission::Replay(value)),
            ClaimOutcome::Busy { retry_after } => Err(Refusal::Busy { retry_after }),
            ClaimOutcome::Mismatch => Err(Refusal::Mismatch),
            ClaimOutcome::Interrupted => Err(Refusal::Interrupted),
            ClaimOutcome::Retired => Err(Refusal::Retired),
            ClaimOutcome::Spent => Err(Refusal::Store(
                StoreError::new(ErrorKind::Unavailable, "claim")
                    .with_message("the attempt was ended by somebody else; try again"),
            )),
        }
    }
}

/// One attempt id, and whether a claim under it may still be granted without anybody knowing.
///
/// While the question lives, its owner is the only one to use the id: two runs that both took the
/// same grant for theirs would both run. When it is dropped in doubt, the id is remembered.
struct Question<'a> {
    engine: &'a Inner,
    stored_key: Key,
    claim: Claim,
    /// A copy of the claim is, or may be, in the air.
    in_doubt: bool,
}

impl<'a> Question<'a> {
    const fn new(engine: &'a Inner, stored_key: Key, claim: Claim) -> Self {
        Self { engine, stored_key, claim, in_doubt: false }
    }

    /// Sends the claim until it is answered. Also returns when the answered copy was sent.
    async fn send(&mut self) -> Result<(ClaimOutcome, Duration), StoreError> {
        let settings = &self.engine.settings;
        let mut backoff = Backoff::within(settings.lease);
        // An answer that takes as long as the lease would be of no use.
        let mut patience = Patience::of(settings.lease);
        let earlier_doubt = self.in_doubt;
        // Of one copy that may have been applied; no later error of another copy takes that back.
        let mut unknown: Option<StoreError> = None;
        let mut sends = 0;
        loop {
            sends += 1;
            let sent = settings.timer.now();
            // Until it is answered: dropped in mid-call, nobody knows.
            self.in_doubt = true;
            let call = self.engine.store.claim(&self.stored_key, &self.claim);
            let error = match patience.answer("claim", &*settings.timer, call).await {
                Ok(outcome) => {
                    self.in_doubt = match outcome {
                        // Used up, or for good without effect.
                        ClaimOutcome::Acquired { .. }
                        | ClaimOutcome::Replay(_)
                        | ClaimOutcome::Spent => false,
                        // An older copy may still arrive, after this refusal.
                        _ => earlier_doubt || unknown.is_some(),
                    };
                    return Ok((outcome, sent));
                }
                Err(error) => error,
            };
            let kind = error.kind();
            settings.observe(&Event::StoreFailed { operation: "claim", kind });
            if kind == ErrorKind::OutcomeUnknown {
                unknown = Some(error.clone());
            }
            self.in_doubt = earlier_doubt || unknown.is_some();
            let pause = settings.timer.now() + backoff.next(&*settings.random);
            let late = patience.is_over_at(pause, &*settings.timer);
            if kind != ErrorKind::OutcomeUnknown || sends == SENDS || late {
                return Err(unknown.unwrap_or(error));
            }
            settings.timer.sleep_until(pause).await;
        }
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        if self.in_doubt {
            self.engine.shared.unanswered.remember(&self.stored_key, self.claim.attempt);
        }
    }
}
