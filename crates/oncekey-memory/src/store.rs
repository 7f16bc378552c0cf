//! [`MemoryStore`]: the shards behind the contract of the core.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use oncekey::Key;
use oncekey::store::{
    Abandon, Claim, ClaimOutcome, Complete, Completion, ErrorKind, Evict, Fenced, Inspect,
    Observed, Page, Progress, Purged, Query, Renew, Settle, Settlement, Store, StoreError,
    Subscription, Watch,
};

use crate::builder::MemoryStoreBuilder;
use crate::listing;
use crate::shared::Shared;
use crate::verb::Keeping;
use crate::waiters::Notifications;

/// A store in the memory of this process.
///
/// A clone shares the state. What is stored lives as long as the last clone, and ends with the
/// process: after a restart every key is new.
///
/// Every command is decided by the core's rules under the lock of one of many shards. No lock is held
/// across an await: a future is ready at its first poll, and one that was never polled did nothing.
///
/// ```
/// use std::time::Duration;
/// use oncekey::store::{
///     AttemptId, Claim, ClaimOutcome, Complete, Completion, OnInterrupted, OnRetired, Store,
/// };
/// use oncekey::{Fingerprint, Key, Scope};
/// use oncekey_memory::MemoryStore;
///
/// # futures::executor::block_on(async {
/// let store = MemoryStore::new();
/// let key = Key::new(&Scope::new("tenant-42", "POST /payments")?, "order-17")?;
/// let claim = Claim {
///     attempt: AttemptId::from_bytes([1; 16]),
///     fingerprint: Fingerprint::of("100 EUR"),
///     lease: Duration::from_secs(30),
///     hold: Duration::from_secs(3600),
///     on_interrupted: OnInterrupted::TakeOver,
///     on_retired: OnRetired::Forget,
/// };
/// let ClaimOutcome::Acquired { grant, .. } = store.claim(&key, &claim).await? else {
///     panic!("the key is new");
/// };
/// let completion = Completion {
///     value: "receipt 99".into(),
///     replayable: true,
///     retention: Duration::from_secs(24 * 3600),
///     hold: Duration::ZERO,
/// };
/// let _ = store.complete(&key, &Complete { grant, completion }).await?;
///
/// let duplicate = Claim { attempt: AttemptId::from_bytes([2; 16]), ..claim };
/// let replay = store.claim(&key, &duplicate).await?;
/// assert_eq!(replay, ClaimOutcome::Replay(Some("receipt 99".into())));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// - [`Full`](ErrorKind::Full): the key is new and [`max_keys`](MemoryStoreBuilder::max_keys) others
///   have to be remembered still. Keys that are known keep working.
/// - [`TooLarge`](ErrorKind::TooLarge): a result or progress is longer than
///   [`max_value_len`](MemoryStoreBuilder::max_value_len).
/// - [`Misconfigured`](ErrorKind::Misconfigured): a listing got a cursor of another kind of store.
///
/// There are no others: nothing here can be unavailable, time out or end with an unknown outcome.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

impl MemoryStore {
    /// A store with the defaults of [`builder`](Self::builder).
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Sets up a store: its bounds and its clock.
    pub fn builder() -> MemoryStoreBuilder {
        MemoryStoreBuilder::new()
    }

    pub(crate) fn from_builder(builder: MemoryStoreBuilder) -> Self {
        Self { shared: Arc::new(Shared::new(builder)) }
    }

    /// How many keys have a record now: in progress, with a result, or remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.len()
    }

    /// Whether no key has a record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    /// Shows the size and the bounds: no key, no value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("keys", &self.len())
            .field("max_keys", &self.shared.max_keys())
            .field("max_value_len", &self.shared.max_value_len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn claim(&self, key: &Key, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        self.shared.claim(key, claim)
    }

    async fn renew(&self, key: &Key, renew: &Renew) -> Result<Fenced, StoreError> {
        let Some(progress) = &renew.progress else {
            return Ok(self.shared.run(key, renew));
        };
        let progress =
            Progress { sequence: progress.sequence, data: self.copy("renew", &progress.data)? };
        let renew = Renew { progress: Some(progress), ..*renew };
        Ok(self.shared.run(key, &renew))
    }

    async fn complete(&self, key: &Key, complete: &Complete) -> Result<Fenced, StoreError> {
        let copy = self.copy_result("complete", &complete.completion)?;
        Ok(self.shared.run(key, &Keeping::new(complete, copy)))
    }

    async fn abandon(&self, key: &Key, abandon: &Abandon) -> Result<Fenced, StoreError> {
        Ok(self.shared.run(key, abandon))
    }

    async fn settle(&self, key: &Key, settle: &Settle) -> Result<Fenced, StoreError> {
        let copy = match &settle.settlement {
            Settlement::Done(completion) => self.copy_result("settle", completion)?,
            Settlement::NotDone { .. } => None,
        };
        Ok(self.shared.run(key, &Keeping::new(settle, copy)))
    }

    async fn evict(&self, key: &Key, evict: &Evict) -> Result<Fenced, StoreError> {
        Ok(self.shared.run(key, evict))
    }

    async fn get(&self, key: &Key) -> Result<Option<Observed>, StoreError> {
        Ok(self.shared.get(key))
    }

    async fn purge(&self, limit: usize) -> Result<Purged, StoreError> {
        Ok(self.shared.purge(limit))
    }

    fn watch(&self) -> Option<&dyn Watch> {
        Some(self)
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }
}

#[async_trait]
impl Watch for MemoryStore {
    async fn subscribe(&self, key: &Key) -> Result<Subscription, StoreError> {
        let notifications = Notifications::new(self.shared.clone(), key);
        Ok(Subscription::new(notifications))
    }
}

#[async_trait]
impl Inspect for MemoryStore {
    async fn list(&self, query: &Query) -> Result<Page, StoreError> {
        listing::list(&self.shared, query)
    }
}

impl MemoryStore {
    fn copy_result(
        &self,
        operation: &'static str,
        completion: &Completion,
    ) -> Result<Option<Bytes>, StoreError> {
        completion.replayable.then(|| self.copy(operation, &completion.value)).transpose()
    }

    /// A copy of `bytes`, made before any lock is taken. What the caller passes may be a small part
    /// of a large buffer, which it would keep in memory for as long as the record.
    fn copy(&self, operation: &'static str, bytes: &Bytes) -> Result<Bytes, StoreError> {
        let (len, max) = (bytes.len(), self.shared.max_value_len());
        if len > max {
            let message = format!("there are {len} bytes to keep, and `max_value_len` is {max}");
            return Err(StoreError::new(ErrorKind::TooLarge, operation).with_message(message));
        }
        Ok(Bytes::copy_from_slice(bytes))
    }
}
