//! The database that every inhabitant starts from: a table in memory, a clock that the fixture steps,
//! subscribers, and what a restart finds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use oncekey::runtime::Timestamp;
use oncekey::store::{Record, StoreError};

use crate::defect::{Defect, Notes, Seen};
use crate::runner;

/// What is kept for a key. Damage is done to the encoded form.
#[derive(Debug, Clone)]
pub(crate) enum Slot {
    Intact(Record),
    Damaged(Bytes),
}

impl Slot {
    pub(crate) fn read(&self) -> Result<Record, StoreError> {
        match self {
            Self::Intact(record) => Ok(record.clone()),
            Self::Damaged(bytes) => Record::decode(bytes),
        }
    }
}

pub(crate) type Table = BTreeMap<Vec<u8>, Slot>;

/// What all handles share.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) defect: Defect,
    pub(crate) notes: Notes,
    /// Microseconds since 1970.
    clock: Arc<AtomicU64>,
    pub(crate) capacity: Option<usize>,
    pub(crate) tables: Mutex<Tables>,
    subscribers: Mutex<Vec<(Vec<u8>, UnboundedSender<()>)>>,
    /// Locks and connections that calls hold while they work.
    pub(crate) held: Mutex<BTreeSet<Vec<u8>>>,
}

#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) primary: Table,
    /// What a restart finds.
    pub(crate) disk: Table,
    /// Every key as it was before its last write.
    pub(crate) replica: Table,
}

impl Database {
    pub(crate) fn new(defect: Defect) -> Self {
        let clock = Arc::new(AtomicU64::new(1_800_000_000_000_000));
        Self::with(defect, clock, None)
    }

    /// Another database on the same clock, with room for `keys` keys.
    pub(crate) fn bounded(&self, keys: usize) -> Self {
        Self::with(self.defect, self.clock.clone(), Some(keys))
    }

    fn with(defect: Defect, clock: Arc<AtomicU64>, capacity: Option<usize>) -> Self {
        Self {
            defect,
            notes: Notes::default(),
            clock,
            capacity,
            tables: Mutex::default(),
            subscribers: Mutex::default(),
            held: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.clock.load(Ordering::SeqCst))
    }

    pub(crate) fn advance(&self, duration: Duration) {
        let later = self.now().saturating_add(duration);
        self.clock.store(later.as_micros(), Ordering::SeqCst);
    }

    pub(crate) fn step_back(&self, by: Duration) {
        self.clock.fetch_sub(by.as_micros() as u64, Ordering::SeqCst);
    }

    pub(crate) fn restart(&self) {
        let mut tables = lock(&self.tables);
        tables.primary = tables.disk.clone();
        (self.defect.boot)(&self.notes, &mut tables.primary);
    }

    pub(crate) fn damage(&self, key: &[u8], damage: impl FnOnce(&mut Vec<u8>)) {
        let key = (self.defect.key)(key);
        let mut tables = lock(&self.tables);
        if let Some(Ok(record)) = tables.primary.get(&key).map(Slot::read) {
            let mut bytes = record.encode().to_vec();
            damage(&mut bytes);
            let slot = Slot::Damaged(bytes.into());
            let tables = &mut *tables;
            for table in [&mut tables.primary, &mut tables.disk, &mut tables.replica] {
                table.insert(key.clone(), slot.clone());
            }
        }
    }

    pub(crate) fn rows(&self) -> Table {
        lock(&self.tables).primary.clone()
    }

    pub(crate) fn seen<'a>(&'a self, key: &'a [u8], record: Option<&'a Record>) -> Seen<'a> {
        Seen { key, record, now: self.now(), before: None, private: None, notes: &self.notes }
    }

    pub(crate) fn subscribe(&self, key: Vec<u8>) -> UnboundedReceiver<()> {
        let (sender, receiver) = unbounded();
        let mut subscribers = lock(&self.subscribers);
        if self.defect.one_subscriber_a_key {
            subscribers.retain(|(subscribed, _)| *subscribed != key);
        }
        subscribers.push((key, sender));
        receiver
    }

    pub(crate) fn notify(&self, key: &[u8]) {
        lock(&self.subscribers).retain(|(subscribed, sender)| {
            !sender.is_closed() && (subscribed != key || sender.unbounded_send(()).is_ok())
        });
    }
}

/// An await, as a driver has many: whoever calls may come back later, or never.
pub(crate) async fn pause() {
    runner::linger();
    let mut waited = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
