//! `LISTEN`, on a connection of its own.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use deadpool_postgres::tokio_postgres::{AsyncMessage, Client, Config, Error, Socket};
use futures::StreamExt;
use futures::future::{BoxFuture, Either, select};
use futures::stream::BoxStream;
use oncekey::store::{ErrorKind, Inbox, Listen, Listener, StoreError};

use crate::driver::Failed;
use crate::sql::fault::Purpose;
use crate::sql::sleep;

const LISTEN: Purpose = Purpose::read("watch");
/// How often the connection is asked whether it still is one.
const PULSE: Duration = Duration::from_secs(10);
/// For how long a connection or an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

type Messages = BoxStream<'static, Result<AsyncMessage, Error>>;
type Connect = dyn Fn() -> BoxFuture<'static, Result<(Client, Messages), Error>> + Send + Sync;

/// How to connect, for a [`Listener`].
pub(crate) struct Connector(Box<Connect>);

impl Connector {
    pub(crate) fn new<T>(config: Config, tls: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        Self(Box::new(move || {
            let (config, tls) = (config.clone(), tls.clone());
            Box::pin(async move {
                let (client, mut connection) = config.connect(tls).await?;
                let messages =
                    futures::stream::poll_fn(move |context| connection.poll_message(context));
                Ok((client, messages.boxed()))
            })
        }))
    }

    /// Listens on `channel`, a name of letters, digits and underscores.
    pub(crate) fn listener(self, channel: String) -> Listener {
        Listener::new(Channel { connect: self.0, name: channel }, |task| drop(tokio::spawn(task)))
    }
}

struct Channel {
    connect: Box<Connect>,
    name: String,
}

#[async_trait]
impl Listen for Channel {
    async fn listen(&self, inbox: &Inbox) -> StoreError {
        let Err(error) = self.listen_until_it_fails(inbox).await;
        error
    }
}

impl Channel {
    async fn listen_until_it_fails(&self, inbox: &Inbox) -> Result<Infallible, StoreError> {
        let connected = in_time((self.connect)()).await?;
        let (client, mut messages) = connected.map_err(failed)?;
        let command = format!("LISTEN {}", self.name);
        loop {
            let answer = in_time(client.batch_execute(&command));
            hand_on(&mut messages, inbox, answer).await??.map_err(failed)?;
            inbox.listening();
            // Once more is as good as once, and a sign of life.
            hand_on(&mut messages, inbox, sleep(PULSE)).await?;
        }
    }
}

/// Hands on what is notified, until something else is done. To take messages is what drives the
/// connection, also for a command.
async fn hand_on<T>(
    messages: &mut Messages,
    inbox: &Inbox,
    until: impl Future<Output = T>,
) -> Result<T, StoreError> {
    let mut until = pin!(until);
    loop {
        match select(messages.next(), until.as_mut()).await {
            Either::Left((Some(Ok(AsyncMessage::Notification(notification))), _)) => {
                inbox.notify(notification.payload().as_bytes());
            }
            Either::Left((Some(Ok(_)), _)) => {}
            Either::Left((Some(Err(error)), _)) => return Err(failed(error)),
            Either::Left((None, _)) => {
                return Err(LISTEN.unsent("the server closed the connection"));
            }
            Either::Right((done, _)) => return Ok(done),
        }
    }
}

async fn in_time<T>(answer: impl Future<Output = T>) -> Result<T, StoreError> {
    match select(pin!(answer), sleep(PATIENCE)).await {
        Either::Left((answer, _)) => Ok(answer),
        Either::Right(_) => Err(silent()),
    }
}

fn failed(error: Error) -> StoreError {
    Failed::from(error).into_error(LISTEN)
}

fn silent() -> StoreError {
    StoreError::new(ErrorKind::Timeout, LISTEN.operation()).with_message("the server is silent")
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}
