//! The requests under way: how many there may be, and waiting for them at shutdown.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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

    /// A place for one more, if there are fewer than `max`.
    pub(crate) fn enter(&self, max: usize) -> Result<Place, NoPlace> {
        let before = self.shared.count.fetch_add(1, Ordering::SeqCst);
        // Leaves again if it is dropped.
        let place = Place { shared: Arc::clone(&self.shared) };
        if self.shared.closed.load(Ordering::SeqCst) {
            Err(NoPlace::Closed)
        } else if before >= max {
            Err(NoPlace::Full)
        } else {
            Ok(place)
        }
    }
}

pub(crate) enum NoPlace {
    Full,
    Closed,
}

/// The place of one request; dropping it is leaving.
pub(crate) struct Place {
    shared: Arc<Shared>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.shared.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.shared.idle.notify_waiters();
        }
    }
}
