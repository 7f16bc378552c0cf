//! Prints which rules of the conformance suite two stores as one keep, as one JSON document.

#[path = "../tests/tiered_fixture/mod.rs"]
mod tiered_fixture;

use std::process::ExitCode;

use oncekey_conformance::{Fixture, run_all};

use tiered_fixture::TieredFixture;

fn main() -> ExitCode {
    let fixture = TieredFixture::block_on(TieredFixture::create());
    let report = run_all(&fixture);
    println!("{}", report.to_json("tiered"));
    if report.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
