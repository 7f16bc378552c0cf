//! A server that is full, or makes room by itself: what is done is recorded, and nothing runs twice.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod redis_fixture;

use std::time::Duration;

use oncekey::store::{
    Abandon, ClaimOutcome, Complete, Completion, ErrorKind, Evict, Expected, Fenced, Known,
    Progress, Renew, Store,
};
use oncekey_redis::{RedisStore, RedisStoreBuilder};
use oncekey_testkit::Redis;

use redis_fixture::block_on;
use redis_fixture::calls::{LONG, acquire, claim, complete, key, release, renew};

fn on(server: &Redis) -> RedisStore {
    RedisStore::connect(&server.url()).unwrap()
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
            builder.allow_eviction(true).build().unwrap()
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
