//! A store that goes wrong in every way that the contract allows.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use oncekey::Key;
use oncekey::runtime::{Random, SeededRandom, Timer};
use oncekey::store::{
    Abandon, AttemptId, Claim, ClaimOutcome, Complete, ErrorKind, Evict, Fenced, Inspect, Observed,
    Page, Purged, Query, Renew, Settle, Store, StoreError, Subscription, Watch,
};

use super::executor::Network;
use super::time::VirtualTimer;

/// The calls of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Verb {
    Claim,
    Renew,
    Complete,
    Abandon,
    Settle,
    Evict,
    Get,
    Purge,
    List,
    Subscribe,
}

/// What happens to one call.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// It is applied and answered.
    None,
    /// It is applied after a while, and answered.
    Slow(Duration),
    /// It is applied now, and answered after a while.
    SlowReply(Duration),
    /// It is refused, and not applied.
    Fail(ErrorKind),
    /// It is never applied, and the caller does not know.
    LostRequest,
    /// It is applied, and the caller does not know.
    LostReply,
    /// The caller does not know; it is applied after a while.
    Late(Duration),
    /// It is never applied, and never answered.
    Hang,
    /// It is applied, and never answered.
    HangApplied,
    /// It is never answered; it is applied after a while, whether or not the caller still waits.
    HangLate(Duration),
    /// It is applied and answered, and applied again after a while.
    Twice(Duration),
}

/// What happens to calls that follow no script.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chaos {
    /// How many calls of a thousand go wrong.
    pub(crate) per_mille: u32,
    /// How long anything takes at the most.
    pub(crate) longest: Duration,
}

/// What happens to notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WatchFault {
    None,
    /// Subscribing works, and nothing is ever notified.
    Silent,
    /// Subscribing never ends.
    Hang,
    /// Subscribing fails.
    Fail,
    /// The store has no notifications.
    Absent,
}

/// More calls than this without any time passing are a loop that waits for nothing.
const MAX_CALLS_AT_ONE_TIME: usize = 10_000;

/// A store over another one, with a network in between.
#[derive(Clone)]
pub(crate) struct FaultyStore {
    inner: Arc<dyn Store>,
    timer: VirtualTimer,
    network: Network,
    state: Arc<Mutex<State>>,
}

struct State {
    scripts: BTreeMap<Verb, VecDeque<Fault>>,
    always: BTreeMap<Verb, Fault>,
    chaos: Option<(Chaos, SeededRandom)>,
    watch: WatchFault,
    calls: Vec<(Duration, Verb)>,
    claimed: Vec<AttemptId>,
    faults: usize,
    busy_says: Option<Duration>,
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<dyn Store>, timer: VirtualTimer, network: Network) -> Self {
        let state = State {
            scripts: BTreeMap::new(),
            always: BTreeMap::new(),
            chaos: None,
            watch: WatchFault::None,
            calls: Vec::new(),
            claimed: Vec::new(),
            faults: 0,
            busy_says: None,
        };
        Self { inner, timer, network, state: Arc::new(Mutex::new(state)) }
    }

    /// What happens to the next calls of `verb`, in this order.
    pub(crate) fn script(&self, verb: Verb, faults: impl IntoIterator<Item = Fault>) {
        let mut state = self.lock();
        state.scripts.entry(verb).or_default().extend(faults);
    }

    /// What happens to all calls of `verb` that no script is about.
    pub(crate) fn always(&self, verb: Verb, fault: Fault) {
        self.lock().always.insert(verb, fault);
    }

    /// Lets calls go wrong at random, as it follows from `seed`.
    pub(crate) fn chaos(&self, chaos: Chaos, seed: u64) {
        self.lock().chaos = Some((chaos, SeededRandom::new(seed)));
    }

    /// From now on nothing goes wrong.
    pub(crate) fn calm(&self) {
        let mut state = self.lock();
        state.scripts.clear();
        state.always.clear();
        state.chaos = None;
        state.watch = WatchFault::None;
    }

    pub(crate) fn watch_fault(&self, fault: WatchFault) {
        self.lock().watch = fault;
    }

    /// What the store says when it refuses because somebody else owns the key.
    pub(crate) fn busy_says(&self, retry_after: Duration) {
        self.lock().busy_says = Some(retry_after);
    }

    /// How often `verb` was called.
    pub(crate) fn count(&self, verb: Verb) -> usize {
        let state = self.lock();
        state.calls.iter().filter(|(_, called)| *called == verb).count()
    }

    /// When `verb` was called.
    pub(crate) fn times(&self, verb: Verb) -> Vec<Duration> {
        let state = self.lock();
        let of_verb = state.calls.iter().filter(|(_, called)| *called == verb);
        of_verb.map(|(at, _)| *at).collect()
    }

    /// The attempt ids of all claims, in the order in which they were sent.
    pub(crate) fn claimed(&self) -> Vec<AttemptId> {
        self.lock().claimed.clone()
    }

    /// How many calls have gone wrong.
    pub(crate) fn faults(&self) -> usize {
        self.lock().faults
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn plan(&self, verb: Verb) -> Fault {
        let now = self.timer.now();
        let mut state = self.lock();
        state.calls.push((now, verb));
        let recent = state.calls.iter().rev().take(MAX_CALLS_AT_ONE_TIME);
        let at_once = recent.take_while(|(at, _)| *at == now).count();
        assert!(at_once < MAX_CALLS_AT_ONE_TIME, "{verb:?} hammers the store at {now:?}");
        let scripted = state.scripts.get_mut(&verb).and_then(VecDeque::pop_front);
        let fault = scripted
            .or_else(|| state.always.get(&verb).cloned())
            .or_else(|| state.chaos.as_ref().map(|(chaos, random)| chaos.pick(random)))
            .unwrap_or(Fault::None);
        if !matches!(fault, Fault::None | Fault::Slow(_) | Fault::SlowReply(_)) {
            state.faults += 1;
        }
        fault
    }

    async fn deliver<T: Send + 'static>(
        &self,
        verb: Verb,
        operation: &'static str,
        call: impl Fn(Arc<dyn Store>) -> BoxFuture<'static, Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let unknown = || Err(StoreError::new(ErrorKind::OutcomeUnknown, operation));
        let apply = || call(Arc::clone(&self.inner));
        match self.plan(verb) {
            Fault::None => apply().await,
            Fault::Slow(after) => {
                self.timer.sleep(after).await;
                apply().await
            }
            Fault::SlowReply(after) => {
                let answer = apply().await;
                self.timer.sleep(after).await;
                answer
            }
            Fault::Fail(kind) => Err(StoreError::new(kind, operation)),
            Fault::LostRequest => unknown(),
            Fault::LostReply => {
                drop(apply().await);
                unknown()
            }
            Fault::Late(after) => {
                self.send_later(after, apply());
                unknown()
            }
            Fault::Hang => std::future::pending().await,
            Fault::HangApplied => {
                drop(apply().await);
                std::future::pending().await
            }
            Fault::HangLate(after) => {
                self.send_later(after, apply());
                std::future::pending().await
            }
            Fault::Twice(after) => {
                let answer = apply().await;
                self.send_later(after, apply());
                answer
            }
        }
    }

    fn send_later<T: 'static>(
        &self,
        after: Duration,
        command: BoxFuture<'static, Result<T, StoreError>>,
    ) {
        let at = self.timer.now().saturating_add(after);
        let timer = self.timer.clone();
        self.network.send(async move {
            timer.sleep_until(at).await;
            drop(command.await);
        });
    }
}

impl Chaos {
    fn pick(self, random: &SeededRandom) -> Fault {
        let draw = |below: u128| random.next() % below;
        let longest = self.longest.as_micros().max(1);
        let time = |part: u128| {
            let micros = random.next() % (longest / part).max(1);
            Duration::from_micros(u64::try_from(micros).unwrap())
        };
        if draw(1000) >= u128::from(self.per_mille) {
            return match draw(3) {
                0 => Fault::Slow(time(50)),
                1 => Fault::SlowReply(time(50)),
                _ => Fault::None,
            };
        }
        match draw(12) {
            0 => Fault::Slow(time(1)),
            1 => Fault::SlowReply(time(1)),
            2 => Fault::Fail(ErrorKind::Unavailable),
            3 => Fault::Fail(ErrorKind::Timeout),
            4 => Fault::LostRequest,
            5 | 6 => Fault::LostReply,
            7 => Fault::Late(time(1)),
            8 => Fault::Hang,
            9 => Fault::HangApplied,
            10 => Fault::HangLate(time(1)),
            _ => Fault::Twice(time(1)),
        }
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore").finish_non_exhaustive()
    }
}

macro_rules! keyed {
    ($self:ident, $verb:ident, $name:ident, $key:ident, $command:ident) => {{
        let (key, command) = ($key.clone(), $command.clone());
        $self
            .deliver(Verb::$verb, stringify!($name), move |store| {
                let (key, command) = (key.clone(), command.clone());
                Box::pin(async move { store.$name(&key, &command).await })
            })
            .await
    }};
}

#[async_trait]
impl Store for FaultyStore {
    async fn claim(&self, key: &Key, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        self.lock().claimed.push(claim.attempt);
        let answer = keyed!(self, Claim, claim, key, claim);
        match (answer, self.lock().busy_says) {
            (Ok(ClaimOutcome::Busy { .. }), Some(retry_after)) => {
                Ok(ClaimOutcome::Busy { retry_after })
            }
            (answer, _) => answer,
        }
    }

    async fn renew(&self, key: &Key, renew: &Renew) -> Result<Fenced, StoreError> {
        // Some owners are cut off, and can be replaced while they run: a lost renewal is sent again.
        if self.lock().chaos.is_some() && renew.grant.attempt.as_bytes()[0].is_multiple_of(8) {
            let _ = self.plan(Verb::Renew);
            return std::future::pending().await;
        }
        keyed!(self, Renew, renew, key, renew)
    }

    async fn complete(&self, key: &Key, complete: &Complete) -> Result<Fenced, StoreError> {
        keyed!(self, Complete, complete, key, complete)
    }

    async fn abandon(&self, key: &Key, abandon: &Abandon) -> Result<Fenced, StoreError> {
        keyed!(self, Abandon, abandon, key, abandon)
    }

    async fn settle(&self, key: &Key, settle: &Settle) -> Result<Fenced, StoreError> {
        keyed!(self, Settle, settle, key, settle)
    }

    async fn evict(&self, key: &Key, evict: &Evict) -> Result<Fenced, StoreError> {
        keyed!(self, Evict, evict, key, evict)
    }

    async fn get(&self, key: &Key) -> Result<Option<Observed>, StoreError> {
        let key = key.clone();
        self.deliver(Verb::Get, "get", move |store| {
            let key = key.clone();
            Box::pin(async move { store.get(&key).await })
        })
        .await
    }

    async fn purge(&self, limit: usize) -> Result<Purged, StoreError> {
        self.deliver(Verb::Purge, "purge", move |store| {
            Box::pin(async move { store.purge(limit).await })
        })
        .await
    }

    fn watch(&self) -> Option<&dyn Watch> {
        (self.lock().watch != WatchFault::Absent).then_some(self)
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }
}

#[async_trait]
impl Watch for FaultyStore {
    async fn subscribe(&self, key: &Key) -> Result<Subscription, StoreError> {
        let failed = || Err(StoreError::new(ErrorKind::Unavailable, "subscribe"));
        let fault = self.lock().watch;
        let key = key.clone();
        let subscription = self
            .deliver(Verb::Subscribe, "subscribe", move |store| {
                let key = key.clone();
                Box::pin(async move {
                    match store.watch() {
                        Some(watch) => watch.subscribe(&key).await,
                        None => Err(StoreError::new(ErrorKind::Misconfigured, "subscribe")),
                    }
                })
            })
            .await?;
        match fault {
            WatchFault::None => Ok(subscription),
            WatchFault::Silent => Ok(Subscription::new(futures::stream::pending())),
            WatchFault::Hang => std::future::pending().await,
            WatchFault::Fail | WatchFault::Absent => failed(),
        }
    }
}

#[async_trait]
impl Inspect for FaultyStore {
    async fn list(&self, query: &Query) -> Result<Page, StoreError> {
        let query = query.clone();
        self.deliver(Verb::List, "list", move |store| {
            let query = query.clone();
            Box::pin(async move {
                match store.inspect() {
                    Some(inspect) => {
                        let mut page = inspect.list(&query).await?;
                        // A store in memory lists in another order each time.
                        page.entries.sort_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
                        Ok(page)
                    }
                    None => Err(StoreError::new(ErrorKind::Misconfigured, "list")),
                }
            })
        })
        .await
    }
}
