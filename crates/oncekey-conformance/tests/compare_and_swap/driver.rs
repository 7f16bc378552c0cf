//! A store that works only inside a runtime: `Fixture::block_on` brings the rules there, on every
//! thread that they use.

use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use oncekey::runtime::{SystemClock, Timestamp};
use oncekey::store::{
    CasStore, CompareAndSwap, Entry, ErrorKind, Store, StoreError, Version, Versioned, Watch,
};
use oncekey_conformance::{Capabilities, Capability, Fixture, rules};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::map::{Habits, Map};

/// Hands every call to a task, as drivers do.
#[derive(Debug, Clone)]
struct Driver(Map);

async fn join<T>(task: JoinHandle<Result<T, StoreError>>) -> Result<T, StoreError> {
    let lost = StoreError::new(ErrorKind::OutcomeUnknown, "ask the driver");
    task.await.unwrap_or_else(|error| Err(lost.with_source(error)))
}

#[async_trait]
impl CompareAndSwap for Driver {
    async fn load(&self, key: &[u8]) -> Result<(Option<Versioned>, Timestamp), StoreError> {
        let (map, key) = (self.0.clone(), key.to_vec());
        join(tokio::spawn(async move { map.load(&key).await })).await
    }

    async fn swap(
        &self,
        key: &[u8],
        expected: Option<&Version>,
        new: Option<Entry>,
    ) -> Result<bool, StoreError> {
        let (map, key, expected) = (self.0.clone(), key.to_vec(), expected.cloned());
        join(tokio::spawn(async move { map.swap(&key, expected.as_ref(), new).await })).await
    }

    async fn expired(&self, limit: usize) -> Result<Vec<Bytes>, StoreError> {
        let map = self.0.clone();
        join(tokio::spawn(async move { map.expired(limit).await })).await
    }

    fn watch(&self) -> Option<&dyn Watch> {
        self.0.watch()
    }
}

struct InTokio(Driver);

#[async_trait]
impl Fixture for InTokio {
    async fn create() -> Self {
        Self(Driver(Map::new(Arc::new(SystemClock::new()), Habits::default())))
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(CasStore::new(self.0.clone()))
    }

    async fn advance(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::real_time().with(Capability::Watch)
    }

    fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
        static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
        RUNTIME.block_on(future)
    }
}

#[test]
fn rules_run_in_the_runtime_of_the_fixture() {
    let verdict = InTokio::block_on(async {
        let fixture = InTokio::create().await;
        rules::claim::grants_an_absent_key(&fixture).await?;
        rules::expiry::a_lease_lapses_at_its_deadline(&fixture).await?;
        rules::watch::wakes_every_subscriber(&fixture).await
    });
    assert_eq!(verdict, Ok(()));
}

#[test]
fn threads_of_a_race_run_in_it_too() {
    let verdict = InTokio::block_on(async {
        let fixture = InTokio::create().await;
        rules::contention::one_claim_wins(&fixture).await?;
        rules::history::is_linearizable(&fixture).await?;
        rules::fencing::a_version_never_comes_back(&fixture).await
    });
    assert_eq!(verdict, Ok(()));
}

#[test]
fn calls_are_dropped_in_it_too() {
    let verdict = InTokio::block_on(async {
        let fixture = InTokio::create().await;
        rules::cancel::a_dropped_call_leaves_nothing_behind(&fixture).await?;
        rules::cancel::a_dropped_call_happened_or_did_not(&fixture).await?;
        rules::cancel::a_dropped_call_disturbs_no_other(&fixture).await
    });
    assert_eq!(verdict, Ok(()));
}
