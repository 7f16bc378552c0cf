//! Tables that released versions wrote: this one reads them, and goes on where they stopped.
//!
//! `tests/data/version_1.copy` has the rows of schema version 1, as the first release wrote them, in the form of
//! COPY; `tests/golden/version_1.sql` made the tables. They are never written again. When a release changes what
//! is stored, add rows of that release beside them:
//!
//! ```text
//! ONCEKEY_KEEP_ROWS=crates/oncekey-postgres/tests/data/version_2.copy cargo test -p oncekey-postgres --test released_tables
//! ```
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod postgres_fixture;

use std::path::Path;
use std::time::Duration;

use futures::{SinkExt, TryStreamExt};
use oncekey::runtime::Timestamp;
use oncekey::store::{
    Abandon, AttemptId, Cause, Claim, ClaimOutcome, Complete, Completion, Fenced, Grant, Known,
    Observed, OnInterrupted, OnRetired, Progress, Renew, State, Status, Store, StoredValue,
};
use oncekey::{Fingerprint, Key, Scope};
use oncekey_conformance::Fixture;
use oncekey_postgres::PostgresStore;

use postgres_fixture::{PostgresFixture, block_on, connection, new_schema, pool, server};

/// What is live in the rows stays so for this long.
const LONG: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// Longer than the rows took to write.
const MOMENT: Duration = Duration::from_secs(600);
const COLUMNS: &str = "key, format, status, fingerprint_algorithm, fingerprint, attempt, token, number, \
                       deadline, retained_until, forget_at, previous_cause, previous_token, \
                       progress_sequence, progress, digest, value, sweep_at, watched_until";

fn key(id: &str) -> Key {
    Key::new(&Scope::new("tenant", "operation").unwrap(), id).unwrap()
}

fn claim(attempt: u8) -> Claim {
    Claim {
        attempt: AttemptId::from_bytes([attempt; 16]),
        fingerprint: Fingerprint::of("the request"),
        lease: LONG,
        hold: LONG,
        on_interrupted: OnInterrupted::TakeOver,
        on_retired: OnRetired::Forget,
    }
}

async fn acquire(store: &PostgresStore, id: &str, claim: Claim) -> Grant {
    let outcome = store.claim(&key(id), &claim).await.unwrap();
    let ClaimOutcome::Acquired { grant, .. } = outcome else { panic!("{id}: {outcome:?}") };
    grant
}

async fn complete(store: &PostgresStore, id: &str, grant: Grant, completion: Completion) {
    let complete = Complete { grant, completion };
    assert_eq!(store.complete(&key(id), &complete).await.unwrap(), Fenced::Applied, "{id}");
}

fn completion(value: impl Into<bytes::Bytes>) -> Completion {
    let value = value.into();
    Completion { value, replayable: true, retention: LONG, hold: Duration::ZERO }
}

/// One key in every state, with every column in use somewhere.
async fn fill(store: &PostgresStore) {
    let save = async |id: &str, grant, lease| {
        let progress = Some(Progress { sequence: 3, data: "half".into() });
        let renew = Renew { grant, lease, progress };
        assert_eq!(store.renew(&key(id), &renew).await.unwrap(), Fenced::Applied, "{id}");
    };
    let abandon = async |id: &str, grant, known| {
        let abandon = Abandon { grant, known };
        assert_eq!(store.abandon(&key(id), &abandon).await.unwrap(), Fenced::Applied, "{id}");
    };
    let grant = acquire(store, "live", claim(1)).await;
    save("live", grant, LONG).await;
    acquire(store, "forever", Claim { hold: Duration::MAX, ..claim(2) }).await;
    let grant = acquire(store, "taken over", claim(3)).await;
    save("taken over", grant, LONG).await;
    abandon("taken over", grant, Known::Unknown).await;
    acquire(store, "taken over", claim(4)).await;
    let grant = acquire(store, "given up", claim(5)).await;
    abandon("given up", grant, Known::Unknown).await;
    let grant = acquire(store, "released", claim(6)).await;
    abandon("released", grant, Known::NotStarted { hold: LONG }).await;
    let grant = acquire(store, "completed", claim(7)).await;
    complete(store, "completed", grant, completion("a result")).await;
    let grant = acquire(store, "empty", claim(8)).await;
    complete(store, "empty", grant, completion("")).await;
    let grant = acquire(store, "long", claim(9)).await;
    complete(store, "long", grant, completion(vec![9; 20_000])).await;
    let grant = acquire(store, "not kept", claim(10)).await;
    let fact = Completion { replayable: false, hold: LONG, ..completion("not kept") };
    complete(store, "not kept", grant, fact).await;
    let brief = Claim { lease: Duration::from_millis(1), ..claim(11) };
    let grant = acquire(store, "lapsed", brief).await;
    save("lapsed", grant, Duration::ZERO).await;
    let grant = acquire(store, "retired", claim(12)).await;
    let brief = Completion { retention: Duration::ZERO, hold: LONG, ..completion("old") };
    complete(store, "retired", grant, brief).await;
}

/// That the key has what [`fill`] left behind.
fn is_as_filled(id: &str, observed: Observed) {
    let Observed { record, state, .. } = observed;
    let kept = |value: &[u8]| Some(StoredValue::Replayable(value.to_vec().into()));
    let half = |sequence| Some(Box::new(Progress { sequence, data: "half".into() }));
    let (attempt, number, expected, value, progress) = match id {
        "live" => (1, 1, State::Live, None, half(3)),
        "forever" => (2, 1, State::Live, None, None),
        "taken over" => (4, 2, State::Live, None, half(0)),
        "given up" => (5, 1, State::GaveUp, None, None),
        "released" => (6, 1, State::Released, None, None),
        "completed" => (7, 1, State::Completed, kept(b"a result"), None),
        "empty" => (8, 1, State::Completed, kept(b""), None),
        "long" => (9, 1, State::Completed, kept(&[9; 20_000]), None),
        "not kept" => {
            let digest = StoredValue::new(&"not kept".into(), false);
            (10, 1, State::Completed, Some(digest), None)
        }
        "lapsed" => (11, 1, State::Lapsed, None, half(3)),
        "retired" => (12, 1, State::Retired, kept(b"old"), None),
        other => panic!("no such key: {other}"),
    };
    assert_eq!(record.attempt, AttemptId::from_bytes([attempt; 16]), "{id}");
    assert_eq!((record.number, state, record.progress), (number, expected, progress), "{id}");
    assert_eq!(record.fingerprint, Fingerprint::of("the request"), "{id}");
    assert_eq!(
        record.previous.map(|previous| previous.cause),
        match id {
            "taken over" => Some(Cause::GaveUp),
            _ => None,
        }
    );
    // The token is the time of the grant, by which all others can be told.
    let later = |time: Timestamp, by: Duration| {
        let granted = Timestamp::from_micros(record.token.get());
        let earliest = granted.saturating_add(by);
        assert!(time >= earliest && time <= earliest.saturating_add(MOMENT), "{id}: {time:?}");
    };
    match record.status {
        Status::InProgress { deadline } if state == State::Live => later(deadline, LONG),
        Status::Completed { value: stored, retained_until } => {
            assert_eq!(Some(stored), value, "{id}");
            later(retained_until, if id == "retired" { Duration::ZERO } else { LONG });
        }
        _ => {}
    }
    match id {
        "forever" => assert_eq!(record.forget_at, Timestamp::MAX),
        "live" | "taken over" | "given up" | "not kept" => later(record.forget_at, LONG * 2),
        _ => later(record.forget_at, LONG),
    }
}

const IDS: [&str; 11] = [
    "live",
    "forever",
    "taken over",
    "given up",
    "released",
    "completed",
    "empty",
    "long",
    "not kept",
    "lapsed",
    "retired",
];

async fn all_as_filled(store: &PostgresStore) {
    for id in IDS {
        is_as_filled(id, store.get(&key(id)).await.unwrap().unwrap());
    }
}

/// With `ONCEKEY_KEEP_ROWS` set to a path, it keeps the rows there: those of each released version are kept
/// for ever.
#[test]
fn rows_of_this_version_have_what_is_expected() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let store = fixture.store();
        fill(&store).await;
        all_as_filled(&store).await;
        let copy = format!("COPY \"{}\".oncekey ({COLUMNS}) TO STDOUT", fixture.schema);
        let direct = connection(&fixture.direct).await;
        // Years ago, so that what is over is over by any clock.
        let ago = "- interval '100000 hours'";
        let shift = format!(
            "UPDATE \"{}\".oncekey SET token = token - 360000000000000, \
             deadline = deadline {ago}, retained_until = retained_until {ago}, \
             forget_at = forget_at {ago}, sweep_at = sweep_at {ago}, \
             previous_token = previous_token - 360000000000000",
            fixture.schema
        );
        direct.batch_execute(&shift).await.unwrap();
        all_as_filled(&store).await;
        let rows = direct.copy_out(&copy).await.unwrap();
        let rows: Vec<_> = rows.try_collect().await.unwrap();
        if let Some(kept) = std::env::var_os("ONCEKEY_KEEP_ROWS") {
            std::fs::write(kept, rows.concat()).unwrap();
        }
    });
}

#[test]
fn rows_of_version_1_are_read_and_gone_on_with() {
    block_on(async {
        let config = server().connection_string().parse().unwrap();
        let schema = new_schema();
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let ddl = std::fs::read_to_string(tests.join("golden/version_1.sql")).unwrap();
        let ddl = ddl.replace("\"public\".", &format!("\"{schema}\"."));
        let direct = connection(&config).await;
        let all = format!("BEGIN; CREATE SCHEMA \"{schema}\"; {ddl}; COMMIT");
        direct.batch_execute(&all).await.unwrap();
        let rows = std::fs::read(tests.join("data/version_1.copy")).unwrap();
        let copy = format!("COPY \"{schema}\".oncekey ({COLUMNS}) FROM STDIN");
        let mut sink = Box::pin(direct.copy_in(&copy).await.unwrap());
        sink.send(bytes::Bytes::from(rows)).await.unwrap();
        sink.close().await.unwrap();

        let store = PostgresStore::builder(pool(&config, 2)).schema(&schema).build().unwrap();
        store.migrate().await.unwrap();
        all_as_filled(&store).await;

        // In the hands of this version.
        let outcome = store.claim(&key("completed"), &claim(20)).await.unwrap();
        assert_eq!(outcome, ClaimOutcome::Replay(Some("a result".into())));
        let outcome = store.claim(&key("lapsed"), &claim(21)).await.unwrap();
        let ClaimOutcome::Acquired { grant, number: 2, previous: Some(previous), .. } = outcome
        else {
            panic!("{outcome:?}");
        };
        assert_eq!((previous.cause, previous.progress), (Cause::Lapsed, Some("half".into())));
        complete(&store, "lapsed", grant, completion("done")).await;
        for id in ["released", "retired", "given up"] {
            let before = store.get(&key(id)).await.unwrap().unwrap().record.token;
            assert!(acquire(&store, id, claim(22)).await.token > before, "{id}");
        }
        let live = Grant { attempt: claim(1).attempt, ..grant };
        let token = store.get(&key("live")).await.unwrap().unwrap().record.token;
        complete(&store, "live", Grant { token, ..live }, completion("done")).await;
    });
}
