//! The door for simple stores: [`CompareAndSwap`], and [`CasStore`] that makes a full store of it.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use super::command::{Abandon, Claim, ClaimOutcome, Complete, Evict, Expected, Fenced, Purged};
use super::command::{Renew, Settle};
use super::error::{ErrorKind, StoreError};
use super::record::{Observed, Record};
use super::transition::{Change, Command, Purge, Transition, transition};
use super::{Inspect, Store, Watch};
use crate::Key;
use crate::runtime::Timestamp;

/// A map from bytes to bytes with an atomic compare-and-swap: all that a simple store needs.
///
/// [`CasStore`] turns it into a full [`Store`]; the rules come from the core, and three methods of
/// plain storage remain.
///
/// # Implementing
/// - A version MUST change with every write of the key, also when the same bytes are written again,
///   and MUST NOT come back within the life of a value (`fencing::a_version_never_comes_back`).
/// - [`load`](Self::load) MUST read the time after the entry, by the clock that all processes share: else
///   a lease may be granted that is over, which `history::is_linearizable` sees where time is injected.
/// - [`swap`](Self::swap) MUST be atomic: of two swaps that expect the same version, one succeeds
///   (`contention::one_claim_wins`).
/// - What `swap` reported as done MUST be visible to every later `load`, from any process
///   (`history::is_linearizable`, `reopen::an_answer_survives`).
#[async_trait]
pub trait CompareAndSwap: Send + Sync {
    /// The entry of `key`, if there is one, and then the time.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) or [`Timeout`](ErrorKind::Timeout).
    async fn load(&self, key: &[u8]) -> Result<(Option<Versioned>, Timestamp), StoreError>;

    /// Replaces the entry of `key` by `new` (`None` removes it) if its version is `expected` (`None`:
    /// if there is no entry). Returns whether it did.
    ///
    /// # Cancel safety
    /// A swap whose future was dropped may or may not happen, now or later.
    ///
    /// # Errors
    /// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) when it may have happened: the adapter finds
    /// out. Other kinds when it did not.
    async fn swap(
        &self,
        key: &[u8],
        expected: Option<&Version>,
        new: Option<Entry>,
    ) -> Result<bool, StoreError>;

    /// The keys of at most `limit` entries whose [`forget_at`](Entry::forget_at) has come. An entry
    /// may be left out now if it is returned by a later call; the adapter checks each again.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) or [`Timeout`](ErrorKind::Timeout).
    async fn expired(&self, limit: usize) -> Result<Vec<Bytes>, StoreError>;

    /// Wakes waiters, where the storage can. See [`Store::watch`].
    fn watch(&self) -> Option<&dyn Watch> {
        None
    }

    /// Lists records, where the storage can. See [`Store::inspect`].
    fn inspect(&self) -> Option<&dyn Inspect> {
        None
    }
}

/// What is to be stored for a key.
#[derive(Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a store must keep every field")]
pub struct Entry {
    /// The encoded record.
    pub bytes: Bytes,
    /// When the entry may be purged.
    pub forget_at: Timestamp,
}

impl fmt::Debug for Entry {
    /// Shows the length only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("len", &self.bytes.len())
            .field("forget_at", &self.forget_at)
            .finish()
    }
}

/// Names one write of a key; what it means is the storage's own affair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(Bytes);

impl Version {
    /// A version that the storage encodes as `bytes`.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// What the storage encoded.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<u64> for Version {
    fn from(number: u64) -> Self {
        Self(Bytes::copy_from_slice(&number.to_be_bytes()))
    }
}

/// An entry as loaded.
#[derive(Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "what `load` returns by contract; stores build it")]
pub struct Versioned {
    /// Which write it is of.
    pub version: Version,
    /// The encoded record.
    pub bytes: Bytes,
}

impl fmt::Debug for Versioned {
    /// Shows the version and the length only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Versioned")
            .field("version", &self.version)
            .field("len", &self.bytes.len())
            .finish()
    }
}

/// A full [`Store`] over a [`CompareAndSwap`].
///
/// Every command is: load, decide by [`transition`], swap; again if somebody was faster. A swap with
/// an unknown outcome is settled by loading and deciding again, which every command allows. Where that
/// ends in a refusal, nobody can tell whether the swap took place before, and the outcome stays unknown.
#[derive(Debug, Clone)]
pub struct CasStore<C> {
    storage: C,
}

impl<C: CompareAndSwap> CasStore<C> {
    /// How often a command is decided anew before it is reported as not possible now. Losing a swap
    /// means that somebody else made progress, so this many losses in a row are a storage that never
    /// succeeds.
    const MAX_DECISIONS: usize = 1_000;

    /// How often a swap may end in the dark: what is settled by deciding again is settled soon.
    const MAX_UNKNOWN: usize = 8;

    /// A store over `storage`.
    pub const fn new(storage: C) -> Self {
        Self { storage }
    }

    /// The storage below.
    pub const fn get_ref(&self) -> &C {
        &self.storage
    }

    async fn run<T: Command + Sync>(
        &self,
        operation: &'static str,
        key: &[u8],
        command: &T,
    ) -> Result<T::Outcome, StoreError>
    where
        T::Outcome: PartialEq + Send,
    {
        let mut dark: Option<Dark<T::Outcome>> = None;
        let mut unknowns = 0;
        for _ in 0..Self::MAX_DECISIONS {
            let loaded = self.storage.load(key).await.and_then(|(found, now)| {
                let record =
                    found.as_ref().map(|found| Record::decode(&found.bytes)).transpose()?;
                Ok((found, record, now))
            });
            let (found, record, now) = match loaded {
                Ok(loaded) => loaded,
                // With a swap in the dark, a failed load must not read as "not applied".
                Err(error) => return Err(dark.map_or(error, |dark| dark.error)),
            };
            let decided = transition(record.as_ref(), command, now);
            if let Some(dark) = dark.take_if(|dark| !dark.allows(found.as_ref(), &decided)) {
                return Err(dark.error);
            }
            let new = match decided.change {
                Change::Keep => return Ok(decided.outcome),
                Change::Put(record) => {
                    Some(Entry { bytes: record.encode(), forget_at: record.forget_at })
                }
                Change::Remove => None,
            };
            let written = new.as_ref().map(|entry| entry.bytes.clone());
            let expected = found.map(|found| found.version);
            match self.storage.swap(key, expected.as_ref(), new).await {
                Ok(true) => return Ok(decided.outcome),
                Ok(false) => {}
                Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
                    unknowns += 1;
                    if unknowns == Self::MAX_UNKNOWN {
                        return Err(error);
                    }
                    dark = Some(Dark { error, expected, written, outcome: decided.outcome });
                }
                Err(error) => return Err(dark.map_or(error, |dark| dark.error)),
            }
        }
        Err(dark.map_or_else(
            || {
                StoreError::new(ErrorKind::Unavailable, operation)
                    .with_message("the storage refused every compare-and-swap; check its `swap`")
            },
            |dark| dark.error,
        ))
    }
}

/// A swap of which nobody knows whether it took place.
struct Dark<O> {
    error: StoreError,
    /// What it was to replace.
    expected: Option<Version>,
    /// What it was to write; `None` if it was to remove.
    written: Option<Bytes>,
    outcome: O,
}

impl<O: PartialEq> Dark<O> {
    /// Whether what is decided now holds whether or not the swap took place.
    ///
    /// A refusal that differs from the earlier answer would say that nothing was done. And a second write
    /// on top of what somebody else did since would do twice what was asked once.
    fn allows(&self, found: Option<&Versioned>, decided: &Transition<O>) -> bool {
        match decided.change {
            Change::Keep => decided.outcome == self.outcome,
            Change::Put(_) | Change::Remove => {
                // Of a key that was absent and is, nobody knows whether it was there in between.
                found.is_some_and(|found| {
                    let has_not = self.expected.as_ref() == Some(&found.version);
                    has_not || self.written.as_ref() == Some(&found.bytes)
                })
            }
        }
    }
}

#[async_trait]
impl<C: CompareAndSwap> Store for CasStore<C> {
    async fn claim(&self, key: &Key, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        self.run("claim", key.as_bytes(), claim).await
    }

    async fn renew(&self, key: &Key, renew: &Renew) -> Result<Fenced, StoreError> {
        self.run("renew", key.as_bytes(), renew).await
    }

    async fn complete(&self, key: &Key, complete: &Complete) -> Result<Fenced, StoreError> {
        self.run("complete", key.as_bytes(), complete).await
    }

    async fn abandon(&self, key: &Key, abandon: &Abandon) -> Result<Fenced, StoreError> {
        self.run("abandon", key.as_bytes(), abandon).await
    }

    async fn settle(&self, key: &Key, settle: &Settle) -> Result<Fenced, StoreError> {
        self.run("settle", key.as_bytes(), settle).await
    }

    async fn evict(&self, key: &Key, evict: &Evict) -> Result<Fenced, StoreError> {
        let key = key.as_bytes();
        for _ in 0..Self::MAX_DECISIONS {
            let evicted = self.run("evict", key, evict).await;
            match &evicted {
                Err(error) if error.kind() == ErrorKind::Corrupt => {}
                _ => return evicted,
            }
            if evict.expected != Expected::Any {
                return evicted;
            }
            // What cannot be read can still be removed, by whoever takes whatever is there.
            let (found, _) = self.storage.load(key).await?;
            let Some(found) = found else {
                return Ok(Fenced::Gone);
            };
            if Record::decode(&found.bytes).is_ok() {
                // Replaced in between, and now it is a matter of the rules.
                continue;
            }
            if self.storage.swap(key, Some(&found.version), None).await? {
                return Ok(Fenced::Applied);
            }
        }
        Err(StoreError::new(ErrorKind::Unavailable, "evict"))
    }

    async fn get(&self, key: &Key) -> Result<Option<Observed>, StoreError> {
        let (found, now) = self.storage.load(key.as_bytes()).await?;
        let record = found.as_ref().map(|found| Record::decode(&found.bytes)).transpose()?;
        Ok(record.map(|record| Observed::new(record, now)))
    }

    async fn purge(&self, limit: usize) -> Result<Purged, StoreError> {
        let mut asked = limit;
        loop {
            let keys = self.storage.expired(asked).await?;
            let full_page = keys.len() >= asked;
            let mut purged = Purged::default();
            let mut damaged = 0;
            for key in keys {
                if purged.removed == limit {
                    break;
                }
                match self.run("purge", &key, &Purge).await {
                    Ok(true) => purged.removed += 1,
                    Ok(false) => {}
                    Err(error) if error.kind() == ErrorKind::Corrupt => damaged += 1,
                    // Removed or not, by us or by others: it will not be in the way, or is found again.
                    Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {}
                    Err(error) => return Err(error),
                }
            }
            purged.more = full_page && purged.removed > 0;
            // What is damaged stays until somebody has looked at it. It must not fill every page and
            // hide what is behind it.
            if purged.removed > 0 || damaged == 0 || !full_page {
                return Ok(purged);
            }
            asked = asked.saturating_mul(2);
        }
    }

    fn watch(&self) -> Option<&dyn Watch> {
        self.storage.watch()
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        self.storage.inspect()
    }
}
