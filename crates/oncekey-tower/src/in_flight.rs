//! The requests under way: how many there may be, and waiting for them at shutdown.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    /// How many there are, and [`CLOSED`]: one number, so that who is refused never counts, not even for
    /// a moment, and nobody gets in behind a drain.
    state: AtomicUsize,
    idle: Notify,
    /// Only of layers that bound it.
    by_principal: Mutex<HashMap<Box<[u8]>, usize>>,
}

/// The bit of a layer that refuses new ones.
const CLOSED: usize = 1 << (usize::BITS - 1);

impl Shared {
    fn enter(&self, max: usize) -> Result<(), NoPlace> {
        let mut state = self.state.load(Ordering::SeqCst);
        loop {
            if state & CLOSED != 0 {
                return Err(NoPlace::Closed);
            }
            if state >= max {
                return Err(NoPlace::Full);
            }
            let entered = self.state.compare_exchange_weak(
                state,
                state + 1,
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
            match entered {
                Ok(_) => return Ok(()),
                Err(now) => state = now,
            }
        }
    }

    fn by_principal(&self) -> MutexGuard<'_, HashMap<Box<[u8]>, usize>> {
        self.by_principal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InFlight {
    /// How many there are now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.state.load(Ordering::SeqCst) & !CLOSED
    }

    /// Refuses new ones from now on, with 503.
    ///
    /// For servers that cannot stop accepting requests before they drain.
    pub fn close(&self) {
        self.shared.state.fetch_or(CLOSED, Ordering::SeqCst);
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
        let Some(Quota { principal, max: quota }) = quota else {
            self.shared.enter(max)?;
            return Ok(Place { shared: Arc::clone(&self.shared), principal: None });
        };
        // Held over both counts: who is refused by one does not count in the other.
        let mut counts = self.shared.by_principal();
        let count = counts.get(principal).copied().unwrap_or(0);
        let is_closed = self.shared.state.load(Ordering::SeqCst) & CLOSED != 0;
        if count >= quota && !is_closed {
            return Err(NoPlace::UsedUp);
        }
        self.shared.enter(max)?;
        let principal: Box<[u8]> = principal.into();
        counts.insert(principal.clone(), count + 1);
        drop(counts);
        Ok(Place { shared: Arc::clone(&self.shared), principal: Some(principal) })
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
        if self.shared.state.fetch_sub(1, Ordering::SeqCst) & !CLOSED == 1 {
            self.shared.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;

    use futures::FutureExt;

    use super::{InFlight, NoPlace, Quota};

    /// Refuses all the time, on several threads, while somebody else comes and goes below the cap.
    fn beside_a_crowd(in_flight: &InFlight, refused: impl Fn() -> bool + Sync, max: usize) {
        let (over, turned_away) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            let helper = || {
                while !over.load(Ordering::SeqCst) {
                    assert!(refused());
                    turned_away.fetch_add(1, Ordering::SeqCst);
                }
            };
            let helpers = [(); 3].map(|()| scope.spawn(helper));
            let mut seen = 0;
            let mut let_in = 0;
            // Until enough were turned away while somebody was being let in, or nobody turns them away.
            while seen < 20_000 && !helpers.iter().any(|helper| helper.is_finished()) {
                let before = turned_away.load(Ordering::SeqCst);
                let place = in_flight.enter(max, None);
                if place.is_err() {
                    break;
                }
                let_in += 1;
                drop(place);
                seen += turned_away.load(Ordering::SeqCst) - before;
            }
            over.store(true, Ordering::SeqCst);
            let ends = helpers.map(|helper| helper.join().is_ok());
            assert!(ends.into_iter().all(|is_ok| is_ok), "let in over the cap");
            assert!(seen >= 20_000, "refused below the cap, after {let_in} were let in");
        });
    }

    #[test]
    fn those_who_are_over_their_quota_take_no_place_of_others() {
        let in_flight = InFlight::default();
        let quota = || Some(Quota { principal: b"greedy", max: 1 });
        let _held = in_flight.enter(2, quota()).ok().unwrap();
        let refused = || in_flight.enter(2, quota()).is_err();
        beside_a_crowd(&in_flight, refused, 2);
        assert_eq!(in_flight.count(), 1);
    }

    #[test]
    fn those_who_are_over_the_cap_take_no_place_of_others() {
        let in_flight = InFlight::default();
        let _held = in_flight.enter(1, None).ok().unwrap();
        let refused = || in_flight.enter(1, None).is_err();
        beside_a_crowd(&in_flight, refused, 2);
        assert_eq!(in_flight.count(), 1);
    }

    #[test]
    fn a_closed_one_still_counts_those_who_are_in() {
        let in_flight = InFlight::default();
        let place = in_flight.enter(usize::MAX, None).ok().unwrap();
        in_flight.close();
        in_flight.close();
        let used_up = Some(Quota { principal: b"greedy", max: 0 });
        for quota in [None, used_up] {
            assert!(matches!(in_flight.enter(usize::MAX, quota), Err(NoPlace::Closed)));
        }
        assert_eq!(in_flight.count(), 1);
        drop(place);
        assert_eq!(in_flight.count(), 0);
        assert!(in_flight.drain().now_or_never().is_some());
    }

    #[test]
    fn a_quota_is_free_again() {
        let in_flight = InFlight::default();
        let quota = || Some(Quota { principal: b"greedy", max: 1 });
        for _ in 0..2 {
            let place = in_flight.enter(2, quota()).ok().unwrap();
            assert!(matches!(in_flight.enter(2, quota()), Err(NoPlace::UsedUp)));
            drop(place);
        }
        // Who finds no place has used up nothing.
        let place = in_flight.enter(1, None).ok().unwrap();
        assert!(matches!(in_flight.enter(1, quota()), Err(NoPlace::Full)));
        drop(place);
        assert!(in_flight.enter(1, quota()).is_ok());
    }
}
