//! Commands as values, for rules about many of them.

use std::time::Duration;

use futures::future::BoxFuture;
use oncekey::Key;
use oncekey::store::{
    Abandon, Complete, Completion, ErrorKind, Evict, Expected, Fenced, Grant, Known, Progress,
    Renew, Settle, Settlement, Store, StoreError,
};

use super::expect::broken;
use crate::Violation;
use crate::history::{Answer, Operation};

/// A call that is under way; a purge has no answer about a key.
pub(crate) type Call<'a> = BoxFuture<'a, Result<Option<Answer>, StoreError>>;

/// `operation`, on its way. Whoever races may be left in the dark, and then asks again as an engine
/// does.
pub(crate) fn call<'a>(operation: &'a Operation, store: &'a dyn Store, key: &'a Key) -> Call<'a> {
    const MOST_COPIES: usize = 5;
    Box::pin(async {
        let mut copies = 1;
        loop {
            match operation.send(store, key).await {
                Err(error) if error.kind() == ErrorKind::OutcomeUnknown && copies < MOST_COPIES => {
                    copies += 1;
                }
                answered => return answered.map(Some),
            }
        }
    })
}

/// A purge, on its way.
pub(crate) fn purge(store: &dyn Store) -> Call<'_> {
    Box::pin(async { store.purge(1_000).await.map(|_| None) })
}

impl Operation {
    pub(crate) fn renew(
        grant: Grant,
        lease: Duration,
        progress: Option<(u64, &'static str)>,
    ) -> Self {
        Self::Renew(Renew {
            grant,
            lease,
            progress: progress.map(|(sequence, data)| Progress { sequence, data: data.into() }),
        })
    }

    pub(crate) const fn complete(grant: Grant, completion: Completion) -> Self {
        Self::Complete(Complete { grant, completion })
    }

    pub(crate) const fn release(grant: Grant, hold: Duration) -> Self {
        Self::Abandon(Abandon { grant, known: Known::NotStarted { hold } })
    }

    pub(crate) const fn give_up(grant: Grant) -> Self {
        Self::Abandon(Abandon { grant, known: Known::Unknown })
    }

    pub(crate) const fn settle(expected: Expected, settlement: Settlement) -> Self {
        Self::Settle(Settle { expected, settlement })
    }

    pub(crate) const fn evict(expected: Expected, force: bool) -> Self {
        Self::Evict(Evict { expected, force })
    }

    /// The answer to a command that is fenced.
    pub(crate) async fn fenced(&self, store: &dyn Store, key: &Key) -> Result<Fenced, Violation> {
        match self.send(store, key).await? {
            Answer::Fenced(fenced) => Ok(fenced),
            other => broken("a command that is fenced", other),
        }
    }
}
