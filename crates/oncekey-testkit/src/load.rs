//! Clients at work while servers and connections break: what was acknowledged stays, what was said not to be
//! applied was not, and what is unknown is settled by asking again.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oncekey::runtime::{ProcessRandom, Random, Timestamp};
use oncekey::store::{
    AttemptId, Claim, ClaimOutcome, Complete, Completion, ErrorKind, Grant, OnInterrupted,
    OnRetired, Store, StoreError,
};
use oncekey::{Fingerprint, Key, Scope};
use oncekey_conformance::history::{Answer, History, Operation, Window, check};
use tokio::time::sleep;

const LONG: Duration = Duration::from_secs(3600);
/// Each call that ends in the dark doubles what the check has to consider.
const MOST_IN_THE_DARK: usize = 3;

/// Many clients on the same keys, and what they saw.
#[derive(Debug)]
pub struct Load {
    history: Mutex<History>,
    /// Calls that are no part of the history: they changed nothing, or else it makes no sense.
    not_applied: Mutex<HashSet<usize>>,
    stop: AtomicBool,
    /// Clients whose call has ended in the dark several times in a row.
    in_the_dark: AtomicUsize,
    unknown: AtomicUsize,
    refused: AtomicUsize,
    answered: AtomicUsize,
}

impl Load {
    /// Puts a load on `stores`, one for each client, while there are `faults`; then reads everything, and
    /// checks that it makes sense.
    ///
    /// # Panics
    /// If it does not, if a call failed for good, or if no call was under way when something broke.
    pub async fn under<S: Store + 'static>(
        clients: usize,
        stores: impl Fn() -> S,
        faults: impl AsyncFnOnce(&Self),
    ) {
        let load = Self::new();
        let clients: Vec<_> =
            (0..clients).map(|client| tokio::spawn(load.clone().run(stores(), client))).collect();
        faults(&load).await;
        load.stop.store(true, Ordering::Relaxed);
        let reader = clients.len();
        for client in clients {
            client.await.unwrap();
        }
        load.makes_sense(&stores(), reader).await;
    }

    fn new() -> Arc<Self> {
        let always = Window { earliest: Timestamp::default(), latest: Timestamp::MAX };
        Arc::new(Self {
            history: Mutex::new(History::new(always)),
            not_applied: Mutex::default(),
            stop: AtomicBool::new(false),
            in_the_dark: AtomicUsize::new(0),
            unknown: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
        })
    }

    /// Asks until there is an answer.
    async fn ask(
        &self,
        store: &dyn Store,
        client: usize,
        number: usize,
        operation: Operation,
    ) -> Answer {
        let mut dark = 0;
        loop {
            let (index, call) = {
                let mut history = self.history.lock().unwrap();
                (history.calls.len(), history.invoke(client, number, operation.clone()))
            };
            match operation.send(store, &key(number)).await {
                Ok(answer) => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    self.history.lock().unwrap().answer(call, answer.clone());
                    if dark >= MOST_IN_THE_DARK {
                        self.in_the_dark.fetch_sub(1, Ordering::Relaxed);
                    }
                    return answer;
                }
                Err(error) => {
                    self.note(&error);
                    if error.kind() != ErrorKind::OutcomeUnknown {
                        self.not_applied.lock().unwrap().insert(index);
                    } else {
                        dark += 1;
                        if dark == MOST_IN_THE_DARK {
                            self.in_the_dark.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Waits until nobody is in the dark for long. To be called before each fault.
    pub async fn calm(&self) {
        while self.in_the_dark.load(Ordering::Relaxed) > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn note(&self, error: &StoreError) {
        assert!(error.is_retryable(), "{error}: {:?}", std::error::Error::source(error));
        let counter = match error.kind() {
            ErrorKind::OutcomeUnknown => &self.unknown,
            _ => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Claims, and completes what it gets, on one key after the other.
    async fn run(self: Arc<Self>, store: impl Store, client: usize) {
        let mut number = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let claimed = self.ask(&store, client, number, Operation::Claim(claim())).await;
            if let Answer::Claim(ClaimOutcome::Acquired { grant, .. }) = claimed {
                let value = format!("{client} did {number}");
                let completed = Operation::Complete(complete(grant, value));
                self.ask(&store, client, number, completed).await;
            }
            number += 1;
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Reads what became of all keys, and checks that the whole makes sense.
    async fn makes_sense(&self, store: &dyn Store, client: usize) {
        let numbers = self.history.lock().unwrap().keys();
        for number in &numbers {
            self.ask(store, client, *number, Operation::Get).await;
            self.ask(store, client, *number, Operation::Claim(claim())).await;
        }
        let mut history = self.history.lock().unwrap().clone();
        let not_applied = self.not_applied.lock().unwrap();
        let mut index = 0;
        history.calls.retain(|_| {
            index += 1;
            !not_applied.contains(&(index - 1))
        });
        check(&history).unwrap_or_else(|found| panic!("{found}"));
        println!(
            "{} keys, {} answers, {} unknown outcomes, {} calls not applied",
            numbers.len(),
            self.answered.load(Ordering::Relaxed),
            self.unknown.load(Ordering::Relaxed),
            self.refused.load(Ordering::Relaxed)
        );
        let unknown = self.unknown.load(Ordering::Relaxed);
        assert!(unknown > 0, "no call was under way when its connection was lost");
    }
}

fn key(number: usize) -> Key {
    Key::new(&Scope::new("tenant", "operation").unwrap(), number.to_string()).unwrap()
}

fn claim() -> Claim {
    Claim {
        attempt: AttemptId::from_bytes(ProcessRandom::new().next().to_be_bytes()),
        fingerprint: Fingerprint::of("the request"),
        lease: LONG,
        hold: LONG,
        on_interrupted: OnInterrupted::TakeOver,
        on_retired: OnRetired::Forget,
    }
}

fn complete(grant: Grant, value: String) -> Complete {
    let completion =
        Completion { value: value.into(), replayable: true, retention: LONG, hold: LONG };
    Complete { grant, completion }
}
