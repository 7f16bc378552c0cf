//! The conformance suite where things are not as usual: on scripts alone, on Valkey, over a slow wire, on a
//! server that crashes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod redis_fixture;

use std::time::Duration;

use oncekey_conformance::run_all;
use oncekey_testkit::{Flavor, Redis, Relay};

use redis_fixture::{RedisFixture, server, valkey};

fn keeps_every_rule(fixture: &RedisFixture) {
    let report = run_all(fixture);
    assert!(report.is_success(), "{report}");
}

#[test]
fn by_scripts_alone() {
    keeps_every_rule(&RedisFixture { scripts_only: true, ..RedisFixture::on(server()) });
}

/// With the rules about crashes.
#[test]
fn on_a_server_that_crashes() {
    keeps_every_rule(&RedisFixture::alone(Flavor::Redis));
}

#[test]
fn on_valkey_which_compares() {
    if valkey("on_valkey_which_compares").is_some() {
        keeps_every_rule(&RedisFixture::alone(Flavor::Valkey));
    }
}

#[test]
fn on_valkey_by_scripts_alone() {
    if let Some(server) = valkey("on_valkey_by_scripts_alone") {
        keeps_every_rule(&RedisFixture { scripts_only: true, ..RedisFixture::on(server) });
    }
}

#[test]
fn over_a_slow_wire() {
    let relay = Relay::start(server().port());
    relay.delay(Duration::from_millis(1));
    keeps_every_rule(&RedisFixture { url: relay.url(), ..RedisFixture::on(server()) });
}

/// The rules about time are kept by a server that has other things to do.
#[test]
fn on_a_server_that_is_busy() {
    let server = Redis::start();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let spin = "local sum = 0 for i = 1, 100000 do sum = sum + i end return sum";
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                server.ask(&["EVAL", spin, "0"]);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let report = run_all(&RedisFixture::on(&server));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(report.is_success(), "{report}");
    });
}
