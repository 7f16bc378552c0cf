//! Known ways to get a store in Redis wrong, one a test, by the numbers they are known by. Those that belong
//! to another story are there: `full.rs` (2, 3), `durability.rs` (4, 14), `replicas.rs` (5), `start.rs` (13) and
//! `listener.rs` (15).
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod redis_fixture;

use std::time::Duration;

use oncekey::store::{
    Abandon, Claim, ClaimOutcome, ErrorKind, Evict, Expected, Fenced, Known, OnInterrupted, Status,
    Store,
};
use oncekey_redis::redis::{self, aio::MultiplexedConnection};
use oncekey_redis::{RedisStore, RedisStoreBuilder};
use oncekey_testkit::{Flavor, Redis, Relay};
use tokio::time::{sleep, timeout};

use redis_fixture::calls::{
    LONG, acquire, acquire_as, claim, complete, insist, key, release, renew,
};
use redis_fixture::records::{replace, ttl, value, with_token};
use redis_fixture::{RedisFixture, block_on, connection, name, new_prefix, server};

const NOTHING_KEPT: &[&str] = &["--save", "", "--appendonly", "no"];

fn on(server: &Redis) -> RedisStore {
    RedisStore::connect(&server.url()).unwrap()
}

async fn set_expiry(fixture: &RedisFixture, id: &str, command: &str, millis: i64) {
    let mut connection: MultiplexedConnection = connection(&fixture.direct).await;
    let mut expire = redis::cmd(command);
    expire.arg(name(&fixture.prefix, &key(id))).arg(millis);
    let changed: i64 = expire.query_async(&mut connection).await.unwrap();
    assert_eq!(changed, 1);
}

/// 1: a token must go up when the record is gone, by its time, by an eviction, or with all the data.
#[test]
fn trap_01_tokens_go_up_when_the_record_is_gone() {
    block_on(async {
        let server = Redis::start_with(Flavor::Redis, NOTHING_KEPT);
        let mut last = 0;
        for round in 0..30 {
            let store = on(&server);
            // Once by the script, and then by the estimate of the clock that it gave.
            for _ in 0..3 {
                let brief = Claim { hold: Duration::ZERO, ..claim() };
                let grant = acquire_as(&store, &key("a"), &brief).await;
                assert!(grant.token.get() > last, "{} is not above {last}", grant.token);
                last = grant.token.get();
                match round % 3 {
                    0 => {
                        let known = Known::NotStarted { hold: Duration::ZERO };
                        let ended = store.abandon(&key("a"), &Abandon { grant, known }).await;
                        assert_eq!(ended.unwrap(), Fenced::Applied);
                    }
                    1 => {
                        let evict = Evict { expected: Expected::Any, force: true };
                        let ended = store.evict(&key("a"), &evict).await.unwrap();
                        assert_eq!(ended, Fenced::Applied);
                    }
                    _ => {
                        assert_eq!(server.ask(&["FLUSHALL"]), "OK");
                    }
                }
                assert_eq!(store.get(&key("a")).await.unwrap(), None);
            }
        }
    });
}

/// 6: a server that demands replicas refuses before it writes.
#[test]
fn trap_06_a_server_without_its_replicas_refuses() {
    block_on(async {
        let server = Redis::start();
        let store = on(&server);
        let first = acquire(&store, &key("a")).await;
        server.ask(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
        for (id, attempt) in [("a", claim()), ("b", claim())] {
            let error = store.claim(&key(id), &attempt).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        }
        server.ask(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
        assert_eq!(store.get(&key("b")).await.unwrap(), None);
        let ended = store.complete(&key("a"), &complete(first, "done")).await.unwrap();
        assert_eq!(ended, Fenced::Applied);
    });
}

/// 7: whoever sends again, the driver or a proxy, gets the answer of the first time.
#[test]
fn trap_07_every_command_may_be_sent_twice() {
    block_on(async {
        for scripts_only in [false, true] {
            let fixture = RedisFixture { scripts_only, ..RedisFixture::on(server()) };
            let store = fixture.store();
            // So that the clock is known.
            acquire(&store, &key("first")).await;
            let claim = claim();
            let grant = acquire_as(&store, &key("a"), &claim).await;
            assert_eq!(acquire_as(&store, &key("a"), &claim).await, grant);
            let done = complete(grant, "done");
            for _ in 0..2 {
                assert_eq!(store.complete(&key("a"), &done).await.unwrap(), Fenced::Applied);
            }
            let grant = acquire(&store, &key("b")).await;
            for _ in 0..2 {
                let ended = store.abandon(&key("b"), &release(grant)).await.unwrap();
                assert_eq!(ended, Fenced::Applied);
            }
        }
    });
}

/// 8: a call that was dropped may arrive later; its attempt knows its own grant.
#[test]
fn trap_08_a_dropped_call_is_recognised() {
    block_on(async {
        let server = Redis::start();
        let relay = Relay::start(server.port());
        let builder = RedisStoreBuilder::connect(&relay.url()).unwrap();
        let store = builder.build().unwrap();
        acquire(&store, &key("first")).await;
        relay.delay(Duration::from_millis(200));
        let claim = claim();
        let brief = Duration::from_millis(50);
        assert!(timeout(brief, store.claim(&key("a"), &claim)).await.is_err());
        relay.delay(Duration::ZERO);
        let there = on(&server);
        let seen = insist(async || {
            let seen = there.get(&key("a")).await?;
            seen.ok_or_else(|| oncekey::store::StoreError::new(ErrorKind::Unavailable, "see it"))
        });
        let seen = seen.await;
        assert_eq!(seen.record.attempt, claim.attempt);
        let grant = acquire_as(&store, &key("a"), &claim).await;
        assert_eq!(grant.token, seen.record.token);
    });
}

/// 9: the server forgets its scripts before each of 10,000 calls.
#[test]
fn trap_09_scripts_may_be_forgotten_at_any_time() {
    block_on(async {
        let server = Redis::start();
        let builder = RedisStoreBuilder::connect(&server.url()).unwrap();
        let store = builder.scripts_only(true).build().unwrap();
        let mut flush = connection(&server.url()).await;
        let mut calls = 0;
        while calls < 10_000 {
            let key = key(calls);
            let mut forget = async || {
                calls += 1;
                let mut command = redis::cmd("SCRIPT");
                command.arg("FLUSH").exec_async(&mut flush).await.unwrap();
            };
            forget().await;
            let grant = acquire(&store, &key).await;
            forget().await;
            assert_eq!(store.renew(&key, &renew(grant, LONG)).await.unwrap(), Fenced::Applied);
            forget().await;
            let ended = store.complete(&key, &complete(grant, "done")).await.unwrap();
            assert_eq!(ended, Fenced::Applied);
            forget().await;
            let replay = store.claim(&key, &claim()).await.unwrap();
            assert_eq!(replay, ClaimOutcome::Replay(Some("done".into())));
        }
        let known = server.info("number_of_cached_scripts").unwrap();
        assert!(known.parse::<usize>().unwrap() <= 2, "{known} scripts were known in the end");
    });
}

/// 10: braces in a key do not choose its slot.
#[test]
fn trap_10_braces_choose_no_slot() {
    block_on(async {
        let server = Redis::start();
        let prefix = new_prefix();
        let builder = RedisStoreBuilder::connect(&server.url()).unwrap();
        let store = builder.key_prefix(&prefix).build().unwrap();
        for id in 0..50 {
            acquire(&store, &key(format!("{{same}}{id}"))).await;
        }
        let mut found: Vec<Vec<u8>> = redis::cmd("KEYS")
            .arg("*")
            .query_async(&mut connection(&server.url()).await)
            .await
            .unwrap();
        found.retain(|name| !name.contains(&b'{') && !name.contains(&b'}'));
        found.dedup();
        assert_eq!(found.len(), 50);
    });
}

/// 11: a lease that lapsed is remembered, with its fingerprint and token.
#[test]
fn trap_11_a_lapsed_lease_is_remembered() {
    block_on(async {
        let store = RedisFixture::on(server()).store();
        let brief = Claim { lease: Duration::from_millis(50), ..claim() };
        let first = acquire_as(&store, &key("a"), &brief).await;
        sleep(Duration::from_millis(80)).await;
        let refuse = Claim { on_interrupted: OnInterrupted::Refuse, ..claim() };
        let outcome = store.claim(&key("a"), &refuse).await.unwrap();
        assert_eq!(outcome, ClaimOutcome::Interrupted);
        let other = Claim { fingerprint: oncekey::Fingerprint::of("another"), ..claim() };
        let outcome = store.claim(&key("a"), &other).await.unwrap();
        assert_eq!(outcome, ClaimOutcome::Mismatch);
        let outcome = store.claim(&key("a"), &claim()).await.unwrap();
        let ClaimOutcome::Acquired { previous: Some(previous), .. } = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(previous.token, first.token);
    });
}

/// 12: the server's clock steps back by an hour, as its records see it: a lease is not shortened, and
/// tokens go up.
#[test]
fn trap_12_a_clock_that_steps_back_shortens_nothing() {
    block_on(async {
        let fixture = RedisFixture::on(server());
        let store = fixture.store();
        let grant = acquire(&store, &key("a")).await;
        let later = ttl(&fixture, "a").await + 3_600_000;
        set_expiry(&fixture, "a", "PEXPIRE", later).await;
        let before = store.get(&key("a")).await.unwrap().unwrap();
        let brief = renew(grant, Duration::from_secs(1));
        assert_eq!(store.renew(&key("a"), &brief).await.unwrap(), Fenced::Applied);
        let after = store.get(&key("a")).await.unwrap().unwrap();
        assert_eq!(after.record, before.record);
        assert!(matches!(after.record.status, Status::InProgress { .. }));

        // A token of the future: the next is one more.
        let future = grant.token.get() + 3_600_000_000;
        replace(&fixture, "a", &with_token(value(&fixture, "a").await, future)).await;
        let seen = store.get(&key("a")).await.unwrap().unwrap();
        assert_eq!(seen.record.token.get(), future);
        let own = seen.record.grant();
        assert_eq!(store.abandon(&key("a"), &release(own)).await.unwrap(), Fenced::Applied);
        assert_eq!(acquire(&store, &key("a")).await.token.get(), future + 1);
    });
}
