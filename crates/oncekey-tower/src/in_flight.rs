//! The requests under way: how many there may be, and waiting for them at shutdown.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The requests with a key that a layer, and all its clones, are working on: also those whose clients
/// have hung up. Cheap to clone.
///
/// ```
/// # async fn serve(listener: tokio::net::TcpListener, router: axum::Router,
/// #     layer: oncekey_tower::IdempotencyLayer, signal: impl Future<Output = ()> + Send + 'static,
/// # ) -> std::io::Result<()> {
/// let in_flight = layer.in_flight();
/// axum::serve(listener, router.layer(layer)).with_graceful_shutdown(signal).await?;
/// // Those whose clients hung up are still at work. Bound the wait as your platform does.
/// in_flight.drain().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct InFlight {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    count: AtomicUsize,
    closed: AtomicBool,
    idle: Notify,
    /// Only of layers that bound it.
    by_principal: Mutex<HashMap<Box<[u8]>, usize>>,
}

impl Shared {
    fn by_principal(&self) -> MutexGuard<'_, HashMap<Box<[u8]>, usize>> {
        self.by_principal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InFlight {
    /// How many there are now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.count.load(Ordering::Acquire)
    }

    /// Refuses new ones from now on, with 503.
    ///
    /// For servers that cannot stop accepting requests before they drain.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
    }

    /// Waits until there are none. Cancel safe; it stops nothing.
    pub async fn drain(&self) {
        loop {
            let mut idle = pin!(self.shared.idle.notified());
            // Registered before the look at the count, so that no end is missed.
            idle.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// A place for one more, if there are fewer than `max`, and fewer than the quota of its principal.
    pub(crate) fn enter(&self, max: usize, quota: Option<Quota<'_>>) -> Result<Place, NoPlace> {
        let before = self.shared.count.fetch_add(1, Ordering::SeqCst);
        // Leaves again if it is dropped.
        let mut place = Place { shared: Arc::clone(&self.shared), principal: None };
        if self.shared.closed.load(Ordering::SeqCst) {
            Err(NoPlace::Closed)
        } else if before >= max {
            Err(NoPlace::Full)
        } else if quota.is_none_or(|quota| place.count_for(quota)) {
            Ok(place)
        } else {
            Err(NoPlace::UsedUp)
        }
    }
}

/// How many requests one principal may have in flight.
#[derive(Clone, Copy)]
pub(crate) struct Quota<'a> {
    pub(crate) principal: &'a [u8],
    pub(crate) max: usize,
}

pub(crate) enum NoPlace {
    Full,
    UsedUp,
    Closed,
}

/// The place of one request; dropping it is leaving.
pub(crate) struct Place {
    shared: Arc<Shared>,
    /// Whose quota it counts for.
    principal: Option<Box<[u8]>>,
}

impl Place {
    fn count_for(&mut self, quota: Quota<'_>) -> bool {
        let mut counts = self.shared.by_principal();
        let count = counts.get(quota.principal).copied().unwrap_or(0);
        if count >= quota.max {
            return false;
        }
        let principal: Box<[u8]> = quota.principal.into();
        counts.insert(principal.clone(), count + 1);
        drop(counts);
        self.principal = Some(principal);
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(principal) = self.principal.take() {
            let mut counts = self.shared.by_principal();
            match counts.get_mut(&principal) {
                Some(count) if *count > 1 => *count -= 1,
                // Gone with its last one: the map holds no more than what is in flight.
                _ => drop(counts.remove(&principal)),
            }
        }
        if self.shared.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.shared.idle.notify_waiters();
        }
    }
}
