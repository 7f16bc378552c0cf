//! Prints which rules of the conformance suite the store in PostgreSQL keeps, as one JSON document.
//! It starts a server of its own.

#[path = "../tests/postgres_fixture/mod.rs"]
mod postgres_fixture;

use std::process::ExitCode;

use oncekey_conformance::run_all;

use postgres_fixture::{PostgresFixture, block_on};

fn main() -> ExitCode {
    let fixture = block_on(PostgresFixture::alone());
    let report = run_all(&fixture);
    println!("{}", report.to_json("postgres"));
    if report.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
