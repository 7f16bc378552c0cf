//! Waiting for replicas: what is answered is what they have, whoever wrote it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod redis_fixture;

use std::fmt::Debug;
use std::time::Duration;

use oncekey::store::{
    ClaimOutcome, Complete, Completion, ErrorKind, Fenced, Grant, Store, StoreError,
};
use oncekey_redis::{RedisStore, RedisStoreBuilder};
use oncekey_testkit::{Flavor, Redis, Relay};
use tokio::task::block_in_place;

use redis_fixture::calls::{LONG, acquire, claim, complete, completion, granted, insist, key};
use redis_fixture::{block_on, valkey};

struct Pair {
    primary: Redis,
    replica: Redis,
}

impl Pair {
    fn start(flavor: Flavor) -> Self {
        let settings = ["--save", "", "--repl-diskless-sync-delay", "0"];
        let [primary, replica] = [(); 2].map(|()| Redis::start_with(flavor, &settings));
        replica.replicate(primary.port());
        Self { primary, replica }
    }

    fn store(&self, url: &str, scripts_only: bool) -> RedisStore {
        let builder = RedisStoreBuilder::connect(url).unwrap();
        let builder = if scripts_only { builder.scripts_only(true) } else { builder };
        builder.wait_for_replicas(1, Duration::from_millis(200)).build().unwrap()
    }
}

fn is_unknown<T: Debug>(answer: Result<T, StoreError>) {
    let error = answer.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
}

fn complete_with(grant: Grant, hold: Duration) -> Complete {
    Complete { grant, completion: Completion { hold, ..completion("done") } }
}

/// A result that no replica has is nobody's answer yet: neither to its owner on another connection, who only
/// finds it there, nor to a duplicate in another process.
async fn what_others_wrote(flavor: Flavor) {
    for scripts_only in [false, true] {
        // Without a hold a replay needs no script, with one it does.
        for hold in [Duration::ZERO, LONG] {
            let pair = block_in_place(|| Pair::start(flavor));
            let relay = Relay::start(pair.primary.port());
            let owner = pair.store(&relay.url(), scripts_only);
            let other = pair.store(&pair.primary.url(), scripts_only);
            // Both connections have written something that the replica has.
            let first = claim();
            let grant = granted(insist(async || owner.claim(&key("a"), &first).await).await);
            insist(async || other.claim(&key("another"), &first).await).await;
            let done = complete_with(grant, hold);

            pair.replica.pause();
            is_unknown(owner.complete(&key("a"), &done).await);
            is_unknown(owner.complete(&key("a"), &done).await);
            relay.cut();
            // The end of the connection, and then a new one.
            for _ in 0..2 {
                is_unknown(owner.complete(&key("a"), &done).await);
            }
            is_unknown(other.claim(&key("a"), &claim()).await);
            is_unknown(other.complete(&key("a"), &done).await);

            pair.replica.resume();
            let ended = insist(async || owner.complete(&key("a"), &done).await).await;
            assert_eq!(ended, Fenced::Applied);
            let replay = insist(async || other.claim(&key("a"), &claim()).await).await;
            assert_eq!(replay, ClaimOutcome::Replay(Some("done".into())));
        }
    }
}

#[test]
fn what_others_wrote_is_waited_for() {
    block_on(what_others_wrote(Flavor::Redis));
}

#[test]
fn what_others_wrote_is_waited_for_on_valkey() {
    if valkey("what_others_wrote_is_waited_for_on_valkey").is_some() {
        block_on(what_others_wrote(Flavor::Valkey));
    }
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

/// 9: also where a script has another command behind it.
#[test]
fn trap_09_scripts_may_be_forgotten_where_replicas_are_waited_for() {
    block_on(async {
        let (server, replica) = (Redis::start(), Redis::start());
        replica.replicate(server.port());
        let builder = RedisStoreBuilder::connect(&server.url()).unwrap().scripts_only(true);
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
