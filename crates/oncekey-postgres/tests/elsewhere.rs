//! The conformance suite where sessions are not the usual ones: behind a pgbouncer, with a pool of one
//! connection, at other isolation levels.

mod postgres_fixture;

use oncekey_conformance::run_all;
use oncekey_postgres::tokio_postgres::Config;
use oncekey_testkit::{Pgbouncer, PoolMode};

use postgres_fixture::{PostgresFixture, block_on, server};

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
fn with_a_pool_of_one_connection_at_serializable() {
    let mut config = direct();
    config.options("-c default_transaction_isolation=serializable");
    keeps_every_rule(&block_on(PostgresFixture::on(config, direct(), 1)));
}

#[test]
fn at_repeatable_read_with_synchronous_commit_off() {
    let mut config = direct();
    config.options("-c default_transaction_isolation=repeatable\\ read -c synchronous_commit=off");
    keeps_every_rule(&block_on(PostgresFixture::on(config, direct(), 4)));
}

/// Times are stored and added as instants: a daylight saving time of the session changes nothing.
#[test]
fn in_a_session_of_another_time_zone() {
    let mut config = direct();
    config.options("-c TimeZone=America/New_York -c DateStyle=German -c IntervalStyle=iso_8601");
    keeps_every_rule(&block_on(PostgresFixture::on(config, direct(), 4)));
}
