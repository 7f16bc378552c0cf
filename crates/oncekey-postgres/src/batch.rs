//! Claims and completions that share a statement, and so a round trip and a commit.
//!
//! A batch is what has queued up while earlier ones were under way: whoever comes alone waits for nobody,
//! and the busier the store is, the larger the batches are. There are a few lanes. Whoever finds one free
//! takes it; whoever does not waits in the queue, until the batch in a lane is done and takes all that
//! has come meanwhile. Whoever waits in vain for a while goes alone.
//!
//! A batch waits for no row and has no key twice. What it cannot decide it hands back, to be called alone,
//! without a lane: a call that waits for a row keeps nobody waiting but itself. It also hands back everything
//! if the server refuses it as a whole, so that the one call that is the cause fails alone. When the
//! connection is lost after it was sent, the outcome is unknown for each call in it.
//!
//! A lane is driven by the caller while there is only its own call, and by a task as soon as there are others'.
//! Dropping a caller drops its call if that was not sent yet, and hands its lane on.

use std::collections::{HashSet, VecDeque};
use std::marker::PhantomData;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::tokio_postgres::Row;
use futures::future::{Either, select};
use oncekey::Key;
use oncekey::runtime::{ThreadTimer, Timer};
use oncekey::store::{Claim, ClaimOutcome, Complete, Fenced, StoreError};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use crate::driver::{self, Failed};
use crate::sql::answer::{self, Row as _};
use crate::sql::fault::Purpose;
use crate::sql::{Call, Tables, Terms};
use crate::store::{CLAIM, Shared, one};

/// How many batches of a kind may be under way: while one waits for its commit, the other fills.
const LANES: usize = 2;
/// The most calls in a batch.
const MOST_CALLS: usize = 256;
/// The longest contents: of a call that shares, and of a batch together.
const LONGEST_CONTENT: usize = 64 << 10;
const LONGEST_BATCH: usize = 1 << 20;
/// How often a lane looks for those who are about to come.
const MOST_LOOKS: usize = 8;
/// How long a call waits for a lane before it goes alone. All lanes may be held up, by connections that are
/// dead and do not know it, or by callers that are not polled.
const LONGEST_WAIT: Duration = Duration::from_millis(100);
/// How long the answer to a batch is waited for, once it is sent. It waits for no row, so its connection is dead.
const LONGEST_SEND: Duration = Duration::from_secs(10);
/// A lane waits this long for a row at most, as a value of `lock_timeout`.
pub(crate) const PATIENCE: &str = "1ms";

/// A command that can be sent with others of its kind.
pub(crate) trait Batched: Clone + Send + Sync + 'static {
    type Answer: Send + 'static;
    /// Of a statement with many of them.
    const PURPOSE: Purpose;
    /// Where a row of its answer has the key.
    const KEY_COLUMN: usize;

    fn queue(shared: &Shared) -> &Queue<Self>;
    /// How long its content is; `None` if it is not to be sent with others.
    fn content_len(&self) -> Option<usize>;
    fn alone<'a>(&'a self, key: &'a Key, tables: &'a Tables, terms: &'a Terms) -> Call<'a>;
    fn many<'a>(commands: &[(&'a Key, &'a Self)], tables: &'a Tables, terms: &'a Terms)
    -> Call<'a>;
    fn answer(&self, row: &Row) -> Result<Self::Answer, StoreError>;
}

/// What becomes of a call.
pub(crate) enum Reply<A> {
    Answer(Result<A, StoreError>),
    /// Nothing was done: make it alone.
    Alone,
}

/// The calls of one kind that wait for a lane.
pub(crate) struct Queue<C: Batched> {
    state: Mutex<State<C>>,
}

struct State<C: Batched> {
    waiting: VecDeque<Member<C>>,
    /// The keys of the batches that are under way.
    under_way: HashSet<Key>,
    lanes_taken: usize,
    /// How many calls the last batch had.
    last_len: usize,
    last_number: u64,
}

struct Member<C: Batched> {
    number: u64,
    key: Key,
    command: C,
    reply: oneshot::Sender<Reply<C::Answer>>,
    runtime: Handle,
}

impl<C: Batched> Default for Queue<C> {
    fn default() -> Self {
        let state = State {
            waiting: VecDeque::new(),
            under_way: HashSet::new(),
            lanes_taken: 0,
            last_len: 0,
            last_number: 0,
        };
        Self { state: Mutex::new(state) }
    }
}

impl<C: Batched> Queue<C> {
    /// Takes the call back, if it still waits.
    fn leave(&self, number: u64) -> bool {
        let mut state = self.lock();
        let found = state.waiting.iter().position(|member| member.number == number);
        found.and_then(|index| state.waiting.remove(index)).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends `command` with what else there is to send.
pub(crate) async fn send<C: Batched>(
    shared: &Arc<Shared>,
    key: &Key,
    command: &C,
) -> Reply<C::Answer> {
    let is_short = command.content_len().is_some_and(|len| len <= LONGEST_CONTENT);
    let (true, Ok(runtime)) = (is_short && shared.batching, Handle::try_current()) else {
        return Reply::Alone;
    };
    // Above the answer: of a call that is dropped, the lane must see that nobody waits any more.
    let mut lane;
    let (reply, answer) = oneshot::channel();
    let number = {
        let mut state = C::queue(shared).lock();
        state.last_number += 1;
        let number = state.last_number;
        let (key, command) = (key.clone(), command.clone());
        state.waiting.push_back(Member { number, key, command, reply, runtime });
        let is_free = state.lanes_taken < LANES;
        state.lanes_taken += usize::from(is_free);
        lane = is_free.then(|| Lane::<C>::new(shared));
        number
    };
    if let Some(own) = &lane {
        own.gather().await;
        let batch = own.take();
        match &batch.members[..] {
            [] => {}
            [member] if member.number == number => return batch.send_first(None).await,
            _ => drop(lane.take().map(|lane| tokio::spawn(drive(lane, batch)))),
        }
    }
    drop(lane);
    // Whoever drove the lane is gone with its runtime, and may have sent it.
    let gone = |gone| Reply::Answer(Err(C::PURPOSE.unanswered(gone)));
    let timer = ThreadTimer::new();
    let tired = timer.sleep_until(timer.now().saturating_add(LONGEST_WAIT));
    let answer = match select(answer, tired).await {
        Either::Left((answer, _)) => return answer.unwrap_or_else(gone),
        Either::Right((_, answer)) => answer,
    };
    if C::queue(shared).leave(number) {
        return Reply::Alone;
    }
    answer.await.unwrap_or_else(gone)
}

/// Sends one batch after the other until nobody waits.
async fn drive<C: Batched>(lane: Lane<C>, mut batch: Batch<C>) {
    while !batch.members.is_empty() {
        batch.send().await;
        lane.gather().await;
        batch = lane.take();
    }
}

/// The right to have a batch under way.
struct Lane<C: Batched> {
    shared: Arc<Shared>,
    kind: PhantomData<fn() -> C>,
}

impl<C: Batched> Lane<C> {
    fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), kind: PhantomData }
    }

    /// Lets those come who were woken together, by the answers of one batch: as many as last time, if they
    /// are as good as there. It looks for them a few times, and waits for none.
    async fn gather(&self) {
        for _ in 0..MOST_LOOKS {
            yield_now().await;
            let state = C::queue(&self.shared).lock();
            if state.waiting.len() >= state.last_len {
                return;
            }
        }
    }

    /// What waits, as far as it may be sent together.
    fn take(&self) -> Batch<C> {
        let mut batch = Batch { members: Vec::new(), shared: Arc::clone(&self.shared) };
        let mut repeated = Vec::new();
        let mut len = 0;
        let mut state = C::queue(&self.shared).lock();
        while batch.members.len() < MOST_CALLS && len < LONGEST_BATCH {
            let Some(member) = state.waiting.pop_front() else { break };
            if member.reply.is_closed() {
                continue;
            }
            if state.under_way.insert(member.key.clone()) {
                len += member.command.content_len().unwrap_or(0);
                batch.members.push(member);
            } else {
                repeated.push(member);
            }
        }
        state.last_len = batch.members.len();
        drop(state);
        repeated.into_iter().for_each(Member::send_back);
        batch
    }
}

impl<C: Batched> Drop for Lane<C> {
    /// Hands the lane on, if anybody waits for it.
    fn drop(&mut self) {
        loop {
            {
                let mut state = C::queue(&self.shared).lock();
                if state.waiting.is_empty() {
                    state.lanes_taken -= 1;
                    return;
                }
            }
            let batch = self.take();
            if let Some(member) = batch.members.first() {
                let (runtime, lane) = (member.runtime.clone(), Self::new(&self.shared));
                runtime.spawn(drive(lane, batch));
                return;
            }
        }
    }
}

impl<C: Batched> Member<C> {
    fn send_back(self) {
        let _ = self.reply.send(Reply::Alone);
    }
}

/// Calls on as many keys. No other batch has one of these keys while it is there.
struct Batch<C: Batched> {
    members: Vec<Member<C>>,
    shared: Arc<Shared>,
}

impl<C: Batched> Batch<C> {
    /// Sends all of it, and answers those who wait.
    async fn send(mut self) {
        let replies = match &self.members[..] {
            [_] => vec![self.send_first(Some(LONGEST_SEND)).await],
            _ => {
                // In the order of their keys, as all batches are, so that no two wait for each other.
                self.members.sort_unstable_by(|a, b| a.key.as_bytes().cmp(b.key.as_bytes()));
                self.send_many().await
            }
        };
        let members = mem::take(&mut self.members);
        self.forget(&members);
        for (member, reply) in members.into_iter().zip(replies) {
            let _ = member.reply.send(reply);
        }
    }

    fn forget(&self, members: &[Member<C>]) {
        if !members.is_empty() {
            let mut state = C::queue(&self.shared).lock();
            for member in members {
                state.under_way.remove(&member.key);
            }
        }
    }

    async fn send_many(&self) -> Vec<Reply<C::Answer>> {
        let Shared { tables, terms, .. } = &*self.shared;
        let commands: Vec<_> = self.members.iter().map(|m| (&m.key, &m.command)).collect();
        let call = C::many(&commands, tables, terms);
        let mut replies: Vec<_> = self.members.iter().map(|_| Reply::Alone).collect();
        match driver::send_once(&self.shared, C::PURPOSE, &call, Some(LONGEST_SEND)).await {
            Ok(rows) => {
                for row in &rows {
                    let key = row.bytes(C::KEY_COLUMN).unwrap_or_default();
                    let found = self.members.binary_search_by(|m| m.key.as_bytes().cmp(key));
                    if let Ok(index) = found {
                        replies[index] = Reply::Answer(self.members[index].command.answer(row));
                    }
                }
            }
            Err(Failed::Server(error)) if !error.is_no_answer() => {}
            Err(failed) => {
                let error = failed.into_error(C::PURPOSE);
                replies.fill_with(|| Reply::Answer(Err(error.clone())));
            }
        }
        replies
    }

    /// Sends the one call that there is.
    async fn send_first(&self, limit: Option<Duration>) -> Reply<C::Answer> {
        let Shared { tables, hurried, .. } = &*self.shared;
        let Some(Member { key, command, .. }) = self.members.first() else { return Reply::Alone };
        let call = command.alone(key, tables, hurried);
        match driver::send_within(&self.shared, C::PURPOSE, &call, limit).await {
            Ok(rows) => Reply::Answer(one(C::PURPOSE, &rows).and_then(|row| command.answer(row))),
            Err(Failed::Server(error)) if error.is_lock_timeout() || error.is_over_limit() => {
                Reply::Alone
            }
            Err(failed) => Reply::Answer(Err(failed.into_error(C::PURPOSE))),
        }
    }
}

impl<C: Batched> Drop for Batch<C> {
    fn drop(&mut self) {
        self.forget(&self.members);
    }
}

impl Batched for Claim {
    type Answer = ClaimOutcome;
    const PURPOSE: Purpose = CLAIM;
    const KEY_COLUMN: usize = answer::CLAIMED_KEY;

    fn queue(shared: &Shared) -> &Queue<Self> {
        &shared.claims
    }

    fn content_len(&self) -> Option<usize> {
        Some(0)
    }

    fn alone<'a>(&'a self, key: &'a Key, tables: &'a Tables, terms: &'a Terms) -> Call<'a> {
        tables.claim(key, self, terms)
    }

    fn many<'a>(claims: &[(&'a Key, &'a Self)], tables: &'a Tables, terms: &'a Terms) -> Call<'a> {
        tables.claims(claims, terms)
    }

    fn answer(&self, row: &Row) -> Result<ClaimOutcome, StoreError> {
        Ok(answer::claim(CLAIM, self, row)?.0)
    }
}

impl Batched for Complete {
    type Answer = Fenced;
    const PURPOSE: Purpose = Purpose::content("complete");
    const KEY_COLUMN: usize = answer::COMPLETED_KEY;

    fn queue(shared: &Shared) -> &Queue<Self> {
        &shared.completions
    }

    fn content_len(&self) -> Option<usize> {
        self.completion.replayable.then_some(self.completion.value.len())
    }

    fn alone<'a>(&'a self, key: &'a Key, tables: &'a Tables, terms: &'a Terms) -> Call<'a> {
        tables.complete(key, self, terms)
    }

    fn many<'a>(
        completions: &[(&'a Key, &'a Self)],
        tables: &'a Tables,
        terms: &'a Terms,
    ) -> Call<'a> {
        tables.completions(completions, terms)
    }

    fn answer(&self, row: &Row) -> Result<Fenced, StoreError> {
        answer::fenced(Self::PURPOSE, row)
    }
}
