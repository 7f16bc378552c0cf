//! A subscription, on a connection of its own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;
use oncekey::Key;
use oncekey::store::{ErrorKind, Inbox, Listen, Listener, StoreError, Subscription, Watch};
use redis::aio::{PubSub, PubSubSink, PubSubStream};
use redis::{RedisError, RedisResult};
use tokio::time::timeout;

use crate::check::SILENT;
use crate::fault::Purpose;
use crate::link::Failed;
use crate::script::FULL_SCRIPTS;
use crate::store::RedisStore;

const WATCH: Purpose = Purpose::read("watch");
const CHECK: Purpose = Purpose::read("check that the store can listen");
/// How long a connection may be silent before it is asked whether it still is one.
const SILENCE: Duration = Duration::from_secs(10);
/// For how long a connection, a subscription or a sign of life is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

type Connect = dyn Fn() -> BoxFuture<'static, RedisResult<PubSub>> + Send + Sync;

/// How to connect, for a [`Channel`].
pub(crate) struct Connector(Arc<Connect>);

impl Connector {
    pub(crate) fn new(
        connect: impl Fn() -> BoxFuture<'static, RedisResult<PubSub>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(connect))
    }

    pub(crate) fn channel(self, name: &str) -> Channel {
        let subscriber = Subscriber { connect: self.0, channel: name.into() };
        let listener = Listener::new(subscriber.clone(), |task| drop(tokio::spawn(task)));
        Channel { subscriber, listener }
    }
}

/// What the store publishes on, and who listens to it here.
pub(crate) struct Channel {
    subscriber: Subscriber,
    listener: Listener,
}

impl Channel {
    /// Connects and subscribes once, to see whether it can.
    pub(crate) async fn check(&self) -> Result<(), StoreError> {
        self.subscriber.subscribe().await.map(drop).map_err(|error| {
            let is_denied = error.kind() == ErrorKind::Misconfigured;
            if is_denied { CHECK.error(error.kind(), SILENT) } else { error }
        })
    }
}

#[derive(Clone)]
struct Subscriber {
    connect: Arc<Connect>,
    channel: Arc<str>,
}

impl Subscriber {
    async fn subscribe(&self) -> Result<(PubSubSink, PubSubStream), StoreError> {
        let subscribed = timeout(PATIENCE, async {
            let (mut sink, stream) = (self.connect)().await?.split();
            sink.subscribe(&*self.channel).await?;
            Ok((sink, stream))
        });
        subscribed.await.map_err(|_| silent())?.map_err(failed)
    }
}

#[async_trait]
impl Listen for Subscriber {
    async fn listen(&self, inbox: &Inbox) -> StoreError {
        let (mut sink, mut stream) = match self.subscribe().await {
            Ok(subscribed) => subscribed,
            Err(error) => return error,
        };
        inbox.listening();
        loop {
            match timeout(SILENCE, stream.next()).await {
                Ok(Some(message)) => inbox.notify(message.get_payload_bytes()),
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
}

fn failed(error: RedisError) -> StoreError {
    WATCH.failed(Failed::Command(error), false)
}

fn silent() -> StoreError {
    WATCH.error(ErrorKind::Timeout, "the server is silent")
}

#[async_trait]
impl Watch for RedisStore {
    async fn subscribe(&self, key: &Key) -> Result<Subscription, StoreError> {
        let shared = &*self.shared;
        shared.server().await?;
        let Some(Channel { listener, .. }) = &shared.listening else {
            let message = "the store does not listen; set it up with `listen`";
            return Err(WATCH.error(ErrorKind::Misconfigured, message));
        };
        let name = shared.names.name(key);
        // First it listens, then it asks to be told: what happens in between is not missed.
        let subscription = listener.subscribe(&name[..]).await?;
        shared.ask(WATCH, &FULL_SCRIPTS.watch, &name, &[], false).await?;
        Ok(subscription)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").finish_non_exhaustive()
    }
}
