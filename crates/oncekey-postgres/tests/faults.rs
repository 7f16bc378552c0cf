//! Connections that are cut and servers that crash, under load: what was acknowledged stays, what was said
//! not to be applied was not, and what is unknown is settled by asking again.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod postgres_fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use oncekey::observe::{Event, Observer};
use oncekey::runtime::{ProcessRandom, Random};
use oncekey::store::{
    AttemptId, Claim, ClaimOutcome, Complete, Completion, ErrorKind, Grant, OnInterrupted,
    OnRetired, Store,
};
use oncekey::{Failure, Fingerprint, Idempotency, Key, Scope};
use oncekey_conformance::Fixture;
use oncekey_testkit::{Load, Lose};
use tokio::time::sleep;

use postgres_fixture::{PostgresFixture, block_on, connection};

const CLIENTS: usize = 6;
const LONG: Duration = Duration::from_secs(3600);

fn key(id: impl AsRef<[u8]>) -> Key {
    Key::new(&Scope::new("tenant", "operation").unwrap(), id).unwrap()
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

fn complete(grant: Grant, value: String) -> Complete {
    let completion =
        Completion { value: value.into(), replayable: true, retention: LONG, hold: LONG };
    Complete { grant, completion }
}

#[test]
fn sessions_that_are_terminated_at_random() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let direct = connection(&fixture.config).await;
        let faults = async |load: &Load| {
            let random = ProcessRandom::new();
            for _ in 0..150 {
                let millis = u64::try_from(random.next() % 30).unwrap();
                sleep(Duration::from_millis(millis)).await;
                load.calm().await;
                let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                           WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' \
                           ORDER BY (query LIKE $1)::int DESC, random() LIMIT 1";
                let own = format!("%{}%", fixture.schema);
                direct.query(sql, &[&own]).await.unwrap();
            }
        };
        Load::under(CLIENTS, || fixture.store(), faults).await;
    });
}

#[test]
fn a_server_that_crashes_and_restarts() {
    block_on(async {
        let fixture = PostgresFixture::alone().await;
        let faults = async |load: &Load| {
            for round in 0..4 {
                sleep(Duration::from_millis(400)).await;
                load.calm().await;
                let server = fixture.own.as_ref().unwrap();
                tokio::task::block_in_place(|| match round % 2 {
                    0 => server.crash(),
                    _ => server.restart(),
                });
            }
            sleep(Duration::from_millis(300)).await;
        };
        Load::under(CLIENTS, || fixture.store(), faults).await;
    });
}

/// Counts those who began to wait.
struct Waiting(Arc<AtomicUsize>);

impl Observer for Waiting {
    fn observe(&self, _: &str, event: &Event) {
        if matches!(event, Event::Waiting) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Those who wait for a duplicate get its result, though the server was restarted while they waited: with
/// notifications, whose connection is gone too, and without.
#[test]
fn waiters_outlive_a_server_that_restarts() {
    block_on(async {
        for watch in [true, false] {
            let fixture = PostgresFixture { watch, ..PostgresFixture::alone().await };
            let waiting = Arc::new(AtomicUsize::new(0));
            let idempotency = Idempotency::at_most_once(fixture.store())
                .wait_for_duplicate(Duration::from_secs(120))
                .observer(Waiting(waiting.clone()));
            let go_on = tokio::sync::Notify::new();
            let (order, request) = (key("order"), Fingerprint::of("the request"));
            let owner = idempotency.run(&order, &request, |_| async {
                go_on.notified().await;
                Ok::<_, Failure<()>>(7)
            });
            let duplicates = async {
                while fixture.store().get(&order).await.unwrap().is_none() {
                    sleep(Duration::from_millis(5)).await;
                }
                let never = |_| async { Err::<i32, _>(Failure::Unknown(())) };
                let runs = (0..4).map(|_| idempotency.run(&order, &request, never));
                join_all(runs).await
            };
            let restart = async {
                while waiting.load(Ordering::SeqCst) < 4 {
                    sleep(Duration::from_millis(5)).await;
                }
                tokio::task::block_in_place(|| fixture.own.as_ref().unwrap().crash());
                go_on.notify_one();
            };
            let (owner, duplicates, ()) = tokio::join!(owner, duplicates, restart);
            assert_eq!(*owner.unwrap().value(), 7);
            for duplicate in duplicates {
                let duplicate = duplicate.unwrap();
                assert_eq!((*duplicate.value(), duplicate.is_replay()), (7, true));
            }
        }
    });
}

/// A server that hangs: calls that are given up leave nothing behind, and the store goes on after it.
#[test]
fn a_server_that_pauses() {
    block_on(async {
        let fixture = PostgresFixture::alone().await;
        let store = fixture.store();
        let _ = store.claim(&key("before"), &claim()).await.unwrap();
        let server = fixture.own.as_ref().unwrap();
        let during = claim();
        server.pause();
        let brief = Duration::from_millis(300);
        assert!(tokio::time::timeout(brief, store.claim(&key("during"), &during)).await.is_err());
        server.resume();
        let outcome = store.claim(&key("during"), &during).await.unwrap();
        assert!(matches!(outcome, ClaimOutcome::Acquired { number: 1, .. }), "{outcome:?}");
    });
}

/// The answer to a claim is lost; the same claim, sent again, gets the same grant.
#[test]
fn a_lost_answer_is_an_unknown_outcome() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let proxy = oncekey_testkit::Proxy::start(postgres_fixture::server());
        let config = proxy.connection_string().parse().unwrap();
        let through = PostgresFixture { config, schema: fixture.schema.clone(), ..fixture };
        let store = through.store();
        let claim = claim();
        for (lose, is_granted) in [(Lose::Answer, true), (Lose::Request, false)] {
            let key = key(format!("{is_granted}"));
            proxy.lose(lose, "oncekey_v1_claim");
            let error = store.claim(&key, &claim).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
            let seen = store.get(&key).await.unwrap();
            assert_eq!(seen.is_some(), is_granted);
            let again = store.claim(&key, &claim).await.unwrap();
            let ClaimOutcome::Acquired { grant, number: 1, .. } = again else {
                panic!("{again:?}");
            };
            if let Some(seen) = seen {
                assert_eq!(seen.record.token, grant.token);
            }
        }
        proxy.refuse(true);
        drop(store);
        let error = through.store().claim(&key("refused"), &claim).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    });
}

/// The session that listens is terminated: whoever waits is woken to look, and is told again after that.
#[test]
fn a_listener_comes_back() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let store = fixture.store();
        let claim = claim();
        let outcome = store.claim(&key("watched"), &claim).await.unwrap();
        let ClaimOutcome::Acquired { grant, .. } = outcome else { panic!("{outcome:?}") };
        let mut subscription = store.watch().unwrap().subscribe(&key("watched")).await.unwrap();
        let direct = connection(&fixture.direct).await;
        // Of those that listen, the one on this fixture's channel.
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = $1";
        let schema = format!(
            "SELECT substring(prosrc FROM 'oncekey_[0-9a-f]{{16}}') FROM pg_proc \
                              WHERE pronamespace = '\"{}\"'::regnamespace \
                              AND proname = 'oncekey_v1_ended'",
            fixture.schema
        );
        let channel: String = direct.query_one(&schema, &[]).await.unwrap().get(0);
        let terminated = direct.query(sql, &[&format!("LISTEN {channel}")]).await.unwrap();
        assert_eq!(terminated.len(), 1);
        let brief = Duration::from_secs(10);
        tokio::time::timeout(brief, subscription.changed()).await.unwrap();
        // It listens again, and may have missed something.
        tokio::time::timeout(brief, subscription.changed()).await.unwrap();

        // A new subscription waits until it listens again.
        let mut again = loop {
            match store.watch().unwrap().subscribe(&key("watched")).await {
                Ok(again) => break again,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
            sleep(Duration::from_millis(50)).await;
        };
        let completed = complete(grant, "done".to_owned());
        let _ = store.complete(&key("watched"), &completed).await.unwrap();
        tokio::time::timeout(brief, again.changed()).await.unwrap();
        tokio::time::timeout(brief, subscription.changed()).await.unwrap();

        // Nobody waits: the connection ends.
        drop((again, subscription));
        let count = "SELECT count(*) FROM pg_stat_activity WHERE query = $1";
        loop {
            let row = direct.query_one(count, &[&format!("LISTEN {channel}")]).await.unwrap();
            if row.get::<_, i64>(0) == 0 {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
}

/// The network swallows what the listener sends while it connects: it gives that up, and tries again.
#[test]
fn a_listener_that_is_not_answered_tries_again() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let proxy = oncekey_testkit::Proxy::start(postgres_fixture::server());
        let direct = proxy.connection_string().parse().unwrap();
        let through = PostgresFixture { direct, schema: fixture.schema.clone(), ..fixture };
        let store = through.store();
        let outcome = store.claim(&key("watched"), &claim()).await.unwrap();
        let ClaimOutcome::Acquired { grant, .. } = outcome else { panic!("{outcome:?}") };
        let subscribe = async || store.watch().unwrap().subscribe(&key("watched")).await;
        let patience = Duration::from_secs(40);

        proxy.black_hole(true);
        let silent = tokio::time::timeout(patience, subscribe()).await.expect("it gives up");
        assert_eq!(silent.unwrap_err().kind(), ErrorKind::Timeout);
        proxy.black_hole(false);
        let mut subscription = loop {
            match subscribe().await {
                Ok(subscription) => break subscription,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
            sleep(Duration::from_millis(50)).await;
        };
        let _ = store.complete(&key("watched"), &complete(grant, "done".to_owned())).await.unwrap();
        tokio::time::timeout(patience, subscription.changed()).await.unwrap();
    });
}

/// While it cannot be made anew, those who wait are not woken for each try.
#[test]
fn a_listener_that_is_lost_wakes_those_who_wait_once() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let proxy = oncekey_testkit::Proxy::start(postgres_fixture::server());
        let direct = proxy.connection_string().parse().unwrap();
        let through = PostgresFixture { direct, schema: fixture.schema.clone(), ..fixture };
        let store = through.store();
        let mut subscription = store.watch().unwrap().subscribe(&key("watched")).await.unwrap();
        proxy.refuse(true);
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE query = 'LISTEN ' || (SELECT substring(prosrc FROM 'oncekey_[0-9a-f]{16}') \
                   FROM pg_proc WHERE pronamespace = $1::text::regnamespace \
                   AND proname = 'oncekey_v1_ended')";
        let own = format!("\"{}\"", through.schema);
        let direct = connection(&through.config).await;
        assert_eq!(direct.query(sql, &[&own]).await.unwrap().len(), 1);
        subscription.changed().await;
        // It tries several times in that time.
        let later = Duration::from_secs(2);
        assert!(tokio::time::timeout(later, subscription.changed()).await.is_err(), "woken again");
        proxy.refuse(false);
        tokio::time::timeout(Duration::from_secs(40), subscription.changed()).await.unwrap();
    });
}
