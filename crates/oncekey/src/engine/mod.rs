//! The engine: [`Idempotency`] runs operations for the first caller and answers all duplicates.

mod admit;
mod attempt;
mod claim;
mod finish;
mod flag;
mod lease;
mod outcome;
mod patience;
mod run;
mod settings;
mod steps;
mod unanswered;
mod value;
mod verify;
mod wait;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use attempt::Attempt;
pub use outcome::{Effect, Failure, Outcome, RecordError, RunError, StepError};
pub use value::{CodecError, Encoded};
pub use verify::{Interruption, Verdict, Verify};

pub(crate) use admit::{Settled, settle_interruption};
pub(crate) use claim::{Admission, Refusal, Request};
pub(crate) use finish::Ended;
pub(crate) use patience::Backoff;
pub(crate) use run::replay;

pub(crate) use settings::{Guarantee, Settings};

use crate::key::KeyHasher;
use crate::observe::Observer;
use crate::runtime::{Random, Timer};
use crate::store::{AttemptId, Store, StoreError};

/// Runs operations under idempotency keys, over any [`Store`].
///
/// # The guarantee
/// There is no right default for what a retry may do after a crash, so the constructor names it:
///
/// | constructor | after an attempt was interrupted | for operations that |
/// |---|---|---|
/// | [`at_least_once`](Self::at_least_once) | a retry runs the operation again | may be repeated |
/// | [`at_most_once`](Self::at_most_once) | a retry is refused until the key is settled | must not be |
/// | [`verified`](Self::verified) | a hook finds out what happened first | can be looked up |
///
/// In all three, while nothing crashes, hangs beyond its lease or reports an unknown outcome, an
/// operation runs once per key. If the effect is a write to the same database as the key, use the
/// transaction methods of that database's store instead: they make effect and record one.
///
/// # Settings
/// | method | default | |
/// |---|---|---|
/// | [`lease`](Self::lease) | 30 s | how soon a crash is noticed |
/// | [`retention`](Self::retention) | 24 h | how long a result is replayed |
/// | [`hold`](Self::hold) | see there | how long an ended key is remembered beyond that |
/// | [`wait_for_duplicate`](Self::wait_for_duplicate) | 0 | how long a duplicate waits for the first |
/// | [`max_value_len`](Self::max_value_len) | 1 MiB | the largest result that is kept |
///
/// All engines that share keys must give the same guarantee: one that runs at least once may take over,
/// and later forget, what one that runs at most once would keep until it is settled.
///
/// Settings are checked by [`validate`](Self::validate), and by each run before anything else.
///
/// # Cancel safety
/// Nothing is spawned. Dropping the future of a run is as good as a crash: the operation stops where
/// it is, and the key is interrupted when the lease lapses. Where callers hang up, spawn the run, so
/// that the operation ends in its own time.
///
/// Cheap to clone; clones share the waiters of duplicates.
#[derive(Clone)]
pub struct Idempotency {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Clone)]
pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) settings: Settings,
    shared: Arc<Shared>,
}

/// What all clones of an engine have in common, whatever their settings.
#[derive(Debug, Default)]
struct Shared {
    waiters: wait::Waiters,
    unanswered: unanswered::Unanswered,
}

impl Inner {
    pub(crate) fn mint(&self) -> AttemptId {
        AttemptId::from_bytes(self.settings.random.next().to_be_bytes())
    }
}

impl Idempotency {
    /// An engine that runs an interrupted operation again.
    ///
    /// For operations that may be repeated, be it that the other side recognises a repeated call
    /// ([`Key::child`](crate::Key::child)) or refuses an older
    /// [`token`](Attempt::token).
    pub fn at_least_once(store: impl Store + 'static) -> Self {
        Self::new(store, Guarantee::AtLeastOnce)
    }

    /// An engine that never runs an interrupted operation again.
    ///
    /// A retry gets [`Interrupted`](RunError::Interrupted) until somebody has found out what happened
    /// and [settled](crate::operate::Operator::settle_done) the key; interrupted keys are kept until
    /// then. With a stated [`hold`](Self::hold) they are forgotten after it: the promise is then *at
    /// most once within the hold*. A request whose result is no longer kept gets
    /// [`Retired`](RunError::Retired) instead of a second run, for 30 days or the stated hold.
    /// ```
    /// # use oncekey::*;
    /// # use oncekey_memory::MemoryStore;
    /// # futures::executor::block_on(async {
    /// # let key = Key::new(&Scope::new("tenant-42", "pay")?, "order-17")?;
    /// # let fingerprint = Fingerprint::of("100 EUR");
    /// let idempotency = Idempotency::at_most_once(MemoryStore::new());
    /// let unknown = async || Err::<String, _>(std::io::Error::other("connection lost"));
    /// let run = idempotency.run(&key, &fingerprint, |_| unknown()).await;
    /// assert!(matches!(run, Err(RunError::Unknown(_))));
    ///
    /// let retry = idempotency.run(&key, &fingerprint, |_| unknown()).await;
    /// assert!(matches!(retry, Err(RunError::Interrupted)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn at_most_once(store: impl Store + 'static) -> Self {
        Self::new(store, Guarantee::AtMostOnce)
    }

    /// An engine that asks `hook` what an interrupted attempt did, before anything runs again.
    ///
    /// The hook is asked under a lease of its own. It may say *done* (its value is recorded and
    /// replayed), *not done* (the operation runs), or *unknown*
    /// ([`Interrupted`](RunError::Interrupted), until a later request asks again). Interrupted keys are
    /// kept until the hook knows, unless a [`hold`](Self::hold) is stated: after that they are forgotten,
    /// and run unasked.
    /// ```
    /// # use oncekey::*;
    /// # use oncekey_memory::MemoryStore;
    /// # futures::executor::block_on(async {
    /// # let key = Key::new(&Scope::new("tenant-42", "pay")?, "order-17")?;
    /// # let fingerprint = Fingerprint::of("100 EUR");
    /// let look_up = async |interruption: Interruption| {
    ///     let charge = interruption.key().child("charge");
    ///     // Ask the card processor about `charge.as_str()`; here it knows of one.
    ///     # let _ = charge;
    ///     Verdict::done(&"receipt 1").unwrap_or(Verdict::Unknown)
    /// };
    /// let idempotency = Idempotency::verified(MemoryStore::new(), move |i| look_up(i));
    /// # let unknown = async || Err::<String, _>(std::io::Error::other("connection lost"));
    /// # let _ = idempotency.run(&key, &fingerprint, |_| unknown()).await;
    /// // An earlier attempt was interrupted: nothing runs, and the receipt that was found is replayed.
    /// let retry = idempotency.run(&key, &fingerprint, |_| unknown()).await?;
    /// assert!(retry.is_replay());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn verified(store: impl Store + 'static, hook: impl Verify + 'static) -> Self {
        Self::new(store, Guarantee::Verified(Arc::new(hook)))
    }

    fn new(store: impl Store + 'static, guarantee: Guarantee) -> Self {
        let settings = Settings::new(guarantee);
        Self { inner: Arc::new(Inner { store: Arc::new(store), settings, shared: Arc::default() }) }
    }

    /// How long a grant lasts unless renewed: how soon a retry can go on after a crash.
    ///
    /// It is renewed while the operation runs, so it need not cover the operation; it should cover
    /// the longest time for which a healthy process does not poll, and some failed renewals.
    #[must_use]
    pub fn lease(self, lease: Duration) -> Self {
        self.set(|settings| settings.lease = lease)
    }

    /// How long a result is replayed: as long as clients may retry. Not shorter than the lease.
    #[must_use]
    pub fn retention(self, retention: Duration) -> Self {
        self.set(|settings| settings.retention = retention)
    }

    /// How long an ended key is remembered: an interrupted one after its lease, a completed one after
    /// its retention, a released one after its release.
    ///
    /// | default | interrupted | released | completed |
    /// |---|---|---|---|
    /// | at least once | one retention after the claim | one retention | 0 |
    /// | verified | for ever | one retention | 0 |
    /// | at most once | for ever | one retention | 30 days |
    #[must_use]
    pub fn hold(self, hold: Duration) -> Self {
        self.set(|settings| settings.hold = Some(hold))
    }

    /// How long a duplicate of a running request waits for its result before it is told
    /// [`Busy`](RunError::Busy). Zero: it is told at once.
    #[must_use]
    pub fn wait_for_duplicate(self, wait: Duration) -> Self {
        self.set(|settings| settings.wait = wait)
    }

    /// How many duplicates may wait at once in this process; one more is told
    /// [`Busy`](RunError::Busy) at once. 2,048 by default.
    #[must_use]
    pub fn max_waiters(self, max_waiters: usize) -> Self {
        self.set(|settings| settings.max_waiters = max_waiters)
    }

    /// The most bytes of an encoded result that are kept. A larger one is returned to the caller that
    /// ran the operation and recorded as done; duplicates get
    /// [`NotReplayable`](RunError::NotReplayable). The limit also holds for all saved steps together.
    #[must_use]
    pub fn max_value_len(self, bytes: usize) -> Self {
        self.set(|settings| settings.max_value_len = bytes)
    }

    /// Names the operation for observers: a label, never a key.
    #[must_use]
    pub fn named(self, operation: impl Into<Arc<str>>) -> Self {
        let operation = operation.into();
        self.set(|settings| settings.name = operation)
    }

    /// What observers know the operation as; empty if nobody has [named](Self::named) it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.settings.name
    }

    /// Lets the store see keys only as hashed by `hasher`.
    #[must_use]
    pub fn hash_keys(self, hasher: KeyHasher) -> Self {
        self.set(|settings| settings.hasher = Some(hasher))
    }

    /// Adds an observer.
    #[must_use]
    pub fn observer(self, observer: impl Observer + 'static) -> Self {
        self.set(|settings| settings.observers.push(Arc::new(observer)))
    }

    /// Measures time and sleeps by `timer`, instead of by a thread of the library.
    #[must_use]
    pub fn timer(self, timer: impl Timer + 'static) -> Self {
        self.set(|settings| settings.timer = Arc::new(timer))
    }

    /// The timer by which it measures time and sleeps, for what goes with a run and has to wait, too.
    #[must_use]
    pub fn time(&self) -> &Arc<dyn Timer> {
        &self.inner.settings.timer
    }

    /// Takes attempt ids and jitter from `random`.
    #[must_use]
    pub fn random(self, random: impl Random + 'static) -> Self {
        self.set(|settings| settings.random = Arc::new(random))
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut Arc::make_mut(&mut self.inner).settings);
        self
    }

    /// Checks the settings, so that a service can refuse to start instead of refusing requests.
    ///
    /// # Errors
    /// [`Misconfigured`](crate::store::ErrorKind::Misconfigured), saying which setting would break
    /// what, and what to set it to.
    /// ```
    /// use std::time::Duration;
    /// # use oncekey::Idempotency;
    /// # use oncekey_memory::MemoryStore;
    /// let idempotency = Idempotency::at_least_once(MemoryStore::new()).lease(Duration::ZERO);
    /// let error = idempotency.validate().unwrap_err();
    /// assert!(error.to_string().contains("the lease is shorter"));
    /// ```
    pub fn validate(&self) -> Result<(), StoreError> {
        self.inner.settings.check()
    }

    /// The store below.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }
}

impl fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotency")
            .field("settings", &self.inner.settings)
            .finish_non_exhaustive()
    }
}
