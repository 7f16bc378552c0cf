//! Prints which rules of the conformance suite the store in Redis keeps, as one JSON document. It starts a
//! server of its own.

#[path = "../tests/redis_fixture/mod.rs"]
mod redis_fixture;

use std::process::ExitCode;

use oncekey_conformance::run_all;
use oncekey_testkit::Flavor;

use redis_fixture::RedisFixture;

fn main() -> ExitCode {
    let fixture = RedisFixture::alone(Flavor::Redis);
    let report = run_all(&fixture);
    println!("{}", report.to_json("redis"));
    if report.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
