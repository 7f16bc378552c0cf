//! Many processes on one file, and SIGKILL at any moment: nothing acknowledged is lost, nothing happens
//! twice, and the file stays whole.
//!
//! The processes are this test binary once more: with a variable set, `worker` works instead of passing.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use oncekey::runtime::{ProcessRandom, Random, SeededRandom};
use oncekey::store::{
    AttemptId, Claim, ClaimOutcome, Complete, Fenced, State, Status, Store, StoredValue,
};
use oncekey::transaction::Admitted;
use oncekey::{Idempotency, RunError};
use oncekey_sqlite::{SqliteStore, rusqlite};
use rusqlite::{Connection, TransactionBehavior};
use tempfile::TempDir;

use common::{claim, completion, fingerprint, key, number, wait};

const ROLE: &str = "ONCEKEY_SQLITE_WORKER";
const PATH: &str = "ONCEKEY_SQLITE_PATH";

/// How many rounds: more with `ONCEKEY_SEEDS`.
fn rounds(usual: u64) -> u64 {
    env::var("ONCEKEY_SEEDS").map_or(usual, |seeds| usual * seeds.parse::<u64>().unwrap().max(1))
}

/// A process that works on the file at `path`, and is killed when this is dropped.
struct Worker(Child);

impl Worker {
    fn start(role: &str, path: &Path) -> (Self, BufReader<ChildStdout>) {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["worker", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(PATH, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        (Self(child), output)
    }
}

impl Drop for Worker {
    /// SIGKILL: no destructor runs, nothing is flushed, no file is closed in good order.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a worker says: lines that start with a mark, between those of the test harness.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n@{line}").and_then(|()| out.flush()).unwrap();
}

fn heard(line: std::io::Result<String>) -> Option<String> {
    line.ok()?.strip_prefix('@').map(str::to_owned)
}

/// Says where it is, and stays there until it is killed or told to go on.
fn step(name: &str, stop_at: &str) {
    if name == stop_at {
        say(name);
        let mut line = String::new();
        let _ = std::io::stdin().read_line(&mut line);
    }
}

#[test]
fn worker() {
    let (Ok(role), Ok(path)) = (env::var(ROLE), env::var(PATH)) else { return };
    match role.split_once(':') {
        Some(("transaction", stop_at)) => run_to_a_step(Path::new(&path), stop_at),
        Some(("two-steps", stop_at)) => two_steps_to_a_step(Path::new(&path), stop_at),
        Some(("crowd", first)) => work_in_a_crowd(Path::new(&path), first.parse().unwrap()),
        other => panic!("what is that: {other:?}"),
    }
}

fn new_file() -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db.sqlite3");
    let tables = "CREATE TABLE effects (key TEXT NOT NULL, process INTEGER NOT NULL)";
    Connection::open(&path).unwrap().execute_batch(tables).unwrap();
    SqliteStore::builder(&path).migrate().unwrap();
    (folder, path)
}

fn is_whole(path: &Path) {
    let connection = Connection::open(path).unwrap();
    let check: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

fn run_to_a_step(path: &Path, stop_at: &str) {
    let store = SqliteStore::open(path).unwrap();
    let idempotency = Idempotency::at_most_once(store.clone());
    let (key, fingerprint) = (key("a"), fingerprint());
    step("before", stop_at);
    let stop = stop_at.to_owned();
    let run = store.run_in_transaction(&idempotency, &key, &fingerprint, move |tx| {
        step("claimed", &stop);
        tx.execute("INSERT INTO effects VALUES ('a', ?1)", [std::process::id()])?;
        step("written", &stop);
        Ok::<_, rusqlite::Error>(7)
    });
    wait(run).unwrap();
    step("committed", stop_at);
}

fn two_steps_to_a_step(path: &Path, stop_at: &str) {
    let store = SqliteStore::open(path).unwrap();
    let idempotency = Idempotency::at_most_once(store.clone());
    let mut connection = Connection::open(path).unwrap();
    let prepared = idempotency.prepare(&key("a"), &fingerprint()).unwrap();
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    step("before", stop_at);
    let Admitted::Run { grant, .. } = store.claim_in::<i64>(&tx, &prepared).unwrap() else {
        panic!("the key is new")
    };
    step("claimed", stop_at);
    tx.execute("INSERT INTO effects VALUES ('a', ?1)", [std::process::id()]).unwrap();
    step("written", stop_at);
    store.complete_in(&tx, &prepared, grant, &7_i64).unwrap();
    step("completed", stop_at);
    tx.commit().unwrap();
    step("committed", stop_at);
}

#[test]
fn killed_at_every_step_both_are_there_or_neither() {
    for (role, steps) in [
        ("transaction", &["before", "claimed", "written", "committed"][..]),
        ("two-steps", &["before", "claimed", "written", "completed", "committed"]),
    ] {
        for stop_at in steps {
            let (_folder, path) = new_file();
            let (worker, output) = Worker::start(&format!("{role}:{stop_at}"), &path);
            let reached = output.lines().find_map(heard);
            assert_eq!(reached.as_deref(), Some(*stop_at), "{role}");
            drop(worker);

            let committed = *stop_at == "committed";
            let effects = || {
                let connection = Connection::open(&path).unwrap();
                number(&connection, "SELECT count(*) FROM effects")
            };
            assert_eq!(effects(), i64::from(committed), "{role} killed at {stop_at}");
            let store = SqliteStore::open(&path).unwrap();
            let state = common::get(&store, &key("a")).map(|seen| seen.state);
            assert_eq!(state, committed.then_some(State::Completed), "{role} at {stop_at}");

            // A retry elsewhere ends with one effect in all.
            let idempotency = Idempotency::at_most_once(store.clone());
            let (key, fingerprint) = (key("a"), fingerprint());
            let run = store.run_in_transaction(&idempotency, &key, &fingerprint, |tx| {
                tx.execute("INSERT INTO effects VALUES ('a', 0)", [])?;
                Ok::<_, rusqlite::Error>(7)
            });
            let outcome = wait(run).unwrap();
            assert_eq!((*outcome.value(), outcome.is_replay()), (7, committed));
            assert_eq!(effects(), 1);
            is_whole(&path);
        }
    }
}

/// Goes through the keys one by one, as all others do: half of them in a transaction with an effect, half
/// of them by claim and completion. Says what it was told, after it was told.
fn work_in_a_crowd(path: &Path, first: u64) {
    let store = SqliteStore::open(path).unwrap();
    let idempotency = Idempotency::at_most_once(store.clone());
    let process = std::process::id();
    for place in first.. {
        let (key, fingerprint) = (key(place.to_string()), fingerprint());
        if place % 2 == 0 {
            let run = store.run_in_transaction(&idempotency, &key, &fingerprint, move |tx| {
                let sql = "INSERT INTO effects VALUES (?1, ?2)";
                tx.execute(sql, rusqlite::params![place.to_string(), process])?;
                Ok::<_, rusqlite::Error>(process)
            });
            match wait(run) {
                Ok(outcome) => say(&format!("done {place} {}", outcome.value())),
                Err(RunError::Store(error)) if error.is_retryable() => say("retry"),
                Err(error) => panic!("unexpected: {error:?}"),
            }
            continue;
        }
        let attempt = ProcessRandom::new().next();
        // A short lease, so that others take over from whoever was killed.
        let claim = Claim { lease: Duration::from_millis(300), ..claim(attempt) };
        match wait(store.claim(&key, &claim)) {
            Ok(ClaimOutcome::Acquired { grant, .. }) => {
                say(&format!("granted {place} {} {attempt:032x}", grant.token));
                let completion = completion(attempt.to_be_bytes().to_vec());
                match wait(store.complete(&key, &Complete { grant, completion })) {
                    Ok(Fenced::Applied) => say(&format!("done {place} {attempt:032x}")),
                    Ok(Fenced::Lost) => say("lost"),
                    Err(error) if error.is_retryable() => say("retry"),
                    other => panic!("unexpected: {other:?}"),
                }
            }
            Ok(ClaimOutcome::Replay(Some(value))) => {
                let value = u128::from_be_bytes(value[..].try_into().unwrap());
                say(&format!("done {place} {value:032x}"));
            }
            Ok(ClaimOutcome::Busy { .. }) => say(&format!("busy {place}")),
            Err(error) if error.is_retryable() => say("retry"),
            other => panic!("unexpected: {other:?}"),
        }
    }
}

/// What all workers said.
#[derive(Default)]
struct Heard {
    /// The result of each key, by everybody who was told it.
    results: BTreeMap<u64, BTreeSet<String>>,
    /// Every grant of each key.
    grants: BTreeMap<u64, BTreeMap<u64, String>>,
    /// How far the farthest worker got.
    last: u64,
    lines: usize,
}

impl Heard {
    fn hear(&mut self, line: &str) {
        self.lines += 1;
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["done", place, result] => {
                let place = place.parse().unwrap();
                self.results.entry(place).or_default().insert(result.to_owned());
                self.last = self.last.max(place);
            }
            ["granted", place, token, attempt] => {
                let grants = self.grants.entry(place.parse().unwrap()).or_default();
                let before = grants.insert(token.parse().unwrap(), attempt.to_owned());
                assert_eq!(before, None, "a token of key {place} was granted twice");
            }
            ["busy", _] | ["lost"] | ["retry"] => {}
            _ => panic!("unexpected: {line}"),
        }
    }

    /// Compares what was said with what is in the file.
    fn check(&self, path: &Path) {
        let store = SqliteStore::open(path).unwrap();
        let connection = Connection::open(path).unwrap();
        for (place, results) in &self.results {
            assert_eq!(results.len(), 1, "key {place} has one result: {results:?}");
            let seen = common::get(&store, &key(place.to_string()));
            let seen = seen.unwrap_or_else(|| panic!("key {place} was acknowledged"));
            assert_eq!(seen.state, State::Completed, "key {place} was acknowledged");
            let Status::Completed { value: StoredValue::Replayable(value), .. } =
                seen.record.status
            else {
                panic!("key {place} has its value");
            };
            if place % 2 == 1 {
                let value = u128::from_be_bytes(value[..].try_into().unwrap());
                assert!(results.contains(&format!("{value:032x}")), "key {place}");
                let attempt = u128::from_be_bytes(*seen.record.attempt.as_bytes());
                assert_eq!(value, attempt, "key {place} has the result of its owner");
            }
        }
        for (place, grants) in &self.grants {
            let Some(seen) = common::get(&store, &key(place.to_string())) else {
                panic!("key {place} was granted");
            };
            let (token, attempt) = grants.last_key_value().unwrap();
            let last = seen.record.token.get();
            assert!(*token <= last, "key {place}: {token} was granted, {last} is there");
            if *token == last {
                let attempt = u128::from_str_radix(attempt, 16).unwrap();
                let attempt = AttemptId::from_bytes(attempt.to_be_bytes());
                assert_eq!(seen.record.attempt, attempt, "key {place}");
            }
        }
        // Every effect has its record, every record its effect, and none twice.
        for place in (0..=self.last).step_by(2) {
            let sql = format!("SELECT count(*) FROM effects WHERE key = '{place}'");
            let effects = number(&connection, &sql);
            let done = common::get(&store, &key(place.to_string())).is_some();
            assert_eq!(effects, i64::from(done), "effects of key {place}, done: {done}");
        }
    }
}

#[test]
fn ten_processes_that_are_killed_at_random_lose_and_double_nothing() {
    const WORKERS: usize = 10;
    let (_folder, path) = new_file();
    let random = SeededRandom::new(1_000);
    let (said, hearing) = std::sync::mpsc::channel();
    let start = |first: u64| {
        let (worker, output) = Worker::start(&format!("crowd:{first}"), &path);
        let said = said.clone();
        thread::spawn(move || {
            for line in output.lines().filter_map(heard) {
                let _ = said.send(line);
            }
        });
        worker
    };
    let mut heard = Heard::default();
    let mut workers: Vec<_> = (0..WORKERS).map(|_| start(0)).collect();
    for _ in 0..rounds(25) {
        // As long as it takes for something to be said, and a little at random.
        heard.hear(&hearing.recv_timeout(Duration::from_secs(60)).unwrap());
        thread::sleep(Duration::from_micros((random.next() % 60_000) as u64));
        hearing.try_iter().for_each(|line| heard.hear(&line));
        let victim = (random.next() % WORKERS as u128) as usize;
        workers[victim] = start(heard.last);
    }
    drop(workers);
    drop(said);
    hearing.iter().for_each(|line| heard.hear(&line));

    is_whole(&path);
    heard.check(&path);
    println!("{} answers, {} keys with a result", heard.lines, heard.results.len());
    assert!(heard.results.len() > 10, "something must have happened");
}
