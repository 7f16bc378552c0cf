//! References, boxes and shared pointers to a store are that store, with all that it can.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::executor::block_on;
use oncekey::Key;
use oncekey::store::{
    Abandon, CasStore, Claim, ClaimOutcome, CompareAndSwap, Complete, Evict, Expected, Fenced,
    Inspect, Observed, Page, Purged, Query, Renew, Settle, Store, StoreError, Watch,
};

use super::commands;
use super::storage::{Storage, key};

/// A store that can do everything, and counts the calls that reach it.
struct Counting {
    store: CasStore<Storage>,
    calls: AtomicUsize,
}

impl Counting {
    fn new() -> Self {
        Self { store: CasStore::new(Storage::default()), calls: AtomicUsize::new(0) }
    }

    fn counted(&self) -> &CasStore<Storage> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        &self.store
    }
}

#[async_trait]
impl Store for Counting {
    async fn claim(&self, key: &Key, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        self.counted().claim(key, claim).await
    }

    async fn renew(&self, key: &Key, renew: &Renew) -> Result<Fenced, StoreError> {
        self.counted().renew(key, renew).await
    }

    async fn complete(&self, key: &Key, complete: &Complete) -> Result<Fenced, StoreError> {
        self.counted().complete(key, complete).await
    }

    async fn abandon(&self, key: &Key, abandon: &Abandon) -> Result<Fenced, StoreError> {
        self.counted().abandon(key, abandon).await
    }

    async fn settle(&self, key: &Key, settle: &Settle) -> Result<Fenced, StoreError> {
        self.counted().settle(key, settle).await
    }

    async fn evict(&self, key: &Key, evict: &Evict) -> Result<Fenced, StoreError> {
        self.counted().evict(key, evict).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Observed>, StoreError> {
        self.counted().get(key).await
    }

    async fn purge(&self, limit: usize) -> Result<Purged, StoreError> {
        self.counted().purge(limit).await
    }

    fn watch(&self) -> Option<&dyn Watch> {
        self.counted().watch()
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        self.counted();
        Some(self)
    }
}

#[async_trait]
impl Inspect for Counting {
    async fn list(&self, _query: &Query) -> Result<Page, StoreError> {
        Ok(Page { entries: Vec::new(), undecodable: 7, next: None })
    }
}

/// Calls every method once, on one key, and checks that the answers are of one store.
fn call_everything(store: impl Store) {
    let key = key("a");
    block_on(async {
        let claimed = store.claim(&key, &commands::claim(1)).await.unwrap();
        let ClaimOutcome::Acquired { grant, .. } = claimed else { panic!("{claimed:?}") };
        assert_eq!(store.renew(&key, &commands::renew(grant)).await.unwrap(), Fenced::Applied);
        assert_eq!(store.abandon(&key, &commands::release(grant)).await.unwrap(), Fenced::Applied);
        let complete = commands::complete(grant, "settled");
        assert_eq!(store.complete(&key, &complete).await.unwrap(), Fenced::Applied);
        let settle = commands::settle(Expected::Any);
        assert_eq!(store.settle(&key, &settle).await.unwrap(), Fenced::Applied);
        assert!(store.get(&key).await.unwrap().is_some());
        assert_eq!(store.purge(5).await.unwrap(), Purged { removed: 0, more: false });
        let evict = commands::evict(Expected::Any);
        assert_eq!(store.evict(&key, &evict).await.unwrap(), Fenced::Applied);

        let watch = store.watch().expect("it can watch");
        watch.subscribe(&key).await.unwrap().changed().await;
        let inspect = store.inspect().expect("it can list");
        let query = Query { states: Vec::new(), after: None, limit: 1 };
        assert_eq!(inspect.list(&query).await.unwrap().undecodable, 7);
    });
}

const METHODS: usize = 10;

#[test]
fn every_method_reaches_the_store_behind_any_pointer() {
    let store = Arc::new(Counting::new());
    let mut calls = 0;
    let mut reached = |what: &str| {
        calls += METHODS;
        assert_eq!(store.calls.load(Ordering::SeqCst), calls, "{what}");
    };
    call_everything(&*store);
    reached("&S");
    call_everything(&*store as &dyn Store);
    reached("&dyn Store");
    call_everything(Arc::clone(&store));
    reached("Arc<S>");
    call_everything(Arc::clone(&store) as Arc<dyn Store>);
    reached("Arc<dyn Store>");
    call_everything(Box::new(Arc::clone(&store)));
    reached("Box<Arc<S>>");
    call_everything(Box::new(Arc::clone(&store)) as Box<dyn Store>);
    reached("Box<dyn Store>");
}

#[test]
fn what_a_store_cannot_do_its_pointers_cannot_either() {
    let plain: Arc<dyn Store> = Arc::new(CasStore::new(Storage::default()));
    assert!(plain.watch().is_some());
    assert!(plain.inspect().is_none());
    assert!(Box::new(plain).inspect().is_none());
}

/// The same commands over a storage behind each kind of pointer.
#[test]
fn a_pointer_to_a_storage_is_that_storage() {
    let storage = Arc::new(Storage::default());
    let mut loaded = 0;
    let mut works = |what: &str, store: &dyn Store| {
        let claimed = block_on(store.claim(&key(what), &commands::claim(1))).unwrap();
        assert!(matches!(claimed, ClaimOutcome::Acquired { .. }), "{what}");
        assert!(storage.record(&key(what)).is_some(), "{what}");
        assert!(storage.loaded() > loaded, "{what}");
        loaded = storage.loaded();
        assert_eq!(block_on(store.purge(5)).unwrap().removed, 0);
        assert!(store.watch().is_some() && store.inspect().is_none(), "{what}");
    };
    works("&C", &CasStore::new(&*storage));
    works("&dyn", &CasStore::new(&*storage as &dyn CompareAndSwap));
    works("Arc<C>", &CasStore::new(Arc::clone(&storage)));
    works("Arc<dyn>", &CasStore::new(Arc::clone(&storage) as Arc<dyn CompareAndSwap>));
    works("Box<C>", &CasStore::new(Box::new(Arc::clone(&storage))));
    works("Box<dyn>", &CasStore::new(Box::new(Arc::clone(&storage)) as Box<dyn CompareAndSwap>));
}
