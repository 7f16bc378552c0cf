//! A store in memory that runs whatever rules it is given: the right ones, or ones with a mistake.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::poll_fn;
use oncekey::Key;
use oncekey::runtime::{Clock, SystemClock, Timestamp};
use oncekey::store::{
    Abandon, Claim, ClaimOutcome, Complete, ErrorKind, Evict, Fenced, Observed, Purged, Record,
    Renew, Settle, Store, StoreError,
};
use oncekey_conformance::history::{Answer, Operation};
use oncekey_conformance::{Capabilities, Fixture};

/// What a store goes by. The defaults are the rules, kept as they should be.
pub(crate) trait Rules: Send + Sync + 'static {
    /// Whether the clock is the machine's, so that time passes by itself.
    const REAL_TIME: bool = false;
    /// Whether others may come between what a command reads and what it writes.
    const TORN: bool = false;
    /// Whether others may come between a purge's choice and what it removes.
    const TORN_PURGE: bool = false;
    /// Whether calls pend before and after they take effect, as they do on a network.
    const PENDS: bool = false;

    fn apply(
        operation: &Operation,
        record: Option<&Record>,
        now: Timestamp,
    ) -> (Answer, Option<Record>) {
        operation.apply(record, now)
    }

    fn is_purgeable(record: &Record, now: Timestamp) -> bool {
        record.is_purgeable(now)
    }

    /// What has become of a record by itself.
    fn aged(record: &Record, _now: Timestamp) -> Option<Record> {
        Some(record.clone())
    }

    /// What goes wrong with the command of this number.
    fn fault(_number: usize) -> Option<Fault> {
        None
    }
}

/// A command that fails.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// With which error.
    pub(crate) kind: ErrorKind,
    /// Whether it was applied all the same.
    pub(crate) applied: bool,
}

/// The rules as they are.
#[derive(Debug)]
pub(crate) struct Right;

impl Rules for Right {}

/// A database, and a store over it.
#[derive(Debug)]
pub(crate) struct Ruled<R> {
    shared: Arc<Mutex<Shared>>,
    /// How many commands there were.
    commands: Arc<AtomicUsize>,
    rules: PhantomData<R>,
}

#[derive(Debug)]
struct Shared {
    /// The time, unless it passes by itself.
    clock: Timestamp,
    records: HashMap<Vec<u8>, Record>,
}

impl<R: Rules> Ruled<R> {
    async fn run(&self, key: &Key, operation: &Operation) -> Result<Answer, StoreError> {
        Self::pend().await;
        let fault = match operation {
            Operation::Get => None,
            _ => R::fault(self.commands.fetch_add(1, Ordering::Relaxed)),
        };
        let answer = match fault {
            Some(Fault { applied: false, .. }) => None,
            _ => Some(self.apply(key, operation)),
        };
        Self::pend().await;
        match (fault, answer) {
            (None, Some(answer)) => Ok(answer),
            (Some(Fault { kind, .. }), _) => Err(StoreError::new(kind, "run a command")),
            (None, None) => unreachable!("it is applied unless it fails"),
        }
    }

    fn apply(&self, key: &Key, operation: &Operation) -> Answer {
        let mut shared = self.shared.lock().unwrap();
        let now = shared.now::<R>();
        let record = shared.records.get(key.as_bytes());
        let record = record.and_then(|record| R::aged(record, now));
        if R::TORN {
            drop(shared);
            thread::yield_now();
            shared = self.shared.lock().unwrap();
        }
        let (answer, after) = R::apply(operation, record.as_ref(), now);
        match after {
            Some(after) => shared.records.insert(key.as_bytes().to_vec(), after),
            None => shared.records.remove(key.as_bytes()),
        };
        answer
    }

    /// Lets others run, once.
    async fn pend() {
        let mut polled = !R::PENDS;
        poll_fn(|context| {
            if polled {
                return Poll::Ready(());
            }
            polled = true;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    async fn run_fenced(&self, key: &Key, operation: &Operation) -> Result<Fenced, StoreError> {
        match self.run(key, operation).await? {
            Answer::Fenced(outcome) => Ok(outcome),
            other => panic!("{other:?} to {operation:?}"),
        }
    }
}

#[async_trait]
impl<R: Rules> Store for Ruled<R> {
    async fn claim(&self, key: &Key, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        match self.run(key, &Operation::Claim(*claim)).await? {
            Answer::Claim(outcome) => Ok(outcome),
            other => panic!("{other:?} to {claim:?}"),
        }
    }

    async fn renew(&self, key: &Key, renew: &Renew) -> Result<Fenced, StoreError> {
        self.run_fenced(key, &Operation::Renew(renew.clone())).await
    }

    async fn complete(&self, key: &Key, complete: &Complete) -> Result<Fenced, StoreError> {
        self.run_fenced(key, &Operation::Complete(complete.clone())).await
    }

    async fn abandon(&self, key: &Key, abandon: &Abandon) -> Result<Fenced, StoreError> {
        self.run_fenced(key, &Operation::Abandon(*abandon)).await
    }

    async fn settle(&self, key: &Key, settle: &Settle) -> Result<Fenced, StoreError> {
        self.run_fenced(key, &Operation::Settle(settle.clone())).await
    }

    async fn evict(&self, key: &Key, evict: &Evict) -> Result<Fenced, StoreError> {
        self.run_fenced(key, &Operation::Evict(*evict)).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Observed>, StoreError> {
        match self.run(key, &Operation::Get).await? {
            Answer::Get(observed) => Ok(observed),
            other => panic!("{other:?} to get"),
        }
    }

    async fn purge(&self, limit: usize) -> Result<Purged, StoreError> {
        let mut shared = self.shared.lock().unwrap();
        let now = shared.now::<R>();
        let over = shared.records.iter();
        let over = over.filter(|(_, record)| R::is_purgeable(record, now));
        let keys: Vec<_> = over.map(|(key, _)| key.clone()).take(limit).collect();
        if R::TORN_PURGE {
            drop(shared);
            thread::yield_now();
            shared = self.shared.lock().unwrap();
        }
        for key in &keys {
            shared.records.remove(key);
        }
        Ok(Purged { removed: keys.len(), more: keys.len() == limit })
    }
}

impl Shared {
    fn now<R: Rules>(&self) -> Timestamp {
        if R::REAL_TIME { SystemClock::new().now() } else { self.clock }
    }
}

#[async_trait]
impl<R: Rules> Fixture for Ruled<R> {
    async fn create() -> Self {
        let shared = Shared {
            clock: Timestamp::from_micros(1_800_000_000_000_000),
            records: HashMap::new(),
        };
        Self { shared: Arc::new(Mutex::new(shared)), commands: Arc::default(), rules: PhantomData }
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(Self {
            shared: self.shared.clone(),
            commands: self.commands.clone(),
            rules: PhantomData,
        })
    }

    async fn advance(&self, duration: Duration) {
        if R::REAL_TIME {
            thread::sleep(duration);
        } else {
            let mut shared = self.shared.lock().unwrap();
            shared.clock = shared.clock.saturating_add(duration);
        }
    }

    fn capabilities(&self) -> Capabilities {
        if R::REAL_TIME { Capabilities::real_time() } else { Capabilities::injected_time() }
    }
}
