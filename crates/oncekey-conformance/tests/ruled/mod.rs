//! A store in memory that runs whatever rules it is given: the right ones, or ones with a mistake.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use oncekey::Key;
use oncekey::runtime::{Clock, SystemClock, Timestamp};
use oncekey::store::{
    Abandon, Claim, ClaimOutcome, Complete, Evict, Fenced, Observed, Purged, Record, Renew, Settle,
    Store, StoreError,
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
}

/// The rules as they are.
#[derive(Debug)]
pub(crate) struct Right;

impl Rules for Right {}

/// A database, and a store over it.
#[derive(Debug)]
pub(crate) struct Ruled<R> {
    shared: Arc<Mutex<Shared>>,
    rules: PhantomData<R>,
}

#[derive(Debug)]
struct Shared {
    /// The time, unless it passes by itself.
    clock: Timestamp,
    records: HashMap<Vec<u8>, Record>,
}

impl<R: Rules> Ruled<R> {
    fn run(&self, key: &Key, operation: &Operation) -> Answer {
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

    fn run_fenced(&self, key: &Key, operation: &Operation) -> Result<Fenced, StoreError> {
        match self.run(key, operation) {
            Answer::Fenced(outcome) => Ok(outcome),
            other => panic!("{other:?} to {operation:?}"),
        }
    }
}

#[async_trait]
impl<R: Rules> Store for Ruled<R> {
    async fn claim(&self, key: &Key, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        match self.run(key, &Operation::Claim(*claim)) {
            Answer::Claim(outcome) => Ok(outcome),
            other => panic!("{other:?} to {claim:?}"),
        }
    }

    async fn renew(&self, key: &Key, renew: &Renew) -> Result<Fenced, StoreError> {
        self.run_fenced(key, &Operation::Renew(renew.clone()))
    }

    async fn complete(&self, key: &Key, complete: &Complete) -> Result<Fenced, StoreError> {
        self.run_fenced(key, &Operation::Complete(complete.clone()))
    }

    async fn abandon(&self, key: &Key, abandon: &Abandon) -> Result<Fenced, StoreError> {
        self.run_fenced(key, &Operation::Abandon(*abandon))
    }

    async fn settle(&self, key: &Key, settle: &Settle) -> Result<Fenced, StoreError> {
        self.run_fenced(key, &Operation::Settle(settle.clone()))
    }

    async fn evict(&self, key: &Key, evict: &Evict) -> Result<Fenced, StoreError> {
        self.run_fenced(key, &Operation::Evict(*evict))
    }

    async fn get(&self, key: &Key) -> Result<Option<Observed>, StoreError> {
        match self.run(key, &Operation::Get) {
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
        Self { shared: Arc::new(Mutex::new(shared)), rules: PhantomData }
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(Self { shared: self.shared.clone(), rules: PhantomData })
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
