//! Prints which rules of the conformance suite the store in memory keeps, as one JSON document.

#[path = "../tests/memory_fixture/mod.rs"]
mod memory_fixture;

use std::process::ExitCode;

use oncekey_conformance::{Fixture, run_all};

use memory_fixture::MemoryFixture;

fn main() -> ExitCode {
    let fixture = MemoryFixture::block_on(MemoryFixture::create());
    let report = run_all(&fixture);
    println!("{}", report.to_json("memory"));
    if report.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
