//! The conformance suite on SQLite: one test a rule.

mod sqlite_fixture;

use sqlite_fixture::SqliteFixture;

oncekey_conformance::suite!(SqliteFixture);
