//! [`SqliteStore`]: the contract of the core over one writer thread and a few readers.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use async_trait::async_trait;
use futures::channel::oneshot;
use oncekey::Key;
use oncekey::runtime::Clock;
use oncekey::store::{
    Abandon, Claim, ClaimOutcome, Complete, ErrorKind, Evict, Expected, Fenced, Inspect, Observed,
    Page, Purged, Query, Renew, Settle, Settlement, Store, StoreError,
};

use crate::builder::SqliteStoreBuilder;
use crate::error::{NoRoom, Purpose, misconfigured};
use crate::purge::{self, Place};
use crate::queue::{Queue, Refused};
use crate::reader::{ReadTask, Reader};
use crate::schema::Schema;
use crate::session::Session;
use crate::writer::{Call, Task};

/// A store in one SQLite file, for any number of processes on one machine.
///
/// A clone shares the threads and connections; a second [`open`](Self::open) of the same file, in this
/// process or another, shares the records.
///
/// ```
/// use oncekey::{Fingerprint, Idempotency, Key, Scope};
/// use oncekey_sqlite::SqliteStore;
///
/// # futures::executor::block_on(async {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("oncekey.sqlite3");
/// let store = SqliteStore::open(&path)?;
/// let idempotency = Idempotency::at_least_once(store);
/// let key = Key::new(&Scope::new("tenant-42", "POST /payments")?, "order-17")?;
/// let fingerprint = Fingerprint::of("100 EUR");
///
/// for replay in [false, true] {
///     let charge = |_attempt| async { Ok::<_, std::io::Error>("receipt 1".to_owned()) };
///     let outcome = idempotency.run(&key, &fingerprint, charge).await?;
///     assert_eq!(outcome.is_replay(), replay);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Durability
/// Every answer, also a refusal, is given after the commit that it rests on, and with
/// [`Synchronous::Full`](crate::Synchronous::Full), the default, a commit is on the disk before it
/// returns. What was acknowledged survives a crash of the process, of the system and a loss of power,
/// as far as the disk keeps what it has confirmed.
///
/// # Time
/// The clock of the machine, or the one given to the [builder](SqliteStoreBuilder::clock). Processes on
/// one file must be on one machine, and so share it. When it steps back, tokens still go up: the file
/// remembers how far they got.
///
/// # Cancel safety
/// A call is sent to a thread at its first poll. If it is dropped before the thread begins with it, it
/// does not happen; after that, it does. Nothing stays behind either way.
///
/// # Errors
/// - [`Timeout`](ErrorKind::Timeout): another connection held the lock on the file for longer than
///   [`busy_timeout`](SqliteStoreBuilder::busy_timeout). Not applied.
/// - [`OutcomeUnknown`](ErrorKind::OutcomeUnknown): the commit failed, for example because the disk did. A
///   full disk is known to have rolled it back, and is one of the following.
/// - [`Full`](ErrorKind::Full): no room on the disk, or in the file, for a new key.
/// - [`TooLarge`](ErrorKind::TooLarge): no room for this result or this progress, or it is longer than
///   SQLite allows (one gigabyte).
/// - [`Corrupt`](ErrorKind::Corrupt): the row, or the file, was changed behind the store's back.
/// - [`Misconfigured`](ErrorKind::Misconfigured): the file became read-only, lost its table or was moved
///   or replaced, or this process is a fork of the one that opened the store.
/// - [`Unavailable`](ErrorKind::Unavailable): the disk failed before the commit, it has no room for a
///   change that carries nothing, or too many calls wait already. Not applied.
///
/// # Dropping
/// The last clone that is dropped ends the threads and waits for that: they finish what is queued,
/// which takes as long as a commit or two.
#[derive(Clone)]
pub struct SqliteStore {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) path: PathBuf,
    pub(crate) schema: Arc<Schema>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) writer: Arc<Queue<Task>>,
    pub(crate) readers: Arc<Queue<ReadTask>>,
    pub(crate) threads: Vec<JoinHandle<()>>,
    /// The process that has the threads.
    pub(crate) process: u32,
}

impl SqliteStore {
    /// Opens the database file at `path` with the defaults of [`builder`](Self::builder); makes the file
    /// and its tables if they are not there.
    ///
    /// This blocks while it reads and writes the file.
    ///
    /// # Errors
    /// As [`SqliteStoreBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::builder(path).open()
    }

    /// Sets up a store in the database file at `path`: a path, and no URI.
    pub fn builder(path: impl AsRef<Path>) -> SqliteStoreBuilder {
        SqliteStoreBuilder::new(path.as_ref())
    }

    /// The path that the store was opened with.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The name of the table.
    #[must_use]
    pub fn table(&self) -> &str {
        self.shared.schema.table()
    }

    /// Runs `run` in a transaction that it shares with other calls.
    async fn call<O, F>(&self, purpose: Purpose, run: F) -> Result<O, StoreError>
    where
        O: Send + 'static,
        F: FnMut(&mut Session<'_>, Purpose) -> Result<O, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.send(purpose, Task::Command(Box::new(Call::new(purpose, run, reply))))?;
        answer.await.unwrap_or_else(|_| Err(ended(purpose)))
    }

    /// Runs `read` on a thread that reads.
    async fn read<O, F>(&self, purpose: Purpose, read: F) -> Result<O, StoreError>
    where
        O: Send + 'static,
        F: FnOnce(&Reader, Purpose) -> Result<O, StoreError> + Send + 'static,
    {
        self.check_process(purpose)?;
        let (reply, answer) = oneshot::channel();
        let task: ReadTask = Box::new(move |reader| {
            if !reply.is_canceled() {
                let _ = reply.send(read(reader, purpose));
            }
        });
        self.shared.readers.push(task).map_err(|refused| turned_away(purpose, refused))?;
        answer.await.unwrap_or_else(|_| {
            let error = StoreError::new(ErrorKind::Unavailable, purpose.operation);
            Err(error.with_message("the thread that reads has ended; open the store again"))
        })
    }

    pub(crate) fn send(&self, purpose: Purpose, task: Task) -> Result<(), StoreError> {
        self.check_process(purpose)?;
        self.shared.writer.push(task).map_err(|refused| turned_away(purpose, refused))
    }

    /// Threads do not survive a fork, and locks on the file are not shared by it.
    fn check_process(&self, purpose: Purpose) -> Result<(), StoreError> {
        if self.shared.process == std::process::id() {
            return Ok(());
        }
        let message = "this process is a fork of the one that opened the store; open it again here";
        Err(misconfigured(purpose.operation, message))
    }
}

/// The answer of a call whose thread ended without one.
pub(crate) fn ended(purpose: Purpose) -> StoreError {
    StoreError::new(ErrorKind::OutcomeUnknown, purpose.operation)
        .with_message("the thread that writes has ended; open the store again")
}

fn turned_away(purpose: Purpose, refused: Refused) -> StoreError {
    let message = match refused {
        Refused::Full => {
            "as many calls as `max_queued` allows wait already; the disk does not keep up"
        }
        Refused::Closed => "the threads of the store have ended; open the store again",
    };
    StoreError::new(ErrorKind::Unavailable, purpose.operation).with_message(message)
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.writer.close();
        self.readers.close();
        // A fork has no threads to wait for, and no thread can wait for itself: a waker that one of
        // them calls may be what drops the store.
        let here = thread::current().id();
        if self.process == std::process::id()
            && !self.threads.iter().any(|own| own.thread().id() == here)
        {
            for thread in self.threads.drain(..) {
                // It has panicked, and all callers have been told.
                let _ = thread.join();
            }
        }
    }
}

impl fmt::Debug for SqliteStore {
    /// Shows where the store is: no key, no value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.shared.path)
            .field("table", &self.table())
            .field("queued", &self.shared.writer.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn claim(&self, key: &Key, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        let (key, claim) = (key.clone(), *claim);
        let purpose = Purpose::when_full("claim", NoRoom::Key);
        self.call(purpose, move |session, purpose| session.claim(purpose, &key, &claim)).await
    }

    async fn renew(&self, key: &Key, renew: &Renew) -> Result<Fenced, StoreError> {
        let no_room = match renew.progress {
            Some(_) => NoRoom::Content,
            None => NoRoom::Other,
        };
        let (key, renew) = (key.clone(), renew.clone());
        let purpose = Purpose::when_full("renew", no_room);
        self.call(purpose, move |session, purpose| session.apply(purpose, &key, &renew)).await
    }

    async fn complete(&self, key: &Key, complete: &Complete) -> Result<Fenced, StoreError> {
        let (key, complete) = (key.clone(), complete.clone());
        let no_room = when_completing(complete.completion.replayable);
        let purpose = Purpose::when_full("complete", no_room);
        self.call(purpose, move |session, purpose| session.apply(purpose, &key, &complete)).await
    }

    async fn abandon(&self, key: &Key, abandon: &Abandon) -> Result<Fenced, StoreError> {
        let (key, abandon) = (key.clone(), *abandon);
        self.call(Purpose::new("abandon"), move |session, purpose| {
            session.apply(purpose, &key, &abandon)
        })
        .await
    }

    async fn settle(&self, key: &Key, settle: &Settle) -> Result<Fenced, StoreError> {
        let (key, settle) = (key.clone(), settle.clone());
        let no_room = match &settle.settlement {
            Settlement::Done(completion) => when_completing(completion.replayable),
            Settlement::NotDone { .. } => NoRoom::Other,
        };
        let purpose = Purpose::when_full("settle", no_room);
        self.call(purpose, move |session, purpose| session.apply(purpose, &key, &settle)).await
    }

    async fn evict(&self, key: &Key, evict: &Evict) -> Result<Fenced, StoreError> {
        let (key, evict) = (key.clone(), *evict);
        self.call(Purpose::new("evict"), move |session, purpose| {
            if evict.expected == Expected::Any {
                session.evict_any(purpose, &key, &evict, Fenced::Applied)
            } else {
                session.apply(purpose, &key, &evict)
            }
        })
        .await
    }

    async fn get(&self, key: &Key) -> Result<Option<Observed>, StoreError> {
        let key = key.clone();
        self.read(Purpose::new("get"), move |reader, purpose| reader.get(purpose, &key)).await
    }

    async fn purge(&self, limit: usize) -> Result<Purged, StoreError> {
        let mut removed = 0;
        let mut place = Some(Place::FIRST);
        // In steps, each queued behind what came in meanwhile: no claim waits for a long purge.
        while removed < limit
            && let Some(after) = place
        {
            let most = limit - removed;
            let step = self.call(Purpose::new("purge"), move |session, purpose| {
                purge::step(session, purpose, after, most)
            });
            let step = step.await?;
            removed += step.removed;
            place = step.next;
        }
        Ok(Purged { removed, more: limit > 0 && place.is_some() })
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }
}

#[async_trait]
impl Inspect for SqliteStore {
    async fn list(&self, query: &Query) -> Result<Page, StoreError> {
        let query = query.clone();
        self.read(Purpose::new("list"), move |reader, purpose| reader.list(purpose, &query)).await
    }
}

const fn when_completing(replayable: bool) -> NoRoom {
    if replayable { NoRoom::Content } else { NoRoom::Other }
}

#[cfg(test)]
mod tests {
    use oncekey::Scope;

    use super::*;

    /// What a fork of the process sees: another process id, and no threads.
    #[test]
    fn a_fork_is_turned_away() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(folder.path().join("db.sqlite3")).unwrap();
        let key = Key::new(&Scope::new("tenant-42", "pay").unwrap(), "a").unwrap();
        let process = store.shared.process;
        Arc::get_mut(&mut store.shared).unwrap().process = 0;
        for error in [
            futures::executor::block_on(store.get(&key)).unwrap_err(),
            futures::executor::block_on(store.purge(1)).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Misconfigured);
            assert!(error.to_string().contains("open it again here"), "{error}");
        }
        Arc::get_mut(&mut store.shared).unwrap().process = process;
        assert_eq!(futures::executor::block_on(store.get(&key)).unwrap(), None);
    }
}
