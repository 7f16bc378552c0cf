//! Fixtures over several servers: a cluster, and a primary behind Sentinel.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use oncekey::Key;
use oncekey::store::Store;
use oncekey_conformance::{Capabilities, Capability, Damage, Fixture};
use oncekey_redis::redis::cluster::ClusterClient;
use oncekey_redis::redis::{self};
use oncekey_redis::{RedisStore, RedisStoreBuilder, SentinelConnection};
use oncekey_testkit::{RedisCluster, RedisSentinels};

use super::{block_on, damaged, name, new_prefix};

pub fn cluster() -> &'static RedisCluster {
    static CLUSTER: LazyLock<RedisCluster> = LazyLock::new(RedisCluster::start);
    &CLUSTER
}

pub async fn cluster_store(cluster: &RedisCluster, prefix: &str) -> RedisStore {
    let urls = cluster.urls();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let builder = RedisStoreBuilder::connect_cluster(&urls).await.unwrap();
    builder.key_prefix(prefix).build().unwrap()
}

pub fn sentinel_connection(sentinels: &RedisSentinels) -> SentinelConnection {
    let urls = sentinels.urls();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    SentinelConnection::new(&urls, RedisSentinels::NAME, None).unwrap()
}

pub fn sentinel_store(sentinels: &RedisSentinels, prefix: &str) -> RedisStore {
    let connection = sentinel_connection(sentinels);
    RedisStoreBuilder::sentinel(connection).key_prefix(prefix).build().unwrap()
}

/// The slot of a name without braces.
pub fn slot(name: &[u8]) -> u16 {
    let crc = name.iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
        })
    });
    crc % 16_384
}

pub struct ClusterFixture {
    pub cluster: &'static RedisCluster,
    pub prefix: String,
}

#[async_trait]
impl Fixture for ClusterFixture {
    async fn create() -> Self {
        Self { cluster: cluster(), prefix: new_prefix() }
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(cluster_store(self.cluster, &self.prefix).await)
    }

    async fn advance(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::real_time()
            .with(Capability::Damage)
            .with(Capability::Watch)
            .with(Capability::Inspect)
    }

    async fn damage(&self, key: &Key, damage: Damage) {
        let client = ClusterClient::new(self.cluster.urls()).unwrap();
        let mut connection = client.get_async_connection().await.unwrap();
        let name = name(&self.prefix, key);
        let value = redis::cmd("GET").arg(&name).query_async(&mut connection).await.unwrap();
        let mut set = redis::cmd("SET");
        set.arg(&name).arg(damaged(value, damage)).arg("XX").arg("KEEPTTL");
        set.exec_async(&mut connection).await.unwrap();
    }

    fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
        block_on(future)
    }
}

pub struct SentinelFixture {
    pub sentinels: RedisSentinels,
    pub prefix: String,
}

#[async_trait]
impl Fixture for SentinelFixture {
    async fn create() -> Self {
        Self { sentinels: RedisSentinels::start_with(&["--save", ""]), prefix: new_prefix() }
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(sentinel_store(&self.sentinels, &self.prefix))
    }

    async fn advance(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::real_time()
            .with(Capability::Damage)
            .with(Capability::Watch)
            .with(Capability::Inspect)
    }

    async fn damage(&self, key: &Key, damage: Damage) {
        let mut connection = super::connection(&self.sentinels.primary().url()).await;
        let name = name(&self.prefix, key);
        let value = redis::cmd("GET").arg(&name).query_async(&mut connection).await.unwrap();
        let mut set = redis::cmd("SET");
        set.arg(&name).arg(damaged(value, damage)).arg("XX").arg("KEEPTTL");
        set.exec_async(&mut connection).await.unwrap();
    }

    fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
        block_on(future)
    }
}
