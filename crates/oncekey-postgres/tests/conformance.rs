//! The conformance suite on PostgreSQL: one test a rule.

mod postgres_fixture;

use postgres_fixture::PostgresFixture;

oncekey_conformance::suite!(PostgresFixture);
