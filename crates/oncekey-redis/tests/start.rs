//! What is checked of a server: at start, and again when it may be another one or was changed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod redis_fixture;

use std::time::Duration;

use oncekey::store::{ErrorKind, Fenced, Store, StoreError};
use oncekey_redis::{RedisStore, RedisStoreBuilder};
use oncekey_testkit::{Flavor, Redis};
use tokio::time::timeout;

use redis_fixture::calls::{acquire, claim, complete, insist, key};
use redis_fixture::{block_on, server};

const RIGHTS: [&str; 18] = [
    "ACL",
    "SETUSER",
    "app",
    "on",
    ">secret",
    "~oncekey:*",
    "&oncekey:ended",
    "+get",
    "+set",
    "+pexpiretime",
    "+time",
    "+eval",
    "+evalsha",
    "+info",
    "+scan",
    "+publish",
    "+subscribe",
    "+ping",
];

fn as_app(server: &Redis) -> RedisStoreBuilder {
    let url = format!("redis://app:secret@{}/", server.address());
    RedisStoreBuilder::connect(&url).unwrap()
}

fn set_right(server: &Redis, right: &str) {
    assert_eq!(server.ask(&["ACL", "SETUSER", "app", right]), "OK");
}

/// A user with few rights is told which are missing; with those that the message names, all works.
#[test]
fn missing_rights_are_named() {
    block_on(async {
        let server = Redis::start();
        assert_eq!(server.ask(&RIGHTS), "OK");
        let store = as_app(&server).build().unwrap();
        store.check().await.unwrap();
        let mut subscription = store.watch().unwrap().subscribe(&key("a")).await.unwrap();
        let grant = acquire(&store, &key("a")).await;
        drop(store.watch().unwrap().subscribe(&key("a")).await.unwrap());
        let ended = store.complete(&key("a"), &complete(grant, "done")).await.unwrap();
        assert_eq!(ended, Fenced::Applied);
        timeout(Duration::from_secs(10), subscription.changed()).await.unwrap();

        for right in ["eval", "evalsha", "set", "get", "time", "pexpiretime", "info"] {
            set_right(&server, &format!("-{right}"));
            let error = as_app(&server).build().unwrap().check().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misconfigured, "{right}: {error}");
            let named = right.to_uppercase();
            assert!(error.to_string().contains(&named), "{right}: {error}");
            set_right(&server, &format!("+{right}"));
        }
    });
}

fn names(error: &StoreError, words: &[&str]) {
    assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "no {word}: {error}");
    }
}

/// What only some stores need is asked for where it is needed, and the message says how to do without.
#[test]
fn rights_of_what_is_switched_on_are_named() {
    block_on(async {
        let server = Redis::start();
        assert_eq!(server.ask(&RIGHTS), "OK");

        let waiting =
            || as_app(&server).wait_for_replicas(1, Duration::from_millis(10)).build().unwrap();
        names(&waiting().check().await.unwrap_err(), &["WAIT", "wait_for_replicas"]);
        let error = waiting().claim(&key("a"), &claim()).await.unwrap_err();
        names(&error, &["WAIT", "wait_for_replicas"]);
        set_right(&server, "+wait");
        names(&waiting().check().await.unwrap_err(), &["PEXPIREAT", "wait_for_replicas"]);
        set_right(&server, "+pexpireat");
        waiting().check().await.unwrap();

        set_right(&server, "-publish");
        let store = as_app(&server).build().unwrap();
        names(&store.check().await.unwrap_err(), &["PUBLISH", "poll_only"]);
        let error = store.claim(&key("a"), &claim()).await.unwrap_err();
        names(&error, &["PUBLISH", "poll_only"]);
        let store = as_app(&server).poll_only().build().unwrap();
        store.check().await.unwrap();
        assert!(store.watch().is_none());
        acquire(&store, &key("b")).await;

        set_right(&server, "+publish");
        for right in ["-subscribe", "resetchannels"] {
            set_right(&server, right);
            let error = as_app(&server).build().unwrap().check().await.unwrap_err();
            names(&error, &["SUBSCRIBE", "poll_only"]);
        }
        as_app(&server).poll_only().build().unwrap().check().await.unwrap();
    });
}

/// Makes the next call fail, as the end of a connection does.
async fn lose_the_connection(server: &Redis, store: &RedisStore) {
    server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let _ = store.get(&key("any")).await;
}

/// Who may evict from now on is noticed when the connection was lost. Nothing more is granted then, and
/// what was granted is recorded.
#[test]
fn a_server_that_begins_to_evict_is_noticed() {
    block_on(async {
        let server = Redis::start();
        let store = RedisStore::connect(&server.url()).unwrap();
        let grant = acquire(&store, &key("a")).await;
        server.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
        lose_the_connection(&server, &store).await;
        for _ in 0..3 {
            let error = store.claim(&key("b"), &claim()).await.unwrap_err();
            names(&error, &["noeviction", "allow_eviction"]);
        }
        let ended = store.complete(&key("a"), &complete(grant, "done")).await.unwrap();
        assert_eq!(ended, Fenced::Applied);
        names(&store.check().await.unwrap_err(), &["noeviction"]);

        server.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
        store.check().await.unwrap();
        acquire(&store, &key("b")).await;
    });
}

/// What a check finds, the next claim knows.
#[test]
fn a_check_that_refuses_stops_claims() {
    block_on(async {
        let server = Redis::start();
        let store = RedisStore::connect(&server.url()).unwrap();
        acquire(&store, &key("a")).await;
        server.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
        names(&store.check().await.unwrap_err(), &["noeviction"]);
        names(&store.claim(&key("b"), &claim()).await.unwrap_err(), &["noeviction"]);
    });
}

/// A primary that becomes a replica, even one that takes writes, grants nothing; that may pass.
#[test]
fn a_primary_that_becomes_a_replica_is_noticed() {
    block_on(async {
        let (primary, server) = (Redis::start(), Redis::start());
        let store = RedisStore::connect(&server.url()).unwrap();
        acquire(&store, &key("a")).await;
        server.ask(&["CONFIG", "SET", "replica-read-only", "no"]);
        server.replicate(primary.port());
        lose_the_connection(&server, &store).await;
        for _ in 0..3 {
            let error = store.claim(&key("b"), &claim()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.to_string().contains("primary"), "{error}");
        }
        // To a new store, it is what it is.
        let error = RedisStore::connect(&server.url()).unwrap().check().await.unwrap_err();
        names(&error, &["replica"]);

        assert_eq!(server.ask(&["REPLICAOF", "NO", "ONE"]), "OK");
        insist(async || store.claim(&key("b"), &claim()).await).await;
    });
}

/// 13: a replica is refused, also one that takes writes; and when a primary becomes one, its calls fail.
#[test]
fn trap_13_a_replica_is_refused() {
    block_on(async {
        let (primary, other) = (Redis::start(), Redis::start());
        let store = RedisStore::connect(&other.url()).unwrap();
        acquire(&store, &key("before")).await;
        other.replicate(primary.port());
        for writable in ["no", "yes"] {
            other.ask(&["CONFIG", "SET", "replica-read-only", writable]);
            let error = RedisStore::connect(&other.url())
                .unwrap()
                .claim(&key("a"), &claim())
                .await
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misconfigured);
            assert!(error.to_string().contains("replica"), "{error}");
        }
        other.ask(&["CONFIG", "SET", "replica-read-only", "no"]);
        other.ask(&["CONFIG", "SET", "replica-read-only", "yes"]);
        let error = store.claim(&key("a"), &claim()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
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
        let error = RedisStore::connect(&server.url())
            .unwrap()
            .claim(&key("key-7"), &claim())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
        let shown = format!("{error} {error:?} {:?}", std::error::Error::source(&error));
        assert!(!shown.contains("key-7") && !shown.contains("tenant"), "{shown}");
    });
}
