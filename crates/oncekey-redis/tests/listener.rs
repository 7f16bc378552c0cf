//! Waiters that are woken by a subscription, and the connection that it has.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod redis_fixture;

use std::time::Duration;

use oncekey::store::{Fenced, Store};
use oncekey_redis::RedisStore;
use oncekey_redis::redis::Client;
use oncekey_testkit::{Redis, Relay};
use tokio::time::timeout;

use redis_fixture::calls::{acquire, complete, key};
use redis_fixture::{block_on, connection};

const WAITERS: usize = 200;
const LONG: Duration = Duration::from_secs(30);

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
