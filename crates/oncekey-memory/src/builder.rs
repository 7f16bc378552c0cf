//! How a store is set up: [`MemoryStoreBuilder`].

use std::sync::Arc;

use oncekey::runtime::{Clock, SystemClock, ThreadTimer, TimerClock};

use crate::store::MemoryStore;

/// Sets up a [`MemoryStore`]. Made by [`MemoryStore::builder`].
///
/// ```
/// use oncekey_memory::MemoryStore;
///
/// let store = MemoryStore::builder()
///     .max_keys(100_000)
///     .max_value_len(256 * 1024)
///     .build();
/// assert!(store.is_empty());
/// ```
#[derive(Debug, Clone)]
#[must_use = "call `build` to get the store"]
pub struct MemoryStoreBuilder {
    pub(crate) max_keys: usize,
    pub(crate) max_value_len: usize,
    pub(crate) clock: Arc<dyn Clock>,
}

impl MemoryStoreBuilder {
    /// The keys that a store remembers unless told otherwise.
    pub const DEFAULT_MAX_KEYS: usize = 1_000_000;

    pub(crate) fn new() -> Self {
        Self {
            max_keys: Self::DEFAULT_MAX_KEYS,
            max_value_len: usize::MAX,
            // It starts at the time of day, and from then on nobody sets it: a store that ends with its
            // process needs no more, and a step would end every lease, or none.
            clock: Arc::new(TimerClock::new(
                Arc::new(ThreadTimer::new()),
                SystemClock::new().now(),
            )),
        }
    }

    /// The most keys that the store remembers at any moment; 1,000,000 unless set.
    ///
    /// Every key counts from its claim until its record is purged: while it is in progress, while its
    /// result is replayed, and while it is remembered after that. A store that is full refuses *new*
    /// keys; it never drops a record before its time. Plan for the keys of one lease, retention and
    /// hold, about 300 bytes each on top of the key and the value.
    pub const fn max_keys(mut self, max_keys: usize) -> Self {
        self.max_keys = max_keys;
        self
    }

    /// The most bytes that a stored result, or saved progress, may have; unlimited unless set.
    ///
    /// A longer one is refused with [`TooLarge`](oncekey::store::ErrorKind::TooLarge). A completion
    /// that is not to be replayed always fits.
    pub const fn max_value_len(mut self, bytes: usize) -> Self {
        self.max_value_len = bytes;
        self
    }

    /// The clock that decides leases, retentions and holds;
    /// [`SystemClock`](oncekey::runtime::SystemClock) unless set.
    ///
    /// It is read while a part of the store is locked: it must be quick, and must not call the store.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// An empty store.
    #[must_use]
    pub fn build(self) -> MemoryStore {
        MemoryStore::from_builder(self)
    }
}
