//! Connections that are cut and servers that crash, under load: what was acknowledged stays, what was said
//! not to be applied was not, and what is unknown is settled by asking again.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod redis_fixture;

use std::time::Duration;

use oncekey::runtime::{ProcessRandom, Random};
use oncekey::store::{ErrorKind, Fenced, Store};
use oncekey_redis::RedisStore;
use oncekey_redis::redis;
use oncekey_testkit::{Flavor, Load, Lose, Redis, Relay};
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};

use redis_fixture::calls::{acquire, acquire_as, claim, complete, insist, key};
use redis_fixture::{RedisFixture, block_on, name, server, valkey};

const CLIENTS: usize = 3;

#[test]
fn connections_that_are_cut_at_random() {
    block_on(async {
        let relay = Relay::start(server().port());
        let fixture = RedisFixture { url: relay.url(), ..RedisFixture::on(server()) };
        let faults = async |load: &Load| {
            let random = ProcessRandom::new();
            for _ in 0..60 {
                let millis = u64::try_from(random.next() % 100).unwrap();
                sleep(Duration::from_millis(millis)).await;
                load.calm().await;
                relay.cut();
            }
        };
        Load::under(CLIENTS, || fixture.store(), faults).await;
    });
}

async fn crashes(flavor: Flavor) {
    let fixture = block_in_place(|| RedisFixture::alone(flavor));
    let faults = async |load: &Load| {
        for _ in 0..5 {
            sleep(Duration::from_millis(300)).await;
            load.calm().await;
            block_in_place(|| fixture.own.as_ref().unwrap().crash());
        }
        sleep(Duration::from_millis(300)).await;
    };
    Load::under(CLIENTS, || fixture.store(), faults).await;
}

#[test]
fn a_durable_server_that_crashes_and_restarts() {
    block_on(crashes(Flavor::Redis));
}

#[test]
fn a_durable_valkey_that_crashes_and_restarts() {
    if valkey("a_durable_valkey_that_crashes_and_restarts").is_some() {
        block_on(crashes(Flavor::Valkey));
    }
}

/// A server that hangs: calls that are given up leave nothing behind, and the store goes on after it.
#[test]
fn a_server_that_pauses() {
    block_on(async {
        let server = Redis::start();
        let store = RedisStore::connect(&server.url()).unwrap();
        acquire(&store, &key("before")).await;
        let during = claim();
        server.pause();
        let brief = Duration::from_millis(300);
        assert!(timeout(brief, store.claim(&key("during"), &during)).await.is_err());
        server.resume();
        acquire_as(&store, &key("during"), &during).await;
    });
}

/// Every answer of a claim and a completion is lost once, on every path; the same call, sent again, gets
/// the same answer.
#[test]
fn a_lost_answer_is_an_unknown_outcome() {
    for scripts_only in [false, true] {
        block_on(lost_answers(server(), scripts_only));
    }
    if let Some(server) = valkey("a_lost_answer_is_an_unknown_outcome") {
        block_on(lost_answers(server, false));
    }
}

async fn lost_answers(server: &Redis, scripts_only: bool) {
    let relay = Relay::start(server.port());
    let fixture = RedisFixture { url: relay.url(), scripts_only, ..RedisFixture::on(server) };
    let store = fixture.store();
    // So that the server knows the scripts, and the client the time.
    let first = acquire(&store, &key("first")).await;
    let _ = store.complete(&key("first"), &complete(first, "done")).await.unwrap();
    for (lose, is_applied) in [(Lose::Answer, true), (Lose::Request, false)] {
        let key = key(format!("{is_applied}"));
        let name = name(&fixture.prefix, &key);
        let there = RedisFixture {
            url: fixture.direct.clone(),
            prefix: fixture.prefix.clone(),
            ..RedisFixture::on(server)
        };
        let there = there.store();

        let claim = claim();
        relay.lose(lose, &name);
        let error = store.claim(&key, &claim).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
        let seen = there.get(&key).await.unwrap();
        assert_eq!(seen.is_some(), is_applied);
        let grant = insist(async || store.claim(&key, &claim).await).await;
        let grant = redis_fixture::calls::granted(grant);
        if let Some(seen) = seen {
            assert_eq!(seen.record.token, grant.token);
        }

        let done = complete(grant, "done");
        relay.lose(lose, &name);
        let error = store.complete(&key, &done).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
        let seen = there.get(&key).await.unwrap().unwrap();
        let is_completed = seen.state == oncekey::store::State::Completed;
        assert_eq!(is_completed, is_applied);
        let ended = insist(async || store.complete(&key, &done).await).await;
        assert_eq!(ended, Fenced::Applied);
    }
    assert_eq!(relay.done(), 4);
}

/// A claim that is delivered after its attempt has ended is spent, or replayed; it runs nothing.
#[test]
fn a_claim_that_is_delivered_late() {
    block_on(async {
        let relay = Relay::start(server().port());
        let fixture = RedisFixture { url: relay.url(), ..RedisFixture::on(server()) };
        let store = fixture.store();
        acquire(&store, &key("first")).await;
        let claim = claim();
        relay.deliver_late(name(&fixture.prefix, &key("a")), Duration::from_millis(300));
        let error = store.claim(&key("a"), &claim).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
        let grant = insist(async || store.claim(&key("a"), &claim).await).await;
        let grant = redis_fixture::calls::granted(grant);
        let done = complete(grant, "done");
        assert_eq!(store.complete(&key("a"), &done).await.unwrap(), Fenced::Applied);
        sleep(Duration::from_millis(500)).await;
        let seen = store.get(&key("a")).await.unwrap().unwrap();
        assert_eq!(seen.record.grant(), grant);
        assert_eq!(seen.state, oncekey::store::State::Completed);
    });
}

/// The other side is gone without a word: the response timeout ends the wait.
#[test]
fn a_black_hole_is_an_unknown_outcome() {
    block_on(async {
        let relay = Relay::start(server().port());
        let config = redis::aio::ConnectionManagerConfig::new()
            .set_response_timeout(Some(Duration::from_millis(300)));
        let client = redis::Client::open(relay.url()).unwrap();
        let connection = client.get_connection_manager_with_config(config).await.unwrap();
        let store = RedisStore::new(connection);
        let key = key("a_black_hole_is_an_unknown_outcome");
        let _ = store.get(&key).await.unwrap();
        relay.black_hole(true);
        let error = store.claim(&key, &claim()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
        let error = store.get(&key).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    });
}

/// A server that is not there was sent nothing.
#[test]
fn no_server_is_unavailable() {
    block_on(async {
        let server = Redis::start();
        let store = RedisStore::connect(&server.url()).unwrap();
        acquire(&store, &key("a")).await;
        block_in_place(|| server.kill());
        // The first may have met the end of the connection.
        let _ = store.claim(&key("b"), &claim()).await;
        let error = store.claim(&key("b"), &claim()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        block_in_place(|| server.launch());
        insist(async || store.claim(&key("b"), &claim()).await).await;
    });
}
