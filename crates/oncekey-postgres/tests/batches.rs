//! Calls that come together and share a statement: none waits for another's row, fails with another's
//! fault, or is lost with another's caller.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod postgres_fixture;

use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, join_all, select};
use oncekey::runtime::{ProcessRandom, Random};
use oncekey::store::{
    AttemptId, Claim, ClaimOutcome, Complete, Completion, ErrorKind, Fenced, Grant, OnInterrupted,
    OnRetired, Store, StoreError,
};
use oncekey::{Fingerprint, Idempotency, Key, Scope};
use oncekey_conformance::Fixture;
use oncekey_postgres::PostgresStore;
use oncekey_testkit::{Lose, Proxy};
use tokio::time::timeout;

use postgres_fixture::{PostgresFixture, block_on, connection};

/// How many calls come together.
const CALLS: usize = 48;
const LONG: Duration = Duration::from_secs(3600);
/// For what has to come without anybody's help, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn key(id: impl ToString) -> Key {
    Key::new(&Scope::new("tenant", "operation").unwrap(), id.to_string()).unwrap()
}

fn keys() -> Vec<Key> {
    (0..CALLS).map(key).collect()
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

fn complete(grant: Grant) -> Complete {
    let completion =
        Completion { value: "done".into(), replayable: true, retention: LONG, hold: LONG };
    Complete { grant, completion }
}

fn grant(outcome: Result<ClaimOutcome, StoreError>) -> Grant {
    match outcome.unwrap() {
        ClaimOutcome::Acquired { grant, number: 1, lease_left, previous: None } => {
            assert_eq!(lease_left, LONG);
            grant
        }
        other => panic!("{other:?}"),
    }
}

async fn claim_all(store: &PostgresStore, keys: &[Key]) -> Vec<Result<ClaimOutcome, StoreError>> {
    let claims = keys.iter().map(|key| async move { store.claim(key, &claim()).await });
    join_all(claims).await
}

async fn acquire_all(store: &PostgresStore, keys: &[Key]) -> Vec<Grant> {
    claim_all(store, keys).await.into_iter().map(grant).collect()
}

async fn complete_all(store: &PostgresStore, keys: &[Key], grants: &[Grant]) -> Vec<Fenced> {
    let completions = keys
        .iter()
        .zip(grants)
        .map(|(key, grant)| async move { store.complete(key, &complete(*grant)).await.unwrap() });
    join_all(completions).await
}

/// In how many transactions all rows were last written.
async fn commits(fixture: &PostgresFixture) -> usize {
    let sql = format!("SELECT count(DISTINCT xmin::text) FROM \"{}\".oncekey", fixture.schema);
    let count: i64 = connection(&fixture.direct).await.query_one(&sql, &[]).await.unwrap().get(0);
    usize::try_from(count).unwrap()
}

#[test]
fn calls_that_come_together_share_commits() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let store = fixture.store();
        let grants = acquire_all(&store, &keys()).await;
        assert!(commits(&fixture).await <= CALLS / 4, "{} commits", commits(&fixture).await);
        assert_eq!(complete_all(&store, &keys(), &grants).await, [Fenced::Applied; CALLS]);
        assert!(commits(&fixture).await <= CALLS / 4, "{} commits", commits(&fixture).await);
        for outcome in claim_all(&store, &keys()).await {
            assert_eq!(outcome.unwrap(), ClaimOutcome::Replay(Some("done".into())));
        }
        // What is repeated is applied already, and what is another's is lost, in a batch too.
        let stale: Vec<_> = grants.iter().map(|_| Grant { ..grants[0] }).collect();
        let again = complete_all(&store, &keys(), &stale).await;
        assert_eq!(again[0], Fenced::Applied);
        assert_eq!(again[1..], [Fenced::Lost; CALLS - 1]);
    });
}

#[test]
fn a_store_that_is_told_to_shares_none() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let fixture = PostgresFixture { batching: false, ..fixture };
        let store = fixture.store();
        let grants = acquire_all(&store, &keys()).await;
        assert_eq!(commits(&fixture).await, CALLS);
        assert_eq!(complete_all(&store, &keys(), &grants).await, [Fenced::Applied; CALLS]);
        assert_eq!(commits(&fixture).await, CALLS);
    });
}

/// Somebody's transaction has made one of the keys known and stays open. Only that key's claim waits, and
/// what the others are told is true.
#[test]
fn a_claim_that_has_to_wait_delays_no_other() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let store = fixture.store();
        let mut holder = connection(&fixture.config).await;
        for round in 0..8 {
            let waiting = key(format!("{round} {}", round * 5));
            let others: Vec<_> = (0..CALLS)
                .map(|number| key(format!("{round} {number}")))
                .filter(|key| *key != waiting)
                .collect();
            let prepared = Idempotency::at_least_once(store.clone())
                .prepare(&waiting, &Fingerprint::of("the request"))
                .unwrap();
            let transaction = holder.transaction().await.unwrap();
            store.claim_in::<()>(&transaction, &prepared).await.unwrap();
            let claim = claim();
            let mut held = store.claim(&waiting, &claim);
            assert!((&mut held).now_or_never().is_none());
            let rest = timeout(PATIENCE, acquire_all(&store, &others));
            match select(Box::pin(rest), held).await {
                Either::Left((grants, held)) => {
                    transaction.rollback().await.unwrap();
                    grant(held.await);
                    let completed = complete_all(&store, &others, &grants.unwrap()).await;
                    assert_eq!(completed, [Fenced::Applied; CALLS - 1]);
                }
                Either::Right((outcome, _)) => panic!("did not wait: {outcome:?}"),
            }
        }
    });
}

/// The same for a row that is there, and is to be completed.
#[test]
fn a_completion_that_has_to_wait_delays_no_other() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let store = fixture.store();
        let mut holder = connection(&fixture.config).await;
        let keys = keys();
        let grants = acquire_all(&store, &keys).await;
        let transaction = holder.transaction().await.unwrap();
        let sql = format!("SELECT 1 FROM \"{}\".oncekey WHERE key = $1 FOR UPDATE", fixture.schema);
        transaction.query(&sql, &[&keys[0].as_bytes()]).await.unwrap();
        let command = complete(grants[0]);
        let mut held = store.complete(&keys[0], &command);
        assert!((&mut held).now_or_never().is_none());
        let rest = timeout(PATIENCE, complete_all(&store, &keys[1..], &grants[1..]));
        match select(Box::pin(rest), held).await {
            Either::Left((rest, held)) => {
                assert_eq!(rest.unwrap(), [Fenced::Applied; CALLS - 1]);
                transaction.rollback().await.unwrap();
                assert_eq!(held.await.unwrap(), Fenced::Applied);
            }
            Either::Right((outcome, _)) => panic!("did not wait: {outcome:?}"),
        }
    });
}

/// The server refuses the batch because of one of its keys: that one fails alone.
#[test]
fn a_call_that_fails_takes_no_other_with_it() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let store = fixture.store();
        let client = connection(&fixture.direct).await;
        let schema = &fixture.schema;
        let hex: String = key(7).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let trigger = |event: &str| {
            format!(
                "SET search_path = \"{schema}\"; \
                 CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN RAISE 'not this one'; END $$; \
                 CREATE TRIGGER fail BEFORE {event} ON oncekey FOR EACH ROW \
                 WHEN (NEW.key = '\\x{hex}') EXECUTE FUNCTION fail()"
            )
        };
        client.batch_execute(&trigger("INSERT")).await.unwrap();
        let outcomes = claim_all(&store, &keys()).await;
        for (number, outcome) in outcomes.into_iter().enumerate() {
            if number == 7 {
                assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unavailable);
            } else {
                grant(outcome);
            }
        }
        client.batch_execute("DROP TRIGGER fail ON oncekey").await.unwrap();
        let grants = acquire_all(&store, &[key(7), key("other")]).await;
        client.batch_execute(&trigger("UPDATE")).await.unwrap();
        let (first, second) = (complete(grants[0]), complete(grants[1]));
        let (sick, sound) = (key(7), key("other"));
        let (failed, applied) =
            tokio::join!(store.complete(&sick, &first), store.complete(&sound, &second));
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(applied.unwrap(), Fenced::Applied);
    });
}

/// Many claims on few keys, from two stores: each key is granted once.
#[test]
fn of_claims_on_one_key_one_is_granted() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let stores = [fixture.store(), fixture.store()];
        for round in 0..10 {
            let keys: Vec<_> = (0..CALLS * 2).map(|n| key(format!("{round} {}", n % 6))).collect();
            let (first, second) =
                tokio::join!(claim_all(&stores[0], &keys), claim_all(&stores[1], &keys));
            let outcomes = first.into_iter().chain(second).map(Result::unwrap);
            let (granted, refused): (Vec<_>, Vec<_>) =
                outcomes.partition(|outcome| matches!(outcome, ClaimOutcome::Acquired { .. }));
            assert_eq!(granted.len(), 6);
            let is_busy = |outcome: &ClaimOutcome| matches!(outcome, ClaimOutcome::Busy { .. });
            assert!(refused.iter().all(is_busy), "{refused:?}");
        }
    });
}

/// Callers that give up, at every stage of a batch: the others are answered, and lanes stay in use.
#[test]
fn a_caller_that_is_dropped_harms_no_other() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let store = fixture.store();
        for polls in 1..12 {
            let keys: Vec<_> = (0..CALLS).map(|n| key(format!("{polls} {n}"))).collect();
            let claims: Vec<_> = keys.iter().map(|_| claim()).collect();
            let calls = keys.iter().zip(&claims).enumerate().map(|(number, (key, claim))| {
                let store = &store;
                async move {
                    let mut call = store.claim(key, claim);
                    if number % 3 != 0 {
                        return Some(call.await);
                    }
                    for _ in 0..polls {
                        if let Some(outcome) = (&mut call).now_or_never() {
                            return Some(outcome);
                        }
                        tokio::task::yield_now().await;
                    }
                    None
                }
            });
            let outcomes = timeout(PATIENCE, join_all(calls)).await.unwrap();
            for ((outcome, key), claim) in outcomes.into_iter().zip(&keys).zip(&claims) {
                // Whoever gave up gets the grant by asking again, whether the first call came through or not.
                let again = async { store.claim(key, claim).await };
                let outcome = match outcome {
                    Some(outcome) => outcome,
                    None => timeout(PATIENCE, again).await.unwrap(),
                };
                assert!(
                    matches!(outcome, Ok(ClaimOutcome::Acquired { number: 1, .. })),
                    "{outcome:?}"
                );
            }
        }
    });
}

/// A runtime ends while its calls are under way: those of another one go on.
#[test]
fn a_runtime_that_ends_takes_no_lane_with_it() {
    let fixture = block_on(PostgresFixture::create());
    let store = fixture.store();
    for round in 0..5 {
        let other = tokio::runtime::Runtime::new().unwrap();
        for number in 0..CALLS {
            let store = store.clone();
            other.spawn(
                async move { store.claim(&key(format!("{round} {number}")), &claim()).await },
            );
        }
        let mine: Vec<_> = (0..CALLS).map(|n| key(format!("mine {round} {n}"))).collect();
        block_on(async {
            let claims: Vec<_> = mine.iter().map(|_| claim()).collect();
            let calls = mine.iter().zip(&claims).map(|(key, claim)| store.claim(key, claim));
            let ending = async {
                tokio::task::yield_now().await;
                other.shutdown_background();
            };
            let (outcomes, ()) = tokio::join!(timeout(PATIENCE, join_all(calls)), ending);
            for ((outcome, key), claim) in outcomes.unwrap().into_iter().zip(&mine).zip(&claims) {
                // A connection that the other runtime has made may have ended with it.
                let outcome = match outcome {
                    Err(error) if error.is_retryable() => store.claim(key, claim).await,
                    outcome => outcome,
                };
                if let Ok(outcome) = outcome {
                    assert!(matches!(outcome, ClaimOutcome::Acquired { .. }), "{outcome:?}");
                }
            }
        });
    }
    block_on(async {
        let (last, claim) = (key("last"), claim());
        grant(timeout(PATIENCE, store.claim(&last, &claim)).await.unwrap());
    });
}

/// The connection of a batch is lost: nobody is told anything but that the outcome is unknown, and asking
/// again settles it.
#[test]
fn a_batch_whose_answer_is_lost_is_an_unknown_outcome_for_each() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let proxy = Proxy::start(postgres_fixture::server());
        let config = proxy.connection_string().parse().unwrap();
        let through = PostgresFixture { config, schema: fixture.schema.clone(), ..fixture };
        let store = through.store();
        for (round, lose) in [Lose::Answer, Lose::Request].into_iter().enumerate() {
            let keys: Vec<_> = (0..CALLS).map(|n| key(format!("{round} {n}"))).collect();
            let claims: Vec<_> = keys.iter().map(|_| claim()).collect();
            proxy.lose(lose, "oncekey_v1_claims(");
            let calls = keys.iter().zip(&claims).map(|(key, claim)| store.claim(key, claim));
            let outcomes = join_all(calls).await;
            let mut unknown = 0;
            for (outcome, (key, claim)) in outcomes.into_iter().zip(keys.iter().zip(&claims)) {
                let outcome = match outcome {
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
                        unknown += 1;
                        store.claim(key, claim).await.unwrap()
                    }
                    Ok(outcome) => outcome,
                };
                assert!(matches!(outcome, ClaimOutcome::Acquired { number: 1, .. }), "{outcome:?}");
            }
            assert!(unknown > 1, "no batch was under way when its connection was lost");
        }
    });
}

/// As in a stream of calls that is not polled while the body of its loop makes one of its own.
#[test]
fn callers_that_are_not_polled_keep_no_other_waiting() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let store = fixture.store();
        let (keys, claims) = ([key("a"), key("b"), key("c")], [claim(), claim(), claim()]);
        let mut held = [store.claim(&keys[0], &claims[0]), store.claim(&keys[1], &claims[1])];
        for call in &mut held {
            assert!(futures::poll!(call).is_pending(), "it has a lane");
        }
        let third = timeout(Duration::from_secs(30), store.claim(&keys[2], &claims[2])).await;
        grant(third.expect("it goes alone"));
        for outcome in join_all(held).await {
            grant(outcome);
        }
    });
}
