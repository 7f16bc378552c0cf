//! The schema: what it is, how it is made, and what the check finds.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod postgres_fixture;

use std::time::Duration;

use futures::future::join_all;
use oncekey::store::{Abandon, ClaimOutcome, ErrorKind, Fenced, Known, Store, StoreError};
use oncekey::{Fingerprint, Idempotency, Key, Scope};
use oncekey_postgres::tokio_postgres::Config;
use oncekey_postgres::{PostgresStore, ServerError};
use tokio::time::timeout;

use postgres_fixture::{block_on, connection, new_schema, pool, server};

fn config() -> Config {
    server().connection_string().parse().unwrap()
}

fn store(config: &Config, schema: &str) -> PostgresStore {
    PostgresStore::builder(pool(config, 2)).schema(schema).build().unwrap()
}

async fn execute(sql: &str) {
    connection(&config()).await.batch_execute(sql).await.unwrap();
}

fn is_misconfigured(result: Result<(), StoreError>, telling: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
    assert!(error.to_string().contains(telling), "{error}");
}

/// Whoever runs the DDL by other means has it in their repository: it changes with a version, or never.
#[test]
fn the_ddl_of_version_1_is_as_it_was_released() {
    block_on(async {
        let ddl = PostgresStore::new(pool(&config(), 1)).ddl();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/version_1.sql");
        if std::env::var_os("ONCEKEY_BLESS").is_some() {
            std::fs::write(file, &ddl).unwrap();
        }
        let golden = std::fs::read_to_string(file).unwrap();
        assert_eq!(
            ddl, golden,
            "ONCEKEY_BLESS=1 writes it anew: before a release, never after one"
        );
    });
}

#[test]
fn migrating_is_safe_to_repeat_and_to_race() {
    block_on(async {
        let schema = new_schema();
        let stores: Vec<_> = (0..6).map(|_| store(&config(), &schema)).collect();
        for migrated in join_all(stores.iter().map(PostgresStore::migrate)).await {
            migrated.unwrap();
        }
        stores[0].migrate().await.unwrap();
        stores[0].check().await.unwrap();
    });
}

#[test]
fn the_printed_ddl_passes_the_check() {
    block_on(async {
        let schema = new_schema();
        let store = store(&config(), &schema);
        execute(&store.ddl()).await;
        store.check().await.unwrap();
        store.migrate().await.unwrap();
    });
}

#[test]
fn two_tables_share_a_schema() {
    block_on(async {
        let schema = new_schema();
        for table in ["order", "keys"] {
            let builder = PostgresStore::builder(pool(&config(), 1)).schema(&schema).table(table);
            let store = builder.build().unwrap();
            store.migrate().await.unwrap();
            store.check().await.unwrap();
            assert_eq!(store.purge(10).await.unwrap().removed, 0);
        }
    });
}

#[test]
fn what_is_missing_is_named_with_its_remedy() {
    block_on(async {
        let schema = new_schema();
        let store = store(&config(), &schema);
        is_misconfigured(store.check().await, "call `migrate`");
        let key = Key::new(&Scope::new("tenant", "operation").unwrap(), "key").unwrap();
        is_misconfigured(store.get(&key).await.map(|_| ()), "call `migrate`");

        store.migrate().await.unwrap();
        for (change, telling) in [
            ("DROP INDEX oncekey_sweep_at", "an index on (sweep_at)"),
            ("ALTER TABLE oncekey DROP CONSTRAINT oncekey_pkey", "an index UNIQUE on (key)"),
            ("ALTER TABLE oncekey ALTER token TYPE numeric", "the column token bigint NOT NULL"),
            ("DROP FUNCTION oncekey_v1_purge", "the function oncekey_v1_purge"),
            (
                "CREATE OR REPLACE FUNCTION oncekey_v1_micros(p_time timestamptz) RETURNS bigint \
                 LANGUAGE sql STABLE AS 'SELECT 1'",
                "the function oncekey_v1_micros",
            ),
            ("ALTER TABLE oncekey SET UNLOGGED", "rows that outlive a crash"),
            (
                "ALTER TABLE oncekey DROP CONSTRAINT oncekey_pkey, ADD PRIMARY KEY (key) DEFERRABLE",
                "an index UNIQUE on (key)",
            ),
            ("INSERT INTO oncekey_meta VALUES (2)", "upgrade oncekey-postgres here"),
            ("DELETE FROM oncekey_meta WHERE version > 1", ""),
        ] {
            execute(&format!("SET search_path = \"{schema}\"; BEGIN; {change}; COMMIT")).await;
            if telling.is_empty() {
                continue;
            }
            is_misconfigured(store.check().await, telling);
            if telling.starts_with("upgrade") {
                is_misconfigured(store.migrate().await, telling);
            } else {
                execute(&format!("DROP SCHEMA \"{schema}\" CASCADE")).await;
                store.migrate().await.unwrap();
                store.check().await.unwrap();
            }
        }
    });
}

#[test]
fn what_is_not_ours_is_left_alone() {
    block_on(async {
        let schema = new_schema();
        let store = store(&config(), &schema);
        execute(&format!("CREATE SCHEMA \"{schema}\"; CREATE TABLE \"{schema}\".oncekey (id int)"))
            .await;
        is_misconfigured(store.migrate().await, "something else");
        is_misconfigured(store.check().await, "something else");

        // What is left of an older one whose tables were dropped.
        let schema = new_schema();
        let store = self::store(&config(), &schema);
        store.migrate().await.unwrap();
        let tables = format!("\"{schema}\".oncekey, \"{schema}\".oncekey_meta");
        execute(&format!("DROP TABLE {tables} CASCADE")).await;
        is_misconfigured(store.migrate().await, "has the name");
    });
}

/// A role without any right on the database migrates its own schema, and another one uses it.
#[test]
fn few_rights_are_enough() {
    block_on(async {
        let schema = new_schema();
        let (owner, user) = (format!("{schema}_owner"), format!("{schema}_user"));
        execute(&format!(
            "CREATE ROLE \"{owner}\" LOGIN; CREATE ROLE \"{user}\" LOGIN; \
             CREATE SCHEMA \"{schema}\" AUTHORIZATION \"{owner}\""
        ))
        .await;
        let mut as_owner = config();
        as_owner.user(&owner);
        store(&as_owner, &schema).migrate().await.unwrap();

        let mut as_user = config();
        as_user.user(&user);
        let store = store(&as_user, &schema);
        is_misconfigured(store.purge(1).await.map(|_| ()), "grant this role");
        execute(&format!(
            "GRANT USAGE ON SCHEMA \"{schema}\" TO \"{user}\"; GRANT SELECT, INSERT, UPDATE, DELETE \
             ON ALL TABLES IN SCHEMA \"{schema}\" TO \"{user}\""
        ))
        .await;
        store.check().await.unwrap();
        store.purge(1).await.unwrap();
        // The check misses what the first call would.
        for (right, on) in [("INSERT", ".oncekey"), ("UPDATE", ".oncekey"), ("DELETE", ".oncekey")]
        {
            execute(&format!("REVOKE {right} ON \"{schema}\"{on} FROM \"{user}\"")).await;
            is_misconfigured(store.check().await, &format!("the right to {right}"));
            execute(&format!("GRANT {right} ON \"{schema}\"{on} TO \"{user}\"")).await;
        }
        let functions = format!("ALL FUNCTIONS IN SCHEMA \"{schema}\"");
        execute(&format!("REVOKE EXECUTE ON {functions} FROM PUBLIC")).await;
        is_misconfigured(store.check().await, "the right to EXECUTE");
        execute(&format!("GRANT EXECUTE ON {functions} TO \"{user}\"")).await;
        store.check().await.unwrap();
    });
}

/// A row that can neither be made nor be seen: the claim does not look for it for ever.
#[test]
fn a_row_that_is_hidden_from_the_role_is_named() {
    block_on(async {
        let schema = new_schema();
        let user = format!("{schema}_user");
        let owner = store(&config(), &schema);
        owner.migrate().await.unwrap();
        execute(&format!(
            "CREATE ROLE \"{user}\" LOGIN; GRANT USAGE ON SCHEMA \"{schema}\" TO \"{user}\"; \
             GRANT ALL ON ALL TABLES IN SCHEMA \"{schema}\" TO \"{user}\"; \
             ALTER TABLE \"{schema}\".oncekey ENABLE ROW LEVEL SECURITY; \
             CREATE POLICY own ON \"{schema}\".oncekey USING (status <> 'gave_up')"
        ))
        .await;
        let mut as_user = config();
        as_user.user(&user);
        let key = |id| Key::new(&Scope::new("tenant", "operation").unwrap(), id).unwrap();
        let prepare = |id| {
            let idempotency = Idempotency::at_least_once(owner.clone());
            idempotency.prepare(&key(id), &Fingerprint::of("the request")).unwrap()
        };
        let (hidden, other, seen) = (prepare("hidden"), prepare("other"), prepare("seen"));
        let outcome = owner.claim(hidden.key(), hidden.claim()).await.unwrap();
        let ClaimOutcome::Acquired { grant, .. } = outcome else { panic!("{outcome:?}") };
        let abandon = Abandon { grant, known: Known::Unknown };
        assert_eq!(owner.abandon(hidden.key(), &abandon).await.unwrap(), Fenced::Applied);

        let long = Duration::from_secs(30);
        for batching in [true, false] {
            let pool = pool(&as_user, 2);
            let builder = PostgresStore::builder(pool).schema(&schema).batching(batching);
            let store = builder.build().unwrap();
            let claims = [&hidden, &other, &seen].map(|one| store.claim(one.key(), one.claim()));
            let outcomes = timeout(long, join_all(claims)).await.expect("it looks no longer");
            let [told, others @ ..] = &outcomes[..] else { unreachable!() };
            is_misconfigured(told.clone().map(|_| ()), "row-level security");
            for outcome in others {
                assert!(matches!(outcome, Ok(ClaimOutcome::Acquired { .. })), "{outcome:?}");
            }
        }
    });
}

#[test]
fn a_server_that_takes_no_writes_is_not_taken_for_one_that_does() {
    block_on(async {
        let schema = new_schema();
        store(&config(), &schema).migrate().await.unwrap();
        let mut reads_only = config();
        reads_only.options("-c default_transaction_read_only=on");
        let error = store(&reads_only, &schema).check().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("takes no writes"), "{error}");
    });
}

/// The server's details show whole rows. They stay out of errors.
#[test]
fn an_error_shows_no_key() {
    block_on(async {
        let schema = new_schema();
        let store = store(&config(), &schema);
        store.migrate().await.unwrap();
        execute(&format!("ALTER TABLE \"{schema}\".oncekey ADD CHECK (number < 1)")).await;
        let key = Key::new(&Scope::new("tenant", "operation").unwrap(), "s3cret").unwrap();
        let prepared = Idempotency::at_least_once(store.clone())
            .prepare(&key, &Fingerprint::of("the request"))
            .unwrap();
        let error = store.claim(prepared.key(), prepared.claim()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        let source = std::error::Error::source(&error).unwrap();
        assert!(source.downcast_ref::<ServerError>().unwrap().sqlstate() == "23514");
        let shown = format!("{error} {error:?} {source} {source:?} {store:?}");
        for secret in ["s3cret", "733363726574", "tenant", "74656e616e74"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    });
}
