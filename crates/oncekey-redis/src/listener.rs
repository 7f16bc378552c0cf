//! A subscription, on a connection of its own that is there while somebody waits.

use std::collections::HashMap;
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{BoxFuture, Either, select};
use futures::{Stream, StreamExt};
use oncekey::Key;
use oncekey::store::{ErrorKind, StoreError, Subscription, Watch};
use redis::aio::{PubSub, PubSubSink, PubSubStream};
use redis::{RedisError, RedisResult};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::check::SILENT;
use crate::fault::Purpose;
use crate::link::Failed;
use crate::script::FULL_SCRIPTS;
use crate::store::RedisStore;

const WATCH: Purpose = Purpose::read("watch");
const CHECK: Purpose = Purpose::read("check that the store can listen");
/// Between two tries to connect while somebody waits.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a connection may be silent before it is asked whether it still is one.
const SILENCE: Duration = Duration::from_secs(10);
/// For how long a connection, a subscription or a sign of life is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

type Connect = dyn Fn() -> BoxFuture<'static, RedisResult<PubSub>> + Send + Sync;

/// Hands on what is published on one channel.
pub(crate) struct Listener {
    connect: Arc<Connect>,
    channel: OnceLock<String>,
    state: Arc<Mutex<State>>,
}

/// Who waits, and the task that listens for them.
#[derive(Default)]
struct State {
    waiting: HashMap<Vec<u8>, Vec<(u64, mpsc::Sender<()>)>>,
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
    pub(crate) fn new(
        connect: impl Fn() -> BoxFuture<'static, RedisResult<PubSub>> + Send + Sync + 'static,
    ) -> Self {
        Self { connect: Arc::new(connect), channel: OnceLock::new(), state: Arc::default() }
    }

    pub(crate) fn set_channel(&self, channel: &str) {
        let _ = self.channel.set(channel.to_owned());
    }

    /// What is published about `name`, from now on.
    async fn subscribe(&self, name: &[u8]) -> Result<Notifications, StoreError> {
        let (sender, receiver) = mpsc::channel(1);
        let (notifications, mut status) = {
            let mut state = lock(&self.state);
            state.last_number += 1;
            let number = state.last_number;
            state.waiting.entry(name.to_vec()).or_default().push((number, sender));
            let status = match &state.task {
                // A task that is gone with its runtime listens no more, whatever it last said.
                Some(status) if status.has_changed().is_ok() => status.clone(),
                _ => self.start(&mut state),
            };
            let state = Arc::downgrade(&self.state);
            (Notifications { state, name: name.to_vec(), number, receiver }, status)
        };
        loop {
            match status.borrow_and_update().clone() {
                Status::Listening => return Ok(notifications),
                Status::Failed(error) => return Err(error),
                Status::Connecting => {}
            }
            if status.changed().await.is_err() {
                let message = "the task that listens has ended";
                return Err(WATCH.error(ErrorKind::Unavailable, message));
            }
        }
    }

    /// Connects and subscribes once, to see whether it can.
    pub(crate) async fn check(&self) -> Result<(), StoreError> {
        let channel = self.channel.get().map_or("", String::as_str);
        connect_to(&self.connect, channel).await.map(drop).map_err(|error| {
            let is_denied = error.kind() == ErrorKind::Misconfigured;
            if is_denied { CHECK.error(error.kind(), SILENT) } else { error }
        })
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
/// is lost, so that who waits looks, and when it is there again, since what was published meanwhile is lost.
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
        status.send_replace(Status::Failed(error));
        match state.upgrade() {
            Some(state) => lock(&state).wake_all(),
            None => return,
        }
        if timeout(PAUSE, stopped.recv()).await.is_ok() {
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
    let (mut sink, mut stream) = match connect_to(connect, channel).await {
        Ok(subscribed) => subscribed,
        Err(error) => return error,
    };
    status.send_replace(Status::Listening);
    if !is_first && let Some(state) = state.upgrade() {
        lock(&state).wake_all();
    }
    loop {
        match timeout(SILENCE, stream.next()).await {
            Ok(Some(message)) => {
                if let Some(state) = state.upgrade() {
                    lock(&state).wake(message.get_payload_bytes());
                }
            }
            Ok(None) => {
                return WATCH.error(ErrorKind::Unavailable, "the server closed the connection");
            }
            Err(_) => match timeout(PATIENCE, sink.ping::<redis::Value>()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return failed(error),
                Err(_) => return silent(),
            },
        }
    }
}

async fn connect_to(
    connect: &Arc<Connect>,
    channel: &str,
) -> Result<(PubSubSink, PubSubStream), StoreError> {
    let subscribed = timeout(PATIENCE, async {
        let (mut sink, stream) = connect().await?.split();
        sink.subscribe(channel).await?;
        Ok((sink, stream))
    });
    subscribed.await.map_err(|_| silent())?.map_err(failed)
}

fn failed(error: RedisError) -> StoreError {
    WATCH.failed(Failed::Command(error), false)
}

fn silent() -> StoreError {
    WATCH.error(ErrorKind::Timeout, "the server is silent")
}

impl State {
    /// One signal is as good as many: if one is there already, that is enough.
    fn wake(&self, name: &[u8]) {
        for (_, sender) in self.waiting.get(name).into_iter().flatten() {
            let _ = sender.try_send(());
        }
    }

    fn wake_all(&self) {
        for name in self.waiting.keys() {
            self.wake(name);
        }
    }

    fn remove(&mut self, name: &[u8], number: u64) {
        if let Some(waiting) = self.waiting.get_mut(name) {
            waiting.retain(|(own, _)| *own != number);
            if waiting.is_empty() {
                self.waiting.remove(name);
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
struct Notifications {
    state: Weak<Mutex<State>>,
    name: Vec<u8>,
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
            lock(&state).remove(&self.name, self.number);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

#[async_trait]
impl Watch for RedisStore {
    async fn subscribe(&self, key: &Key) -> Result<Subscription, StoreError> {
        let shared = &*self.shared;
        shared.server().await?;
        let Some(listener) = &shared.listener else {
            let message = "the store does not listen; set it up with `listen`";
            return Err(WATCH.error(ErrorKind::Misconfigured, message));
        };
        let name = shared.names.name(key);
        // First it listens, then it asks to be told: what happens in between is not missed.
        let notifications = listener.subscribe(&name).await?;
        shared.ask(WATCH, &FULL_SCRIPTS.watch, &name, &[], false).await?;
        Ok(Subscription::new(notifications))
    }
}
