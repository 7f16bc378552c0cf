//! The one thread that writes: whatever has queued up shares one transaction and one commit.
//!
//! A commit waits for the disk, and that is nearly all that a command costs. So while one commit is on
//! its way, the commands that come in meanwhile queue up, and the next commit carries all of them. A
//! lone caller waits for nobody.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;
use oncekey::runtime::Clock;
use oncekey::store::StoreError;
use rusqlite::{Connection, Error, ffi};

use crate::busy;
use crate::commit::{Uncommitted, execute, is_without_room, roll_back};
use crate::error::{Purpose, again};
use crate::file::OpenFile;
use crate::queue::{Closing, Queue};
use crate::schema::Schema;
use crate::session::Session;

/// The most commands that share a commit: bounds how long others wait for the lock on the file.
const MOST_IN_A_BATCH: usize = 512;

/// How long the thread waits for the callers that it has just answered: most come back at once, and
/// then share the next commit instead of missing it. After a single caller it waits for one, so that a
/// lone caller waits for nobody, and finds the thread awake.
const RETURN_TIME: Duration = Duration::from_micros(100);

/// Something for the writer to do.
pub(crate) enum Task {
    /// A command that shares a transaction with others.
    Command(Box<dyn Job>),
    /// Something that has the connection to itself, and begins and commits by itself.
    Alone(Box<dyn FnOnce(&mut Writer) + Send>),
}

/// A command with the place for its answer.
pub(crate) trait Job: Send {
    /// Whether nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool;

    /// Decides, in an open transaction; returns whether no statement failed. Is called again if that is
    /// rolled back because of another member.
    #[must_use]
    fn decide(&mut self, session: &mut Session<'_>) -> bool;

    /// Hands over what was decided, which is in force; or what became of the transaction instead.
    fn answer(self: Box<Self>, failure: Option<Failure<'_>>);
}

/// What became of a transaction that was to be committed.
#[derive(Clone, Copy)]
pub(crate) enum Failure<'a> {
    /// It was not begun, or rolled back.
    NotApplied(&'a Error),
    /// Its commit failed, and may be in the file.
    Unknown(&'a Error),
}

pub(crate) type Reply<O> = oneshot::Sender<Result<O, StoreError>>;

/// The job that runs a closure.
pub(crate) struct Call<O, F> {
    purpose: Purpose,
    run: F,
    decided: Option<Result<O, StoreError>>,
    knew_key: bool,
    reply: Reply<O>,
}

impl<O, F> Call<O, F> {
    pub(crate) const fn new(purpose: Purpose, run: F, reply: Reply<O>) -> Self {
        Self { purpose, run, decided: None, knew_key: false, reply }
    }
}

impl<O, F> Job for Call<O, F>
where
    O: Send,
    F: FnMut(&mut Session<'_>, Purpose) -> Result<O, StoreError> + Send,
{
    fn is_abandoned(&self) -> bool {
        self.reply.is_canceled()
    }

    fn decide(&mut self, session: &mut Session<'_>) -> bool {
        let decided = (self.run)(session, self.purpose);
        self.knew_key = session.knew_key();
        // A row that makes no sense is an error too, but none of a statement: it has no source.
        let failed = decided.as_ref().is_err_and(|error| error.source().is_some());
        self.decided = Some(decided);
        !failed
    }

    fn answer(self: Box<Self>, failure: Option<Failure<'_>>) {
        let answer = match (failure, self.decided) {
            (Some(Failure::Unknown(error)), _) => Err(self.purpose.unknown(again(error))),
            // It knows better what failed.
            (_, Some(Err(error))) => Err(error),
            (Some(Failure::NotApplied(error)), _) => {
                Err(self.purpose.on_known_key(self.knew_key).failed(again(error)))
            }
            (None, Some(Ok(outcome))) => Ok(outcome),
            // Not decided, and nothing failed: dropping the reply says that nobody knows.
            (None, None) => return,
        };
        // Whoever asked may be gone.
        let _ = self.reply.send(answer);
    }
}

/// What the thread works with.
pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) file: OpenFile,
    pub(crate) schema: Arc<Schema>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) busy_timeout: Duration,
}

impl Writer {
    /// Works until the queue is closed and empty.
    pub(crate) fn run(mut self, queue: &Queue<Task>) {
        let _closing = Closing(queue);
        let mut answered = 0;
        loop {
            queue.gather(answered, RETURN_TIME);
            let Some(tasks) = queue.take(MOST_IN_A_BATCH) else { break };
            answered = tasks.len();
            let mut batch = Vec::with_capacity(tasks.len());
            for task in tasks {
                match task {
                    Task::Command(job) => batch.push(job),
                    Task::Alone(work) => {
                        self.commit(std::mem::take(&mut batch));
                        work(&mut self);
                        // Business may have set another time to wait for locks. If this fails, nobody waits.
                        let _ = busy::install(&mut self.connection);
                    }
                }
            }
            self.commit(batch);
        }
    }

    /// Decides all of `jobs` in one transaction, commits it, and only then answers them.
    fn commit(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        // What nobody waits for need not happen: a dropped call may or may not.
        jobs.retain(|job| !job.is_abandoned());
        if jobs.is_empty() {
            return;
        }
        let mut attempt = self.attempt(&mut jobs);
        if attempt.is_without_room() {
            self.reuse_the_log();
            attempt = self.attempt(&mut jobs);
        }
        // Some of them cannot be done. The others must not suffer for it.
        if jobs.len() > 1 && (matches!(attempt, Attempt::Failed) || attempt.is_without_room()) {
            for job in jobs {
                let mut alone = vec![job];
                let attempt = self.attempt(&mut alone);
                answer(alone, &attempt);
            }
        } else {
            answer(jobs, &attempt);
        }
    }

    /// Moves what the log has to the file itself, where the disk is full: then the next commit can be
    /// written over it, and mostly needs no more room. Whether this succeeds, that commit tells.
    pub(crate) fn reuse_the_log(&self) {
        let sql = "PRAGMA main.wal_checkpoint(PASSIVE)";
        let _ = self.connection.query_row(sql, [], |_| Ok(()));
    }

    fn attempt(&self, jobs: &mut [Box<dyn Job>]) -> Attempt {
        if let Err(error) = self.begin() {
            return Attempt::NotApplied(error);
        }
        let mut session = Session::new(&self.connection, &self.schema, &*self.clock);
        for job in &mut *jobs {
            // A statement that failed may have ended the transaction (a full disk does), or left a part
            // of its work behind (a damaged page does).
            if !job.decide(&mut session) || self.connection.is_autocommit() {
                roll_back(&self.connection);
                return Attempt::Failed;
            }
        }
        match session.commit() {
            Ok(()) => Attempt::Committed,
            Err(Uncommitted::NotApplied(error)) => Attempt::NotApplied(error),
            Err(Uncommitted::Unknown(error)) => Attempt::Unknown(error),
        }
    }

    fn begin(&self) -> rusqlite::Result<()> {
        self.file.check()?;
        busy::allow(self.busy_timeout);
        // A transaction that was begun as a reader cannot wait for the lock when it starts to write.
        execute(&self.connection, "BEGIN IMMEDIATE")
    }
}

enum Attempt {
    Committed,
    /// It was not begun, or its commit failed with nothing done.
    NotApplied(Error),
    /// The job that was decided last cannot be done. Nothing is in force.
    Failed,
    Unknown(Error),
}

impl Attempt {
    fn is_without_room(&self) -> bool {
        matches!(self, Self::NotApplied(error) if is_without_room(error))
    }
}

fn answer(jobs: Vec<Box<dyn Job>>, attempt: &Attempt) {
    // The job knows better what failed. If it does not, it must not be taken for done.
    let aborted = Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_ABORT), None);
    let failure = match attempt {
        Attempt::Committed => None,
        Attempt::NotApplied(error) => Some(Failure::NotApplied(error)),
        Attempt::Failed => Some(Failure::NotApplied(&aborted)),
        Attempt::Unknown(error) => Some(Failure::Unknown(error)),
    };
    for job in jobs {
        job.answer(failure);
    }
}
