//! What benches on Redis and Valkey compare with, and how they run it: by many tasks on one connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use oncekey::Key;
use oncekey_redis::redis::aio::ConnectionLike;
use oncekey_redis::redis::{self, Script, Value};
use tokio::runtime::Runtime;

/// As long as the records of the store.
const IN_PROGRESS: [u8; 88] = [b'p'; 88];
const COMPLETED: [u8; 152] = [b'c'; 152];
const TTL: u64 = 86_400_000;

/// A run for a key, of whatever kind.
pub(crate) trait Subject<K>: Clone + Send + Sync + 'static {
    /// Runs once.
    fn run(&self, key: &K) -> impl Future<Output = ()> + Send;
}

/// What a bare operation calls its key.
pub(crate) trait Name {
    /// As it is on the server.
    fn name(&self) -> &[u8];
}

impl Name for Key {
    fn name(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Name for String {
    fn name(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// `SET NX GET PX`, then `SET XX PX`.
#[derive(Debug, Clone)]
pub(crate) struct Commands<C>(pub(crate) C);

impl<C, K> Subject<K> for Commands<C>
where
    C: ConnectionLike + Clone + Send + Sync + 'static,
    K: Name + Sync,
{
    async fn run(&self, key: &K) {
        let mut connection = self.0.clone();
        let mut set = redis::cmd("SET");
        set.arg(key.name()).arg(&IN_PROGRESS).arg("NX").arg("GET").arg("PX").arg(TTL);
        assert_eq!(set.query_async::<Value>(&mut connection).await.unwrap(), Value::Nil);
        let mut set = redis::cmd("SET");
        set.arg(key.name()).arg(&COMPLETED).arg("XX").arg("PX").arg(TTL);
        assert_eq!(set.query_async::<Value>(&mut connection).await.unwrap(), Value::Okay);
    }
}

/// The same two commands, each in a script.
#[derive(Debug, Clone)]
pub(crate) struct Scripts<C> {
    connection: C,
    claim: Arc<Script>,
    complete: Arc<Script>,
}

impl<C> Scripts<C> {
    /// On that connection.
    pub(crate) fn new(connection: C) -> Self {
        let script = |how: &str| {
            let text = format!(
                "return redis.call('SET', KEYS[1], ARGV[1], {how}, 'PX', ARGV[2]) and 1 or 0"
            );
            Arc::new(Script::new(&text))
        };
        Self { connection, claim: script("'NX'"), complete: script("'XX'") }
    }
}

impl<C, K> Subject<K> for Scripts<C>
where
    C: ConnectionLike + Clone + Send + Sync + 'static,
    K: Name + Sync,
{
    async fn run(&self, key: &K) {
        let mut connection = self.connection.clone();
        for (script, value) in [(&self.claim, &IN_PROGRESS[..]), (&self.complete, &COMPLETED)] {
            let mut call = script.key(key.name());
            let done: i64 = call.arg(value).arg(TTL).invoke_async(&mut connection).await.unwrap();
            assert_eq!(done, 1);
        }
    }
}

/// How many runs are measured at once: for every subject as many, since tasks that begin and end together
/// cost more than tasks that are under way.
pub(crate) const fn batch(tasks: u64) -> u64 {
    if tasks == 1 { 1_024 } else { 16_384 }
}

/// How long so many batches take, by so many tasks.
pub(crate) fn by_tasks<K: Send + 'static, S: Subject<K>>(
    runtime: &Runtime,
    subject: &S,
    tasks: u64,
    batches: u64,
    key: &impl Fn() -> K,
) -> Duration {
    let runs = batches * batch(tasks) / tasks;
    let keys: Vec<Vec<_>> = (0..tasks).map(|_| (0..runs).map(|_| key()).collect()).collect();
    let start = Instant::now();
    let spawn = |keys: Vec<K>| {
        let subject = subject.clone();
        runtime.spawn(async move {
            for key in keys {
                subject.run(&key).await;
            }
        })
    };
    let workers: Vec<_> = keys.into_iter().map(spawn).collect();
    runtime.block_on(async {
        for worker in workers {
            worker.await.unwrap();
        }
    });
    start.elapsed()
}
