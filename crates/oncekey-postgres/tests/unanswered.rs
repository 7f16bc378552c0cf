//! Batches that are not sent for a long time, and batches that are not answered.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod postgres_fixture;

use std::time::Duration;

use futures::future::join_all;
use oncekey::runtime::{ProcessRandom, Random};
use oncekey::store::{
    AttemptId, Claim, ClaimOutcome, ErrorKind, OnInterrupted, OnRetired, Store, StoreError,
};
use oncekey::{Fingerprint, Key, Scope};
use oncekey_conformance::Fixture;
use oncekey_postgres::PostgresStore;
use oncekey_testkit::Proxy;
use tokio::time::{sleep, timeout};

use postgres_fixture::{PostgresFixture, block_on, connection, pool};

/// How many calls come together.
const CALLS: usize = 48;
const LONG: Duration = Duration::from_secs(3600);
/// For what has to come without anybody's help, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn key(id: impl ToString) -> Key {
    Key::new(&Scope::new("tenant", "operation").unwrap(), id.to_string()).unwrap()
}

fn claim() -> Claim {
    Claim {
        attempt: AttemptId::from_bytes(ProcessRandom::new().next().to_be_bytes()),
        fingerprint: Fingerprint::of("the request"),
        lease: LONG,
        hold: LONG,
        on_interrupted: OnInterrupted::TakeOver,
        on_retired: OnRetired::Forget,
    }
}

async fn claim_all(store: &PostgresStore, keys: &[Key]) -> Vec<Result<ClaimOutcome, StoreError>> {
    let claims = keys.iter().map(|key| async move { store.claim(key, &claim()).await });
    join_all(claims).await
}

fn is_granted(outcome: Result<ClaimOutcome, StoreError>) {
    assert!(matches!(outcome, Ok(ClaimOutcome::Acquired { number: 1, .. })), "{outcome:?}");
}

/// Longer than a batch that was sent is waited for.
const VERY_LONG: Duration = Duration::from_secs(11);

/// The pool has no connection for a long time: nothing was sent, and that is no unknown outcome.
#[test]
fn a_batch_that_waits_for_a_connection_is_not_sent() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let fixture = PostgresFixture { pool_size: 1, watch: false, ..fixture };
        let store = fixture.store();
        let taken = store.pool().get().await.unwrap();
        let keys: Vec<_> = (0..CALLS).map(key).collect();
        let calls = claim_all(&store, &keys);
        let free_it = async {
            sleep(VERY_LONG).await;
            drop(taken);
        };
        let (outcomes, ()) = tokio::join!(timeout(PATIENCE, calls), free_it);
        for outcome in outcomes.unwrap() {
            is_granted(outcome);
        }
        let sql = format!("SELECT count(DISTINCT xmin::text) FROM \"{}\".oncekey", fixture.schema);
        let commits = connection(&fixture.direct).await.query_one(&sql, &[]).await.unwrap();
        assert!(commits.get::<_, i64>(0) < 4, "they were a batch");
    });
}

/// The network swallows a batch: its outcome is unknown, and its connection is in nobody's way.
#[test]
fn a_batch_that_nobody_answers_leaves_no_connection_behind() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let proxy = Proxy::start(postgres_fixture::server());
        let config = proxy.connection_string().parse().unwrap();
        for prepared_statements in [false, true] {
            let builder = PostgresStore::builder(pool(&config, 1)).schema(&fixture.schema);
            let store = builder.prepared_statements(prepared_statements).build().unwrap();
            let keys: Vec<_> =
                (0..CALLS).map(|n| key(format!("{prepared_statements} {n}"))).collect();
            // Its statement is prepared, so that what is swallowed is the batch.
            claim_all(&store, &keys[..CALLS / 2]).await.into_iter().for_each(is_granted);
            proxy.black_hole(true);
            let outcomes = timeout(PATIENCE, claim_all(&store, &keys[CALLS / 2..])).await;
            proxy.black_hole(false);
            for outcome in outcomes.expect("it gives up") {
                assert_eq!(outcome.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
            }
            let after = [key(format!("after {prepared_statements}"))];
            let outcomes = timeout(PATIENCE, claim_all(&store, &after)).await;
            outcomes.expect("it is answered").into_iter().for_each(is_granted);
        }
    });
}
