//! The fixture of the conformance suite: a schema of its own on one server for the whole process.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use oncekey::Key;
use oncekey::store::Store;
use oncekey_conformance::{Capabilities, Capability, Damage, Fixture};
use oncekey_postgres::PostgresStore;
use oncekey_postgres::deadpool_postgres::{Manager, Object, Pool};
use oncekey_postgres::tokio_postgres::{Config, NoTls};
use oncekey_testkit::Postgres;
use tokio::runtime::Runtime;

/// The server of this process. It ends with it.
pub fn server() -> &'static Postgres {
    static SERVER: LazyLock<Postgres> = LazyLock::new(Postgres::start);
    &SERVER
}

pub fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
    &RUNTIME
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    runtime().block_on(future)
}

pub fn pool(config: &Config, size: usize) -> Pool {
    Pool::builder(Manager::new(config.clone(), NoTls)).max_size(size).build().unwrap()
}

pub fn new_schema() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("Test_{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

pub async fn connection(config: &Config) -> Object {
    pool(config, 1).get().await.unwrap()
}

/// Time is the server's own. What is done behind the store's back is done on `direct`.
pub struct PostgresFixture {
    pub config: Config,
    pub direct: Config,
    pub schema: String,
    pub pool_size: usize,
    /// Who listens, listens on the server itself.
    pub watch: bool,
    pub batching: bool,
    pub prepared_statements: bool,
    /// A server that nobody else uses, if this one is to be restarted.
    pub own: Option<Postgres>,
}

impl PostgresFixture {
    pub async fn on(config: Config, direct: Config, pool_size: usize) -> Self {
        let schema = new_schema();
        let fixture = Self {
            config,
            direct,
            schema,
            pool_size,
            watch: true,
            batching: true,
            prepared_statements: false,
            own: None,
        };
        fixture.store().migrate().await.unwrap();
        fixture
    }

    /// On a server that is there for this fixture alone.
    pub async fn alone() -> Self {
        let server = Postgres::start();
        let config: Config = server.connection_string().parse().unwrap();
        let fixture = Self::on(config.clone(), config, 4).await;
        Self { own: Some(server), ..fixture }
    }

    pub fn store(&self) -> PostgresStore {
        let pool = pool(&self.config, self.pool_size);
        let builder = PostgresStore::builder(pool)
            .schema(&self.schema)
            .batching(self.batching)
            .prepared_statements(self.prepared_statements);
        let builder = if self.watch { builder.listen(self.direct.clone(), NoTls) } else { builder };
        builder.build().unwrap()
    }
}

#[async_trait]
impl Fixture for PostgresFixture {
    async fn create() -> Self {
        let config: Config = server().connection_string().parse().unwrap();
        Self::on(config.clone(), config, 4).await
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
        self.own.as_ref().unwrap().crash();
    }

    /// As damaged pages would have it.
    async fn damage(&self, key: &Key, damage: Damage) {
        let change = match damage {
            Damage::FlipBit => "status = 'r' || status",
            Damage::Truncate => "fingerprint = substr(fingerprint, 1, 31)",
            Damage::NewerVersion => "format = 2",
            other => panic!("how is that done: {other:?}"),
        };
        let schema = &self.schema;
        let client = connection(&self.direct).await;
        let sql = format!("UPDATE \"{schema}\".oncekey SET {change} WHERE key = $1");
        let changed = client.execute(&sql, &[&key.as_bytes()]).await.unwrap();
        assert_eq!(changed, 1);
    }

    fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
        block_on(future)
    }
}
