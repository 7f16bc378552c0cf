//! What an acknowledged completion survives, in each setup of the table in the documentation: also where it
//! does not, to show that these tests could tell.
#![cfg(all(feature = "cluster", feature = "sentinel"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod redis_fixture;

use std::time::Duration;

use oncekey::store::{ErrorKind, Fenced, Grant, State, Store};
use oncekey_redis::{RedisStore, RedisStoreBuilder};
use oncekey_testkit::{Flavor, Redis, RedisCluster, RedisSentinels};
use tokio::task::block_in_place;

use redis_fixture::block_on;
use redis_fixture::calls::{claim, complete, granted, insist, key};
use redis_fixture::several::{cluster_store, sentinel_connection, sentinel_store};

const KEYS: usize = 20;

async fn acquire_all(store: &RedisStore) -> Vec<Grant> {
    let mut grants = Vec::new();
    for id in 0..KEYS {
        let claim = claim();
        grants.push(granted(insist(async || store.claim(&key(id), &claim).await).await));
    }
    grants
}

async fn complete_all(store: &RedisStore, grants: &[Grant]) {
    for (id, grant) in grants.iter().enumerate() {
        let done = complete(*grant, "done");
        let ended = insist(async || store.complete(&key(id), &done).await).await;
        assert_eq!(ended, Fenced::Applied);
    }
}

/// In which states the keys are; `None` for those of which nothing is known.
async fn states(store: &RedisStore) -> Vec<Option<State>> {
    let mut states = Vec::new();
    for id in 0..KEYS {
        let seen = insist(async || store.get(&key(id)).await).await;
        states.push(seen.map(|seen| seen.state));
    }
    states
}

/// Claims and completes on one server, crashes it, and tells what is left.
async fn after_a_crash(settings: &[&str]) -> Vec<Option<State>> {
    let server = block_in_place(|| Redis::start_with(Flavor::Redis, settings));
    let store = RedisStore::connect(&server.url()).unwrap();
    let grants = acquire_all(&store).await;
    complete_all(&store, &grants).await;
    block_in_place(|| server.crash());
    states(&store).await
}

#[test]
fn one_server_without_aof_loses_everything() {
    let left = block_on(after_a_crash(&["--save", "", "--appendonly", "no"]));
    assert_eq!(left, [None; KEYS]);
}

#[test]
fn one_server_with_snapshots_loses_what_came_after_the_last() {
    let left = block_on(after_a_crash(&["--save", "3600", "1", "--appendonly", "no"]));
    assert_eq!(left, [None; KEYS]);
}

/// The end of the process loses nothing: the system has what was written. A loss of power may lose what
/// the disk did not have yet.
#[test]
fn trap_14_aof_everysec_survives_the_end_of_the_process() {
    let everysec = ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"];
    let left = block_on(after_a_crash(&everysec));
    assert_eq!(left, [Some(State::Completed); KEYS]);
}

#[test]
fn aof_always_survives_the_end_of_the_process() {
    let always = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"];
    let left = block_on(after_a_crash(&always));
    assert_eq!(left, [Some(State::Completed); KEYS]);
}

/// The primary is back before the sentinels miss it, and stays the primary: with what it has on its disk.
#[test]
fn a_primary_that_comes_back_has_what_its_aof_has() {
    block_on(async {
        for (aof, expected) in [("yes", Some(State::Completed)), ("no", None)] {
            let settings = ["--save", "", "--appendonly", aof, "--appendfsync", "always"];
            let sentinels = block_in_place(|| RedisSentinels::start_with(&settings));
            let store = sentinel_store(&sentinels, "test:");
            let grants = acquire_all(&store).await;
            complete_all(&store, &grants).await;
            let port = sentinels.primary().port();
            block_in_place(|| sentinels.primary().crash());
            assert_eq!(states(&store).await, [expected; KEYS]);
            assert_eq!(sentinels.primary().port(), port, "there was a failover");
        }
    });
}

/// All nodes end at once, so that none can take over.
#[test]
fn a_cluster_that_comes_back_has_what_its_aof_has() {
    block_on(async {
        for (aof, expected) in [("yes", Some(State::Completed)), ("no", None)] {
            let settings = ["--appendonly", aof, "--appendfsync", "always"];
            let cluster = block_in_place(|| RedisCluster::start_with(Flavor::Redis, &settings));
            let store = cluster_store(&cluster, "test:").await;
            let grants = acquire_all(&store).await;
            complete_all(&store, &grants).await;
            block_in_place(|| {
                cluster.nodes().iter().for_each(Redis::kill);
                cluster.nodes().iter().for_each(Redis::launch);
            });
            assert_eq!(states(&store).await, [expected; KEYS]);
        }
    });
}

/// Cuts a replica off, without its primary knowing that it will not come back in time.
fn cut_off(primary: &Redis, replica: &Redis) {
    assert_eq!(primary.ask(&["WAIT", "1", "5000"]), "1");
    replica.pause();
    primary.cut_replicas();
}

/// The primary acknowledges what its replica does not have, and dies.
#[test]
fn trap_04_sentinel_without_wait_loses_what_the_replica_lacks() {
    block_on(async {
        let sentinels = block_in_place(|| RedisSentinels::start_with(&["--save", ""]));
        let store = sentinel_store(&sentinels, "test:");
        let grants = acquire_all(&store).await;
        block_in_place(|| cut_off(sentinels.primary(), sentinels.replica()));
        complete_all(&store, &grants).await;
        block_in_place(|| {
            sentinels.primary().kill();
            sentinels.replica().resume();
            sentinels.fail_over();
        });
        assert_eq!(states(&store).await, [Some(State::Live); KEYS], "all completions are lost");
        // They are known to their owners, who can still record them.
        complete_all(&store, &grants).await;
    });
}

#[test]
fn sentinel_with_wait_acknowledges_only_what_a_replica_has() {
    block_on(async {
        let sentinels = block_in_place(|| RedisSentinels::start_with(&["--save", ""]));
        let builder = RedisStoreBuilder::sentinel(sentinel_connection(&sentinels));
        let waiting = builder.key_prefix("test:").wait_for_replicas(1, Duration::from_millis(100));
        let store = waiting.build().unwrap();
        let grants = acquire_all(&store).await;
        let (acknowledged, rest) = grants.split_at(KEYS / 2);
        complete_all(&store, acknowledged).await;
        block_in_place(|| cut_off(sentinels.primary(), sentinels.replica()));
        for (id, grant) in rest.iter().enumerate() {
            let done = complete(*grant, "done");
            let error = store.complete(&key(KEYS / 2 + id), &done).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
        }
        block_in_place(|| {
            sentinels.primary().kill();
            sentinels.replica().resume();
            sentinels.fail_over();
        });
        let left = states(&store).await;
        assert_eq!(left[..KEYS / 2], [Some(State::Completed); KEYS / 2]);
        assert_eq!(left[KEYS / 2..], [Some(State::Live); KEYS / 2], "what was unknown is lost");
        // The next call settles it, once there is a replica again.
        block_in_place(|| sentinels.mend());
        complete_all(&store, &grants).await;
        block_in_place(|| sentinels.fail_over());
        let left = states(&sentinel_store(&sentinels, "test:")).await;
        assert_eq!(left, [Some(State::Completed); KEYS]);
    });
}

/// Claims on a cluster, completes the first `before`, cuts the replicas off, completes the others, and lets
/// the first primary die. Says how many of the others were acknowledged, and what is left.
async fn after_a_failover(
    store: &RedisStore,
    cluster: &RedisCluster,
    before: usize,
) -> (usize, Vec<Option<State>>) {
    let grants = acquire_all(store).await;
    complete_all(store, &grants[..before]).await;
    let (primaries, replicas) = cluster.nodes().split_at(RedisCluster::PRIMARIES);
    block_in_place(|| {
        for (primary, replica) in primaries.iter().zip(replicas) {
            cut_off(primary, replica);
        }
    });
    let mut acknowledged = 0;
    for (id, grant) in grants.iter().enumerate().skip(before) {
        match store.complete(&key(id), &complete(*grant, "done")).await {
            Ok(ended) => {
                assert_eq!(ended, Fenced::Applied);
                acknowledged += 1;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}"),
        }
    }
    block_in_place(|| {
        // One at a time: a majority of the primaries has to agree.
        primaries[0].kill();
        replicas.iter().for_each(Redis::resume);
        cluster.fail_over(0);
    });
    (acknowledged, states(store).await)
}

#[test]
fn a_cluster_without_wait_loses_what_the_replica_lacks() {
    block_on(async {
        let cluster = block_in_place(RedisCluster::start);
        let store = cluster_store(&cluster, "test:").await;
        let (acknowledged, left) = after_a_failover(&store, &cluster, 0).await;
        assert_eq!(acknowledged, KEYS);
        let lost = left.iter().filter(|state| **state != Some(State::Completed)).count();
        assert!(lost > 0, "no key was of the primary that died");
    });
}

#[test]
fn a_cluster_with_wait_acknowledges_only_what_a_replica_has() {
    block_on(async {
        let cluster = block_in_place(RedisCluster::start);
        let urls = cluster.urls();
        let urls: Vec<_> = urls.iter().map(String::as_str).collect();
        let builder = RedisStoreBuilder::connect_cluster(&urls).await.unwrap();
        let waiting = builder.key_prefix("test:").wait_for_replicas(1, Duration::from_millis(100));
        let store = waiting.build().unwrap();
        let (acknowledged, left) = after_a_failover(&store, &cluster, KEYS / 2).await;
        assert_eq!(acknowledged, 0);
        assert_eq!(left[..KEYS / 2], [Some(State::Completed); KEYS / 2]);
        let unknown = &left[KEYS / 2..];
        assert!(unknown.contains(&Some(State::Live)), "no key was of the primary that died");
    });
}

/// A replica that merely hangs gets what was sent to it, also after the end of its primary.
#[test]
fn a_replica_that_hangs_loses_nothing() {
    block_on(async {
        let sentinels = block_in_place(|| RedisSentinels::start_with(&["--save", ""]));
        let store = sentinel_store(&sentinels, "test:");
        let grants = acquire_all(&store).await;
        block_in_place(|| sentinels.replica().pause());
        complete_all(&store, &grants).await;
        block_in_place(|| {
            sentinels.primary().kill();
            sentinels.replica().resume();
            sentinels.fail_over();
        });
        assert_eq!(states(&store).await, [Some(State::Completed); KEYS]);
    });
}
