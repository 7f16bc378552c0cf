//! Rows that somebody else's transaction has.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod postgres_fixture;

use std::time::Duration;

use oncekey::runtime::{ProcessRandom, Random, Timestamp};
use oncekey::store::{
    Abandon, AttemptId, Claim, ClaimOutcome, Complete, Completion, ErrorKind, Fenced, Grant, Known,
    OnInterrupted, OnRetired, Renew, Status, Store,
};
use oncekey::{Fingerprint, Idempotency, Key, Scope};
use oncekey_conformance::Fixture;
use oncekey_postgres::PostgresStore;
use oncekey_postgres::tokio_postgres::Config;
use tokio::time::{sleep, timeout};

use postgres_fixture::{PostgresFixture, block_on, connection, pool};

/// Longer than the lease that is asked for meanwhile.
const HELD: Duration = Duration::from_secs(3);
const LEASE: Duration = Duration::from_secs(2);

fn key(id: &str) -> Key {
    Key::new(&Scope::new("tenant", "operation").unwrap(), id).unwrap()
}

fn claim() -> Claim {
    Claim {
        attempt: AttemptId::from_bytes(ProcessRandom::new().next().to_be_bytes()),
        fingerprint: Fingerprint::of("the request"),
        lease: LEASE,
        hold: Duration::from_secs(600),
        on_interrupted: OnInterrupted::TakeOver,
        on_retired: OnRetired::Forget,
    }
}

async fn acquire(store: &PostgresStore, key: &Key, claim: &Claim) -> (Grant, Duration) {
    match store.claim(key, claim).await.unwrap() {
        ClaimOutcome::Acquired { grant, lease_left, .. } => (grant, lease_left),
        other => panic!("{other:?}"),
    }
}

/// The fixture, and the configuration of connections with another isolation level.
async fn setup(isolation: &str) -> (PostgresFixture, PostgresStore) {
    let fixture = PostgresFixture::create().await;
    let mut config: Config = fixture.config.clone();
    config.options(format!("-c default_transaction_isolation={isolation}"));
    let builder = PostgresStore::builder(pool(&config, 2)).schema(&fixture.schema);
    let store = builder.build().unwrap();
    (fixture, store)
}

/// The lease begins when the row is free, not when it was asked for: also if whoever had it rolls back.
#[test]
fn a_lease_that_was_waited_for_is_whole() {
    block_on(async {
        for isolation in ["read\\ committed", "repeatable\\ read", "serializable"] {
            let (fixture, store) = setup(isolation).await;
            let prepared = Idempotency::at_least_once(store.clone())
                .prepare(&key("new"), &Fingerprint::of("the request"))
                .unwrap();
            let lapsed = claim();
            let brief = Claim { lease: Duration::from_millis(1), ..lapsed };
            acquire(&store, &key("lapsed"), &brief).await;
            let (owner, _) = acquire(&store, &key("owned"), &claim()).await;

            // One transaction has claimed a new key, and has locked two others. It never commits.
            let mut holder = connection(&fixture.config).await;
            let transaction = holder.transaction().await.unwrap();
            store.claim_in::<()>(&transaction, &prepared).await.unwrap();
            let sql = format!("SELECT 1 FROM \"{}\".oncekey FOR UPDATE", fixture.schema);
            transaction.query(&sql, &[]).await.unwrap();

            let waiting = async {
                let (new, lapsed) = (key("new"), key("lapsed"));
                let (first, second) = (claim(), claim());
                let (first, second) =
                    tokio::join!(acquire(&store, &new, &first), acquire(&store, &lapsed, &second));
                assert_eq!((first.1, second.1), (LEASE, LEASE), "{isolation}");
                for key in [new, lapsed] {
                    let observed = store.get(&key).await.unwrap().unwrap();
                    let left = observed.record.forget_at.saturating_since(observed.now);
                    assert!(left > Duration::from_secs(600), "{isolation}: {left:?}");
                }
            };
            let renewing = async {
                let other = fixture.store();
                let renew = Renew { grant: owner, lease: LEASE, progress: None };
                assert_eq!(other.renew(&key("owned"), &renew).await.unwrap(), Fenced::Applied);
                let observed = other.get(&key("owned")).await.unwrap().unwrap();
                let left = observed.record.forget_at.saturating_since(observed.now);
                assert!(left > Duration::from_secs(600), "{isolation}: {left:?}");
            };
            let releasing = async {
                sleep(HELD).await;
                transaction.rollback().await.unwrap();
            };
            tokio::join!(waiting, renewing, releasing);
        }
    });
}

/// Likewise a result's retention.
#[test]
fn a_retention_that_was_waited_for_is_whole() {
    block_on(async {
        let (fixture, store) = setup("read\\ committed").await;
        let (grant, _) = acquire(&store, &key("owned"), &claim()).await;
        let mut holder = connection(&fixture.config).await;
        let transaction = holder.transaction().await.unwrap();
        let sql = format!("SELECT 1 FROM \"{}\".oncekey FOR UPDATE", fixture.schema);
        transaction.query(&sql, &[]).await.unwrap();

        let retention = Duration::from_secs(600);
        let value = "done".into();
        let completion = Completion { value, replayable: true, retention, hold: Duration::ZERO };
        let complete = Complete { grant, completion };
        let releasing = async {
            sleep(HELD).await;
            let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
            let released: i64 = transaction.query_one(sql, &[]).await.unwrap().get(0);
            transaction.rollback().await.unwrap();
            Timestamp::from_micros(released.try_into().unwrap())
        };
        let key = key("owned");
        let (completed, released) = tokio::join!(store.complete(&key, &complete), releasing);
        assert_eq!(completed.unwrap(), Fenced::Applied);
        let record = store.get(&key).await.unwrap().unwrap().record;
        let Status::Completed { retained_until, .. } = record.status else { panic!("{record:?}") };
        assert!(retained_until >= released.saturating_add(retention), "it began too soon");
        assert_eq!(record.forget_at, retained_until);
    });
}

#[test]
fn a_row_that_stays_locked_reads_as_busy_or_times_out() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let store = PostgresStore::builder(pool(&fixture.config, 1))
            .schema(&fixture.schema)
            .lock_timeout(Duration::from_millis(100))
            .build()
            .unwrap();
        let (grant, _) = acquire(&store, &key("locked"), &claim()).await;
        let mut holder = connection(&fixture.config).await;
        let transaction = holder.transaction().await.unwrap();
        let sql = format!("SELECT 1 FROM \"{}\".oncekey FOR UPDATE", fixture.schema);
        transaction.query(&sql, &[]).await.unwrap();
        let new = Idempotency::at_least_once(store.clone())
            .prepare(&key("new"), &Fingerprint::of("the request"))
            .unwrap();
        store.claim_in::<()>(&transaction, &new).await.unwrap();

        // A refusal needs no lock.
        let outcome = store.claim(&key("locked"), &claim()).await.unwrap();
        assert!(matches!(outcome, ClaimOutcome::Busy { .. }), "{outcome:?}");
        // A grant does.
        let outcome = store.claim(&key("new"), &claim()).await.unwrap();
        assert!(matches!(outcome, ClaimOutcome::Busy { .. }), "{outcome:?}");
        let abandon = Abandon { grant, known: Known::Unknown };
        let error = store.abandon(&key("locked"), &abandon).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        // The one connection of the pool is free again, and waits as long as before.
        acquire(&store, &key("other"), &claim()).await;
        transaction.commit().await.unwrap();
        assert_eq!(store.abandon(&key("locked"), &abandon).await.unwrap(), Fenced::Applied);
    });
}

/// Purging takes what it can, and leaves what somebody has.
#[test]
fn a_purge_waits_for_no_row() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let store = fixture.store();
        let mut grants = Vec::new();
        for id in ["a", "b", "c"] {
            let (grant, _) = acquire(&store, &key(id), &claim()).await;
            let known = Known::NotStarted { hold: Duration::ZERO };
            let _ = store.abandon(&key(id), &Abandon { grant, known }).await.unwrap();
            grants.push(grant);
        }
        let mut holder = connection(&fixture.config).await;
        let transaction = holder.transaction().await.unwrap();
        let sql = format!("SELECT 1 FROM \"{}\".oncekey WHERE key = $1 FOR UPDATE", fixture.schema);
        transaction.query(&sql, &[&key("b").as_bytes()]).await.unwrap();

        let purged = timeout(Duration::from_secs(3), store.purge(100)).await.unwrap().unwrap();
        assert_eq!((purged.removed, purged.more), (2, false));
        // Nor does it keep anybody else waiting who wants what it is removing.
        transaction.rollback().await.unwrap();
        let completion = Completion {
            value: "done".into(),
            replayable: true,
            retention: Duration::from_secs(600),
            hold: Duration::ZERO,
        };
        let complete = Complete { grant: grants[1], completion };
        assert_eq!(store.complete(&key("b"), &complete).await.unwrap(), Fenced::Applied);
        assert_eq!(store.purge(100).await.unwrap().removed, 0);
    });
}

/// Purging looks at a row again when its time may have come, however often that moved.
#[test]
fn what_was_renewed_is_purged_at_its_new_time() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let store = fixture.store();
        let brief =
            Claim { lease: Duration::from_millis(50), hold: Duration::from_millis(50), ..claim() };
        let (grant, _) = acquire(&store, &key("renewed"), &brief).await;
        let renew = Renew { grant, lease: Duration::from_millis(700), progress: None };
        let _ = store.renew(&key("renewed"), &renew).await.unwrap();
        let forget_at = store.get(&key("renewed")).await.unwrap().unwrap().record.forget_at;
        // Its first time is over.
        sleep(Duration::from_millis(200)).await;
        while store.purge(100).await.unwrap().removed == 0 {
            sleep(Duration::from_millis(50)).await;
        }
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        let now: i64 = connection(&fixture.config).await.query_one(sql, &[]).await.unwrap().get(0);
        assert!(Timestamp::from_micros(now.try_into().unwrap()) >= forget_at, "it went too soon");
        assert!(store.get(&key("renewed")).await.unwrap().is_none());
    });
}
