//! Commands as values, for rules about many of them.

use std::future::Future;
use std::time::Duration;

use futures::future::BoxFuture;
use oncekey::Key;
use oncekey::runtime::{ThreadTimer, Timer};
use oncekey::store::{
    Abandon, Complete, Completion, ErrorKind, Evict, Expected, Fenced, Grant, Known, Progress,
    Renew, Settle, Settlement, Store, StoreError,
};

use super::expect::broken;
use crate::Violation;
use crate::history::{Answer, Operation};

/// A call that is under way; a purge has no answer about a key.
pub(crate) type Call<'a> = BoxFuture<'a, Result<Option<Answer>, StoreError>>;

/// `operation`, on its way, as whoever races sends it.
pub(crate) fn call<'a>(operation: &'a Operation, store: &'a dyn Store, key: &'a Key) -> Call<'a> {
    Box::pin(async { insist(|| operation.send(store, key)).await.map(Some) })
}

/// A purge, on its way.
pub(crate) fn purge(store: &dyn Store) -> Call<'_> {
    Box::pin(async { insist(|| store.purge(1_000)).await.map(|_| None) })
}

/// Asks until there is an answer, as an engine does. A store whose calls get into each other's way may
/// leave one of them in the dark, or turn it away before it began: for a lock that was not had in time,
/// or a transaction that another one overtook. It may not do so for ever.
async fn insist<T, S>(ask: impl Fn() -> S) -> Result<T, StoreError>
where
    S: Future<Output = Result<T, StoreError>>,
{
    const MOST_COPIES: u32 = 8;
    const REST: Duration = Duration::from_millis(50);
    let timer = ThreadTimer::new();
    let mut copies = 1;
    loop {
        match ask().await {
            Err(error) if error.is_retryable() && copies < MOST_COPIES => {
                if error.kind() != ErrorKind::OutcomeUnknown {
                    // Whoever is in the way may be a call that stands still until this one waits.
                    timer.sleep_until(timer.now() + copies * REST).await;
                }
                copies += 1;
            }
            answered => return answered,
        }
    }
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
