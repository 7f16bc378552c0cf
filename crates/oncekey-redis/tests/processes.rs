//! Two processes on the same keys.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod redis_fixture;

use std::process::Command;
use std::time::Duration;

use oncekey_redis::{RedisStoreBuilder, redis};
use oncekey_testkit::Redis;

use redis_fixture::calls::key;
use redis_fixture::{block_on, connection};

const CHILD: &str = "ONCEKEY_REDIS_TEST_URL";

/// Two processes run the same operations at the same time. Each is run once, and both get its result.
#[test]
fn two_processes_run_each_operation_once() {
    let server = Redis::start();
    let program = std::env::current_exe().unwrap();
    let children: Vec<_> = (0..2)
        .map(|_| {
            Command::new(&program)
                .args(["the_other_process", "--exact", "--nocapture"])
                .env(CHILD, server.url())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let runs: Vec<_> = (0..300).map(|id| server.ask(&["GET", &format!("runs-{id}")])).collect();
    assert_eq!(runs, vec!["1"; 300]);
    let met = server.ask(&["GET", "replays"]);
    assert_eq!(met, "300", "the other process got every result");
}

#[test]
fn the_other_process() {
    let Ok(url) = std::env::var(CHILD) else { return };
    block_on(async {
        let store = RedisStoreBuilder::connect(&url).unwrap().build().unwrap();
        let idempotency = oncekey::Idempotency::at_least_once(store);
        let idempotency = &idempotency.wait_for_duplicate(Duration::from_secs(30));
        let request = &oncekey::Fingerprint::of("the request");
        let connection = connection(&url).await;
        let runs = (0..300).map(|id| {
            let mut connection = connection.clone();
            async move {
                let mut counting = connection.clone();
                let operation = async move |_| {
                    let mut count = redis::cmd("INCR");
                    count.arg(format!("runs-{id}"));
                    count.query_async::<u64>(&mut counting).await
                };
                let outcome = idempotency.run(&key(id), request, operation).await.unwrap();
                assert_eq!(*outcome.value(), 1);
                if outcome.is_replay() {
                    let mut count = redis::cmd("INCR");
                    count.arg("replays").exec_async(&mut connection).await.unwrap();
                }
            }
        });
        futures::future::join_all(runs).await;
    });
}
