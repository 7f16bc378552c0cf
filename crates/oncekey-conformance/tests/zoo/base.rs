//! The store that every inhabitant starts from: small, in memory, with a clock that the fixture
//! steps. It is correct where its [`Defect`] is, and waits at every point where a driver would.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use oncekey::runtime::Timestamp;
use oncekey::store::{Change, ErrorKind, Record, StoreError, Transition};

use crate::defect::{Defect, Leak, Mend, Notes, Op, Seen, Source};

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
    notes: Notes,
    /// Microseconds since 1970.
    clock: Arc<AtomicU64>,
    capacity: Option<usize>,
    tables: Mutex<Tables>,
    subscribers: Mutex<Vec<(Vec<u8>, UnboundedSender<()>)>>,
    /// Locks and connections that calls hold while they work.
    held: Mutex<BTreeSet<Vec<u8>>>,
}

#[derive(Debug, Default)]
struct Tables {
    primary: Table,
    /// What a restart finds.
    disk: Table,
    /// Every key as it was before its last write.
    replica: Table,
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
        Seen { key, record, now: self.now(), notes: &self.notes }
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

    fn notify(&self, key: &[u8]) {
        lock(&self.subscribers).retain(|(subscribed, sender)| {
            !sender.is_closed() && (subscribed != key || sender.unbounded_send(()).is_ok())
        });
    }
}

/// A handle to a database, as one process has it.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) database: Arc<Database>,
    /// What this handle alone knows. A correct store has nothing of the kind.
    private: Mutex<Table>,
    /// Grows with every call that was dropped half-way.
    dropped: AtomicU64,
}

impl Handle {
    pub(crate) fn new(database: Arc<Database>) -> Self {
        Self { database, private: Mutex::default(), dropped: AtomicU64::new(0) }
    }

    /// One command: read, decide and write under the lock, unless the defect tears them apart.
    pub(crate) async fn run<O>(
        &self,
        op: Op,
        key: &[u8],
        decide: impl Fn(Seen<'_>) -> Transition<O>,
    ) -> Result<O, StoreError> {
        let database = &*self.database;
        let mut call = Call::new(self);
        let early = database.now();
        let held = self.hold(op, key).await?;
        pause().await;
        call.check(op)?;
        let decided = loop {
            let (record, now, decided, tears) = {
                let mut tables = lock(&database.tables);
                let record = self.read(&tables, op, key)?;
                let mut seen = database.seen(key, record.as_ref());
                if database.defect.reads_time_early {
                    seen.now = early;
                }
                let decided = decide(seen);
                let tears = match &decided.change {
                    Change::Keep => None,
                    _ => (database.defect.tears)(op, seen),
                };
                self.write(&mut tables, op, key, tears.as_ref().unwrap_or(&decided.change))?;
                (seen.record.cloned(), seen.now, decided, tears.is_some())
            };
            if !tears {
                break decided;
            }
            pause().await;
            std::thread::sleep(Duration::from_micros(200));
            pause().await;
            let mut tables = lock(&database.tables);
            let found = self.read(&tables, op, key)?;
            let seen = Seen { now, ..database.seen(key, record.as_ref()) };
            match (database.defect.mends)(seen, found.as_ref()) {
                Mend::Write => {
                    self.write(&mut tables, op, key, &decided.change)?;
                    break decided;
                }
                Mend::Again => {}
                Mend::Fail(error) => return Err(error),
            }
        };
        if !matches!(decided.change, Change::Keep)
            && op.ends_an_attempt()
            && (database.defect.notifies)(op, &decided.change)
        {
            database.notify(key);
        }
        pause().await;
        if let Some(held) = held {
            lock(&database.held).remove(&held);
        }
        call.ended = true;
        Ok(decided.outcome)
    }

    /// Takes what the defect does not give back when the call is dropped.
    async fn hold(&self, op: Op, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        for turn in 0..400 {
            {
                let mut held = lock(&self.database.held);
                let wanted = match self.database.defect.leaks {
                    Leak::Nothing | Leak::SharedConnection => return Ok(None),
                    Leak::KeyLock => Some(key.to_vec()).filter(|key| !held.contains(key)),
                    Leak::Connection(pool) => (0..pool)
                        .map(|connection| connection.to_be_bytes().to_vec())
                        .find(|connection| !held.contains(connection)),
                };
                if let Some(wanted) = wanted {
                    held.insert(wanted.clone());
                    return Ok(Some(wanted));
                }
            }
            if turn > 200 {
                std::thread::sleep(Duration::from_micros(50));
            }
            pause().await;
        }
        Err(StoreError::new(ErrorKind::Timeout, op.name()))
    }

    fn read(&self, tables: &Tables, op: Op, key: &[u8]) -> Result<Option<Record>, StoreError> {
        let defect = &self.database.defect;
        let found = match (defect.source)(op) {
            Source::Primary => tables.primary.get(key).cloned(),
            Source::Replica => tables.replica.get(key).cloned(),
            Source::Handle => lock(&self.private).get(key).cloned(),
            Source::Cache => {
                let cached = lock(&self.private).get(key).cloned();
                cached.or_else(|| tables.primary.get(key).cloned())
            }
        };
        match found {
            None => Ok(None),
            Some(Slot::Intact(record)) => Ok(Some(record)),
            Some(Slot::Damaged(bytes)) => match Record::decode(&bytes) {
                Ok(record) => Ok(Some(record)),
                Err(error) => (defect.undecodable)(op, &bytes, error),
            },
        }
    }

    /// Removes whatever is there.
    pub(crate) fn remove(&self, op: Op, key: &[u8]) -> Result<(), StoreError> {
        self.write(&mut lock(&self.database.tables), op, key, &Change::Remove)
    }

    fn write(
        &self,
        tables: &mut Tables,
        op: Op,
        key: &[u8],
        change: &Change,
    ) -> Result<(), StoreError> {
        let Database { defect, notes, capacity, .. } = &*self.database;
        let new = match change {
            Change::Keep => return Ok(()),
            Change::Remove => None,
            Change::Put(record) => {
                let mut record = record.clone();
                (defect.stored)(notes, key, &mut record);
                Some(Slot::Intact(record))
            }
        };
        if let (Some(capacity), Some(_)) = (*capacity, &new)
            && (defect.is_full)(notes, &tables.primary, key, capacity)
            && !(defect.make_room)(&mut tables.primary)
        {
            return Err(StoreError::new(ErrorKind::Full, op.name()));
        }
        let source = (defect.source)(op);
        match tables.primary.get(key) {
            Some(slot) => tables.replica.insert(key.to_vec(), slot.clone()),
            None => tables.replica.remove(key),
        };
        let mut private = lock(&self.private);
        let places = [
            (true, &mut *private),
            (source != Source::Handle, &mut tables.primary),
            ((defect.is_durable)(op), &mut tables.disk),
        ];
        for (wanted, place) in places {
            match &new {
                _ if !wanted => None,
                Some(slot) => place.insert(key.to_vec(), slot.clone()),
                None => place.remove(key),
            };
        }
        Ok(())
    }
}

/// Notices when a call is dropped before its end.
struct Call<'a> {
    handle: &'a Handle,
    before: u64,
    ended: bool,
}

impl<'a> Call<'a> {
    fn new(handle: &'a Handle) -> Self {
        Self { handle, before: handle.dropped.load(Ordering::SeqCst), ended: false }
    }

    /// Fails if the connection that this call shares was closed by the drop of another.
    fn check(&self, op: Op) -> Result<(), StoreError> {
        let shared = self.handle.database.defect.leaks == Leak::SharedConnection;
        if shared && self.before != self.handle.dropped.load(Ordering::SeqCst) {
            return Err(StoreError::new(ErrorKind::Unavailable, op.name()));
        }
        Ok(())
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.handle.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Lets everybody else run: other futures of this thread, and other threads.
pub(crate) async fn pause() {
    for _ in 0..2 {
        std::thread::yield_now();
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
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
