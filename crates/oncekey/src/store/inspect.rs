//! Listing what a store holds: [`Inspect`].

use async_trait::async_trait;
use bytes::Bytes;

use super::error::StoreError;
use super::record::{Observed, State};
use crate::Key;

/// Lists records, page by page. An optional capability of a store, for operators and completers.
#[async_trait]
pub trait Inspect: Send + Sync {
    /// One page of the records whose state is one that `query` asks for.
    ///
    /// A listing is no snapshot: a record that is there, in a wanted state, during the whole listing
    /// is listed at least once; one that changes meanwhile may or may not be. A page may be empty
    /// although more follow. Records that cannot be decoded are counted in [`Page::undecodable`].
    ///
    /// # Time
    /// States are by the store's clock.
    ///
    /// # Errors
    /// [`Unavailable`](super::ErrorKind::Unavailable) or [`Timeout`](super::ErrorKind::Timeout);
    /// [`Misconfigured`](super::ErrorKind::Misconfigured) for a cursor of another kind of store, and for a store that
    /// is set up wrongly.
    async fn list(&self, query: &Query) -> Result<Page, StoreError>;
}

/// Which records to list.
#[derive(Debug, Clone)]
#[allow(clippy::exhaustive_structs, reason = "a store must heed every field")]
pub struct Query {
    /// The states wanted.
    pub states: Vec<State>,
    /// Where the page before ended; `None` for the first page.
    pub after: Option<Cursor>,
    /// The most records to return (zero is taken for one), and an upper bound, by order of magnitude, of the work to do.
    pub limit: usize,
}

/// One page of a listing.
#[derive(Debug, Clone)]
#[allow(clippy::exhaustive_structs, reason = "what `list` returns by contract; stores build it")]
pub struct Page {
    /// The records.
    pub entries: Vec<(Key, Observed)>,
    /// How many records this page passed over because they could not be decoded.
    pub undecodable: usize,
    /// Where to go on; `None` when the listing is over.
    pub next: Option<Cursor>,
}

/// A place in a listing; what it means is the store's own affair.
#[derive(Clone, PartialEq, Eq)]
pub struct Cursor(Bytes);

impl Cursor {
    /// A place that the store encodes as `bytes`.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// What the store encoded.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Cursor {
    /// Shows no content: a cursor may contain a key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor").finish_non_exhaustive()
    }
}
