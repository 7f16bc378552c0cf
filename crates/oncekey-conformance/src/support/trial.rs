//! A handle with keys of its own, and the steps that most rules begin with.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use oncekey::runtime::{ProcessRandom, Random, Timestamp};
use oncekey::store::{
    Abandon, AttemptId, Claim, ClaimOutcome, Complete, Completion, Evict, Expected, Fenced, Grant,
    Known, Observed, OnInterrupted, OnRetired, Previous, Progress, Renew, Settle, Settlement,
    State, Status, Store, StoredValue,
};
use oncekey::{Fingerprint, Key, Scope};

use super::expect::{acquired, broken, ensure, expect};
use crate::{Capability, Fixture, Verdict, Violation};

/// The two durations of a rule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Passes when a rule says so.
    pub(crate) short: Duration,
    /// Does not pass while a rule runs.
    pub(crate) long: Duration,
    /// What a sleeping client may wake too early by, as the store's clock sees it.
    slack: Duration,
}

impl Times {
    pub(crate) fn of<F: Fixture>(fixture: &F) -> Self {
        if fixture.capabilities().has(Capability::InjectedTime) {
            Self {
                short: Duration::from_secs(30),
                long: Duration::from_secs(24 * 3600),
                slack: Duration::ZERO,
            }
        } else {
            Self {
                short: Duration::from_millis(100),
                long: Duration::from_secs(600),
                slack: Duration::from_millis(5),
            }
        }
    }
}

/// One handle of a fixture, with keys that nobody else uses.
pub(crate) struct Trial<'f, F> {
    pub(crate) fixture: &'f F,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) times: Times,
    principal: String,
    keys: AtomicU32,
}

/// Who was granted a key, and what it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) key: Key,
    pub(crate) claim: Claim,
    pub(crate) grant: Grant,
    pub(crate) number: u32,
    pub(crate) lease_left: Duration,
    pub(crate) previous: Option<Previous>,
}

/// Bytes that a store which takes them for text, numbers or documents does not give back.
pub(crate) const HARD_BYTES: &[&[u8]] = &[
    &[0],
    &[0; 33],
    b"\xff\xfe\xc3\x28",
    b"{\"a\": 1}\r\n ",
    b"007",
    b"1e3",
    b"true",
    b"null",
    "ﬁancé e\u{301}".as_bytes(),
];

/// What [`Trial::key_in`] completes with.
pub(crate) const ANSWER: &[u8] = b"the answer";

impl<'f, F: Fixture> Trial<'f, F> {
    pub(crate) async fn new(fixture: &'f F) -> Self {
        Self::on(fixture, fixture.open().await)
    }

    /// A trial on a handle that the fixture gave.
    pub(crate) fn on(fixture: &'f F, store: Arc<dyn Store>) -> Self {
        Self {
            fixture,
            store,
            times: Times::of(fixture),
            principal: format!("conformance-{:032x}", ProcessRandom::new().next()),
            keys: AtomicU32::new(0),
        }
    }

    /// A key that was not used before.
    pub(crate) fn key(&self) -> Key {
        self.key_with_id(self.keys.fetch_add(1, Ordering::Relaxed).to_string())
    }

    pub(crate) fn key_with_id(&self, id: impl AsRef<[u8]>) -> Key {
        make_key(&self.principal, b"rule", id.as_ref())
    }

    /// A key of another principal or for another operation.
    pub(crate) fn key_in_scope(&self, principal: &str, operation: &str, id: &str) -> Key {
        let principal = format!("{}-{principal}", self.principal);
        make_key(&principal, operation.as_bytes(), id.as_bytes())
    }

    /// A key whose encoding is as long as any, if `id` is.
    pub(crate) fn longest_key(&self, id: &[u8]) -> Key {
        make_key(&format!("{:0>512}", self.principal), &[b'o'; 512], id)
    }

    /// A claim by a new attempt: long lease and hold, taking over, forgetting what is retired.
    pub(crate) fn claim(&self) -> Claim {
        Claim {
            attempt: AttemptId::from_bytes(ProcessRandom::new().next().to_be_bytes()),
            fingerprint: Fingerprint::of("the request"),
            lease: self.times.long,
            hold: self.times.long,
            on_interrupted: OnInterrupted::TakeOver,
            on_retired: OnRetired::Forget,
        }
    }

    /// The same, refusing whatever can be refused.
    pub(crate) fn strict_claim(&self) -> Claim {
        Claim { on_interrupted: OnInterrupted::Refuse, on_retired: OnRetired::Tell, ..self.claim() }
    }

    /// The same as [`claim`](Self::claim), for another request.
    pub(crate) fn other_claim(&self) -> Claim {
        Claim { fingerprint: Fingerprint::of("another request"), ..self.claim() }
    }

    /// A result that is kept and remembered for long.
    pub(crate) fn completion(&self, value: impl Into<Bytes>) -> Completion {
        Completion {
            value: value.into(),
            replayable: true,
            retention: self.times.long,
            hold: self.times.long,
        }
    }

    pub(crate) async fn pass(&self, duration: Duration) {
        self.fixture.advance(duration + self.times.slack).await;
    }

    /// Claims, and must be granted.
    pub(crate) async fn acquire(&self, key: &Key, claim: &Claim) -> Result<Owner, Violation> {
        let outcome = self.store.claim(key, claim).await?;
        acquired("a claim on a key that is free", key, claim, outcome)
    }

    /// The live owner of a new key.
    pub(crate) async fn owner(&self) -> Result<Owner, Violation> {
        self.acquire(&self.key(), &self.claim()).await
    }

    /// The attempt, and the key, after whatever leads to `state`.
    pub(crate) async fn key_in(&self, state: State) -> Result<Owner, Violation> {
        let lease = match state {
            State::Lapsed => self.times.short,
            _ => self.times.long,
        };
        let claim = Claim { lease, ..self.claim() };
        let owner = self.acquire(&self.key(), &claim).await?;
        let ended = match state {
            State::Live => Fenced::Applied,
            State::Lapsed => {
                self.pass(self.times.short).await;
                Fenced::Applied
            }
            State::GaveUp => self.give_up(&owner).await?,
            State::Released => self.release(&owner).await?,
            State::Completed => self.complete(&owner, ANSWER).await?,
            State::Retired => {
                let completion =
                    Completion { retention: self.times.short, ..self.completion(ANSWER) };
                let fenced = self.complete_as(&owner, completion).await?;
                self.pass(self.times.short).await;
                fenced
            }
        };
        expect("the owner ends its attempt", ended, Fenced::Applied)?;
        Ok(owner)
    }

    /// A lapsed key from `stock`, which is filled so that many leases lapse in the same time.
    pub(crate) async fn lapsed(&self, stock: &mut Vec<Owner>) -> Result<Owner, Violation> {
        if stock.is_empty() {
            for _ in 0..16 {
                let claim = Claim { lease: self.times.short, ..self.claim() };
                stock.push(self.acquire(&self.key(), &claim).await?);
            }
            self.pass(self.times.short).await;
        }
        match stock.pop() {
            Some(owner) => Ok(owner),
            None => unreachable!("it was filled"),
        }
    }

    pub(crate) async fn claims(&self, key: &Key, claim: &Claim) -> Result<ClaimOutcome, Violation> {
        Ok(self.store.claim(key, claim).await?)
    }

    pub(crate) async fn renew(&self, owner: &Owner, lease: Duration) -> Result<Fenced, Violation> {
        let renew = Renew { grant: owner.grant, lease, progress: None };
        Ok(self.store.renew(&owner.key, &renew).await?)
    }

    /// Renews for long, saving `data` as number `sequence`.
    pub(crate) async fn save(
        &self,
        owner: &Owner,
        sequence: u64,
        data: impl Into<Bytes>,
    ) -> Result<Fenced, Violation> {
        let renew = Renew {
            grant: owner.grant,
            lease: owner.claim.lease,
            progress: Some(Progress { sequence, data: data.into() }),
        };
        Ok(self.store.renew(&owner.key, &renew).await?)
    }

    pub(crate) async fn complete(
        &self,
        owner: &Owner,
        value: impl Into<Bytes>,
    ) -> Result<Fenced, Violation> {
        self.complete_as(owner, self.completion(value)).await
    }

    pub(crate) async fn complete_as(
        &self,
        owner: &Owner,
        completion: Completion,
    ) -> Result<Fenced, Violation> {
        let complete = Complete { grant: owner.grant, completion };
        Ok(self.store.complete(&owner.key, &complete).await?)
    }

    pub(crate) async fn release(&self, owner: &Owner) -> Result<Fenced, Violation> {
        self.release_for(owner, self.times.long).await
    }

    pub(crate) async fn release_for(
        &self,
        owner: &Owner,
        hold: Duration,
    ) -> Result<Fenced, Violation> {
        self.abandon(owner, Known::NotStarted { hold }).await
    }

    pub(crate) async fn give_up(&self, owner: &Owner) -> Result<Fenced, Violation> {
        self.abandon(owner, Known::Unknown).await
    }

    async fn abandon(&self, owner: &Owner, known: Known) -> Result<Fenced, Violation> {
        let abandon = Abandon { grant: owner.grant, known };
        Ok(self.store.abandon(&owner.key, &abandon).await?)
    }

    pub(crate) async fn settle(
        &self,
        key: &Key,
        expected: Expected,
        settlement: Settlement,
    ) -> Result<Fenced, Violation> {
        let settle = Settle { expected, settlement };
        Ok(self.store.settle(key, &settle).await?)
    }

    pub(crate) async fn evict(
        &self,
        key: &Key,
        expected: Expected,
        force: bool,
    ) -> Result<Fenced, Violation> {
        Ok(self.store.evict(key, &Evict { expected, force }).await?)
    }

    /// The record of `key`, which must be there.
    pub(crate) async fn seen(&self, key: &Key) -> Result<Observed, Violation> {
        match self.store.get(key).await? {
            Some(observed) => Ok(observed),
            None => broken("a key that was claimed and not purged has a record", "None"),
        }
    }

    /// The store's clock: a key is claimed for it, since only records are shown with the time.
    pub(crate) async fn now(&self) -> Result<Timestamp, Violation> {
        let owner = self.owner().await?;
        Ok(self.seen(&owner.key).await?.now)
    }

    pub(crate) async fn is_in(&self, what: &str, key: &Key, state: State) -> Verdict {
        expect(what, self.seen(key).await?.state, state)
    }

    /// The time to forget is `hold` from a point between `earliest` and now.
    pub(crate) async fn is_forgotten_after(
        &self,
        key: &Key,
        earliest: Timestamp,
        hold: Duration,
    ) -> Verdict {
        let seen = self.seen(key).await?;
        let from = earliest.saturating_add(hold);
        let to = seen.now.saturating_add(hold);
        ensure(
            (from..=to).contains(&seen.record.forget_at),
            format_args!("the key is forgotten {hold:?} later, from {from:?} to {to:?}"),
            seen.record.forget_at,
        )
    }

    /// Purges until nothing is left to purge.
    pub(crate) async fn purge_all(&self) -> Verdict {
        for _ in 0..10_000 {
            if !self.store.purge(1_000).await?.more {
                return Ok(());
            }
        }
        broken("repeated purges come to an end", "more: true, 10000 times")
    }

    /// `what` left the record of `before` as it was.
    pub(crate) async fn unchanged(&self, what: &str, key: &Key, before: &Observed) -> Verdict {
        unchanged(what, before, &self.seen(key).await?)
    }
}

impl Owner {
    /// How commands of an operator name this attempt.
    pub(crate) const fn expected(&self) -> Expected {
        Expected::Attempt(self.grant.attempt)
    }
}

/// `what` left the record of `before` as it was.
pub(crate) fn unchanged(what: impl fmt::Display, before: &Observed, after: &Observed) -> Verdict {
    ensure(
        comparable(before) == comparable(after),
        format_args!("{what} leaves the record as it was: {:?}", before.record),
        &after.record,
    )
}

/// A store may shrink a retired result to its digest at any time.
fn comparable(observed: &Observed) -> oncekey::store::Record {
    let mut record = observed.record.clone();
    if observed.state == State::Retired
        && let Status::Completed { value, .. } = &mut record.status
        && let StoredValue::Replayable(bytes) = value
    {
        *value = StoredValue::new(bytes, false);
    }
    record
}

fn make_key(principal: &str, operation: &[u8], id: &[u8]) -> Key {
    match Scope::new(principal, operation).and_then(|scope| Key::new(&scope, id)) {
        Ok(key) => key,
        Err(error) => unreachable!("the suite's keys are valid: {error}"),
    }
}
