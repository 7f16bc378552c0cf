//! A process that is killed by SIGKILL at any step of a transaction: effect and record are both there, or
//! neither.
//!
//! The process is this test binary once more: with a variable set, `worker` works instead of passing.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod postgres_fixture;
mod shop;

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use oncekey::Idempotency;
use oncekey::store::{State, Store};
use oncekey::transaction::Admitted;
use oncekey_postgres::PostgresStore;
use oncekey_postgres::deadpool_postgres::Transaction;
use oncekey_postgres::tokio_postgres::{self, Config};

use postgres_fixture::{block_on, connection, pool, server};
use shop::{Shop, key, request};

const ROLE: &str = "ONCEKEY_POSTGRES_WORKER";
const SERVER: &str = "ONCEKEY_POSTGRES_SERVER";
const SCHEMA: &str = "ONCEKEY_POSTGRES_SCHEMA";

/// Says where it is, and stays there until it is killed.
fn step(name: &str, stop_at: &str) {
    if name == stop_at {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n@{name}").and_then(|()| out.flush()).unwrap();
        let _ = std::io::stdin().read_line(&mut String::new());
    }
}

#[test]
fn worker() {
    let (Ok(role), Ok(server), Ok(schema)) = (env::var(ROLE), env::var(SERVER), env::var(SCHEMA))
    else {
        return;
    };
    let config: Config = server.parse().unwrap();
    let store = PostgresStore::builder(pool(&config, 2)).schema(&schema).build().unwrap();
    let pay = format!("INSERT INTO \"{schema}\".payments (amount) VALUES (7)");
    block_on(async {
        match role.split_once(':').unwrap() {
            ("transaction", stop_at) => run_to_a_step(&store, &pay, stop_at).await,
            (_, stop_at) => two_steps_to_a_step(&store, &pay, stop_at).await,
        }
    });
}

async fn run_to_a_step(store: &PostgresStore, pay: &str, stop_at: &str) {
    let idempotency = Idempotency::at_most_once(store.clone());
    step("before", stop_at);
    let business = async |tx: &mut Transaction<'_>| {
        step("claimed", stop_at);
        tx.batch_execute(pay).await?;
        step("written", stop_at);
        Ok::<_, tokio_postgres::Error>(7)
    };
    store.run_in_transaction(&idempotency, &key("a"), &request(), business).await.unwrap();
    step("committed", stop_at);
}

async fn two_steps_to_a_step(store: &PostgresStore, pay: &str, stop_at: &str) {
    let idempotency = Idempotency::at_most_once(store.clone());
    let prepared = idempotency.prepare(&key("a"), &request()).unwrap();
    let mut client = store.pool().get().await.unwrap();
    let tx = client.transaction().await.unwrap();
    step("before", stop_at);
    let admitted = store.claim_in::<i64>(&tx, &prepared).await.unwrap();
    let Admitted::Run { grant, .. } = admitted else { panic!("{admitted:?}") };
    step("claimed", stop_at);
    tx.batch_execute(pay).await.unwrap();
    step("written", stop_at);
    store.complete_in(&tx, &prepared, grant, &7_i64).await.unwrap();
    step("completed", stop_at);
    tx.commit().await.unwrap();
    step("committed", stop_at);
}

/// Works until it has reached the step, and is killed there.
fn work_and_be_killed(role: &str, stop_at: &str, schema: &str) {
    let mut worker: Child = Command::new(env::current_exe().unwrap())
        .args(["worker", "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, format!("{role}:{stop_at}"))
        .env(SERVER, server().connection_string())
        .env(SCHEMA, schema)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(worker.stdout.take().unwrap());
    let said = |line: std::io::Result<String>| line.ok()?.strip_prefix('@').map(str::to_owned);
    let reached = output.lines().find_map(said);
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert_eq!(reached.as_deref(), Some(stop_at), "{role}");
}

#[test]
fn killed_at_every_step_both_are_there_or_neither() {
    for (role, steps) in [
        ("transaction", &["before", "claimed", "written", "committed"][..]),
        ("two steps", &["before", "claimed", "written", "completed", "committed"]),
    ] {
        for stop_at in steps {
            block_on(async {
                let shop = Shop::new().await;
                let schema = shop.fixture.schema.clone();
                tokio::task::block_in_place(|| work_and_be_killed(role, stop_at, &schema));

                let committed = *stop_at == "committed";
                assert_eq!(shop.payments().await, i64::from(committed), "{role} at {stop_at}");
                let seen = shop.store.get(&key("a")).await.unwrap().map(|seen| seen.state);
                assert_eq!(seen, committed.then_some(State::Completed), "{role} at {stop_at}");

                // A retry elsewhere ends with one effect in all, and nothing is left open.
                let outcome = shop.run("a").await.unwrap();
                assert_eq!(outcome.is_replay(), committed, "{role} at {stop_at}");
                assert_eq!(shop.payments().await, 1);
                let open = "SELECT count(*) FROM pg_locks WHERE relation = $1::text::regclass";
                let direct = connection(&shop.fixture.direct).await;
                let open = direct.query_one(open, &[&shop.table]).await.unwrap();
                assert_eq!(open.get::<_, i64>(0), 0, "{role} at {stop_at}");
            });
        }
    }
}
