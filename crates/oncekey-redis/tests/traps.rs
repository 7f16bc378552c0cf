//! Known ways to get a store in Redis wrong, one a test. Numbers 4 and 14 are in `durability.rs`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod redis_fixture;

use std::time::Duration;

use futures::future::join_all;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    Abandon, Claim, ClaimOutcome, Complete, Completion, ErrorKind, Evict, Expected, Fenced, Known,
    OnInterrupted, Progress, Renew, State, Status, Store, StoredValue,
};
use oncekey_redis::redis::{self, aio::MultiplexedConnection};
use oncekey_redis::{RedisStore, RedisStoreBuilder};
use oncekey_testkit::{Flavor, Redis, Relay};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use redis_fixture::calls::{
    LONG, acquire, acquire_as, claim, complete, completion, granted, insist, key, release, renew,
};
use redis_fixture::{RedisFixture, block_on, connection, count, name, new_prefix, server};

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

async fn ttl(fixture: &RedisFixture, id: &str) -> i64 {
    let mut connection = connection(&fixture.direct).await;
    let mut ttl = redis::cmd("PTTL");
    ttl.arg(name(&fixture.prefix, &key(id))).query_async(&mut connection).await.unwrap()
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

/// 2: a server that may evict a record runs an operation twice. The control shows that it does.
#[test]
fn trap_02_an_evicting_server_is_refused() {
    block_on(async {
        let server = Redis::start();
        for policy in ["allkeys-lru", "allkeys-random", "volatile-lru", "volatile-ttl"] {
            server.ask(&["CONFIG", "SET", "maxmemory-policy", policy]);
            let error = on(&server).claim(&key("a"), &claim()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misconfigured);
            assert!(error.to_string().contains("noeviction"), "{error}");
        }
        let careless = || {
            let builder = RedisStoreBuilder::connect(&server.url()).unwrap();
            builder.allow_eviction().build().unwrap()
        };
        let store = careless();
        let first = acquire(&store, &key("a")).await;
        server.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]);
        server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
        // Whatever is written next, something has to go.
        let _ = store.claim(&key("b"), &claim()).await;
        server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
        let second = acquire(&careless(), &key("a")).await;
        assert_ne!(first.attempt, second.attempt, "two owners at once");
    });
}

/// 3: a server that is full takes no new key, and still records that an operation is done.
#[test]
fn trap_03_a_full_server_records_what_was_done() {
    block_on(async {
        let server = Redis::start();
        let store = on(&server);
        let mut grants = Vec::new();
        for id in 0..7 {
            grants.push(acquire(&store, &key(id)).await);
        }
        assert_eq!(server.ask(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
        assert!(server.ask(&["SET", "other", "data"]).starts_with("-OOM"));

        let error = store.claim(&key("new"), &claim()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        let busy = store.claim(&key(0), &claim()).await.unwrap();
        assert!(matches!(busy, ClaimOutcome::Busy { .. }), "{busy:?}");

        // A small result fits.
        let ended = store.complete(&key(0), &complete(grants[0], "small")).await.unwrap();
        assert_eq!(ended, Fenced::Applied);
        let replay = store.claim(&key(0), &claim()).await.unwrap();
        assert_eq!(replay, ClaimOutcome::Replay(Some("small".into())));

        // A large one does not, but that it is done does.
        let large = complete(grants[1], vec![b'v'; 2048]);
        let error = store.complete(&key(1), &large).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
        let Complete { grant, completion } = large;
        let fact = Complete { grant, completion: Completion { replayable: false, ..completion } };
        assert_eq!(store.complete(&key(1), &fact).await.unwrap(), Fenced::Applied);
        assert_eq!(store.claim(&key(1), &claim()).await.unwrap(), ClaimOutcome::Replay(None));

        // Everything else that ends or prolongs an attempt works too.
        let ended = store.abandon(&key(2), &release(grants[2])).await.unwrap();
        assert_eq!(ended, Fenced::Applied);
        acquire(&store, &key(2)).await;
        let unknown = Abandon { grant: grants[3], known: Known::Unknown };
        assert_eq!(store.abandon(&key(3), &unknown).await.unwrap(), Fenced::Applied);
        assert_eq!(store.renew(&key(4), &renew(grants[4], LONG)).await.unwrap(), Fenced::Applied);
        let save = |len| Renew {
            progress: Some(Progress { sequence: 1, data: vec![0; len].into() }),
            ..renew(grants[5], LONG)
        };
        let error = store.renew(&key(5), &save(2048)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
        assert_eq!(store.renew(&key(5), &save(100)).await.unwrap(), Fenced::Applied);
        let evict = Evict { expected: Expected::Any, force: true };
        assert_eq!(store.evict(&key(6), &evict).await.unwrap(), Fenced::Applied);
    });
}

/// 3, seen from the engine: no second run.
#[test]
fn trap_03_the_engine_never_runs_twice_on_a_full_server() {
    block_on(async {
        let server = Redis::start();
        let idempotency = oncekey::Idempotency::at_least_once(on(&server));
        let request = oncekey::Fingerprint::of("the request");
        let large = async |_| {
            server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
            Ok::<_, std::io::Error>("v".repeat(5000))
        };
        let outcome = idempotency.run(&key("a"), &request, large).await.unwrap();
        assert_eq!(outcome.value().len(), 5000);
        let again = async |_| -> Result<String, std::io::Error> { panic!("it ran twice") };
        let outcome = idempotency.run(&key("a"), &request, again).await;
        assert!(outcome.is_err(), "the result was not kept, and is known to be done");
    });
}

/// 5: a write that too few replicas have is unknown, is there, and is settled by the next call.
#[test]
fn trap_05_too_few_replicas_make_it_unknown() {
    block_on(async {
        let server = Redis::start();
        let builder = RedisStoreBuilder::connect(&server.url()).unwrap();
        let store = builder.wait_for_replicas(1, Duration::from_millis(50)).build().unwrap();
        let claim = claim();
        let error = store.claim(&key("a"), &claim).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
        let replica = Redis::start();
        replica.replicate(server.port());
        let grant = insist(async || store.claim(&key("a"), &claim).await).await;
        let done = complete(granted(grant), "done");
        let ended = insist(async || store.complete(&key("a"), &done).await).await;
        assert_eq!(ended, Fenced::Applied);
    });
}

/// 3 and 5: a full server is recognised, also where replicas are waited for.
#[test]
fn trap_05_a_full_server_with_replicas_records_what_was_done() {
    block_on(async {
        let (server, replica) = (Redis::start(), Redis::start());
        replica.replicate(server.port());
        let builder = RedisStoreBuilder::connect(&server.url()).unwrap();
        let store = builder.wait_for_replicas(1, Duration::from_secs(2)).build().unwrap();
        let grant = acquire(&store, &key("a")).await;
        server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
        let error = store.claim(&key("b"), &claim()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        let ended = store.complete(&key("a"), &complete(grant, "done")).await.unwrap();
        assert_eq!(ended, Fenced::Applied);
        server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
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
        let store = builder.scripts_only().build().unwrap();
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

/// 9: also where a script has another command behind it.
#[test]
fn trap_09_scripts_may_be_forgotten_where_replicas_are_waited_for() {
    block_on(async {
        let (server, replica) = (Redis::start(), Redis::start());
        replica.replicate(server.port());
        let builder = RedisStoreBuilder::connect(&server.url()).unwrap().scripts_only();
        let store = builder.wait_for_replicas(1, Duration::from_secs(5)).build().unwrap();
        for id in 0..20 {
            server.ask(&["SCRIPT", "FLUSH"]);
            let grant = acquire(&store, &key(id)).await;
            server.ask(&["SCRIPT", "FLUSH"]);
            let ended = store.complete(&key(id), &complete(grant, "done")).await.unwrap();
            assert_eq!(ended, Fenced::Applied);
        }
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
        let mut value = fixture.value(&key("a")).await.unwrap();
        let future = grant.token.get() + 3_600_000_000;
        value[16..24].copy_from_slice(&future.to_be_bytes());
        let sum = sum(&value[..84]);
        value[84..88].copy_from_slice(&sum.to_be_bytes());
        let mut set = redis::cmd("SET");
        set.arg(name(&fixture.prefix, &key("a"))).arg(value).arg("KEEPTTL");
        set.exec_async(&mut connection(&fixture.direct).await).await.unwrap();
        let seen = store.get(&key("a")).await.unwrap().unwrap();
        assert_eq!(seen.record.token.get(), future);
        let own = seen.record.grant();
        assert_eq!(store.abandon(&key("a"), &release(own)).await.unwrap(), Fenced::Applied);
        assert_eq!(acquire(&store, &key("a")).await.token.get(), future + 1);
    });
}

/// The sum of a head, as the format has it.
fn sum(head: &[u8]) -> u32 {
    let words = head.chunks(4).map(|word| u64::from(u32::from_be_bytes(word.try_into().unwrap())));
    words.fold(1, |sum, word| (sum * 1_000_003 + word) % 4_294_967_291).try_into().unwrap()
}

/// 13: a replica is refused, also one that takes writes; and when a primary becomes one, its calls fail.
#[test]
fn trap_13_a_replica_is_refused() {
    block_on(async {
        let (primary, other) = (Redis::start(), Redis::start());
        let store = on(&other);
        acquire(&store, &key("before")).await;
        other.replicate(primary.port());
        for writable in ["no", "yes"] {
            other.ask(&["CONFIG", "SET", "replica-read-only", writable]);
            let error = on(&other).claim(&key("a"), &claim()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misconfigured);
            assert!(error.to_string().contains("replica"), "{error}");
        }
        other.ask(&["CONFIG", "SET", "replica-read-only", "no"]);
        other.ask(&["CONFIG", "SET", "replica-read-only", "yes"]);
        let error = store.claim(&key("a"), &claim()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    });
}

/// 15: a thousand waiters on a server that publishes nothing.
#[test]
fn trap_15_waiters_resolve_without_notifications() {
    block_on(async {
        let server = Redis::start();
        let silent = on(&server);
        silent.check().await.unwrap();
        assert_eq!(server.ask(&["ACL", "SETUSER", "default", "-publish"]), "OK");
        let idempotency = oncekey::Idempotency::at_least_once(silent.clone());
        let idempotency = &idempotency.wait_for_duplicate(Duration::from_secs(60));
        let other = &oncekey::Idempotency::at_least_once(silent);
        let request = &oncekey::Fingerprint::of("the request");
        let (begun, go) = (tokio::sync::Notify::new(), tokio::sync::Notify::new());
        let (begun, go) = (&begun, &go);
        let owner = async {
            let operation = async |_| {
                begun.notify_one();
                go.notified().await;
                Ok::<_, std::io::Error>(7)
            };
            *other.run(&key("a"), request, operation).await.unwrap().value()
        };
        let waiters = async {
            begun.notified().await;
            let waiters = (0..1000).map(async |_| {
                let never = async |_| -> Result<i32, std::io::Error> { panic!("it ran twice") };
                *idempotency.run(&key("a"), request, never).await.unwrap().value()
            });
            let end = async {
                sleep(Duration::from_millis(300)).await;
                go.notify_one();
            };
            let (found, ()) = tokio::join!(join_all(waiters), end);
            found
        };
        let (owner, found) = tokio::join!(owner, waiters);
        assert_eq!(owner, 7);
        assert_eq!(found, vec![7; 1000]);
        assert_eq!(count(&server, "publish"), 1, "only the check published");
    });
}

/// 15: each waits for a key of its own.
#[test]
fn trap_15_a_thousand_keys_resolve_without_notifications() {
    const KEYS: usize = 1000;
    block_on(async {
        let server = Redis::start();
        let silent = on(&server);
        silent.check().await.unwrap();
        assert_eq!(server.ask(&["ACL", "SETUSER", "default", "-publish"]), "OK");
        let owners = &oncekey::Idempotency::at_least_once(silent.clone());
        let waiters = oncekey::Idempotency::at_least_once(silent);
        let waiters = &waiters.wait_for_duplicate(Duration::from_secs(60));
        let request = &oncekey::Fingerprint::of("the request");
        let (begun, go) = (&Semaphore::new(0), &Semaphore::new(0));
        let owners = (0..KEYS).map(async |id| {
            let operation = async |_| {
                begun.add_permits(1);
                go.acquire().await.unwrap().forget();
                Ok::<_, std::io::Error>(id)
            };
            let _ = owners.run(&key(id), request, operation).await.unwrap();
        });
        let waiters = (0..KEYS).map(async |id| {
            let _ = begun.acquire_many(KEYS.try_into().unwrap()).await.unwrap();
            let never = async |_| -> Result<usize, std::io::Error> { panic!("it ran twice") };
            *waiters.run(&key(id), request, never).await.unwrap().value()
        });
        let end = async {
            let _ = begun.acquire_many(KEYS.try_into().unwrap()).await.unwrap();
            sleep(Duration::from_millis(500)).await;
            go.add_permits(KEYS);
        };
        let (_, found, ()) = tokio::join!(join_all(owners), join_all(waiters), end);
        assert_eq!(found, (0..KEYS).collect::<Vec<_>>());
        assert_eq!(count(&server, "publish"), 1, "only the check published");
    });
}

/// A record whose expiry somebody took away is no record any more: nobody knows when its lease ends.
#[test]
fn a_record_without_an_expiry_is_corrupt() {
    block_on(async {
        let fixture = RedisFixture::on(server());
        let store = fixture.store();
        acquire(&store, &key("a")).await;
        let mut persist = redis::cmd("PERSIST");
        persist.arg(name(&fixture.prefix, &key("a")));
        persist.exec_async(&mut connection(&fixture.direct).await).await.unwrap();
        for _ in 0..2 {
            let error = store.claim(&key("a"), &claim()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        }
    });
}

/// What is no string is no record either.
#[test]
fn a_value_of_another_type_is_corrupt() {
    block_on(async {
        let fixture = RedisFixture::on(server());
        let store = fixture.store();
        acquire(&store, &key("first")).await;
        let mut push = redis::cmd("RPUSH");
        push.arg(name(&fixture.prefix, &key("a"))).arg("x");
        push.exec_async(&mut connection(&fixture.direct).await).await.unwrap();
        let error = store.claim(&key("a"), &claim()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        let error = store.get(&key("a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        let evict = Evict { expected: Expected::Any, force: false };
        assert_eq!(store.evict(&key("a"), &evict).await.unwrap(), Fenced::Applied);
        acquire(&store, &key("a")).await;
    });
}

/// A bit of the result flips: nobody gets it, and nobody takes it for another result.
#[test]
fn a_damaged_result_is_not_replayed() {
    block_on(async {
        for hold in [Duration::ZERO, LONG] {
            let fixture = RedisFixture::on(server());
            let store = fixture.store();
            let grant = acquire(&store, &key("a")).await;
            let done = Complete { grant, completion: Completion { hold, ..completion("done") } };
            assert_eq!(store.complete(&key("a"), &done).await.unwrap(), Fenced::Applied);
            let mut value = fixture.value(&key("a")).await.unwrap();
            *value.last_mut().unwrap() ^= 1;
            let mut set = redis::cmd("SET");
            set.arg(name(&fixture.prefix, &key("a"))).arg(value).arg("KEEPTTL");
            set.exec_async(&mut connection(&fixture.direct).await).await.unwrap();
            let error = store.claim(&key("a"), &claim()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            let error = store.complete(&key("a"), &done).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        }
    });
}

/// What cannot work is said, not run into.
#[test]
fn an_address_or_a_place_that_cannot_work_is_refused() {
    for url in ["", "127.0.0.1", "http://127.0.0.1/"] {
        let error = block_on(async { RedisStore::connect(url).unwrap_err() });
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
    }
    let error = RedisStore::connect(&server().url()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.to_string().contains("runtime"), "{error}");
}

/// An error shows neither key nor value, whatever the server quotes.
#[test]
fn errors_quote_nothing() {
    block_on(async {
        let old = ["--save", "", "--rename-command", "EVALSHA", "", "--rename-command", "EVAL", ""];
        let server = Redis::start_with(Flavor::Redis, &old);
        let error = on(&server).claim(&key("key-7"), &claim()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
        let shown = format!("{error} {error:?} {:?}", std::error::Error::source(&error));
        assert!(!shown.contains("key-7") && !shown.contains("tenant"), "{shown}");
    });
}

/// What a small result takes, beyond the name of its key.
#[test]
fn a_small_result_takes_at_most_200_bytes() {
    block_on(async {
        let fixture = RedisFixture::on(server());
        let store = fixture.store();
        let grant = acquire(&store, &key("a")).await;
        let done = complete(grant, vec![b'v'; 64]);
        assert_eq!(store.complete(&key("a"), &done).await.unwrap(), Fenced::Applied);
        let seen = store.get(&key("a")).await.unwrap().unwrap();
        assert_eq!(seen.state, State::Completed);
        assert!(seen.record.forget_at < Timestamp::MAX);
        let Status::Completed { value: StoredValue::Replayable(value), .. } = seen.record.status
        else {
            panic!("{:?}", seen.record.status);
        };
        assert_eq!(value.len(), 64);
        let name = name(&fixture.prefix, &key("a"));
        let mut usage = redis::cmd("MEMORY");
        usage.arg("USAGE").arg(&name);
        let bytes: usize = usage.query_async(&mut connection(&fixture.direct).await).await.unwrap();
        // A string has a header, an end, and is rounded up by the allocator.
        let own = (name.len() + 4).next_multiple_of(16);
        println!("{bytes} bytes, of which the name takes {own}");
        assert!(bytes <= 200 + own, "{bytes} bytes, of which the name takes {own}");
    });
}
