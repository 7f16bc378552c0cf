//! Throwaway servers for the tests of this workspace, and a load for them.
//!
//! A server lives in a folder of its own. PostgreSQL talks over unix sockets there, and so needs no free
//! port; Redis is given one, since a cluster and Sentinel name their members by ports. A server ends when its handle is dropped, and also when the test process ends in any way at all: a watchdog
//! waits for that. What cannot be had makes a panic that says how to get it: a test that did not run must
//! not look like one that passed.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of tests may panic")]

mod load;
mod pgbouncer;
mod postgres;
mod process;
mod proxy;
mod redis;
mod redis_cluster;
mod redis_sentinel;
mod relay;

pub use load::Load;
pub use pgbouncer::{Pgbouncer, PoolMode};
pub use postgres::{Durability, Postgres};
pub use proxy::{Lose, Proxy};
pub use redis::{Flavor, Redis};
pub use redis_cluster::RedisCluster;
pub use redis_sentinel::RedisSentinels;
pub use relay::Relay;
