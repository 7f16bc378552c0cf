//! What a commit waits for, what is notified, and what is left behind.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod postgres_fixture;

use std::time::Duration;

use futures::future::join_all;
use oncekey::store::{
    Abandon, Claim, ClaimOutcome, Complete, Completion, ErrorKind, Evict, Expected, Fenced, Known,
    Settle, Settlement, Store,
};
use oncekey::{Failure, Fingerprint, Idempotency, Key, RunError, Scope};
use oncekey_conformance::Fixture;
use oncekey_postgres::tokio_postgres::Config;
use oncekey_postgres::{PostgresStore, SynchronousCommit, deadpool_postgres, tokio_postgres};
use oncekey_testkit::{Durability, Postgres};

use postgres_fixture::{PostgresFixture, block_on, connection, new_schema, pool, server};

fn key(id: impl ToString) -> Key {
    Key::new(&Scope::new("tenant", "operation").unwrap(), id.to_string()).unwrap()
}

async fn run(idempotency: &Idempotency, key: &Key) {
    let operation = |_| async { Ok::<_, Failure<()>>("done".into()) };
    idempotency.run_bytes(key, &Fingerprint::of("the request"), operation).await.unwrap();
}

async fn count(fixture: &PostgresFixture, sql: &str) -> i64 {
    connection(&fixture.direct).await.query_one(sql, &[]).await.unwrap().get(0)
}

/// Sessions that would not wait for the disk do for claims and completions: alone, together, and in a
/// transaction. Unless they are told not to.
#[test]
fn a_commit_waits_for_the_disk_whatever_the_session_says() {
    block_on(async {
        let mut config: Config = server().connection_string().parse().unwrap();
        config.options("-c synchronous_commit=off");
        let fixture = PostgresFixture::on(config.clone(), config.clone(), 4).await;
        let schema = &fixture.schema;
        let sql = format!(
            "SET search_path = \"{schema}\"; CREATE TABLE seen (setting text); \
             CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             INSERT INTO \"{schema}\".seen VALUES (current_setting('synchronous_commit')); \
             RETURN NULL; END $$; \
             CREATE TRIGGER see AFTER INSERT OR UPDATE ON oncekey \
             FOR EACH ROW EXECUTE FUNCTION see()"
        );
        connection(&config).await.batch_execute(&sql).await.unwrap();
        let seen = async |setting: &str| {
            let sql = format!("SELECT count(*) FROM \"{schema}\".seen WHERE setting = '{setting}'");
            count(&fixture, &sql).await
        };
        let store = fixture.store();
        let idempotency = Idempotency::at_least_once(store.clone());
        let keys: Vec<_> = (0..20).map(key).collect();
        join_all(keys.iter().map(|key| run(&idempotency, key))).await;
        let business = async |tx: &mut deadpool_postgres::Transaction<'_>| {
            tx.batch_execute("SELECT 1").await?;
            Ok::<_, tokio_postgres::Error>(1)
        };
        let request = Fingerprint::of("the request");
        let done = store.run_in_transaction(&idempotency, &key("tx"), &request, business).await;
        assert!(!done.unwrap().is_replay());
        let (on, off) = (seen("on").await, seen("off").await);
        assert!(on >= 42 && off == 0, "{on} writes waited for the disk, {off} did not");

        let told = PostgresStore::builder(pool(&config, 4))
            .schema(schema)
            .synchronous_commit(SynchronousCommit::AsConfigured)
            .build()
            .unwrap();
        run(&Idempotency::at_least_once(told), &key("told")).await;
        assert_eq!(seen("on").await, on);
        assert!(seen("off").await >= 2);
    });
}

/// A session that waits for its standby has committed already. Whoever ends the session leaves the outcome
/// unknown, and asking again finds it.
#[test]
fn a_wait_for_the_standby_that_is_ended_is_no_refusal() {
    let settings = ["synchronous_standby_names=nobody"];
    let server = Postgres::start_with(Durability::ProcessCrash, &settings);
    block_on(async {
        let config: Config = server.connection_string().parse().unwrap();
        let mut alone = config.clone();
        alone.options("-c synchronous_commit=local");
        let schema = new_schema();
        let builder = |config| PostgresStore::builder(pool(config, 2)).schema(&schema);
        let as_told = SynchronousCommit::AsConfigured;
        let hasty = builder(&alone).synchronous_commit(as_told).build().unwrap();
        hasty.migrate().await.unwrap();
        let store = builder(&config).build().unwrap();
        let direct = connection(&alone).await;
        let end = async |how: &str| {
            let sql =
                format!("SELECT {how}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
            while direct.query(&sql, &[]).await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let (idempotency, request) =
            (Idempotency::at_least_once(hasty.clone()), Fingerprint::of("the request"));
        for how in ["pg_terminate_backend", "pg_cancel_backend"] {
            let key = key(how);
            let prepared = idempotency.prepare(&key, &request).unwrap();
            let claim = async || {
                let (outcome, ()) = tokio::join!(store.claim(&key, prepared.claim()), end(how));
                outcome
            };
            match claim().await {
                // A wait that is cancelled is over, and the server says that it committed.
                Ok(ClaimOutcome::Acquired { .. }) if how.contains("cancel") => {}
                Err(error) if how.contains("terminate") => {
                    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
                }
                other => panic!("{how}: {other:?}"),
            }
            let again = hasty.claim(&key, prepared.claim()).await.unwrap();
            assert!(matches!(again, ClaimOutcome::Acquired { number: 1, .. }), "{again:?}");
        }
        let business =
            async |_: &mut deadpool_postgres::Transaction<'_>| Ok::<_, tokio_postgres::Error>(1);
        let tx = key("tx");
        let run = store.run_in_transaction(&idempotency, &tx, &request, business);
        let (ran, ()) = tokio::join!(run, end("pg_terminate_backend"));
        assert!(!ran.unwrap().is_replay(), "it was settled by reading");
    });
}

/// To notify takes a lock on the whole server at commit: only what somebody waits for is notified.
#[test]
fn nothing_is_notified_that_nobody_waits_for() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let mut config = fixture.config.clone();
        config.options("-c track_functions=pl");
        let fixture = PostgresFixture { config, ..fixture };
        let store = fixture.store();
        let idempotency = Idempotency::at_least_once(store.clone());
        let keys: Vec<_> = (0..20).map(key).collect();
        join_all(keys.iter().map(|key| run(&idempotency, key))).await;
        let calls = async |function: &str| {
            let sql = format!(
                "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_user_functions \
                 WHERE schemaname = '{}' AND funcname = 'oncekey_v1_{function}'",
                fixture.schema
            );
            count(&fixture, &sql).await
        };
        // What a session did is counted when it ends.
        drop((store, idempotency));
        while calls("begin").await == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(calls("ended").await, 0);

        let watched = key("watched");
        let store = fixture.store();
        let idempotency = Idempotency::at_least_once(store.clone());
        let operation = |_| async {
            let _waiting = store.watch().unwrap().subscribe(&watched).await.unwrap();
            Ok::<_, Failure<()>>("done".into())
        };
        let request = Fingerprint::of("the request");
        idempotency.run_bytes(&watched, &request, operation).await.unwrap();
        drop((store, idempotency));
        while calls("ended").await == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(calls("ended").await, 1);
    });
}

/// The server's queue of notifications is full, which fails the commit of whatever notifies. (It takes eight
/// gigabytes, so that a trigger fails these commits in its place.) The end of an attempt is recorded without.
#[test]
fn an_end_that_cannot_be_notified_is_recorded_without() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let sql = format!(
            "SET search_path = \"{}\"; \
             CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION \
             USING ERRCODE = '54000', MESSAGE = 'too many notifications in the NOTIFY queue'; END $$; \
             CREATE CONSTRAINT TRIGGER no_room AFTER UPDATE ON oncekey DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW WHEN (NEW.watched_until IS NOT NULL AND NEW.status <> OLD.status) \
             EXECUTE FUNCTION no_room(); \
             CREATE CONSTRAINT TRIGGER no_room_either AFTER DELETE ON oncekey DEFERRABLE INITIALLY \
             DEFERRED FOR EACH ROW WHEN (OLD.watched_until IS NOT NULL) EXECUTE FUNCTION no_room()",
            fixture.schema
        );
        connection(&fixture.direct).await.batch_execute(&sql).await.unwrap();
        let store = fixture.store();
        let watch = async |key: &Key| {
            let _ = store.watch().unwrap().subscribe(key).await.unwrap();
        };
        let request = Fingerprint::of("the request");
        let idempotency = Idempotency::at_least_once(store.clone());
        let claim = async |key: &Key| {
            let prepared = idempotency.prepare(key, &request).unwrap();
            let claim = Claim { lease: Duration::from_millis(1), ..*prepared.claim() };
            let outcome = store.claim(key, &claim).await.unwrap();
            watch(key).await;
            let ClaimOutcome::Acquired { grant, .. } = outcome else { panic!("{outcome:?}") };
            grant
        };
        let completion = || Completion {
            value: "done".into(),
            replayable: true,
            retention: Duration::from_secs(600),
            hold: Duration::ZERO,
        };
        let complete = async |key: Key, grant| {
            let complete = Complete { grant, completion: completion() };
            store.complete(&key, &complete).await
        };

        let alone = key("alone");
        let grant = claim(&alone).await;
        assert_eq!(complete(alone, grant).await.unwrap(), Fenced::Applied);
        let mut together = Vec::new();
        for number in 0..8 {
            together.push((key(number), claim(&key(number)).await));
        }
        for completed in join_all(together.into_iter().map(|(key, own)| complete(key, own))).await {
            assert_eq!(completed.unwrap(), Fenced::Applied);
        }

        let other = key("other");
        let abandon = Abandon { grant: claim(&other).await, known: Known::Unknown };
        assert_eq!(store.abandon(&other, &abandon).await.unwrap(), Fenced::Applied);
        watch(&other).await;
        let settlement = Settlement::Done(completion());
        let settle = Settle { expected: Expected::Any, settlement };
        assert_eq!(store.settle(&other, &settle).await.unwrap(), Fenced::Applied);
        watch(&other).await;
        let evict = Evict { expected: Expected::Any, force: true };
        assert_eq!(store.evict(&other, &evict).await.unwrap(), Fenced::Applied);

        // What else is in a transaction may notify, too: it fails as a whole.
        let tx = key("tx");
        claim(&tx).await;
        let business =
            async |_: &mut deadpool_postgres::Transaction<'_>| Ok::<_, tokio_postgres::Error>(1);
        let run = store.run_in_transaction(&idempotency, &tx, &request, business).await;
        let Err(RunError::Store(error)) = run else { panic!("{run:?}") };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("NOTIFY"), "{error}");
        assert_eq!(store.get(&tx).await.unwrap().unwrap().record.number, 1);
    });
}

/// Neither alone nor together: the row is not even locked.
#[test]
fn a_replay_writes_nothing() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let idempotency = Idempotency::at_least_once(fixture.store());
        let keys: Vec<_> = (0..20).map(key).collect();
        join_all(keys.iter().map(|key| run(&idempotency, key))).await;
        let rows = async || -> String {
            let sql = format!(
                "SELECT string_agg(concat_ws(' ', ctid, xmin, xmax), ',' ORDER BY key) \
                 FROM \"{}\".oncekey",
                fixture.schema
            );
            connection(&fixture.direct).await.query_one(&sql, &[]).await.unwrap().get(0)
        };
        let before = rows().await;
        for _ in 0..3 {
            join_all(keys.iter().map(|key| run(&idempotency, key))).await;
            run(&idempotency, &keys[0]).await;
        }
        assert_eq!(rows().await, before);
    });
}

/// As the server itself counts it, over many: alone, together and in a transaction.
#[test]
fn a_thousand_replays_leave_no_dead_row() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let fixture = PostgresFixture { pool_size: 1, ..fixture };
        let store = fixture.store();
        let idempotency = Idempotency::at_least_once(store.clone());
        let keys: Vec<_> = (0..100).map(key).collect();
        join_all(keys.iter().map(|key| run(&idempotency, key))).await;
        let request = Fingerprint::of("the request");
        let tx = key("tx");
        let effect = async || {
            let business = async |_: &mut deadpool_postgres::Transaction<'_>| {
                Ok::<_, tokio_postgres::Error>(1)
            };
            store.run_in_transaction(&idempotency, &tx, &request, business).await.unwrap()
        };
        assert!(!effect().await.is_replay());

        let written = counted(&fixture, &store, 0).await;
        for _ in 0..8 {
            join_all(keys.iter().map(|key| run(&idempotency, key))).await;
        }
        for key in &keys {
            run(&idempotency, key).await;
            assert!(effect().await.is_replay());
        }
        let now = counted(&fixture, &store, written.looks + 1000).await;
        assert_eq!(now.rows, written.rows, "rows inserted, updated and deleted");
        assert!(now.dead <= written.dead, "{} dead rows, before {}", now.dead, written.dead);
    });
}

/// What the server has counted on the table.
struct Counted {
    looks: i64,
    rows: [i64; 3],
    dead: i64,
}

/// Waits until as many looks are counted. A session tells what it did now and then, or when it is asked to.
async fn counted(fixture: &PostgresFixture, store: &PostgresStore, looks: i64) -> Counted {
    let sql = format!(
        "SELECT idx_scan, n_tup_ins, n_tup_upd, n_tup_del, n_dead_tup FROM pg_stat_user_tables \
         WHERE schemaname = '{}' AND relname = 'oncekey'",
        fixture.schema
    );
    loop {
        let client = store.pool().get().await.unwrap();
        client.batch_execute("SELECT pg_stat_force_next_flush()").await.unwrap();
        drop(client);
        let row = connection(&fixture.direct).await.query_one(&sql, &[]).await.unwrap();
        if row.get::<_, i64>(0) >= looks {
            return Counted {
                looks: row.get(0),
                rows: [row.get(1), row.get(2), row.get(3)],
                dead: row.get(4),
            };
        }
    }
}

/// What is over is purged, and its room is used again: the table and its indexes do not grow.
#[test]
fn the_table_stays_as_large_as_what_it_remembers() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let store = fixture.store();
        let idempotency = Idempotency::at_least_once(store.clone())
            .lease(Duration::from_secs(1))
            .retention(Duration::from_secs(1));
        let table = format!("\"{}\".oncekey", fixture.schema);
        let mut sizes = Vec::new();
        for round in 0..5 {
            for part in 0..10 {
                let keys: Vec<_> = (0..200).map(|n| key(format!("{round} {part} {n}"))).collect();
                join_all(keys.iter().map(|key| run(&idempotency, key))).await;
            }
            tokio::time::sleep(Duration::from_millis(1100)).await;
            while store.purge(10_000).await.unwrap().more {}
            assert_eq!(count(&fixture, &format!("SELECT count(*) FROM {table}")).await, 0);
            // As the server does by itself from time to time.
            let vacuum = format!("VACUUM (TRUNCATE off) {table}");
            connection(&fixture.direct).await.batch_execute(&vacuum).await.unwrap();
            let size = format!("SELECT pg_total_relation_size('{table}')");
            sizes.push(count(&fixture, &size).await);
        }
        assert!(sizes[4] <= sizes[1] * 5 / 4, "it grows: {sizes:?}");
    });
}
