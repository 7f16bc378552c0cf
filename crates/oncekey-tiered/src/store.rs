//! The store that users see: every verb goes to the durable store, and claims look for a copy first.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use oncekey::Key;
use oncekey::runtime::{ThreadTimer, Timer};
use oncekey::store::{
    Abandon, Claim, ClaimOutcome, Complete, ErrorKind, Evict, Fenced, Inspect, Observed, Purged,
    Renew, Settle, Store, StoreError, Watch,
};

use crate::copies::Copies;

/// Two stores as one: `durable` decides, `fast` answers duplicates of what is done.
///
/// ```
/// use std::time::Duration;
/// use oncekey_memory::MemoryStore;
/// use oncekey_tiered::Tiered;
///
/// let (fast, durable) = (MemoryStore::new(), MemoryStore::new());
/// let store = Tiered::new(fast, durable).patience(Duration::from_millis(20));
/// ```
///
/// # Durability
/// That of the durable store. The fast one may lose everything at any time.
///
/// # Time
/// The durable store's clock decides. A copy is made for what is left of the retention, less two
/// seconds, by the fast store's clock: what is retained for less is not copied.
///
/// # Cancel safety
/// As for the durable store. A dropped call may leave a copy unmade, or made.
///
/// # Errors
/// Those of the durable store. Those of the fast store show only in an eviction, which is refused with
/// [`Unavailable`](ErrorKind::Unavailable) while the copy cannot be removed.
#[derive(Clone)]
pub struct Tiered {
    durable: Arc<dyn Store>,
    fast: Arc<Copies>,
}

impl Tiered {
    /// How long the fast store may take, unless [`patience`](Self::patience) says otherwise.
    const PATIENCE: Duration = Duration::from_millis(50);

    /// `durable`, with copies of its results in `fast`.
    ///
    /// The fast store must be this one's alone: under a prefix, or in a table, that no engine uses
    /// directly. All processes that share `durable` best share `fast`.
    pub fn new(fast: impl Store + 'static, durable: impl Store + 'static) -> Self {
        let fast = Copies::new(Arc::new(fast), Arc::new(ThreadTimer::new()), Self::PATIENCE);
        Self { durable: Arc::new(durable), fast: Arc::new(fast) }
    }

    /// How long the fast store may take to answer before the durable one is asked. 50 ms unless set.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        self.with(|copies| copies.patience = patience)
    }

    /// By which patience is measured. The process' own timer thread unless set.
    #[must_use]
    pub fn timer(self, timer: impl Timer + 'static) -> Self {
        self.with(|copies| copies.timer = Arc::new(timer))
    }

    fn with(mut self, set: impl FnOnce(&mut Copies)) -> Self {
        let mut copies = self.fast.anew();
        set(&mut copies);
        self.fast = Arc::new(copies);
        self
    }
}

impl fmt::Debug for Tiered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tiered").field("patience", &self.fast.patience).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for Tiered {
    async fn claim(&self, key: &Key, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        if let Some(answer) = self.fast.answer(key, claim).await {
            return Ok(answer);
        }
        let outcome = self.durable.claim(key, claim).await?;
        if let ClaimOutcome::Replay(Some(_)) = &outcome {
            self.fast.make(key, &*self.durable).await;
        }
        Ok(outcome)
    }

    async fn renew(&self, key: &Key, renew: &Renew) -> Result<Fenced, StoreError> {
        self.durable.renew(key, renew).await
    }

    async fn complete(&self, key: &Key, complete: &Complete) -> Result<Fenced, StoreError> {
        self.durable.complete(key, complete).await
    }

    async fn abandon(&self, key: &Key, abandon: &Abandon) -> Result<Fenced, StoreError> {
        self.durable.abandon(key, abandon).await
    }

    async fn settle(&self, key: &Key, settle: &Settle) -> Result<Fenced, StoreError> {
        self.durable.settle(key, settle).await
    }

    async fn evict(&self, key: &Key, evict: &Evict) -> Result<Fenced, StoreError> {
        self.fast.bar(key).await.map_err(|error| {
            let message = "the fast store would go on answering from its copy, so nothing was \
                           evicted; try again when it is there";
            StoreError::new(ErrorKind::Unavailable, "evict")
                .with_message(message)
                .with_source(error)
        })?;
        let evicted = self.durable.evict(key, evict).await?;
        // The first bar may be over by now, and a copy made of what has just been evicted.
        self.fast.bar(key).await.map_err(|error| {
            let message = "the fast store may have a copy yet; evict again";
            StoreError::new(ErrorKind::OutcomeUnknown, "evict")
                .with_message(message)
                .with_source(error)
        })?;
        Ok(evicted)
    }

    async fn get(&self, key: &Key) -> Result<Option<Observed>, StoreError> {
        self.durable.get(key).await
    }

    async fn purge(&self, limit: usize) -> Result<Purged, StoreError> {
        self.fast.purge(limit).await;
        self.durable.purge(limit).await
    }

    fn watch(&self) -> Option<&dyn Watch> {
        self.durable.watch()
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        self.durable.inspect()
    }
}
