//! Claims that arrive long after they were sent: the tokens of what they get.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod redis_fixture;

use std::time::Duration;

use oncekey::store::{ClaimOutcome, Fenced, Store};
use oncekey_redis::redis;

use redis_fixture::calls::{LONG, acquire, acquire_as, claim, complete, key, renew};
use redis_fixture::records::{ttl, value, with_token};
use redis_fixture::{RedisFixture, block_on, connection, name, server};

/// What the server has after a native claim of `id` came `late`, when all that was there before was
/// forgotten.
async fn arrive(fixture: &RedisFixture, id: &str, claim: &oncekey::store::Claim, late: Duration) {
    let store = fixture.store();
    // So that the clock is known, and the next claim is one `SET`.
    acquire(&store, &key("first")).await;
    let grant = acquire_as(&store, &key(id), claim).await;
    let (record, left) = (value(fixture, id).await, ttl(fixture, id).await);
    let micros = u64::try_from(late.as_micros()).unwrap();
    let record = with_token(record, grant.token.get() - micros);
    let mut set = redis::cmd("SET");
    set.arg(name(&fixture.prefix, &key(id))).arg(record).arg("PX").arg(left);
    set.exec_async(&mut connection(&fixture.direct).await).await.unwrap();
}

async fn forget(fixture: &RedisFixture, id: &str) {
    let mut del = redis::cmd("DEL");
    del.arg(name(&fixture.prefix, &key(id)));
    del.exec_async(&mut connection(&fixture.direct).await).await.unwrap();
}

/// A claim was on its way while another was granted, ended and forgotten. Its attempt, asking again, gets a
/// token above the other's.
#[test]
fn a_grant_that_came_late_is_adopted_by_a_new_token() {
    block_on(async {
        let fixture = RedisFixture::on(server());
        let store = fixture.store();
        let late = claim();
        let other = acquire(&store, &key("a")).await;
        forget(&fixture, "a").await;
        arrive(&fixture, "a", &late, Duration::from_secs(100)).await;

        let adopted = acquire_as(&store, &key("a"), &late).await;
        assert!(adopted.token > other.token, "{} is not above {}", adopted.token, other.token);
        // From now on it is a grant like any other.
        assert_eq!(acquire_as(&store, &key("a"), &late).await, adopted);
        assert_eq!(store.renew(&key("a"), &renew(adopted, LONG)).await.unwrap(), Fenced::Applied);
        assert_eq!(acquire_as(&store, &key("a"), &late).await, adopted);
        let ended = store.complete(&key("a"), &complete(adopted, "done")).await.unwrap();
        assert_eq!(ended, Fenced::Applied);
    });
}

/// Whoever got its grant in time keeps its token, however late a copy of its claim is.
#[test]
fn a_grant_that_came_in_time_keeps_its_token() {
    block_on(async {
        let fixture = RedisFixture::on(server());
        let store = fixture.store();
        let claim = claim();
        arrive(&fixture, "a", &claim, Duration::from_secs(20)).await;
        let grant = acquire_as(&store, &key("a"), &claim).await;
        assert_eq!(store.renew(&key("a"), &renew(grant, 2 * LONG)).await.unwrap(), Fenced::Applied);
        assert_eq!(acquire_as(&store, &key("a"), &claim).await, grant);
        // Also where somebody waits.
        drop(store.watch().unwrap().subscribe(&key("a")).await.unwrap());
        assert_eq!(acquire_as(&store, &key("a"), &claim).await, grant);
        assert!(matches!(
            store.claim(&key("a"), &redis_fixture::calls::claim()).await.unwrap(),
            ClaimOutcome::Busy { .. }
        ));
    });
}
