//! The connection, whatever it is.

use std::any::Any;
use std::time::Duration;

use futures::future::BoxFuture;
use redis::aio::{ConnectionLike, ConnectionManager, MultiplexedConnection};
use redis::{Cmd, RedisError, RedisResult, ServerErrorKind, Value};

use crate::script::Script;

/// A connection that many tasks use at once.
pub(crate) trait Link: Send + Sync {
    /// Sends a command, and waits for its answer.
    fn send<'a>(&self, command: &'a Cmd) -> BoxFuture<'a, RedisResult<Value>>;

    /// The same, with others right behind it on the same connection: its answer, and that of the last. If
    /// any of those is refused, both are nil.
    fn send_with<'a>(
        &self,
        command: &'a Cmd,
        then: &'a [&'a Cmd],
    ) -> BoxFuture<'a, RedisResult<(Value, Value)>>;

    /// The connection itself.
    fn as_any(&self) -> &dyn Any;
}

impl<C> Link for C
where
    C: ConnectionLike + Clone + Send + Sync + 'static,
{
    fn send<'a>(&self, command: &'a Cmd) -> BoxFuture<'a, RedisResult<Value>> {
        let mut connection = self.clone();
        Box::pin(async move { command.query_async(&mut connection).await })
    }

    fn send_with<'a>(
        &self,
        command: &'a Cmd,
        then: &'a [&'a Cmd],
    ) -> BoxFuture<'a, RedisResult<(Value, Value)>> {
        let mut connection = self.clone();
        Box::pin(async move {
            let mut pipeline = redis::Pipeline::with_capacity(1 + then.len());
            pipeline.add_command(command.clone());
            for command in then {
                pipeline.add_command((*command).clone());
            }
            let result = pipeline.query_async(&mut connection).await;
            let answers: Vec<Value> = result.or_else(|error: RedisError| {
                match error.clone().into_server_errors() {
                    // An error of the pipeline as a whole hides the codes of its parts.
                    Some(errors) => match errors.first() {
                        Some((0, refused)) => Err(refused.clone().into()),
                        _ => Ok(Vec::new()),
                    },
                    None => Err(error),
                }
            })?;
            let mut answers = answers.into_iter();
            let first = answers.next().unwrap_or(Value::Nil);
            Ok((first, answers.next_back().unwrap_or(Value::Nil)))
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Whether the connection may send a command again by itself, so that an error of the second copy says
/// nothing of the first.
pub(crate) fn may_resend(link: &dyn Link) -> bool {
    let link = link.as_any();
    let sends_once = link.is::<MultiplexedConnection>() || link.is::<ConnectionManager>();
    #[cfg(feature = "sentinel")]
    let sends_once = sends_once || link.is::<crate::SentinelConnection>();
    !sends_once
}

/// How many replicas must have a write before it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Replicas {
    pub(crate) count: usize,
    pub(crate) timeout: Duration,
}

/// What went wrong with a command that writes.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The command was refused, or its answer did not come.
    Command(RedisError),
    /// It was applied, and not enough replicas said in time that they have it.
    TooFewReplicas,
}

impl From<RedisError> for Failed {
    fn from(error: RedisError) -> Self {
        Self::Command(error)
    }
}

/// Sends a command that writes the key `name`, or answers by what is there. With `replicas`, its answer counts
/// when they have that.
///
/// `WAIT` is about what was written on the connection on which it comes. So it comes right behind the
/// command, on the same one, and others who use that wait behind it. What others wrote before is waited for
/// since the key is touched in between. While its slot moves, each command for it has to ask, and the driver
/// asks for the first.
pub(crate) async fn write(
    link: &dyn Link,
    command: &Cmd,
    name: &[u8],
    replicas: Option<Replicas>,
) -> Result<Value, Failed> {
    match replicas {
        // Boxed, as most do without: the future of a call stays small.
        Some(replicas) => Box::pin(write_and_wait(link, command, name, replicas)).await,
        None => Ok(link.send(command).await?),
    }
}

async fn write_and_wait(
    link: &dyn Link,
    command: &Cmd,
    name: &[u8],
    replicas: Replicas,
) -> Result<Value, Failed> {
    let Replicas { count, timeout } = replicas;
    let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
    let (asking, touch, wait) = (redis::cmd("ASKING"), touch(name), wait(count, millis));
    let then = [&asking, &touch, &wait];
    let then = if is_of_a_cluster(link) { &then[..] } else { &then[1..] };
    let (answer, reached) = link.send_with(command, then).await?;
    match reached {
        Value::Int(reached) if usize::try_from(reached).is_ok_and(|reached| reached >= count) => {
            Ok(answer)
        }
        _ => Err(Failed::TooFewReplicas),
    }
}

pub(crate) fn is_of_a_cluster(link: &dyn Link) -> bool {
    #[cfg(feature = "cluster")]
    return link.as_any().is::<redis::cluster_async::ClusterConnection>();
    #[cfg(not(feature = "cluster"))]
    {
        let _ = link;
        false
    }
}

/// A write that changes nothing: it sets the key's expiry to what it is.
fn touch(name: &[u8]) -> Cmd {
    const TOUCH: &str = "local expiry = redis.call('PEXPIRETIME', KEYS[1]) \
                         if expiry > 0 then redis.call('PEXPIREAT', KEYS[1], expiry) end";
    let mut touch = redis::cmd("EVAL");
    touch.arg(TOUCH).arg(1).arg(name);
    touch
}

pub(crate) fn wait(count: usize, millis: u64) -> Cmd {
    let mut wait = redis::cmd("WAIT");
    wait.arg(count).arg(millis);
    wait
}

/// Runs a script by its digest, and by its text where the server does not know it (any more).
pub(crate) async fn run(
    link: &dyn Link,
    script: &Script,
    name: &[u8],
    arguments: &[&[u8]],
    replicas: Option<Replicas>,
) -> Result<Value, Failed> {
    match write(link, &script.by_digest(name, arguments), name, replicas).await {
        Err(Failed::Command(error)) if is_unknown_script(&error) => {
            Box::pin(async {
                let command = script.by_text(name, arguments);
                write(link, &command, name, replicas).await
            })
            .await
        }
        result => result,
    }
}

pub(crate) fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript)
        || error.code() == Some("NOSCRIPT")
}
