//! For store authors: the [`Store`] contract, the rules behind it, and the data on both sides.
//!
//! Two parties meet here. The *engine* ([`Idempotency`](crate::Idempotency)) mints attempt ids, keeps
//! leases renewed and runs the operation. The *store* decides, atomically and by its own clock, what
//! each command does. The rules it decides by are one pure function, [`transition`]:
//!
//! ```text
//! Absent ──claim──► InProgress ──complete──► Completed
//!   ▲                 │    ▲                     │
//!   │  release, give  │    │ claim               │ retention
//!   │  up, or the     │    │ (takeover)          │ elapses
//!   │  lease lapses   ▼    │                     ▼
//!   └────purge──── Expired { Released | Lapsed | GaveUp | Retired }
//! ```
//!
//! There are two ways to write a store. Implement [`CompareAndSwap`] (three methods, under a hundred
//! lines) and wrap it in [`CasStore`]: the rules then come from here. Or implement [`Store`] itself
//! and express the rules in the database, for fewer round trips. Either way, prove it with the
//! `oncekey-conformance` suite; each MUST below names the rule of the suite that checks it.
//!
//! When in doubt: running an operation twice is the harmful mistake. Refusing, waiting, or saying
//! that the outcome is unknown is tolerable.

mod cas;
mod codec;
mod command;
mod error;
mod forward;
mod grant;
mod inspect;
mod listener;
mod record;
mod transition;
mod watch;

use async_trait::async_trait;

pub use cas::{CasStore, CompareAndSwap, Entry, Version, Versioned};
pub use command::{
    Abandon, Claim, ClaimOutcome, Complete, Completion, Evict, Expected, Fenced, Known,
    OnInterrupted, OnRetired, Previous, Purged, Renew, Settle, Settlement,
};
pub use error::{ErrorKind, StoreError};
pub use grant::{AttemptId, FencingToken, Grant};
pub use inspect::{Cursor, Inspect, Page, Query};
pub use listener::{Inbox, Listen, Listener};
pub use record::{Cause, Observed, Progress, Record, Replaced, State, Status, StoredValue};
pub use transition::{Change, Command, Purge, Transition, transition};
pub use watch::{Subscription, Watch};

use crate::Key;

/// Keeps one record a key, and applies commands to it by the rules of [`transition`].
///
/// # For callers
/// Most users want [`Idempotency`](crate::Idempotency), which calls these methods in the right order.
/// A refusal ([`ClaimOutcome::Busy`], [`Fenced::Lost`], ..) is an outcome, never an error. After
/// [`ErrorKind::OutcomeUnknown`], or a future that was dropped, send the *same* command again: every
/// verb is safe to repeat: a claim because it names its attempt, all others because they name their grant.
///
/// # Time
/// All deadlines are decided by one clock, the store's: of a server where there is one, of the
/// machine where the store is a file, of the process where it is memory. Callers' clocks decide
/// nothing. If the clock steps, leases get shorter or longer; nothing else may break.
///
/// # Sharing
/// A clone of a store, and a second handle to the same database, share its state. References, `Box`
/// and `Arc` of a store (also of `dyn Store`) are stores.
///
/// # Implementing
/// Every method is one atomic transition, in any isolation level and among any number of processes:
/// it MUST leave the record, and answer, exactly as [`transition`] says
/// (`model::agrees_with_the_rules`, `history::is_linearizable`). In particular:
/// - An answer MUST be in force before it is given; a refusal too (`reopen::an_answer_survives`).
/// - A record that cannot be understood, or has a newer version, MUST make every command fail with
///   [`ErrorKind::Corrupt`], except `evict` of [`Expected::Any`]; it is never taken for absent
///   (`corrupt::every_command_fails`, `corrupt::evict_any_removes_it`).
/// - The commands of an owner (renew, complete, abandon) MUST be held against its whole grant, attempt
///   id and token; if either differs they are [`Fenced::Lost`] (`fencing::the_whole_grant_decides`).
/// - A dropped future MUST be as good as a crash of the caller: the command happened or did not, no
///   lock, connection or transaction is left behind (`cancel::a_dropped_call_leaves_nothing_behind`).
/// - Keys are arbitrary bytes, compared bit by bit (`limits::near_identical_keys_are_distinct`).
/// - Durations up to [`Duration::MAX`](std::time::Duration::MAX) MUST work; sums saturate at
///   [`Timestamp::MAX`](crate::runtime::Timestamp::MAX) (`limits::huge_durations_saturate`).
/// - A record MUST NOT be dropped before its time to forget, however full the store is
///   (`limits::a_full_store_refuses_new_keys`).
#[async_trait]
pub trait Store: Send + Sync {
    /// Asks for the right to run, under a lease.
    ///
    /// # Atomicity
    /// One decision: of any number of simultaneous claims on a free key, exactly one is granted.
    ///
    /// # Durability
    /// A grant survives what the store declares to survive, before this returns.
    ///
    /// # Time
    /// Deadlines are the store's now plus the durations of the command; now is read *after* any wait
    /// for a lock. [`lease_left`](ClaimOutcome::Acquired::lease_left) is as of that same now.
    ///
    /// # Cancel safety
    /// Dropped: the claim was granted, will be granted, or never is. Claim again with the same
    /// attempt to find out; a grant that nobody learns of lapses.
    ///
    /// # Errors
    /// Any [`ErrorKind`]. [`Full`](ErrorKind::Full) only for a key that the store does not know.
    ///
    /// # Implementing
    /// - The same attempt, claiming again while it owns the key, MUST get the same token, and the
    ///   same account of the attempt it replaced (`retry::claim_again_gets_the_same_grant`).
    /// - A late copy of a claim whose attempt ended MUST get [`Spent`](ClaimOutcome::Spent)
    ///   (`retry::a_late_claim_of_an_ended_attempt_is_spent`).
    /// - The fingerprint MUST be compared in every state but absent and retired
    ///   (`fingerprint::differs_in_progress`, `fingerprint::is_kept_through_takeover`,
    ///   `fingerprint::is_kept_through_release`, `fingerprint::is_kept_through_give_up`).
    /// - Tokens MUST increase with every grant while the record is remembered
    ///   (`fencing::tokens_increase`).
    ///
    /// # Example
    /// ```
    /// # use std::time::Duration;
    /// # use oncekey::{Fingerprint, Key, Scope};
    /// # use oncekey::store::*;
    /// # futures::executor::block_on(async {
    /// # let store = oncekey_memory::MemoryStore::new();
    /// # let key = Key::new(&Scope::new("tenant-42", "pay")?, "order-17")?;
    /// # let claim = Claim {
    /// #     attempt: AttemptId::from_bytes([7; 16]),
    /// #     fingerprint: Fingerprint::of("100 EUR"),
    /// #     lease: Duration::from_secs(30),
    /// #     hold: Duration::from_secs(3600),
    /// #     on_interrupted: OnInterrupted::Refuse,
    /// #     on_retired: OnRetired::Forget,
    /// # };
    /// let first = store.claim(&key, &claim).await?;
    /// assert!(matches!(first, ClaimOutcome::Acquired { number: 1, .. }));
    ///
    /// let other = Claim { attempt: AttemptId::from_bytes([8; 16]), ..claim };
    /// let second = store.claim(&key, &other).await?;
    /// assert!(matches!(second, ClaimOutcome::Busy { .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    async fn claim(&self, key: &Key, claim: &Claim) -> Result<ClaimOutcome, StoreError>;

    /// Extends the owner's lease, and may save progress.
    ///
    /// # Atomicity
    /// Deadline, time to forget and progress change together.
    ///
    /// # Durability
    /// As for `claim`. Saved progress is handed to whoever takes over.
    ///
    /// # Time
    /// The deadline becomes now plus the lease, unless it is later already.
    ///
    /// # Cancel safety
    /// Dropped: applied or not. Renew again; an older progress never replaces a newer one.
    ///
    /// # Errors
    /// Any [`ErrorKind`] but [`Full`](ErrorKind::Full).
    ///
    /// # Implementing
    /// - A lapsed lease that nobody took over MUST be renewed (`renew::a_lapsed_lease_lives_again`).
    /// - Whatever moves the deadline MUST move the time to forget with it
    ///   (`renew::forgetting_moves_with_the_deadline`).
    /// - A progress whose sequence number is not greater MUST be left out, and the lease extended all
    ///   the same (`retry::an_older_progress_never_replaces_a_newer`).
    ///
    /// # Example
    /// ```
    /// # use std::time::Duration;
    /// # use oncekey::{Fingerprint, Key, Scope};
    /// # use oncekey::store::*;
    /// # futures::executor::block_on(async {
    /// # let store = oncekey_memory::MemoryStore::new();
    /// # let key = Key::new(&Scope::new("tenant-42", "pay")?, "order-17")?;
    /// # let claim = Claim {
    /// #     attempt: AttemptId::from_bytes([7; 16]),
    /// #     fingerprint: Fingerprint::of("100 EUR"),
    /// #     lease: Duration::from_secs(30),
    /// #     hold: Duration::from_secs(3600),
    /// #     on_interrupted: OnInterrupted::Refuse,
    /// #     on_retired: OnRetired::Forget,
    /// # };
    /// # let ClaimOutcome::Acquired { grant, .. } = store.claim(&key, &claim).await? else { panic!() };
    /// let renew = Renew { grant, lease: Duration::from_secs(30), progress: None };
    /// assert_eq!(store.renew(&key, &renew).await?, Fenced::Applied);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    async fn renew(&self, key: &Key, renew: &Renew) -> Result<Fenced, StoreError>;

    /// Records the result. From now on every duplicate gets it, byte for byte, for the retention.
    ///
    /// # Atomicity
    /// One decision: of an owner and whoever took over from it, one can complete.
    ///
    /// # Durability
    /// An acknowledged result survives what the store declares to survive.
    ///
    /// # Time
    /// Retention and hold count from the store's now at the *first* completion.
    ///
    /// # Cancel safety
    /// Dropped: applied or not. Complete again with the same bytes.
    ///
    /// # Errors
    /// Any [`ErrorKind`] but [`Full`](ErrorKind::Full). [`TooLarge`](ErrorKind::TooLarge) when the
    /// value does not fit; completing with
    /// [`replayable: false`](Completion::replayable) always fits.
    ///
    /// # Implementing
    /// - A lapsed, released or given-up attempt that nobody took over MUST be able to complete: the
    ///   effect happened (`complete::after_the_lease_lapsed`, `complete::after_release`,
    ///   `complete::after_giving_up`).
    /// - An attempt that was replaced MUST NOT change anything, also after the one that replaced it
    ///   ended (`fencing::a_replaced_owner_changes_nothing`,
    ///   `fencing::a_replaced_owner_changes_nothing_after_completion`).
    /// - Completing again MUST change nothing: not the bytes, not the retention
    ///   (`retry::complete_again_changes_nothing`, `retry::complete_with_other_bytes_conflicts`).
    ///
    /// # Example
    /// ```
    /// # use std::time::Duration;
    /// # use oncekey::{Fingerprint, Key, Scope};
    /// # use oncekey::store::*;
    /// # futures::executor::block_on(async {
    /// # let store = oncekey_memory::MemoryStore::new();
    /// # let key = Key::new(&Scope::new("tenant-42", "pay")?, "order-17")?;
    /// # let claim = Claim {
    /// #     attempt: AttemptId::from_bytes([7; 16]),
    /// #     fingerprint: Fingerprint::of("100 EUR"),
    /// #     lease: Duration::from_secs(30),
    /// #     hold: Duration::from_secs(3600),
    /// #     on_interrupted: OnInterrupted::Refuse,
    /// #     on_retired: OnRetired::Forget,
    /// # };
    /// # let ClaimOutcome::Acquired { grant, .. } = store.claim(&key, &claim).await? else { panic!() };
    /// # let completion = Completion {
    /// #     value: "receipt 1".into(),
    /// #     replayable: true,
    /// #     retention: Duration::from_secs(86_400),
    /// #     hold: Duration::ZERO,
    /// # };
    /// let complete = Complete { grant, completion };
    /// assert_eq!(store.complete(&key, &complete).await?, Fenced::Applied);
    /// // The acknowledgement was lost? Complete again.
    /// assert_eq!(store.complete(&key, &complete).await?, Fenced::Applied);
    ///
    /// let duplicate = Claim { attempt: AttemptId::from_bytes([8; 16]), ..claim };
    /// let answer = store.claim(&key, &duplicate).await?;
    /// assert_eq!(answer, ClaimOutcome::Replay(Some("receipt 1".into())));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    async fn complete(&self, key: &Key, complete: &Complete) -> Result<Fenced, StoreError>;

    /// Ends the attempt without a result: *release* or *give up*.
    ///
    /// # Atomicity, durability, time
    /// As for `renew`. A release sets the time to forget to now plus its hold.
    ///
    /// # Cancel safety
    /// Dropped: applied or not. Abandon again in the same way.
    ///
    /// # Errors
    /// Any [`ErrorKind`] but [`Full`](ErrorKind::Full).
    ///
    /// # Implementing
    /// - A release of an attempt that saved progress MUST be recorded as given up
    ///   (`release::with_progress_is_giving_up`).
    /// - What was completed MUST NOT be released (`release::never_after_completion`).
    ///
    /// # Example
    /// ```
    /// # use std::time::Duration;
    /// # use oncekey::{Fingerprint, Key, Scope};
    /// # use oncekey::store::*;
    /// # futures::executor::block_on(async {
    /// # let store = oncekey_memory::MemoryStore::new();
    /// # let key = Key::new(&Scope::new("tenant-42", "pay")?, "order-17")?;
    /// # let claim = Claim {
    /// #     attempt: AttemptId::from_bytes([7; 16]),
    /// #     fingerprint: Fingerprint::of("100 EUR"),
    /// #     lease: Duration::from_secs(30),
    /// #     hold: Duration::from_secs(3600),
    /// #     on_interrupted: OnInterrupted::Refuse,
    /// #     on_retired: OnRetired::Forget,
    /// # };
    /// # let ClaimOutcome::Acquired { grant, .. } = store.claim(&key, &claim).await? else { panic!() };
    /// let known = Known::NotStarted { hold: Duration::from_secs(3600) };
    /// assert_eq!(store.abandon(&key, &Abandon { grant, known }).await?, Fenced::Applied);
    ///
    /// let next = Claim { attempt: AttemptId::from_bytes([8; 16]), ..claim };
    /// let answer = store.claim(&key, &next).await?;
    /// assert!(matches!(answer, ClaimOutcome::Acquired { number: 2, .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    async fn abandon(&self, key: &Key, abandon: &Abandon) -> Result<Fenced, StoreError>;

    /// An operator's verdict on an operation whose outcome was unknown.
    ///
    /// # Atomicity, durability, time
    /// As for `complete`.
    ///
    /// # Cancel safety
    /// Dropped: applied or not. Settle again in the same way.
    ///
    /// # Errors
    /// As for `complete`.
    ///
    /// # Implementing
    /// - A live owner MUST NOT be overruled (`operator::settle_spares_a_live_owner`).
    /// - The verdict MUST apply only to the attempt it names (`operator::settle_names_its_attempt`).
    ///
    /// # Example
    /// ```
    /// # use std::time::Duration;
    /// # use oncekey::{Fingerprint, Key, Scope};
    /// # use oncekey::store::*;
    /// # futures::executor::block_on(async {
    /// # let store = oncekey_memory::MemoryStore::new();
    /// # let key = Key::new(&Scope::new("tenant-42", "pay")?, "order-17")?;
    /// # let claim = Claim {
    /// #     attempt: AttemptId::from_bytes([7; 16]),
    /// #     fingerprint: Fingerprint::of("100 EUR"),
    /// #     lease: Duration::from_secs(30),
    /// #     hold: Duration::from_secs(3600),
    /// #     on_interrupted: OnInterrupted::Refuse,
    /// #     on_retired: OnRetired::Forget,
    /// # };
    /// # let ClaimOutcome::Acquired { grant, .. } = store.claim(&key, &claim).await? else { panic!() };
    /// # let completion = Completion {
    /// #     value: "receipt 1".into(),
    /// #     replayable: true,
    /// #     retention: Duration::from_secs(86_400),
    /// #     hold: Duration::ZERO,
    /// # };
    /// store.abandon(&key, &Abandon { grant, known: Known::Unknown }).await?;
    ///
    /// let expected = Expected::Token(grant.token);
    /// let settle = Settle { expected, settlement: Settlement::Done(completion) };
    /// assert_eq!(store.settle(&key, &settle).await?, Fenced::Applied);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    async fn settle(&self, key: &Key, settle: &Settle) -> Result<Fenced, StoreError>;

    /// Removes the record: the key is as good as new.
    ///
    /// # Atomicity, durability
    /// As for `complete`.
    ///
    /// # Cancel safety
    /// Dropped: applied or not. `get` tells.
    ///
    /// # Errors
    /// Any [`ErrorKind`] but [`Full`](ErrorKind::Full) and [`TooLarge`](ErrorKind::TooLarge).
    ///
    /// # Implementing
    /// - A live owner MUST be spared unless forced (`operator::evict_spares_a_live_owner`).
    ///
    /// # Example
    /// ```
    /// # use std::time::Duration;
    /// # use oncekey::{Fingerprint, Key, Scope};
    /// # use oncekey::store::*;
    /// # futures::executor::block_on(async {
    /// # let store = oncekey_memory::MemoryStore::new();
    /// # let key = Key::new(&Scope::new("tenant-42", "pay")?, "order-17")?;
    /// # let claim = Claim {
    /// #     attempt: AttemptId::from_bytes([7; 16]),
    /// #     fingerprint: Fingerprint::of("100 EUR"),
    /// #     lease: Duration::from_secs(30),
    /// #     hold: Duration::from_secs(3600),
    /// #     on_interrupted: OnInterrupted::Refuse,
    /// #     on_retired: OnRetired::Forget,
    /// # };
    /// # let ClaimOutcome::Acquired { grant, .. } = store.claim(&key, &claim).await? else { panic!() };
    /// let evict = Evict { expected: Expected::Token(grant.token), force: false };
    /// assert_eq!(store.evict(&key, &evict).await?, Fenced::Busy);
    /// assert_eq!(store.evict(&key, &Evict { force: true, ..evict }).await?, Fenced::Applied);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    async fn evict(&self, key: &Key, evict: &Evict) -> Result<Fenced, StoreError>;

    /// The record as it is, in every state, with the store's now.
    ///
    /// # Durability
    /// Reads what is in force: never a replica that may lag.
    ///
    /// # Cancel safety
    /// Changes nothing.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable), [`Timeout`](ErrorKind::Timeout),
    /// [`Corrupt`](ErrorKind::Corrupt) or [`Misconfigured`](ErrorKind::Misconfigured).
    ///
    /// # Example
    /// ```
    /// # use std::time::Duration;
    /// # use oncekey::{Fingerprint, Key, Scope};
    /// # use oncekey::store::*;
    /// # futures::executor::block_on(async {
    /// # let store = oncekey_memory::MemoryStore::new();
    /// # let key = Key::new(&Scope::new("tenant-42", "pay")?, "order-17")?;
    /// # let claim = Claim {
    /// #     attempt: AttemptId::from_bytes([7; 16]),
    /// #     fingerprint: Fingerprint::of("100 EUR"),
    /// #     lease: Duration::from_secs(30),
    /// #     hold: Duration::from_secs(3600),
    /// #     on_interrupted: OnInterrupted::Refuse,
    /// #     on_retired: OnRetired::Forget,
    /// # };
    /// # let ClaimOutcome::Acquired { grant, .. } = store.claim(&key, &claim).await? else { panic!() };
    /// let observed = store.get(&key).await?.expect("somebody claimed it");
    /// assert_eq!(observed.state, State::Live);
    /// assert_eq!(observed.record.grant(), grant);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    async fn get(&self, key: &Key) -> Result<Option<Observed>, StoreError>;

    /// Removes at most `limit` records whose time is over.
    ///
    /// # Atomicity
    /// Record by record: each is removed only as it is at that moment, so a record that was claimed
    /// or renewed meanwhile stays.
    ///
    /// # Time
    /// By the store's clock. A store that removes records by itself at their time need do nothing.
    ///
    /// # Cancel safety
    /// Dropped: some were removed, others not yet.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable), [`Timeout`](ErrorKind::Timeout) or
    /// [`Misconfigured`](ErrorKind::Misconfigured). A record that cannot be decoded is passed over.
    ///
    /// # Implementing
    /// - Live and completed records MUST stay (`purge::spares_what_matters`).
    /// - Claims that race with a purge MUST get true answers (`purge::races_with_claims`).
    ///
    /// # Example
    /// ```
    /// # use std::time::Duration;
    /// # use oncekey::{Fingerprint, Key, Scope};
    /// # use oncekey::store::*;
    /// # futures::executor::block_on(async {
    /// # let store = oncekey_memory::MemoryStore::new();
    /// # let key = Key::new(&Scope::new("tenant-42", "pay")?, "order-17")?;
    /// # let claim = Claim {
    /// #     attempt: AttemptId::from_bytes([7; 16]),
    /// #     fingerprint: Fingerprint::of("100 EUR"),
    /// #     lease: Duration::from_secs(30),
    /// #     hold: Duration::from_secs(3600),
    /// #     on_interrupted: OnInterrupted::Refuse,
    /// #     on_retired: OnRetired::Forget,
    /// # };
    /// # let ClaimOutcome::Acquired { grant, .. } = store.claim(&key, &claim).await? else { panic!() };
    /// // Nothing is over yet, and what is live stays in any case.
    /// assert_eq!(store.purge(1_000).await?, Purged { removed: 0, more: false });
    /// assert!(store.get(&key).await?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    async fn purge(&self, limit: usize) -> Result<Purged, StoreError>;

    /// Notifications, if the store can send them. Safe to forget: polling always works.
    fn watch(&self) -> Option<&dyn Watch> {
        None
    }

    /// Listing, if the store can list.
    fn inspect(&self) -> Option<&dyn Inspect> {
        None
    }
}
