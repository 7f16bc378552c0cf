//! Removing records whose time is over.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::jittered;
use crate::engine::Inner;
use crate::observe::Event;
use crate::store::{Store, StoreError};

/// Purges a store in batches. Any number may run on one store.
///
/// ```
/// # use oncekey::Idempotency;
/// # use oncekey_memory::MemoryStore;
/// # futures::executor::block_on(async {
/// let idempotency = Idempotency::at_least_once(MemoryStore::new());
/// let removed = idempotency.sweeper().batch(500).sweep().await?;
/// assert_eq!(removed, 0);
/// # Ok::<(), oncekey::store::StoreError>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Sweeper {
    engine: Arc<Inner>,
    interval: Duration,
    batch: usize,
}

impl Sweeper {
    pub(super) const fn new(engine: Arc<Inner>) -> Self {
        Self { engine, interval: Duration::from_secs(60), batch: 1_000 }
    }

    /// The longest pause between two sweeps; each is shortened by up to half at random. 60 s by default.
    #[must_use]
    pub const fn every(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How many records one call of the store removes at the most. 1,000 by default.
    #[must_use]
    pub const fn batch(mut self, records: usize) -> Self {
        self.batch = if records == 0 { 1 } else { records };
        self
    }

    /// Removes all records whose time is over now, batch by batch, and returns how many.
    ///
    /// # Cancel safety
    /// Dropped: some were removed, the others will be by the next sweep.
    ///
    /// # Errors
    /// Those of [`Store::purge`](crate::store::Store::purge).
    pub async fn sweep(&self) -> Result<usize, StoreError> {
        let mut removed = 0;
        loop {
            let purged = self.engine.store.purge(self.batch).await?;
            removed += purged.removed;
            if !purged.more {
                break;
            }
        }
        self.engine.settings.observe(&Event::Purged { removed });
        Ok(removed)
    }

    /// Sweeps for ever, at the interval. An error is observed, and the next sweep goes on. Drop it to
    /// stop.
    pub async fn run(&self) -> std::convert::Infallible {
        let settings = &self.engine.settings;
        loop {
            if let Err(error) = self.sweep().await {
                settings.observe(&Event::StoreFailed { operation: "purge", kind: error.kind() });
            }
            let pause = jittered(self.interval, &*settings.random);
            settings.timer.sleep_until(settings.timer.now().saturating_add(pause)).await;
        }
    }
}

impl fmt::Debug for Sweeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sweeper")
            .field("interval", &self.interval)
            .field("batch", &self.batch)
            .finish_non_exhaustive()
    }
}
