//! Commands and answers of every kind as one type each, so that they can be generated, recorded and
//! replayed against the rules.

use std::fmt;

use oncekey::Key;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    Abandon, AttemptId, Change, Claim, ClaimOutcome, Command, Complete, Evict, Expected, Fenced,
    FencingToken, Grant, Observed, Record, Renew, Settle, Store, StoreError, Transition,
    transition,
};

use super::legend::Legend;

/// What a client asks of a store about one key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// [`Store::claim`].
    Claim(Claim),
    /// [`Store::renew`].
    Renew(Renew),
    /// [`Store::complete`].
    Complete(Complete),
    /// [`Store::abandon`].
    Abandon(Abandon),
    /// [`Store::settle`].
    Settle(Settle),
    /// [`Store::evict`].
    Evict(Evict),
    /// [`Store::get`].
    Get,
}

/// What a store answers to an [`Operation`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// To a claim.
    Claim(ClaimOutcome),
    /// To a command that names an attempt.
    Fenced(Fenced),
    /// To a read.
    Get(Option<Observed>),
}

impl Operation {
    /// Asks `store`.
    ///
    /// # Errors
    /// Whatever broke in the store.
    pub async fn send(&self, store: &dyn Store, key: &Key) -> Result<Answer, StoreError> {
        match self {
            Self::Claim(claim) => store.claim(key, claim).await.map(Answer::Claim),
            Self::Renew(renew) => store.renew(key, renew).await.map(Answer::Fenced),
            Self::Complete(complete) => store.complete(key, complete).await.map(Answer::Fenced),
            Self::Abandon(abandon) => store.abandon(key, abandon).await.map(Answer::Fenced),
            Self::Settle(settle) => store.settle(key, settle).await.map(Answer::Fenced),
            Self::Evict(evict) => store.evict(key, evict).await.map(Answer::Fenced),
            Self::Get => store.get(key).await.map(Answer::Get),
        }
    }

    /// Asks the rules: the answer to this operation on `record` at `now`, and the record after it.
    #[must_use]
    pub fn apply(&self, record: Option<&Record>, now: Timestamp) -> (Answer, Option<Record>) {
        match self {
            Self::Claim(claim) => decide(record, claim, now, Answer::Claim),
            Self::Renew(renew) => decide(record, renew, now, Answer::Fenced),
            Self::Complete(complete) => decide(record, complete, now, Answer::Fenced),
            Self::Abandon(abandon) => decide(record, abandon, now, Answer::Fenced),
            Self::Settle(settle) => decide(record, settle, now, Answer::Fenced),
            Self::Evict(evict) => decide(record, evict, now, Answer::Fenced),
            Self::Get => {
                let observed = record.map(|record| Observed::new(record.clone(), now));
                (Answer::Get(observed), record.cloned())
            }
        }
    }

    /// The grant under which it is sent, where it is an owner's.
    pub(super) const fn grant(&self) -> Option<Grant> {
        match self {
            Self::Renew(renew) => Some(renew.grant),
            Self::Complete(complete) => Some(complete.grant),
            Self::Abandon(abandon) => Some(abandon.grant),
            Self::Claim(_) | Self::Settle(_) | Self::Evict(_) | Self::Get => None,
        }
    }

    /// The same under a grant with another token, where it is an owner's.
    #[must_use]
    pub(super) fn with_token(&self, token: FencingToken) -> Self {
        let mut operation = self.clone();
        match &mut operation {
            Self::Renew(renew) => renew.grant.token = token,
            Self::Complete(complete) => complete.grant.token = token,
            Self::Abandon(abandon) => abandon.grant.token = token,
            Self::Claim(_) | Self::Settle(_) | Self::Evict(_) | Self::Get => {}
        }
        operation
    }

    /// The attempt that it is about, where it names one.
    pub(super) const fn attempt(&self) -> Option<AttemptId> {
        match self {
            Self::Claim(claim) => Some(claim.attempt),
            Self::Renew(renew) => Some(renew.grant.attempt),
            Self::Complete(complete) => Some(complete.grant.attempt),
            Self::Abandon(abandon) => Some(abandon.grant.attempt),
            Self::Settle(Settle { expected, .. }) | Self::Evict(Evict { expected, .. }) => {
                match expected {
                    Expected::Attempt(attempt) => Some(*attempt),
                    Expected::Token(_) | Expected::Any => None,
                }
            }
            Self::Get => None,
        }
    }
}

fn decide<C: Command>(
    record: Option<&Record>,
    command: &C,
    now: Timestamp,
    answer: impl FnOnce(C::Outcome) -> Answer,
) -> (Answer, Option<Record>) {
    let Transition { change, outcome } = transition(record, command, now);
    let after = match change {
        Change::Keep => record.cloned(),
        Change::Put(record) => Some(record),
        Change::Remove => None,
    };
    (answer(outcome), after)
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Legend::default().operation(self))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Legend::default().answer(self))
    }
}
