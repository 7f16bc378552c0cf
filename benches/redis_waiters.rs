//! How long a waiter in one process sleeps on after another process has completed what it waits for, in
//! Redis and Valkey. Polling is put off by ten seconds, so that only notifications explain what is seen.
//!
//! `cargo bench -p oncekey-benches --bench redis_waiters [ROUNDS]`

#![allow(clippy::unwrap_used, reason = "a bench may stop at the first surprise")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use oncekey::runtime::{Sleep, ThreadTimer, Timer};
use oncekey::{Failure, Fingerprint, Idempotency, Key, Scope};
use oncekey_redis::RedisStore;
use oncekey_testkit::{Flavor, Redis};

/// Tells the owner's process where the server is.
const OWNER: &str = "ONCEKEY_BENCH_OWNER";
const NO_POLL: Duration = Duration::from_secs(10);
/// So that the waiter has subscribed, and looked, before the operation ends.
const SETTLED: Duration = Duration::from_millis(20);

fn key(number: usize) -> Key {
    Key::new(&Scope::new("tenant-42", "POST /payments").unwrap(), number.to_string()).unwrap()
}

fn request() -> Fingerprint {
    Fingerprint::from_digest(1, [7; 32])
}

fn micros() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}

/// Wakes nobody before its time and ten seconds.
#[derive(Debug)]
struct Late(ThreadTimer);

impl Timer for Late {
    fn now(&self) -> Duration {
        self.0.now()
    }

    fn sleep_until(&self, at: Duration) -> Sleep {
        self.0.sleep_until(at + NO_POLL)
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    if let Ok(url) = std::env::var(OWNER) {
        return own(&url).await;
    }
    let given = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let rounds = given.unwrap_or(500);
    for (flavor, name) in [(Flavor::Redis, "redis"), (Flavor::Valkey, "valkey")] {
        if !flavor.is_there() {
            println!("skipped: {name} is not on this machine");
            continue;
        }
        let server = Redis::start_with(flavor, &["--save", ""]);
        let mut waits = wait(&server, rounds).await;
        waits.sort_unstable();
        let at = |share: usize| waits[(waits.len() - 1) * share / 100];
        println!(
            "{name}: {rounds} waiters woken, after a median of {} us, 90 % within {} us, 99 % within {} us, all \
             within {} us",
            at(50),
            at(90),
            at(99),
            at(100)
        );
    }
}

/// The process of the owner: runs the operation of each number that it is told, until it is told again.
async fn own(url: &str) {
    let idempotency = Idempotency::at_least_once(RedisStore::connect(url).unwrap());
    let lines = &mut std::io::stdin().lines();
    while let Some(Ok(number)) = lines.next() {
        let operation = async |_| {
            println!("begun");
            let _ = lines.next().unwrap().unwrap();
            Ok::<_, Failure<()>>(Bytes::from(micros().to_string()))
        };
        let key = key(number.parse().unwrap());
        idempotency.run_bytes(&key, &request(), operation).await.unwrap();
    }
}

struct Owner {
    process: Child,
    told: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Owner {
    fn start(server: &Redis) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .env(OWNER, server.url())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (told, says) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Self { process, told, says: BufReader::new(says) }
    }

    fn begin(&mut self, number: usize) {
        writeln!(self.told, "{number}").unwrap();
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        assert_eq!(line, "begun\n");
    }

    fn end(&mut self) {
        writeln!(self.told).unwrap();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The microseconds from when each operation had its result, before it was recorded, to when the waiter
/// had it.
async fn wait(server: &Redis, rounds: usize) -> Vec<u64> {
    let mut owner = Owner::start(server);
    let idempotency = Idempotency::at_least_once(RedisStore::connect(&server.url()).unwrap())
        .wait_for_duplicate(Duration::from_secs(60))
        .timer(Late(ThreadTimer::new()));
    let mut waits = Vec::new();
    for number in 0..rounds {
        owner.begin(number);
        let idempotency = idempotency.clone();
        let waiter = tokio::spawn(async move {
            let never =
                async |_| -> Result<Bytes, Failure<()>> { unreachable!("it runs elsewhere") };
            let outcome = idempotency.run_bytes(&key(number), &request(), never).await.unwrap();
            (outcome.into_value(), micros())
        });
        tokio::time::sleep(SETTLED).await;
        owner.end();
        let (ended, woken) = waiter.await.unwrap();
        let ended: u64 = std::str::from_utf8(&ended).unwrap().parse().unwrap();
        waits.push(woken - ended);
    }
    waits
}
