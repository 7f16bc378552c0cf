//! Finishing interrupted keys without waiting for a client.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use super::jittered;
use crate::Key;
use crate::Verify;
use crate::engine::{Admission, Ended, Inner, Refusal, Request, Settled, settle_interruption};
use crate::observe::Event;
use crate::runtime::Timestamp;
use crate::store::{Cursor, ErrorKind, Observed, Query, State, Store, StoreError};

/// Pages through interrupted keys and lets a hook say what became of each.
///
/// Each key is taken over first, like a retry would, and asked about under a renewed lease: a client
/// that retries at the same moment is told to wait, and nobody else verifies the same key. *Done* is
/// recorded, *not done* frees the key, *unknown* leaves it interrupted.
///
/// A store holds the keys of all who use it; a completer leaves those of other operations alone.
///
/// Needs a store that can list ([`Store::inspect`](crate::store::Store::inspect)).
/// ```
/// # use oncekey::*;
/// # use oncekey_memory::MemoryStore;
/// # futures::executor::block_on(async {
/// # let key = Key::new(&Scope::new("tenant-42", "pay")?, "order-17")?;
/// # let fingerprint = Fingerprint::of("100 EUR");
/// let idempotency = Idempotency::at_most_once(MemoryStore::new());
/// # let unknown = async || Err::<String, _>(std::io::Error::other("connection lost"));
/// # let _ = idempotency.run(&key, &fingerprint, |_| unknown()).await;
/// let look_up = async |_: Interruption| Verdict::NotDone;
/// let completions = idempotency.completer("pay", move |i| look_up(i)).complete().await?;
/// assert_eq!(completions.not_done, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Completer {
    engine: Arc<Inner>,
    hook: Arc<dyn Verify>,
    wanted: Arc<dyn Fn(&Key) -> bool + Send + Sync>,
    interval: Duration,
    page: usize,
}

/// What a [`Completer`] did in one pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Completions {
    /// Keys that are recorded as done.
    pub done: usize,
    /// Keys that are free again.
    pub not_done: usize,
    /// Keys that stay interrupted, for the hook could not tell, the store failed, or steps of an
    /// operation that is not done are kept for whoever takes over.
    pub unknown: usize,
    /// Keys that somebody else ended or took over meanwhile.
    pub taken: usize,
    /// Keys that are not the [wanted](Completer::only) ones.
    pub left_alone: usize,
    /// Records that could not be decoded, and that somebody should look at.
    pub undecodable: usize,
}

impl Completer {
    pub(super) fn new(engine: Arc<Inner>, operation: Vec<u8>, hook: Arc<dyn Verify>) -> Self {
        let interval = Duration::from_secs(60);
        let wanted = Arc::new(move |key: &Key| key.operation() == Some(&operation));
        Self { engine, hook, wanted, interval, page: 100 }
    }

    /// Takes the keys that are `wanted`, instead of those of one operation. The hook must know how to look
    /// up each of them: a hook that says *not done* of what it does not know makes it run twice.
    ///
    /// Unless told otherwise, [hashed](crate::Idempotency::hash_keys) keys are left alone. A hook that
    /// sees a hashed key cannot tell what it stands for, and a [`child`](Key::child) of it is not the
    /// one that the operation derived: looked up under it, what was done would seem not done. If the
    /// hook goes by saved steps or tokens, pass `|_| true`.
    #[must_use]
    pub fn only(mut self, wanted: impl Fn(&Key) -> bool + Send + Sync + 'static) -> Self {
        self.wanted = Arc::new(wanted);
        self
    }

    /// The longest pause between two passes; each is shortened by up to half at random. 60 s by default.
    #[must_use]
    pub const fn every(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How many keys one call of the store lists at the most. 100 by default.
    #[must_use]
    pub const fn page(mut self, keys: usize) -> Self {
        self.page = if keys == 0 { 1 } else { keys };
        self
    }

    /// Asks about every key that is interrupted now, one after the other.
    ///
    /// # Cancel safety
    /// Dropped: the key at hand becomes interrupted again when its lease lapses.
    ///
    /// # Errors
    /// [`Misconfigured`](ErrorKind::Misconfigured) when the store cannot list; otherwise those of
    /// listing. What fails for a single key is counted in [`Completions::unknown`].
    pub async fn complete(&self) -> Result<Completions, StoreError> {
        self.engine.settings.check()?;
        let Some(inspect) = self.engine.store.inspect() else {
            return Err(StoreError::new(ErrorKind::Misconfigured, "complete interrupted keys")
                .with_message("this store cannot list its keys; settle each by its key instead"));
        };
        let mut completions = Completions::default();
        let mut after: Option<Cursor> = None;
        loop {
            let states = vec![State::Lapsed, State::GaveUp];
            let page = inspect.list(&Query { states, after, limit: self.page }).await?;
            completions.undecodable += page.undecodable;
            for (key, observed) in &page.entries {
                if !(self.wanted)(key) {
                    completions.left_alone += 1;
                    continue;
                }
                // A hook that panics about one key must not keep the others from being asked about.
                let completing = AssertUnwindSafe(self.complete_one(key, observed));
                let completed = completing.catch_unwind().await.unwrap_or(Ok(Settled::Unknown));
                match completed {
                    Ok(Settled::Done(_)) => completions.done += 1,
                    Ok(Settled::NotDone) => completions.not_done += 1,
                    Ok(Settled::NotInterrupted)
                    | Err(Refusal::Busy { .. } | Refusal::Mismatch | Refusal::Retired) => {
                        completions.taken += 1;
                    }
                    Ok(Settled::Unknown) | Err(_) => completions.unknown += 1,
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(completions),
            }
        }
    }

    async fn complete_one(&self, key: &Key, observed: &Observed) -> Result<Settled, Refusal> {
        let fingerprint = observed.record.fingerprint;
        let mut request = Request::listed(&self.engine, key, &fingerprint);
        // It stays for as long as it was to be kept: a hook that cannot tell changes nothing of that.
        let record = &observed.record;
        let left = record.forget_at.saturating_since(observed.now);
        request.take_over(match record.forget_at {
            Timestamp::MAX => Duration::MAX,
            _ => left.saturating_sub(self.engine.settings.lease),
        });
        let Admission::Run(attempt) = request.ask().await? else {
            return Ok(Settled::NotInterrupted);
        };
        if attempt.is_lease_lost() {
            attempt.release(false).await;
            return Ok(Settled::Unknown);
        }
        let settled = settle_interruption(&attempt, &fingerprint, &*self.hook, &|_| Ok(())).await;
        if let Err(Refusal::Unrecorded { .. }) = &settled {
            self.engine.settings.observe(&Event::Unrecorded);
        }
        let settled = settled?;
        match settled {
            // Its steps are not thrown away, so a key with some stays interrupted: whoever may take it
            // over goes on with them.
            Settled::NotDone if attempt.release(true).await != Ended::AsNotStarted => {
                Ok(Settled::Unknown)
            }
            Settled::NotInterrupted => {
                attempt.release(true).await;
                Ok(settled)
            }
            settled => Ok(settled),
        }
    }

    /// Completes for ever, at the interval. An error is observed, and the next pass goes on. Drop it
    /// to stop.
    pub async fn run(&self) -> std::convert::Infallible {
        let settings = &self.engine.settings;
        loop {
            if let Err(error) = self.complete().await {
                settings.observe(&Event::StoreFailed { operation: "list", kind: error.kind() });
            }
            let pause = jittered(self.interval, &*settings.random);
            settings.timer.sleep_until(settings.timer.now().saturating_add(pause)).await;
        }
    }
}

impl fmt::Debug for Completer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completer")
            .field("interval", &self.interval)
            .field("page", &self.page)
            .finish_non_exhaustive()
    }
}
