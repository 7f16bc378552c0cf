//! `LISTEN`, on a connection of its own that is there while somebody waits.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use deadpool_postgres::tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use deadpool_postgres::tokio_postgres::{AsyncMessage, Client, Config, Error, Socket};
use futures::future::{BoxFuture, Either, select};
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use oncekey::store::StoreError;
use tokio::sync::mpsc;
use tokio::sync::watch;

use crate::driver::Failed;
use crate::sql::fault::Purpose;
use crate::sql::sleep;

const LISTEN: Purpose = Purpose::read("watch");
/// Between two tries to connect while somebody waits.
const PAUSE: Duration = Duration::from_millis(500);
/// How long it may take until it listens: a network that swallows everything says nothing for ever.
const LONGEST_START: Duration = Duration::from_secs(10);

type Connected = (Client, BoxStream<'static, Result<AsyncMessage, Error>>);
type Connect = dyn Fn() -> BoxFuture<'static, Result<Connected, Error>> + Send + Sync;

/// Hands on what is notified on one channel.
pub(crate) struct Listener {
    connect: Arc<Connect>,
    channel: OnceLock<String>,
    state: Arc<Mutex<State>>,
}

/// Who waits, and the task that listens for them.
#[derive(Default)]
struct State {
    waiting: HashMap<String, Vec<(u64, mpsc::Sender<()>)>>,
    last_number: u64,
    /// There while the task runs: whether it listens now, and why not.
    task: Option<watch::Receiver<Status>>,
    /// Dropped when nobody waits any more, which ends the task.
    stop: Option<mpsc::Sender<()>>,
}

#[derive(Clone, Default)]
enum Status {
    #[default]
    Connecting,
    Listening,
    Failed(StoreError),
}

impl Listener {
    pub(crate) fn new<T>(config: Config, tls: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let connect = move || -> BoxFuture<'static, Result<Connected, Error>> {
            let (config, tls) = (config.clone(), tls.clone());
            Box::pin(async move {
                let (client, mut connection) = config.connect(tls).await?;
                let messages =
                    futures::stream::poll_fn(move |context| connection.poll_message(context));
                Ok((client, messages.boxed()))
            })
        };
        Self { connect: Arc::new(connect), channel: OnceLock::new(), state: Arc::default() }
    }

    pub(crate) fn set_channel(&self, channel: String) {
        let _ = self.channel.set(channel);
    }

    /// What is notified with `payload`, from now on.
    pub(crate) async fn subscribe(&self, payload: String) -> Result<Notifications, StoreError> {
        let (sender, receiver) = mpsc::channel(1);
        let (notifications, mut status) = {
            let mut state = lock(&self.state);
            state.last_number += 1;
            let number = state.last_number;
            state.waiting.entry(payload.clone()).or_default().push((number, sender));
            let status = match &state.task {
                // A task that is gone with its runtime listens no more, whatever it last said.
                Some(status) if status.has_changed().is_ok() => status.clone(),
                _ => self.start(&mut state),
            };
            let state = Arc::downgrade(&self.state);
            (Notifications { state, payload, number, receiver }, status)
        };
        loop {
            match status.borrow_and_update().clone() {
                Status::Listening => return Ok(notifications),
                Status::Failed(error) => return Err(error),
                Status::Connecting => {}
            }
            if status.changed().await.is_err() {
                return Err(LISTEN.unsent("the task that listens has ended"));
            }
        }
    }

    fn start(&self, state: &mut State) -> watch::Receiver<Status> {
        let (status, receiver) = watch::channel(Status::default());
        let (stop, stopped) = mpsc::channel(1);
        state.task = Some(receiver.clone());
        state.stop = Some(stop);
        let connect = Arc::clone(&self.connect);
        let channel = self.channel.get().cloned().unwrap_or_default();
        tokio::spawn(listen(connect, channel, Arc::downgrade(&self.state), status, stopped));
        receiver
    }
}

/// Listens until nobody waits. When the connection is lost it is made anew, and everybody is woken: when it
/// is lost, so that who waits looks, and when it is there again, since what was notified meanwhile is lost.
async fn listen(
    connect: Arc<Connect>,
    channel: String,
    state: Weak<Mutex<State>>,
    status: watch::Sender<Status>,
    mut stopped: mpsc::Receiver<()>,
) {
    let mut is_first = true;
    loop {
        let listening = pin!(listen_once(&connect, &channel, &state, &status, is_first));
        let Either::Right((error, _)) = select(pin!(stopped.recv()), listening).await else {
            return;
        };
        is_first = false;
        let lost = matches!(status.send_replace(Status::Failed(error)), Status::Listening);
        match state.upgrade() {
            Some(state) if lost => lock(&state).wake_all(),
            Some(_) => {}
            None => return,
        }
        if let Either::Left(_) = select(pin!(stopped.recv()), sleep(PAUSE)).await {
            return;
        }
        status.send_replace(Status::Connecting);
    }
}

/// Connects and listens until that fails.
async fn listen_once(
    connect: &Arc<Connect>,
    channel: &str,
    state: &Weak<Mutex<State>>,
    status: &watch::Sender<Status>,
    is_first: bool,
) -> StoreError {
    let failed = |error| Failed::from(error).into_error(LISTEN);
    let silent = || LISTEN.unsent("the server did not answer for a long time");
    let mut over = sleep(LONGEST_START);
    let (client, mut messages) = match select(connect(), &mut over).await {
        Either::Left((Ok(connected), _)) => connected,
        Either::Left((Err(error), _)) => return failed(error),
        Either::Right(_) => return silent(),
    };
    // The name is made here, of letters and digits.
    let command = format!("LISTEN {channel}");
    let mut listening = Some(Box::pin(client.batch_execute(&command)));
    poll_fn(|context| {
        // Messages are what drives the connection, also for the command.
        let polled = messages.poll_next_unpin(context);
        if let Some(command) = &mut listening
            && let Poll::Ready(done) = command.as_mut().poll(context)
        {
            listening = None;
            match done {
                Ok(()) => {
                    status.send_replace(Status::Listening);
                    if !is_first && let Some(state) = state.upgrade() {
                        lock(&state).wake_all();
                    }
                }
                Err(error) => return Poll::Ready(failed(error)),
            }
        }
        if listening.is_some() && over.poll_unpin(context).is_ready() {
            return Poll::Ready(silent());
        }
        match polled {
            Poll::Ready(Some(Ok(AsyncMessage::Notification(notification)))) => {
                if let Some(state) = state.upgrade() {
                    lock(&state).wake(notification.payload());
                }
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(Some(Ok(_))) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(failed(error)),
            Poll::Ready(None) => Poll::Ready(LISTEN.unsent("the server closed the connection")),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

impl State {
    /// One signal is as good as many: if one is there already, that is enough.
    fn wake(&self, payload: &str) {
        for (_, sender) in self.waiting.get(payload).into_iter().flatten() {
            let _ = sender.try_send(());
        }
    }

    fn wake_all(&self) {
        for payload in self.waiting.keys() {
            self.wake(payload);
        }
    }

    fn remove(&mut self, payload: &str, number: u64) {
        if let Some(waiting) = self.waiting.get_mut(payload) {
            waiting.retain(|(own, _)| *own != number);
            if waiting.is_empty() {
                self.waiting.remove(payload);
            }
        }
        if self.waiting.is_empty() {
            self.task = None;
            self.stop = None;
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The notifications of one subscription. Never ends by itself.
pub(crate) struct Notifications {
    state: Weak<Mutex<State>>,
    payload: String,
    number: u64,
    receiver: mpsc::Receiver<()>,
}

impl Stream for Notifications {
    type Item = ();

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<()>> {
        self.receiver.poll_recv(context)
    }
}

impl Drop for Notifications {
    fn drop(&mut self) {
        if let Some(state) = self.state.upgrade() {
            lock(&state).remove(&self.payload, self.number);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}
