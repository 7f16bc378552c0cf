//! Prints which rules of the conformance suite the store in SQLite keeps, as one JSON document.

#[path = "../tests/sqlite_fixture/mod.rs"]
mod sqlite_fixture;

use std::process::ExitCode;

use oncekey_conformance::{Fixture, run_all};

use sqlite_fixture::SqliteFixture;

fn main() -> ExitCode {
    let fixture = SqliteFixture::block_on(SqliteFixture::create());
    let report = run_all(&fixture);
    println!("{}", report.to_json("sqlite"));
    if report.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
