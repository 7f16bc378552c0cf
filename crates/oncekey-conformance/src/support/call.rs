//! Any command as a value, for rules about all of them.

use std::time::Duration;

use futures::future::BoxFuture;
use oncekey::Key;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    Abandon, Change, Claim, ClaimOutcome, Complete, Completion, Evict, Expected, Fenced, Grant,
    Known, Progress, Purge, Purged, Record, Renew, Settle, Settlement, Store, StoreError,
    transition,
};

use super::expect::broken;
use crate::Violation;

/// A command.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    Claim(Claim),
    Renew(Renew),
    Complete(Complete),
    Abandon(Abandon),
    Settle(Settle),
    Evict(Evict),
    Purge { limit: usize },
}

/// What a store answers to a [`Call`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Claim(ClaimOutcome),
    Fenced(Fenced),
    Purged(Purged),
}

/// A command on its way.
pub(crate) type Sent<'a> = BoxFuture<'a, Result<Answer, StoreError>>;

impl Call {
    pub(crate) fn renew(
        grant: Grant,
        lease: Duration,
        progress: Option<(u64, &'static str)>,
    ) -> Self {
        Self::Renew(Renew {
            grant,
            lease,
            progress: progress.map(|(sequence, data)| Progress {
                sequence,
                data: data.into(),
            }),
        })
    }

    pub(crate) const fn complete(grant: Grant, completion: Completion) -> Self {
        Self::Complete(Complete { grant, completion })
    }

    pub(crate) const fn release(grant: Grant, hold: Duration) -> Self {
        Self::Abandon(Abandon {
            grant,
            known: Known::NotStarted { hold },
        })
    }

    pub(crate) const fn give_up(grant: Grant) -> Self {
        Self::Abandon(Abandon {
            grant,
            known: Known::Unknown,
        })
    }

    pub(crate) const fn settle(expected: Expected, settlement: Settlement) -> Self {
        Self::Settle(Settle {
            expected,
            settlement,
        })
    }

    pub(crate) const fn evict(expected: Expected, force: bool) -> Self {
        Self::Evict(Evict { expected, force })
    }

    pub(crate) fn send<'a>(&'a self, store: &'a dyn Store, key: &'a Key) -> Sent<'a> {
        Box::pin(self.answered(store, key))
    }

    async fn answered(&self, store: &dyn Store, key: &Key) -> Result<Answer, StoreError> {
        Ok(match self {
            Self::Claim(claim) => Answer::Claim(store.claim(key, claim).await?),
            Self::Renew(renew) => Answer::Fenced(store.renew(key, renew).await?),
            Self::Complete(complete) => Answer::Fenced(store.complete(key, complete).await?),
            Self::Abandon(abandon) => Answer::Fenced(store.abandon(key, abandon).await?),
            Self::Settle(settle) => Answer::Fenced(store.settle(key, settle).await?),
            Self::Evict(evict) => Answer::Fenced(store.evict(key, evict).await?),
            Self::Purge { limit } => Answer::Purged(store.purge(*limit).await?),
        })
    }

    /// The answer to a command that is fenced.
    pub(crate) async fn fenced(&self, store: &dyn Store, key: &Key) -> Result<Fenced, Violation> {
        match self.answered(store, key).await? {
            Answer::Fenced(fenced) => Ok(fenced),
            other => broken("a command that is fenced", other),
        }
    }

    /// What the rules do to `record` at `now`.
    pub(crate) fn change(&self, record: Option<&Record>, now: Timestamp) -> Change {
        match self {
            Self::Claim(claim) => transition(record, claim, now).change,
            Self::Renew(renew) => transition(record, renew, now).change,
            Self::Complete(complete) => transition(record, complete, now).change,
            Self::Abandon(abandon) => transition(record, abandon, now).change,
            Self::Settle(settle) => transition(record, settle, now).change,
            Self::Evict(evict) => transition(record, evict, now).change,
            Self::Purge { .. } => transition(record, &Purge, now).change,
        }
    }
}
