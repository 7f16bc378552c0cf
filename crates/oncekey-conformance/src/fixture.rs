//! What a store author provides: [`Fixture`], about 30 lines for most stores.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use oncekey::Key;
use oncekey::store::Store;

/// One database of the store under test, and what the suite may do to it.
///
/// The suite touches no keys but its own, which it makes under a random scope, and purges. Tests run
/// at the same time, on a fixture each: two fixtures must not disturb each other's keys or time.
#[async_trait]
pub trait Fixture: Send + Sync + Sized + 'static {
    /// A fixture over an empty database: a new folder, schema or key prefix.
    ///
    /// Panics if it cannot be had. A server that is not there must not look like a rule that passed.
    async fn create() -> Self;

    /// A handle to the database, as another process would have it: a second call must not share
    /// caches or connections with the first where two processes would not.
    async fn open(&self) -> Arc<dyn Store>;

    /// Lets at least `duration` pass by the store's clock, then returns.
    ///
    /// Injected clocks step at once. Where time cannot be injected this sleeps, and
    /// [`Capabilities::real_time`] must say so, so that the suite keeps its durations short.
    async fn advance(&self, duration: Duration);

    /// What this store and this fixture can do. Rules that need more are reported as skipped.
    fn capabilities(&self) -> Capabilities;

    /// Stops the database as a crash would, and starts it again. Handles opened before may be dead.
    ///
    /// Needs [`Capability::Restart`].
    async fn restart(&self) {}

    /// Damages what is stored for `key`, behind the store's back.
    ///
    /// Needs [`Capability::Damage`].
    async fn damage(&self, key: &Key, damage: Damage) {
        let _ = (key, damage);
    }

    /// A handle to another, empty database with room for `keys` keys, or roughly so. Its time is
    /// that of this fixture.
    ///
    /// Needs [`Capability::Bounded`].
    async fn open_bounded(&self, keys: usize) -> Arc<dyn Store> {
        let _ = keys;
        self.open().await
    }

    /// Steps the store's clock back by `by`, as an operator or a time service does to a machine. It stays
    /// there, and goes on from there.
    ///
    /// Needs [`Capability::ClockStep`].
    async fn step_back(&self, by: Duration) {
        let _ = by;
    }

    /// Runs `future` to its end on this thread.
    ///
    /// The default runs it without a runtime. A store that needs one overrides this, best with one
    /// multi-threaded runtime for all: rules that race call this on several threads at once, use
    /// handles on other threads than those that opened them, and block the thread that started them.
    ///
    /// ```
    /// # use std::{future::Future, sync::LazyLock};
    /// use tokio::runtime::Runtime;
    ///
    /// fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    ///     static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
    ///     RUNTIME.block_on(future)
    /// }
    /// # assert_eq!(block_on(async { 1 }), 1);
    /// ```
    fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
        futures::executor::block_on(future)
    }
}

/// What is done to a stored record behind the store's back.
///
/// Each is a damage that the store's format can detect. A store that keeps fields in columns, without a
/// checksum, damages those that it can check: an unknown status, a digest that is too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Damage {
    /// One bit is flipped somewhere in it.
    FlipBit,
    /// Its end is cut off.
    Truncate,
    /// Its format version is one that no released oncekey wrote.
    NewerVersion,
}

/// Something that a rule may need and a store may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Capability {
    /// [`Fixture::restart`] works, and what was acknowledged is meant to survive it.
    Restart,
    /// [`Fixture::damage`] works.
    Damage,
    /// [`Fixture::open_bounded`] works.
    Bounded,
    /// The store notifies: [`Store::watch`](oncekey::store::Store::watch) returns something.
    Watch,
    /// The store lists: [`Store::inspect`](oncekey::store::Store::inspect) returns something.
    Inspect,
    /// Time is injected: hours can pass at once.
    InjectedTime,
    /// [`Fixture::step_back`] works.
    ClockStep,
}

/// The set of [`Capability`] that a fixture has.
#[derive(Debug, Clone, Default)]
pub struct Capabilities {
    has: Vec<Capability>,
}

impl Capabilities {
    /// Time is injected, and nothing else is there.
    #[must_use]
    pub fn injected_time() -> Self {
        Self { has: vec![Capability::InjectedTime] }
    }

    /// Time is real and passes by itself; nothing else is there.
    #[must_use]
    pub fn real_time() -> Self {
        Self::default()
    }

    /// Adds `capability`.
    #[must_use]
    pub fn with(mut self, capability: Capability) -> Self {
        if !self.has(capability) {
            self.has.push(capability);
        }
        self
    }

    /// Whether `capability` is there.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        self.has.contains(&capability)
    }
}
