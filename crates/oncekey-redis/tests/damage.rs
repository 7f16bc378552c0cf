//! Values that are no records, or not what was written: what is answered with an error, and that nothing is
//! written then.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod redis_fixture;

use std::time::Duration;

use oncekey::store::{
    Claim, Complete, Completion, ErrorKind, Evict, Expected, Fenced, Progress, Renew, Store,
};
use oncekey_redis::redis;
use tokio::time::sleep;

use redis_fixture::calls::{LONG, acquire, acquire_as, claim, completion, key, renew};
use redis_fixture::records::{HEAD, replace, ttl, value, with_sum, with_token};
use redis_fixture::{RedisFixture, block_on, connection, name, server};

/// A bit of the saved progress flips. Neither its own attempt nor who would take over gets it, and the
/// record stays as it is, for somebody to look into.
#[test]
fn damaged_progress_is_left_alone() {
    block_on(async {
        for scripts_only in [false, true] {
            for knows_time in [false, true] {
                let fixture = RedisFixture { scripts_only, ..RedisFixture::on(server()) };
                let lease = Duration::from_millis(200);
                let own = Claim { lease, ..claim() };
                let damaged = save_and_damage(&fixture, &own).await;
                let store = fixture.store();
                if knows_time {
                    acquire(&store, &key("first")).await;
                }
                let left = ttl(&fixture, "a").await;
                for claim in [own, claim()] {
                    // The first time, the lease is live yet; the second time, it has lapsed.
                    let error = store.claim(&key("a"), &claim).await.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                    assert_eq!(value(&fixture, "a").await, damaged, "{scripts_only} {knows_time}");
                    assert!(ttl(&fixture, "a").await <= left);
                    sleep(lease).await;
                }
            }
        }
    });
}

/// The value after the progress of that claim's attempt was saved, and a bit of it flipped.
async fn save_and_damage(fixture: &RedisFixture, claim: &Claim) -> Vec<u8> {
    let store = fixture.store();
    let grant = acquire_as(&store, &key("a"), claim).await;
    let save = Progress { sequence: 1, data: "charged".into() };
    let save = Renew { progress: Some(save), ..renew(grant, claim.lease) };
    assert_eq!(store.renew(&key("a"), &save).await.unwrap(), Fenced::Applied);
    let mut damaged = value(fixture, "a").await;
    *damaged.last_mut().unwrap() ^= 1;
    replace(fixture, "a", &damaged).await;
    damaged
}

/// Progress that is whole is handed on, whatever its length.
#[test]
fn whole_progress_is_handed_on() {
    block_on(async {
        for scripts_only in [false, true] {
            let fixture = RedisFixture { scripts_only, ..RedisFixture::on(server()) };
            let store = fixture.store();
            for data in [vec![], vec![7], vec![7; 100_000]] {
                let key = key(data.len());
                let brief = Claim { lease: Duration::from_millis(50), ..claim() };
                let grant = acquire_as(&store, &key, &brief).await;
                let save = Progress { sequence: 1, data: data.clone().into() };
                let save = Renew { progress: Some(save), ..renew(grant, brief.lease) };
                assert_eq!(store.renew(&key, &save).await.unwrap(), Fenced::Applied);
                assert_eq!(acquire_as(&store, &key, &brief).await, grant);
                sleep(Duration::from_millis(60)).await;
                let taken = store.claim(&key, &claim()).await.unwrap();
                let oncekey::store::ClaimOutcome::Acquired { previous: Some(previous), .. } = taken
                else {
                    panic!("{taken:?}");
                };
                assert_eq!(previous.token, grant.token);
                assert_eq!(previous.progress.unwrap(), data);
            }
        }
    });
}

/// Heads that add up, and say what no build writes.
#[test]
fn a_head_that_makes_no_sense_is_left_alone() {
    block_on(async {
        let fixture = RedisFixture { scripts_only: true, ..RedisFixture::on(server()) };
        let store = fixture.store();
        let brief = Claim { lease: Duration::from_millis(20), ..claim() };
        acquire_as(&store, &key("a"), &brief).await;
        let there = value(&fixture, "a").await;
        let both_causes = {
            let mut head = there[..HEAD - 4].to_vec();
            head[2] = 1 | 2;
            head.extend_from_slice(&7_u64.to_be_bytes());
            with_sum(head)
        };
        let previous_too_high = {
            let mut head = there[..HEAD - 4].to_vec();
            head[2] = 1;
            head.extend_from_slice(&(1_u64 << 60).to_be_bytes());
            with_sum(head)
        };
        sleep(2 * brief.lease).await;
        for value in [both_causes, previous_too_high, with_token(there, 1 << 60)] {
            replace(&fixture, "a", &value).await;
            for claim in [brief, claim()] {
                let error = store.claim(&key("a"), &claim).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                assert_eq!(redis_fixture::records::value(&fixture, "a").await, value);
            }
        }
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
            let mut damaged = value(&fixture, "a").await;
            *damaged.last_mut().unwrap() ^= 1;
            replace(&fixture, "a", &damaged).await;
            let error = store.claim(&key("a"), &claim()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            let error = store.complete(&key("a"), &done).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        }
    });
}
