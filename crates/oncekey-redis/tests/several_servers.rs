//! A cluster of six servers, and a primary behind three sentinels: the conformance suite, keys that move,
//! and failovers.
#![cfg(all(feature = "cluster", feature = "sentinel"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod redis_fixture;

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use oncekey::Key;
use oncekey::store::{ClaimOutcome, ErrorKind, Fenced, State, Store};
use oncekey_conformance::{Fixture, run_all};
use oncekey_redis::redis::cluster::ClusterClientBuilder;
use oncekey_redis::{RedisStore, RedisStoreBuilder};
use oncekey_testkit::{Flavor, Redis, RedisCluster, RedisSentinels};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use redis_fixture::calls::{LONG, acquire, claim, complete, insist, key, renew};
use redis_fixture::several::{
    ClusterFixture, SentinelFixture, cluster, cluster_store, sentinel_store,
};
use redis_fixture::{block_on, new_prefix, valkey};

#[test]
fn a_cluster_keeps_every_rule() {
    let report = run_all(&block_on(ClusterFixture::create()));
    assert!(report.is_success(), "{report}");
}

#[test]
fn a_cluster_of_valkeys_keeps_every_rule() {
    static CLUSTER: LazyLock<RedisCluster> =
        LazyLock::new(|| RedisCluster::start_with(Flavor::Valkey, &[]));
    if valkey("a_cluster_of_valkeys_keeps_every_rule").is_some() {
        let report = run_all(&ClusterFixture { cluster: &CLUSTER, prefix: new_prefix() });
        assert!(report.is_success(), "{report}");
    }
}

/// Every node forgets its scripts between calls.
#[test]
fn a_cluster_may_forget_its_scripts() {
    block_on(async {
        let store = cluster_store(cluster(), &new_prefix()).await;
        let forget = || {
            for node in cluster().nodes() {
                assert_eq!(node.ask(&["SCRIPT", "FLUSH"]), "OK");
            }
        };
        for id in 0..30 {
            let grant = acquire(&store, &key(id)).await;
            forget();
            assert_eq!(store.renew(&key(id), &renew(grant, LONG)).await.unwrap(), Fenced::Applied);
            forget();
            let ended = store.complete(&key(id), &complete(grant, "done")).await.unwrap();
            assert_eq!(ended, Fenced::Applied);
        }
    });
}

#[test]
fn a_primary_behind_sentinel_keeps_every_rule() {
    let report = run_all(&block_on(SentinelFixture::create()));
    assert!(report.is_success(), "{report}");
}

/// Keys are spread over all nodes, and a listing goes over all of them.
#[test]
fn a_listing_goes_over_all_nodes() {
    block_on(async {
        let store = cluster_store(cluster(), &new_prefix()).await;
        for id in 0..100 {
            acquire(&store, &key(id)).await;
        }
        let mut listed = HashSet::new();
        let mut after = None;
        loop {
            let query = oncekey::store::Query { states: vec![State::Live], after, limit: 7 };
            let page = store.inspect().unwrap().list(&query).await.unwrap();
            listed.extend(page.entries.into_iter().map(|(key, _)| key));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(listed, (0..100).map(key).collect());
    });
}

/// Slots are moved from node to node while their keys are claimed and completed: every answer is a true
/// one, whatever redirections it took.
#[test]
fn keys_that_move_keep_their_records() {
    block_on(async {
        let cluster = RedisCluster::start();
        let prefix = new_prefix();
        let store = cluster_store(&cluster, &prefix).await;
        let mut moved = 0;
        for id in 0..40 {
            let grant = acquire(&store, &key(id)).await;
            let name = redis_fixture::name(&prefix, &key(id));
            let slot = redis_fixture::several::slot(&name);
            moved += usize::from(block_in_place(|| cluster.move_slot(slot, id % 3)));
            let outcome = insist(async || store.claim(&key(id), &claim()).await).await;
            assert!(matches!(outcome, ClaimOutcome::Busy { .. }), "{outcome:?}");
            assert_eq!(
                insist(async || store.complete(&key(id), &complete(grant, "done")).await).await,
                Fenced::Applied
            );
            moved += usize::from(block_in_place(|| cluster.move_slot(slot, (id + 1) % 3)));
            let outcome = insist(async || store.claim(&key(id), &claim()).await).await;
            assert_eq!(outcome, ClaimOutcome::Replay(Some("done".into())));
        }
        assert!(moved >= 40, "{moved} slots were moved with a key in them");
    });
}

/// A slot is on its way: its keys are where it goes, and its owner says for each call to ask there.
async fn while_a_slot_moves(cluster: &RedisCluster, store: &RedisStore, prefix: &str) {
    let slot = redis_fixture::several::slot(&redis_fixture::name(prefix, &key("a")));
    let grant = acquire(store, &key("a")).await;
    let runtime = Handle::current();
    let meanwhile = || {
        runtime.block_on(async {
            let outcome = insist(async || store.claim(&key("a"), &claim()).await).await;
            assert!(matches!(outcome, ClaimOutcome::Busy { .. }), "{outcome:?}");
            let done = complete(grant, "done");
            let ended = insist(async || store.complete(&key("a"), &done).await).await;
            assert_eq!(ended, Fenced::Applied);
            let outcome = insist(async || store.claim(&key("a"), &claim()).await).await;
            assert_eq!(outcome, ClaimOutcome::Replay(Some("done".into())));
        });
    };
    let mut places = 0..RedisCluster::PRIMARIES;
    assert!(block_in_place(|| places.any(|to| cluster.move_slot_while(slot, to, meanwhile))));
    let asks = |node: &Redis| {
        let stat = node.info("errorstat_ASK").unwrap_or_default();
        stat.strip_prefix("count=")
            .and_then(|count| count.parse::<usize>().ok())
            .unwrap_or_default()
    };
    let asks: usize = cluster.nodes().iter().map(asks).sum();
    assert!(asks >= 3, "{asks} redirections");
}

#[test]
fn keys_are_found_while_their_slot_moves() {
    block_on(async {
        let cluster = RedisCluster::start();
        let prefix = new_prefix();
        let store = cluster_store(&cluster, &prefix).await;
        while_a_slot_moves(&cluster, &store, &prefix).await;
    });
}

/// Where replicas are waited for, other commands come behind each one.
#[test]
fn keys_are_found_and_waited_for_while_their_slot_moves() {
    block_on(async {
        let cluster = RedisCluster::start();
        let prefix = new_prefix();
        let urls = cluster.urls();
        let urls: Vec<_> = urls.iter().map(String::as_str).collect();
        let builder = RedisStoreBuilder::connect_cluster(&urls).await.unwrap();
        let builder = builder.key_prefix(&prefix).wait_for_replicas(1, Duration::from_secs(1));
        while_a_slot_moves(&cluster, &builder.build().unwrap(), &prefix).await;
    });
}

/// A primary of a cluster dies. What its replica had is there, and what is asked meanwhile is answered in
/// the end, by no second grant.
#[test]
fn a_cluster_survives_a_primary() {
    block_on(async {
        let cluster = RedisCluster::start();
        let store = cluster_store(&cluster, &new_prefix()).await;
        let mut grants = Vec::new();
        for id in 0..60 {
            grants.push(acquire(&store, &key(id)).await);
        }
        // So that the replicas have it all.
        for node in &cluster.nodes()[..RedisCluster::PRIMARIES] {
            let replicated = || node.ask(&["WAIT", "1", "1000"]) == "1";
            assert!(block_in_place(replicated));
        }
        block_in_place(|| cluster.fail_over(0));
        for (id, grant) in grants.into_iter().enumerate() {
            let outcome = insist(async || store.claim(&key(id), &claim()).await).await;
            assert!(matches!(outcome, ClaimOutcome::Busy { .. }), "{outcome:?}");
            assert_eq!(
                insist(async || store.complete(&key(id), &complete(grant, "done")).await).await,
                Fenced::Applied
            );
        }
    });
}

/// A shard is silent, and calls on it fail, so that the next claim looks whether the servers are still fit:
/// it is made where there is an answer, and what has changed there is noticed.
#[test]
fn a_silent_shard_stops_no_claims_on_others() {
    block_on(async {
        let settings = ["--cluster-require-full-coverage", "no"];
        let cluster = RedisCluster::start_with(Flavor::Redis, &settings);
        let client = ClusterClientBuilder::new(cluster.urls())
            .response_timeout(Duration::from_millis(300))
            .connection_timeout(Duration::from_millis(300))
            .retries(1)
            .build()
            .unwrap();
        let connection = client.get_async_connection().await.unwrap();
        let prefix = new_prefix();
        let store = RedisStore::builder(connection).key_prefix(&prefix).build().unwrap();
        store.check().await.unwrap();
        let shard = |key: &Key| {
            let slot = redis_fixture::several::slot(&redis_fixture::name(&prefix, key));
            usize::from(slot) * RedisCluster::PRIMARIES / 16_384
        };
        let (silent, there): (Vec<_>, Vec<_>) = (0..40).map(key).partition(|key| shard(key) == 0);
        for number in [RedisCluster::PRIMARIES, 0] {
            cluster.nodes()[number].pause();
        }
        for key in &there[..3] {
            store.claim(&silent[0], &claim()).await.unwrap_err();
            acquire(&store, key).await;
        }

        let node = &cluster.nodes()[shard(&there[3])];
        assert_eq!(node.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]), "OK");
        store.claim(&silent[0], &claim()).await.unwrap_err();
        for key in &there[3..6] {
            let error = store.claim(key, &claim()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
        }
    });
}

#[test]
fn sentinel_leads_to_the_next_primary() {
    block_on(async {
        let sentinels = block_in_place(|| RedisSentinels::start_with(&["--save", ""]));
        let store = sentinel_store(&sentinels, &new_prefix());
        let mut grants = Vec::new();
        for id in 0..20 {
            grants.push(acquire(&store, &key(id)).await);
        }
        assert_eq!(block_in_place(|| sentinels.primary().ask(&["WAIT", "1", "1000"])), "1");
        block_in_place(|| sentinels.fail_over());
        for (id, grant) in grants.into_iter().enumerate() {
            assert_eq!(
                insist(async || store.complete(&key(id), &complete(grant, "done")).await).await,
                Fenced::Applied
            );
        }
        block_in_place(|| sentinels.mend());
        block_in_place(|| sentinels.fail_over());
        for id in 0..20 {
            let outcome = insist(async || store.claim(&key(id), &claim()).await).await;
            assert_eq!(outcome, ClaimOutcome::Replay(Some("done".into())));
        }
    });
}

/// A connection to one node of a cluster would miss most keys.
#[test]
fn one_node_of_a_cluster_is_refused() {
    block_on(async {
        let store = RedisStore::connect(&cluster().nodes()[0].url()).unwrap();
        let error = store.check().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        assert!(error.to_string().contains("cluster"), "{error}");
    });
}
