//! A handle to a database: how a command reads, decides and writes. It is correct where its defect
//! is, and waits at every point where a driver would.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use oncekey::store::{Change, ErrorKind, Record, StoreError, Transition};

use crate::base::{Database, Slot, Table, Tables, lock, pause};
use crate::defect::{Found, Leak, Mend, Op, Seen, Source};

/// A handle to a database, as one process has it.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) database: Arc<Database>,
    /// What this handle wrote. A correct store remembers nothing of the kind.
    private: Mutex<Table>,
    /// Grows with every call that was dropped half-way.
    dropped: AtomicU64,
}

impl Handle {
    pub(crate) fn new(database: Arc<Database>) -> Self {
        Self { database, private: Mutex::default(), dropped: AtomicU64::new(0) }
    }

    /// One command, from its connection to its notification.
    pub(crate) async fn run<O>(
        &self,
        op: Op,
        key: &[u8],
        decide: impl Fn(Seen<'_>) -> Transition<O>,
    ) -> Result<O, StoreError> {
        let database = &*self.database;
        let mut call = Call::new(self);
        let held = self.hold(op, key).await?;
        pause().await;
        let decided = match call.is_cut_off() {
            true => Err(StoreError::new(ErrorKind::Unavailable, op.name())),
            false => self.transact(op, key, decide).await,
        };
        if let Some(held) = held {
            lock(&database.held).remove(&held);
        }
        call.ended = true;
        let Transition { change, outcome } = decided?;
        let ends = op.ends_an_attempt() && !matches!(change, Change::Keep);
        if ends && (database.defect.notifies)(op, &change) {
            database.notify(key);
        }
        pause().await;
        Ok(outcome)
    }

    /// Reads, decides and writes under the lock, unless the defect tears them apart.
    async fn transact<O>(
        &self,
        op: Op,
        key: &[u8],
        decide: impl Fn(Seen<'_>) -> Transition<O>,
    ) -> Result<Transition<O>, StoreError> {
        let Database { defect, tables, .. } = &*self.database;
        let mut before = None;
        if defect.looks_twice {
            before = self.read(&lock(tables), op, key)?;
            pause().await;
        }
        loop {
            let (record, decided) = {
                let mut tables = lock(tables);
                let record = self.read(&tables, op, key)?;
                let private = lock(&self.private).get(key).map(Slot::read).transpose()?;
                let seen = Seen {
                    before: before.as_ref(),
                    private: private.as_ref(),
                    ..self.database.seen(key, record.as_ref())
                };
                let decided = decide(seen);
                let is_change = !matches!(decided.change, Change::Keep);
                let Some(first) = (defect.tears)(op, seen).filter(|_| is_change) else {
                    self.write(&mut tables, op, key, &decided.change)?;
                    return Ok(decided);
                };
                self.write(&mut tables, op, key, &first)?;
                (record, decided)
            };
            pause().await;
            // Threads come in between as well as futures.
            std::thread::sleep(Duration::from_micros(200));
            pause().await;
            let mut tables = lock(tables);
            let found = self.read(&tables, op, key)?;
            let seen = self.database.seen(key, record.as_ref());
            match (defect.mends)(seen, found.as_ref(), &decided.change) {
                Mend::Write => {
                    self.write(&mut tables, op, key, &decided.change)?;
                    return Ok(decided);
                }
                Mend::Again => {}
                Mend::Fail(kind) => return Err(StoreError::new(kind, op.name())),
            }
        }
    }

    /// Takes what is not given back when the call is dropped.
    async fn hold(&self, op: Op, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(1) {
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
            std::thread::sleep(Duration::from_micros(100));
            pause().await;
        }
        Err(StoreError::new(ErrorKind::Timeout, op.name()))
    }

    fn read(&self, tables: &Tables, op: Op, key: &[u8]) -> Found {
        let defect = &self.database.defect;
        let private = || lock(&self.private).get(key).cloned();
        let found = match (defect.source)(op) {
            Source::Primary => tables.primary.get(key).cloned(),
            Source::Replica => tables.replica.get(key).cloned(),
            Source::Handle => private(),
            Source::Cache => private().or_else(|| tables.primary.get(key).cloned()),
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
            && (defect.is_full)(notes, &tables.primary, (op, key), capacity)
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

    /// Whether the connection that this call shares was closed by the drop of another.
    fn is_cut_off(&self) -> bool {
        let shared = self.handle.database.defect.leaks == Leak::SharedConnection;
        shared && self.before != self.handle.dropped.load(Ordering::SeqCst)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.handle.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }
}
