//! An operator's verbs for single keys.

use std::fmt;
use std::sync::Arc;

use crate::Key;
use crate::engine::{Encoded, Inner};
use crate::store::{
    Completion, Cursor, ErrorKind, Evict, Expected, Fenced, Observed, Page, Query, Settle,
    Settlement, State, Store, StoreError,
};

/// Looks at keys, and settles or evicts them.
///
/// Settling and evicting name the attempt they are about, so that a verdict never hits a later
/// attempt: take [`Expected::Token`] from what [`inspect`](Self::inspect) showed. All verbs are safe
/// to repeat.
#[derive(Clone)]
pub struct Operator {
    engine: Arc<Inner>,
}

impl Operator {
    pub(super) const fn new(engine: Arc<Inner>) -> Self {
        Self { engine }
    }

    /// What the store knows of `key`, with the store's now. `None`: nothing.
    ///
    /// # Errors
    /// Those of [`Store::get`](crate::store::Store::get).
    pub async fn inspect(&self, key: &Key) -> Result<Option<Observed>, StoreError> {
        self.engine.store.get(&self.engine.settings.stored_key(key)).await
    }

    /// One page of the keys that are interrupted: nobody is at work on them, and what was done is
    /// unknown. Start with `None`, go on with [`Page::next`] until that is `None`.
    ///
    /// Under [`hash_keys`](crate::Idempotency::hash_keys) the listed keys are the hashed ones; they
    /// can be used here as they are.
    ///
    /// # Errors
    /// [`Misconfigured`](ErrorKind::Misconfigured) when the store cannot list; otherwise those of
    /// listing.
    pub async fn list_interrupted(
        &self,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let Some(inspect) = self.engine.store.inspect() else {
            return Err(StoreError::new(ErrorKind::Misconfigured, "list interrupted keys")
                .with_message("this store cannot list its keys; inspect each by its key instead"));
        };
        let states = vec![State::Lapsed, State::GaveUp];
        inspect.list(&Query { states, after, limit: limit.max(1) }).await
    }

    /// Records that the operation of `key` was done, with this result.
    ///
    /// [`Fenced::Busy`]: an owner is at work. [`Fenced::Lost`]: the key is at another attempt than
    /// `expected`. [`Fenced::Conflict`]: it has another result already.
    ///
    /// # Errors
    /// Those of [`Store::settle`](crate::store::Store::settle).
    pub async fn settle_done(
        &self,
        key: &Key,
        expected: Expected,
        value: &Encoded,
    ) -> Result<Fenced, StoreError> {
        let settings = &self.engine.settings;
        let completion = Completion {
            value: value.as_bytes().clone(),
            replayable: value.as_bytes().len() <= settings.max_value_len,
            retention: settings.retention,
            hold: settings.retired_hold(),
        };
        self.settle(key, expected, Settlement::Done(completion)).await
    }

    /// Records that the operation of `key` was not done: the next request runs it.
    ///
    /// [`Fenced::Busy`]: an owner is at work. [`Fenced::Lost`]: the key is at another attempt than
    /// `expected`, or it has a result.
    ///
    /// # Errors
    /// Those of [`Store::settle`](crate::store::Store::settle).
    /// ```
    /// # use oncekey::*;
    /// # use oncekey_memory::MemoryStore;
    /// # futures::executor::block_on(async {
    /// # let key = Key::new(&Scope::new("tenant-42", "pay")?, "order-17")?;
    /// # let fingerprint = Fingerprint::of("100 EUR");
    /// use oncekey::store::{Expected, Fenced};
    /// let idempotency = Idempotency::at_most_once(MemoryStore::new());
    /// # let unknown = async || Err::<String, _>(std::io::Error::other("connection lost"));
    /// # let _ = idempotency.run(&key, &fingerprint, |_| unknown()).await;
    /// let operator = idempotency.operator();
    /// let interrupted = operator.inspect(&key).await?.expect("an attempt was interrupted");
    /// assert!(interrupted.state.is_interrupted());
    ///
    /// // Somebody has found out that nothing happened.
    /// let expected = Expected::Token(interrupted.record.token);
    /// assert_eq!(operator.settle_not_done(&key, expected).await?, Fenced::Applied);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn settle_not_done(
        &self,
        key: &Key,
        expected: Expected,
    ) -> Result<Fenced, StoreError> {
        let hold = self.engine.settings.released_hold();
        self.settle(key, expected, Settlement::NotDone { hold }).await
    }

    async fn settle(
        &self,
        key: &Key,
        expected: Expected,
        settlement: Settlement,
    ) -> Result<Fenced, StoreError> {
        self.engine.settings.check()?;
        let key = self.engine.settings.stored_key(key);
        self.engine.store.settle(&key, &Settle { expected, settlement }).await
    }

    /// Forgets `key`, also its result: the next request runs as if it were the first.
    ///
    /// [`Fenced::Busy`]: an owner is at work; with `force` it is removed all the same, and that owner
    /// may then be at work beside the next one. [`Expected::Any`] also removes a record that cannot be
    /// decoded.
    ///
    /// # Errors
    /// Those of [`Store::evict`](crate::store::Store::evict).
    pub async fn evict(
        &self,
        key: &Key,
        expected: Expected,
        force: bool,
    ) -> Result<Fenced, StoreError> {
        let key = self.engine.settings.stored_key(key);
        self.engine.store.evict(&key, &Evict { expected, force }).await
    }
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator").finish_non_exhaustive()
    }
}
