//! The conformance suite on Redis: one test a rule.

mod redis_fixture;

use redis_fixture::RedisFixture;

oncekey_conformance::suite!(RedisFixture);
