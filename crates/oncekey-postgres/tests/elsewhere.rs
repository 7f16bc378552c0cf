//! The conformance suite where sessions are not the usual ones: behind a pgbouncer, at other isolation
//! levels, in other time zones. And a pool of one connection.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod postgres_fixture;

use futures::future::join_all;
use oncekey::store::Store;
use oncekey::{Fingerprint, Idempotency, Key, Scope};
use oncekey_conformance::{Fixture, run_all};
use oncekey_postgres::tokio_postgres::Config;
use oncekey_postgres::{PostgresStore, tokio_postgres};
use oncekey_testkit::{Pgbouncer, PoolMode};

use postgres_fixture::{PostgresFixture, block_on, pool, server};

fn keeps_every_rule(fixture: &PostgresFixture) {
    let report = run_all(fixture);
    assert!(report.is_success(), "{report}");
}

fn direct() -> Config {
    server().connection_string().parse().unwrap()
}

#[test]
fn behind_pgbouncer_in_transaction_mode() {
    let pgbouncer = Pgbouncer::start(server(), PoolMode::Transaction, 3);
    let config = pgbouncer.connection_string().parse().unwrap();
    keeps_every_rule(&block_on(PostgresFixture::on(config, direct(), 8)));
}

#[test]
fn at_serializable() {
    let mut config = direct();
    config.options("-c default_transaction_isolation=serializable");
    keeps_every_rule(&block_on(PostgresFixture::on(config, direct(), 4)));
}

#[test]
fn at_repeatable_read_with_synchronous_commit_off() {
    let mut config = direct();
    config.options("-c default_transaction_isolation=repeatable\\ read -c synchronous_commit=off");
    keeps_every_rule(&block_on(PostgresFixture::on(config, direct(), 4)));
}

#[test]
fn one_call_a_statement() {
    let fixture = block_on(PostgresFixture::create());
    keeps_every_rule(&PostgresFixture { batching: false, ..fixture });
}

#[test]
fn with_prepared_statements() {
    let fixture = block_on(PostgresFixture::create());
    keeps_every_rule(&PostgresFixture { prepared_statements: true, ..fixture });
}

/// Times are stored and added as instants: a daylight saving time of the session changes nothing.
#[test]
fn in_a_session_of_another_time_zone() {
    let mut config = direct();
    config.options("-c TimeZone=America/New_York -c DateStyle=German -c IntervalStyle=iso_8601");
    keeps_every_rule(&block_on(PostgresFixture::on(config, direct(), 4)));
}

/// Everybody gets the one connection in turn: nobody holds it while it waits for something else.
#[test]
fn one_connection_is_enough() {
    block_on(async {
        let fixture = PostgresFixture::on(direct(), direct(), 1).await;
        let store = PostgresStore::builder(pool(&direct(), 1)).schema(&fixture.schema);
        let store = store.build().unwrap();
        let idempotency = Idempotency::at_least_once(store.clone());
        let idempotency = &idempotency.wait_for_duplicate(std::time::Duration::from_secs(30));
        let scope = Scope::new("tenant", "operation").unwrap();
        let keys: Vec<_> =
            (0..8).map(|id: i32| Key::new(&scope, id.to_string()).unwrap()).collect();
        let request = &Fingerprint::of("the request");
        let runs = keys.iter().chain(&keys).chain(&keys).enumerate().map(|(number, key)| {
            let store = &store;
            async move {
                if number % 2 == 0 {
                    let pay = |_| async { Ok::<_, tokio_postgres::Error>(1) };
                    *idempotency.run(key, request, pay).await.unwrap().value()
                } else {
                    let pay =
                        async |tx: &mut oncekey_postgres::deadpool_postgres::Transaction<'_>| {
                            tx.batch_execute("SELECT 1").await?;
                            Ok::<_, tokio_postgres::Error>(1)
                        };
                    let run = store.run_in_transaction(idempotency, key, request, pay);
                    *run.await.unwrap().value()
                }
            }
        });
        assert_eq!(join_all(runs).await, [1; 24]);
        for key in &keys {
            assert!(store.get(key).await.unwrap().is_some());
        }
    });
}
