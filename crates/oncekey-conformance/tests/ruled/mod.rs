//! A store in memory that runs whatever rules it is given: the right ones, or ones with a mistake.

pub(crate) mod cells;

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use oncekey::Key;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    Abandon, Claim, ClaimOutcome, Complete, Evict, Fenced, Observed, Purged, Record, Renew, Settle,
    Store, StoreError,
};
use oncekey_conformance::history::{Answer, Operation};
use oncekey_conformance::{Capabilities, Fixture};

/// What a store goes by. The defaults are the rules.
pub(crate) trait Rules: Send + Sync + 'static {
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
    now: Timestamp,
    records: HashMap<Vec<u8>, Record>,
}

impl<R: Rules> Ruled<R> {
    fn run(&self, key: &Key, operation: &Operation) -> Answer {
        let shared = &mut *self.shared.lock().unwrap();
        let record = shared.records.remove(key.as_bytes());
        let (answer, after) = R::apply(operation, record.as_ref(), shared.now);
        if let Some(after) = after {
            shared.records.insert(key.as_bytes().to_vec(), after);
        }
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
        let Shared { now, records } = &mut *self.shared.lock().unwrap();
        let over = records.iter();
        let over = over.filter(|(_, record)| R::is_purgeable(record, *now));
        let keys: Vec<_> = over.map(|(key, _)| key.clone()).take(limit).collect();
        for key in &keys {
            records.remove(key);
        }
        Ok(Purged {
            removed: keys.len(),
            more: keys.len() == limit,
        })
    }
}

#[async_trait]
impl<R: Rules> Fixture for Ruled<R> {
    async fn create() -> Self {
        let shared = Shared {
            now: Timestamp::from_micros(1_800_000_000_000_000),
            records: HashMap::new(),
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
            rules: PhantomData,
        }
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(Self {
            shared: self.shared.clone(),
            rules: PhantomData,
        })
    }

    async fn advance(&self, duration: Duration) {
        let mut shared = self.shared.lock().unwrap();
        shared.now = shared.now.saturating_add(duration);
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::injected_time()
    }
}
