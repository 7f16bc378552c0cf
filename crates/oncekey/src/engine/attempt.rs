//! What an operation is handed: [`Attempt`], its right to run and what it can do with it.

mod step;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::select;

pub(crate) use step::Parked;

use super::Inner;
use super::flag::Flag;
use super::steps::Steps;
use crate::Key;
use crate::observe::Event;
use crate::store::{FencingToken, Grant, Previous};

/// One granted attempt at an operation. Cheap to clone, and `'static`: it can go anywhere.
///
/// The engine keeps its lease renewed for as long as the future of `run` is polled. An operation that
/// blocks its thread for longer than the lease cannot be helped: the lease lapses, and
/// [`is_lease_lost`](Self::is_lease_lost) says so by the local clock.
#[derive(Clone)]
pub struct Attempt {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Arc<Inner>,
    key: Key,
    stored_key: Key,
    grant: Grant,
    number: u32,
    previous: Option<Previous>,
    /// Until when the lease is known to last, in nanoseconds of the engine's timer.
    deadline: AtomicU64,
    lost: Flag,
    /// Raised when a step is parked for ever, because going on would break a promise.
    parked: Flag,
    parked_by: Mutex<Option<Parked>>,
    steps: Mutex<Option<Steps>>,
    /// How many steps did something, or may have: those that started, less those that said that nothing
    /// was done.
    effects: AtomicUsize,
    /// The steps under way, and what their next users wait for.
    running: Mutex<BTreeMap<String, Arc<Flag>>>,
}

impl Attempt {
    pub(crate) fn new(
        engine: &Arc<Inner>,
        keys: (&Key, Key),
        grant: Grant,
        number: u32,
        previous: Option<Previous>,
        deadline: Duration,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                engine: Arc::clone(engine),
                key: keys.0.clone(),
                stored_key: keys.1,
                grant,
                number,
                previous,
                deadline: AtomicU64::new(nanos(deadline)),
                lost: Flag::default(),
                parked: Flag::default(),
                parked_by: Mutex::default(),
                steps: Mutex::default(),
                effects: AtomicUsize::new(0),
                running: Mutex::default(),
            }),
        }
    }

    /// The fencing token: pass it on with every write to another system, and let that system refuse
    /// tokens lower than the highest it has seen for this key.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.shared.grant.token
    }

    /// Which attempt in a row this is: 1 for the first, more after a release or an interruption.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.shared.number
    }

    /// The key of the operation. [`Key::child`] makes keys for calls to others.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.shared.key
    }

    /// Whether this attempt takes over from one that was interrupted.
    #[must_use]
    pub fn is_takeover(&self) -> bool {
        self.shared.previous.is_some()
    }

    /// Whether somebody else may own the key by now: the lease is lost, or this attempt has ended. Look
    /// before every effect that cannot be undone.
    ///
    /// Goes by the monotonic clock of this machine. Where that stands still while the machine sleeps, it
    /// is late by as much: an effect that must not happen late carries the [`token`](Self::token) too.
    #[must_use]
    pub fn is_lease_lost(&self) -> bool {
        self.shared.lost.is_raised() || self.now() >= self.deadline()
    }

    /// Waits until the lease is lost; pends for as long as it is renewed. Cancel safe.
    ///
    /// Made for `select`: stop what should not go on when another attempt may have started. It also
    /// tells what the operation has spawned, and what goes on when the run was dropped.
    pub async fn lease_lost(&self) {
        let mut told = pin!(self.shared.lost.wait());
        // By the clock too: when the run is gone, nobody is there to tell.
        while !self.is_lease_lost() {
            let over = self.shared.engine.settings.timer.sleep_until(self.deadline());
            select(told.as_mut(), over).await;
        }
    }

    pub(crate) fn engine(&self) -> &Arc<Inner> {
        &self.shared.engine
    }

    pub(crate) fn stored_key(&self) -> &Key {
        &self.shared.stored_key
    }

    pub(crate) fn grant(&self) -> Grant {
        self.shared.grant
    }

    pub(crate) fn previous(&self) -> Option<&Previous> {
        self.shared.previous.as_ref()
    }

    pub(crate) fn now(&self) -> Duration {
        self.shared.engine.settings.timer.now()
    }

    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_nanos(self.shared.deadline.load(Ordering::Acquire))
    }

    /// The store confirmed the lease until `deadline`; it never gets shorter.
    pub(crate) fn confirm(&self, deadline: Duration) {
        self.shared.deadline.fetch_max(nanos(deadline), Ordering::AcqRel);
    }

    /// The attempt is about to be ended: whatever still runs of it owns nothing any more.
    pub(crate) fn end(&self) {
        self.shared.lost.raise();
    }

    pub(crate) fn lose(&self) {
        if self.shared.lost.raise() {
            self.shared.engine.settings.observe(&Event::LeaseLost { number: self.number() });
        }
    }
}

impl fmt::Debug for Attempt {
    /// Shows neither key nor progress.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("token", &self.token())
            .field("number", &self.number())
            .field("takeover", &self.is_takeover())
            .finish_non_exhaustive()
    }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
