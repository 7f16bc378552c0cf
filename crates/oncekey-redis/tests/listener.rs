//! Waiters that are woken by a subscription, and the connection that it has.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod redis_fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use oncekey::observe::{Event, Observer};
use oncekey::store::{Abandon, Evict, Expected, Fenced, Known, Store};
use oncekey_redis::RedisStore;
use oncekey_redis::redis::Client;
use oncekey_testkit::{Redis, Relay};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use redis_fixture::calls::{acquire, complete, key};
use redis_fixture::{block_on, connection, count};

const WAITERS: usize = 200;
const LONG: Duration = Duration::from_secs(30);

/// How many duplicates began to wait.
#[derive(Clone, Default)]
struct Waiting(Arc<AtomicUsize>);

impl Observer for Waiting {
    fn observe(&self, _: &str, event: &Event) {
        self.0.fetch_add(usize::from(*event == Event::Waiting), Ordering::SeqCst);
    }
}

impl Waiting {
    async fn reach(&self, number: usize) {
        while self.0.load(Ordering::SeqCst) < number {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Everything ends while the connection that listens is away: whoever waits is woken when it is back, since
/// nothing else would do it.
#[test]
fn what_ended_while_nobody_listened_is_told_later() {
    block_on(async {
        let server = Redis::start();
        let relay = Relay::start(server.port());
        let builder = RedisStore::builder(connection(&server.url()).await);
        let store = builder.listen(Client::open(relay.url()).unwrap()).build().unwrap();
        let other = RedisStore::new(connection(&server.url()).await);
        let (mut grants, mut subscriptions) = (Vec::new(), Vec::new());
        for id in 0..WAITERS {
            grants.push(acquire(&store, &key(id)).await);
            subscriptions.push(store.watch().unwrap().subscribe(&key(id)).await.unwrap());
        }
        relay.refuse(true);
        relay.cut();
        // That the connection is lost is told at once, and whoever looks finds nothing new.
        for subscription in &mut subscriptions {
            timeout(LONG, subscription.changed()).await.unwrap();
        }
        for (id, grant) in grants.into_iter().enumerate() {
            let ended = other.complete(&key(id), &complete(grant, "done")).await.unwrap();
            assert_eq!(ended, Fenced::Applied);
        }
        assert_eq!(server.ask(&["PUBSUB", "NUMSUB", "oncekey:ended"]), "oncekey:ended\n0");
        relay.refuse(false);
        for subscription in &mut subscriptions {
            timeout(LONG, subscription.changed()).await.unwrap();
        }
    });
}

/// The connection that listens is killed: whoever waits is woken to look, and is told again after that.
#[test]
fn a_listener_comes_back() {
    block_on(async {
        let server = Redis::start();
        let store = RedisStore::connect(&server.url()).unwrap();
        let other = RedisStore::connect(&server.url()).unwrap();
        let grant = acquire(&store, &key("a")).await;
        let mut subscription = store.watch().unwrap().subscribe(&key("a")).await.unwrap();
        let killed = server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        assert_eq!(killed, "1");
        let long = Duration::from_secs(10);
        timeout(long, subscription.changed()).await.unwrap();
        let start = Instant::now();
        while server.ask(&["PUBSUB", "NUMSUB", "oncekey:ended"]).ends_with('0') {
            assert!(start.elapsed() < long, "nobody listens again");
            sleep(Duration::from_millis(20)).await;
        }
        let done = complete(grant, "done");
        assert_eq!(other.complete(&key("a"), &done).await.unwrap(), Fenced::Applied);
        timeout(long, subscription.changed()).await.unwrap();
    });
}

/// A key is free for the next one, who takes it before those who waited look: they are told of that end, too.
#[test]
fn who_waited_for_one_attempt_is_told_of_the_next() {
    block_on(async {
        let server = Redis::start();
        let store = RedisStore::connect(&server.url()).unwrap();
        let other = RedisStore::connect(&server.url()).unwrap();
        let evict = Evict { expected: Expected::Any, force: true };
        for id in ["evicted", "released"] {
            let grant = acquire(&store, &key(id)).await;
            let mut subscription = store.watch().unwrap().subscribe(&key(id)).await.unwrap();
            let known = Known::NotStarted { hold: Duration::ZERO };
            let ended = match id {
                "evicted" => store.evict(&key(id), &evict).await,
                _ => store.abandon(&key(id), &Abandon { grant, known }).await,
            };
            assert_eq!(ended.unwrap(), Fenced::Applied);
            timeout(LONG, subscription.changed()).await.unwrap();
            let next = acquire(&other, &key(id)).await;
            assert_eq!(
                other.complete(&key(id), &complete(next, "done")).await.unwrap(),
                Fenced::Applied
            );
            timeout(LONG, subscription.changed()).await.unwrap();
        }
    });
}

/// The task that listens ends with the runtime that it was spawned on, while somebody still waits: the next
/// who comes starts another, for both.
#[test]
fn a_runtime_that_is_gone_listens_no_more() {
    block_on(async {
        let server = Redis::start();
        let builder = RedisStore::builder(connection(&server.url()).await);
        let store = builder.listen(Client::open(server.url()).unwrap()).build().unwrap();
        let grant = acquire(&store, &key("a")).await;
        let mut first = tokio::task::block_in_place(|| {
            let other = tokio::runtime::Runtime::new().unwrap();
            let first = other.block_on(store.watch().unwrap().subscribe(&key("a"))).unwrap();
            other.shutdown_timeout(LONG);
            first
        });
        let start = Instant::now();
        while !server.ask(&["PUBSUB", "NUMSUB", "oncekey:ended"]).ends_with('0') {
            assert!(start.elapsed() < LONG, "it still listens");
            sleep(Duration::from_millis(20)).await;
        }
        let mut second = store.watch().unwrap().subscribe(&key("a")).await.unwrap();
        let done = complete(grant, "done");
        assert_eq!(store.complete(&key("a"), &done).await.unwrap(), Fenced::Applied);
        timeout(LONG, first.changed()).await.unwrap();
        timeout(LONG, second.changed()).await.unwrap();
    });
}

/// However many wait, one connection listens, and none when nobody waits. What nobody waits for is not
/// published.
#[test]
fn one_connection_listens_for_all() {
    block_on(async {
        let server = Redis::start();
        let store = RedisStore::connect(&server.url()).unwrap();
        let listening = || server.ask(&["PUBSUB", "NUMSUB", "oncekey:ended"]);
        let published = || count(&server, "publish");
        let watch = store.watch().unwrap();
        let mut subscriptions = Vec::new();
        for id in 0..100 {
            acquire(&store, &key(id)).await;
            subscriptions.push(watch.subscribe(&key(id)).await.unwrap());
        }
        assert_eq!(listening(), "oncekey:ended\n1");
        let before = published();
        let grant = acquire(&store, &key("other")).await;
        let done = complete(grant, "done");
        assert_eq!(store.complete(&key("other"), &done).await.unwrap(), Fenced::Applied);
        assert_eq!(published(), before);
        drop(subscriptions);
        let start = Instant::now();
        while listening() != "oncekey:ended\n0" {
            assert!(start.elapsed() < Duration::from_secs(10), "{}", listening());
            sleep(Duration::from_millis(20)).await;
        }
    });
}

/// 15: a thousand waiters on a server that publishes nothing.
#[test]
fn trap_15_waiters_resolve_without_notifications() {
    block_on(async {
        let server = Redis::start();
        let silent = RedisStore::connect(&server.url()).unwrap();
        silent.check().await.unwrap();
        assert_eq!(server.ask(&["ACL", "SETUSER", "default", "-publish"]), "OK");
        let idempotency = oncekey::Idempotency::at_least_once(silent.clone());
        let waiting = Waiting::default();
        let idempotency = idempotency.wait_for_duplicate(Duration::from_secs(60));
        let idempotency = &idempotency.observer(waiting.clone());
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
                waiting.reach(1000).await;
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
        let silent = RedisStore::connect(&server.url()).unwrap();
        silent.check().await.unwrap();
        assert_eq!(server.ask(&["ACL", "SETUSER", "default", "-publish"]), "OK");
        let owners = &oncekey::Idempotency::at_least_once(silent.clone());
        let waiters = oncekey::Idempotency::at_least_once(silent);
        let waiting = Waiting::default();
        let waiters = waiters.wait_for_duplicate(Duration::from_secs(60));
        let waiters = &waiters.observer(waiting.clone());
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
            waiting.reach(KEYS).await;
            go.add_permits(KEYS);
        };
        let (_, found, ()) = tokio::join!(join_all(owners), join_all(waiters), end);
        assert_eq!(found, (0..KEYS).collect::<Vec<_>>());
        assert_eq!(count(&server, "publish"), 1, "only the check published");
    });
}
