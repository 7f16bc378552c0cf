//! One connection for all who wait: [`Listener`], for stores that are notified over a connection.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures::Stream;
use futures::channel::oneshot;
use futures::future::{BoxFuture, Either, select};
use futures::task::AtomicWaker;

use super::error::{ErrorKind, StoreError};
use super::watch::Subscription;
use crate::runtime::{ThreadTimer, Timer};

/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(500);

/// A connection that a store is notified over: what a [`Listener`] needs to know of it.
#[async_trait]
pub trait Listen: Send + Sync + 'static {
    /// Connects, says so with [`Inbox::listening`] as soon as nothing is missed any more, and hands on the
    /// name of everything that is notified with [`Inbox::notify`]. Returns why it can no longer. It is
    /// called again half a second later, as long as anybody waits.
    ///
    /// A connection that is dead and does not know it has to be noticed here, by a sign of life now and
    /// then: until this returns, it is taken to work.
    ///
    /// # Cancel safety
    /// Dropped when nobody waits any more; that must close the connection.
    async fn listen(&self, inbox: &Inbox) -> StoreError;
}

/// Subscriptions of any number, over one connection that is there while somebody waits. For a store's
/// [`Watch`](super::Watch).
///
/// When the connection is lost it is made anew. Everybody is woken then, once when it is lost and once when
/// it is there again, because what is notified meanwhile is lost.
///
/// ```
/// use async_trait::async_trait;
/// use futures::StreamExt;
/// use futures::channel::mpsc;
/// use futures::lock::Mutex;
/// use oncekey::store::{ErrorKind, Inbox, Listen, Listener, StoreError};
///
/// /// Hears of everything that others say.
/// struct Radio(Mutex<mpsc::UnboundedReceiver<Vec<u8>>>);
///
/// #[async_trait]
/// impl Listen for Radio {
///     async fn listen(&self, inbox: &Inbox) -> StoreError {
///         let mut messages = self.0.lock().await;
///         inbox.listening();
///         while let Some(name) = messages.next().await {
///             inbox.notify(&name);
///         }
///         StoreError::new(ErrorKind::Unavailable, "watch")
///     }
/// }
///
/// # smol::block_on(async {
/// let (antenna, messages) = mpsc::unbounded();
/// let listener = Listener::new(Radio(Mutex::new(messages)), |task| smol::spawn(task).detach());
/// let mut subscription = listener.subscribe(b"order-17").await?;
/// antenna.unbounded_send(b"order-17".to_vec())?;
/// subscription.changed().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub struct Listener {
    connection: Arc<dyn Listen>,
    spawn: Box<Spawn>,
    timer: Arc<dyn Timer>,
    state: Arc<Mutex<State>>,
}

type Spawn = dyn Fn(BoxFuture<'static, ()>) + Send + Sync;

/// Where a [connection](Listen) hands on what it hears.
pub struct Inbox {
    task: u64,
    state: Weak<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Who waits, by name.
    waiting: HashMap<Vec<u8>, Vec<(u64, Arc<Signal>)>>,
    last_number: u64,
    /// There while there is a task that listens.
    task: Option<Task>,
}

struct Task {
    number: u64,
    phase: Phase,
    /// Dropped with it, which ends the task.
    _stop: oneshot::Sender<()>,
}

enum Phase {
    /// With those who wait for the connection, and whether there was one before.
    Connecting {
        callers: Vec<oneshot::Sender<Result<(), StoreError>>>,
        again: bool,
    },
    Listening,
    Failed(StoreError),
}

impl Listener {
    /// Listens with `connection`, in tasks that are started with `spawn`: one at a time, whenever the first
    /// subscription is made. With tokio, `|task| drop(tokio::spawn(task))`.
    pub fn new(
        connection: impl Listen,
        spawn: impl Fn(BoxFuture<'static, ()>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            connection: Arc::new(connection),
            spawn: Box::new(spawn),
            timer: Arc::new(ThreadTimer::new()),
            state: Arc::default(),
        }
    }

    /// Waits for the next try by `timer`, instead of by a thread of the library.
    #[must_use]
    pub fn timer(self, timer: impl Timer + 'static) -> Self {
        Self { timer: Arc::new(timer), ..self }
    }

    /// Subscribes to what is notified by `name`, from now on: once this returns, nothing is missed that is
    /// not lost on the way. Any number can have the same name.
    ///
    /// # Errors
    /// That of the connection, if there is none: until the next try, half a second later.
    /// [`Unavailable`](ErrorKind::Unavailable) if the task ended, for example with its runtime. Both only mean
    /// that there are no notifications.
    ///
    /// # Cancel safety
    /// Dropped: there is no subscription.
    pub async fn subscribe(&self, name: impl Into<Vec<u8>>) -> Result<Subscription, StoreError> {
        let (notifications, listening) = self.register(name.into());
        match listening.await {
            Ok(listening) => listening.map(|()| Subscription::new(notifications)),
            Err(oneshot::Canceled) => Err(StoreError::new(ErrorKind::Unavailable, "watch")
                .with_message("the task that listens has ended")),
        }
    }

    fn register(
        &self,
        name: Vec<u8>,
    ) -> (Notifications, oneshot::Receiver<Result<(), StoreError>>) {
        let signal = Arc::new(Signal::default());
        let (caller, listening) = oneshot::channel();
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        state.last_number += 1;
        let number = state.last_number;
        state.waiting.entry(name.clone()).or_default().push((number, Arc::clone(&signal)));
        let started = match &mut state.task {
            Some(Task { phase: Phase::Connecting { callers, .. }, .. }) => {
                callers.push(caller);
                None
            }
            Some(Task { phase: Phase::Listening, .. }) => {
                let _ = caller.send(Ok(()));
                None
            }
            Some(Task { phase: Phase::Failed(error), .. }) => {
                let _ = caller.send(Err(error.clone()));
                None
            }
            none => {
                let (stop, stopped) = oneshot::channel();
                let phase = Phase::Connecting { callers: vec![caller], again: false };
                *none = Some(Task { number, phase, _stop: stop });
                let inbox = Inbox { task: number, state: Arc::downgrade(&self.state) };
                Some(listen(Arc::clone(&self.connection), Arc::clone(&self.timer), inbox, stopped))
            }
        };
        drop(guard);
        let state = Arc::downgrade(&self.state);
        let notifications = Notifications { state, name, number, signal };
        // If it panics, the task is dropped, and with it what says that there is one.
        started.into_iter().for_each(|task| (self.spawn)(Box::pin(task)));
        (notifications, listening)
    }
}

/// Listens until nobody waits.
// Not an `async fn`: also a task that is never polled must tell its end.
fn listen(
    connection: Arc<dyn Listen>,
    timer: Arc<dyn Timer>,
    inbox: Inbox,
    mut stopped: oneshot::Receiver<()>,
) -> impl Future<Output = ()> + Send {
    let alive = Alive(inbox);
    async move {
        let inbox = &alive.0;
        loop {
            let error = match select(&mut stopped, connection.listen(inbox)).await {
                Either::Left(_) => return,
                Either::Right((error, _)) => error,
            };
            inbox.enter(Phase::Failed(error));
            let pause = timer.sleep_until(timer.now().saturating_add(PAUSE));
            if let Either::Left(_) = select(&mut stopped, pause).await {
                return;
            }
            inbox.enter(Phase::Connecting { callers: Vec::new(), again: true });
        }
    }
}

impl Inbox {
    /// From now on, nothing is missed. May be said again.
    pub fn listening(&self) {
        self.enter(Phase::Listening);
    }

    /// Wakes all who subscribed to `name`.
    pub fn notify(&self, name: &[u8]) {
        if let Some(state) = self.state.upgrade() {
            let signals = lock(&state).signals(name);
            signals.iter().for_each(|signal| signal.raise());
        }
    }

    fn enter(&self, phase: Phase) {
        let Some(state) = self.state.upgrade() else { return };
        let mut state = lock(&state);
        let Some(task) = state.task.as_mut().filter(|task| task.number == self.task) else {
            return;
        };
        // Not for each try in vain: whoever is woken asks the store.
        let missed = matches!(
            (&task.phase, &phase),
            (Phase::Listening, Phase::Failed(_))
                | (Phase::Connecting { again: true, .. }, Phase::Listening)
        );
        let answer = match &phase {
            Phase::Failed(error) => Err(error.clone()),
            _ => Ok(()),
        };
        let before = mem::replace(&mut task.phase, phase);
        let signals = if missed { state.all_signals() } else { Vec::new() };
        drop(state);
        if let Phase::Connecting { callers, .. } = before {
            for caller in callers {
                let _ = caller.send(answer.clone());
            }
        }
        signals.iter().for_each(|signal| signal.raise());
    }
}

/// Dropped with the task, also by a runtime that shuts down.
struct Alive(Inbox);

impl Drop for Alive {
    fn drop(&mut self) {
        let Some(state) = self.0.state.upgrade() else { return };
        let mut state = lock(&state);
        if let Some(task) = state.task.take_if(|task| task.number == self.0.task) {
            let signals = state.all_signals();
            drop(state);
            drop(task);
            signals.iter().for_each(|signal| signal.raise());
        }
    }
}

impl State {
    fn signals(&self, name: &[u8]) -> Vec<Arc<Signal>> {
        let waiting = self.waiting.get(name).into_iter().flatten();
        waiting.map(|(_, signal)| Arc::clone(signal)).collect()
    }

    fn all_signals(&self) -> Vec<Arc<Signal>> {
        self.waiting.values().flatten().map(|(_, signal)| Arc::clone(signal)).collect()
    }

    /// Ends a subscription, and returns the task if that was the last one.
    fn remove(&mut self, name: &[u8], number: u64) -> Option<Task> {
        if let Some(waiting) = self.waiting.get_mut(name) {
            waiting.retain(|(own, _)| *own != number);
            if waiting.is_empty() {
                self.waiting.remove(name);
            }
        }
        if self.waiting.is_empty() { self.task.take() } else { None }
    }
}

// Whoever is woken may do anything, also something that takes this lock: nobody is woken under it.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One is as good as many.
#[derive(Default)]
struct Signal {
    raised: AtomicBool,
    waker: AtomicWaker,
}

impl Signal {
    fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// Never ends by itself.
struct Notifications {
    state: Weak<Mutex<State>>,
    name: Vec<u8>,
    number: u64,
    signal: Arc<Signal>,
}

impl Stream for Notifications {
    type Item = ();

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<()>> {
        self.signal.waker.register(context.waker());
        if self.signal.raised.swap(false, Ordering::AcqRel) {
            Poll::Ready(Some(()))
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Notifications {
    fn drop(&mut self) {
        if let Some(state) = self.state.upgrade() {
            let task = lock(&state).remove(&self.name, self.number);
            drop(task);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}
