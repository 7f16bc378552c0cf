//! The conformance suite for [oncekey] stores: the one that our own stores pass, for yours.
//!
//! A store that runs an operation twice is worse than none, and the ways to get there are many: a
//! takeover that overwrites a result, a release by somebody who no longer owns the key, a version that
//! comes back. Each rule of this suite is one requirement of the
//! [`Store`](oncekey::store::Store) contract, and rejects a store that is broken in just that way.
//!
//! # Your store's test
//! One file, `tests/conformance.rs`: a [`Fixture`] that says how to make a database, open it and let
//! time pass, and [`suite!`], which expands to one `#[test]` for every rule.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use async_trait::async_trait;
//! use oncekey::store::Store;
//! use oncekey_conformance::{Capabilities, Capability, Fixture};
//! use oncekey_memory::{ManualClock, MemoryStore}; // Yours, in your crate.
//!
//! struct Memory {
//!     clock: ManualClock,
//!     store: Arc<MemoryStore>,
//! }
//!
//! #[async_trait]
//! impl Fixture for Memory {
//!     async fn create() -> Self {
//!         let clock = ManualClock::default();
//!         let store = MemoryStore::builder().clock(Arc::new(clock.clone())).build();
//!         Self { clock, store: Arc::new(store) }
//!     }
//!
//!     async fn open(&self) -> Arc<dyn Store> {
//!         self.store.clone()
//!     }
//!
//!     async fn advance(&self, duration: Duration) {
//!         self.clock.advance(duration);
//!     }
//!
//!     fn capabilities(&self) -> Capabilities {
//!         Capabilities::injected_time().with(Capability::Watch).with(Capability::Inspect)
//!     }
//! }
//!
//! oncekey_conformance::suite!(Memory);
//! # fn main() {
//! # let memory = Memory::block_on(Memory::create());
//! # let report = oncekey_conformance::run_all(&memory);
//! # assert!(report.is_success(), "{report}");
//! # }
//! ```
//!
//! ```text
//! $ cargo test --test conformance                    # everything
//! $ cargo test --test conformance fencing::          # one subject
//! ```
//!
//! `#[dev-dependencies]` are this crate, `oncekey` and `async-trait`; the suite needs no runtime. A store
//! that does needs one line more: [`Fixture::block_on`]. A server that is not there should make
//! `create` panic: a test that was not run must not look like one that passed.
//!
//! [`run_all`] runs all rules on one fixture instead, and returns a [`Report`] that names each as passed,
//! failed or skipped, as text or as JSON. [`rules()`] lists them. Each rule is a function of [`mod@rules`],
//! to be called alone, for instance under a debugger.
//!
//! # Capabilities
//! Not every store can do everything, and not every fixture can do everything to its store. Rules that
//! need what is missing are skipped, and said to be:
//!
//! | [`Capability`] | without it |
//! |---|---|
//! | [`InjectedTime`](Capability::InjectedTime) | time is real: leases are short, rules sleep, and nobody waits for months |
//! | [`ClockStep`](Capability::ClockStep) | nothing shows that tokens, leases and results outlast a clock that steps back |
//! | [`Restart`](Capability::Restart) | nothing shows that acknowledged answers survive a crash |
//! | [`Damage`](Capability::Damage) | nothing shows that a damaged record, or one of a newer version, is never taken for absent |
//! | [`Bounded`](Capability::Bounded) | nothing shows what a full store does |
//! | [`Watch`](Capability::Watch) | the store does not notify; waiters poll |
//! | [`Inspect`](Capability::Inspect) | the store does not list; operators look up single keys |
//!
//! `Watch` and `Inspect` must be there if the store has them (`fixture::is_what_it_says`). The others are
//! the fixture's: a store whose fixture lacks them is accepted on trust.
//!
//! # What passing means
//! As far as this suite can see, the store keeps the contract: sequentially, compared with the rules of
//! the core in random sequences; concurrently, in races that are proven to have taken place and in
//! recorded histories that are checked for linearizability; when its futures are dropped at any await; and,
//! where the fixture can, across restarts and damage. It does not mean that the disk below keeps what
//! it acknowledged, that a replica never lags, or that a server's settings in production are those of
//! the test. Nor does it mean that *now* is read after any wait for a lock, as the contract asks: no
//! fixture can make every store wait for one where it reads the time, so a store that takes locks needs
//! a test of its own for that. Run the suite against the store, the server version and the settings that the deployment
//! really uses.
//!
//! # When a rule fails
//! The message names what was required and what was observed. Two remedies exist: change the store, or
//! excuse the rule by name and reason, in [`suite!`]. A store that excuses a rule says so to its users.
//! If a rule asks for something that the contract does not, that is a defect of the suite: report it.
//!
//! # Versions
//! The suite has the version of the core whose contract it checks. A new rule, or a rule that becomes
//! stricter within the contract, comes with a minor release and a line in the changelog: a store that
//! passed may then fail, because it was broken before. Names of rules are stable; a rule is renamed or
//! removed only with a release that may break.
#![forbid(unsafe_code)]

mod fixture;
pub mod history;
mod list;
pub mod model;
mod report;
pub mod rules;
mod run;
mod support;
mod verdict;

pub use fixture::{Capabilities, Capability, Damage, Fixture};
pub use list::{Rule, rules};
pub use report::{Entry, Outcome, Report, Skip};
pub use run::run_all;
#[doc(hidden)]
pub use run::run_rule;
pub use verdict::{Verdict, Violation};
