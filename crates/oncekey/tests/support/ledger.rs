//! The world outside of a simulation: a card processor that counts, and the promises it checks.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};

use oncekey::Attempt;

use super::time::VirtualTimer;
use oncekey::runtime::Timer;

/// How often an effect may happen, whatever goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "one of what is the question")]
pub(crate) enum Promise {
    /// Any number of charges; one result.
    OneResult,
    /// At most one charge a key.
    OneCharge,
    /// At most one charge, and no second start unless somebody found out that nothing was done.
    OneStart,
}

/// Charges, and everything that was promised about them. Panics when a promise is broken.
#[derive(Clone)]
pub(crate) struct Ledger {
    timer: VirtualTimer,
    promise: Promise,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    accounts: BTreeMap<String, Account>,
    last_charge: u64,
    overlaps: usize,
    trace: DefaultHasher,
    lines: Vec<String>,
}

#[derive(Default)]
struct Account {
    charges: Vec<String>,
    running: BTreeMap<u64, Attempt>,
    /// Starts of which nobody knows that they did nothing.
    starts: usize,
    acknowledged: Option<String>,
    steps: BTreeMap<String, String>,
    executions: usize,
}

impl Ledger {
    pub(crate) fn new(timer: VirtualTimer, promise: Promise) -> Self {
        Self { timer, promise, state: Arc::default() }
    }

    /// An operation starts. It ends when the guard is dropped.
    pub(crate) fn start(&self, key: &str, attempt: &Attempt) -> Running {
        assert!(!attempt.is_lease_lost(), "{key} is started without its lease");
        let mut state = self.lock();
        let account = state.accounts.entry(key.to_owned()).or_default();
        account.starts += 1;
        account.executions += 1;
        if self.promise == Promise::OneStart {
            assert_eq!(account.starts, 1, "{key} started again");
        }
        let id = attempt.token().get();
        let twin = account.running.insert(id, attempt.clone());
        assert!(twin.is_none(), "two operations run under one grant");
        if account.running.len() > 1 {
            state.overlaps += 1;
        }
        drop(state);
        self.check(key);
        Running { ledger: self.clone(), key: key.to_owned(), id }
    }

    /// The operation that just ran is known to have done nothing.
    pub(crate) fn did_nothing(&self, key: &str) {
        let mut state = self.lock();
        let account = state.accounts.entry(key.to_owned()).or_default();
        account.starts = account.starts.saturating_sub(1);
    }

    /// Somebody found out that no operation so far did anything.
    pub(crate) fn settled_as_not_done(&self, key: &str) {
        let mut state = self.lock();
        let account = state.accounts.entry(key.to_owned()).or_default();
        assert!(account.charges.is_empty(), "{key} is charged");
        account.starts = 0;
    }

    /// Charges the card, and returns the receipt.
    pub(crate) fn charge(&self, key: &str) -> String {
        self.check(key);
        let mut state = self.lock();
        state.last_charge += 1;
        let receipt = format!("receipt {}", state.last_charge);
        let account = state.accounts.entry(key.to_owned()).or_default();
        account.charges.push(receipt.clone());
        if self.promise != Promise::OneResult {
            assert_eq!(account.charges.len(), 1, "{key} is charged twice");
        }
        receipt
    }

    /// What the processor knows of a charge.
    pub(crate) fn receipt(&self, key: &str) -> Option<String> {
        let state = self.lock();
        state.accounts.get(key)?.charges.first().cloned()
    }

    /// A caller was told that this is the result.
    pub(crate) fn acknowledge(&self, key: &str, value: &str) {
        let mut state = self.lock();
        let account = state.accounts.entry(key.to_owned()).or_default();
        let first = account.acknowledged.get_or_insert_with(|| value.to_owned());
        assert_eq!(first, value, "{key} has two results");
        let charged = account.charges.iter().any(|receipt| receipt == value);
        assert!(charged, "{key} has a result that nobody made");
    }

    /// A step has returned this to an operation.
    pub(crate) fn step(&self, key: &str, name: &str, value: &str) {
        let mut state = self.lock();
        let account = state.accounts.entry(key.to_owned()).or_default();
        let first = account.steps.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        assert_eq!(first, value, "step {name} of {key} has two results");
    }

    /// No two operations of one key both believe to hold its lease now.
    pub(crate) fn check(&self, key: &str) {
        let state = self.lock();
        let Some(account) = state.accounts.get(key) else {
            return;
        };
        let owners = account.running.values().filter(|attempt| !attempt.is_lease_lost());
        let owners = owners.count();
        assert!(owners <= 1, "{owners} operations hold the lease of {key}");
    }

    pub(crate) fn check_all(&self) {
        let keys: Vec<_> = self.lock().accounts.keys().cloned().collect();
        for key in keys {
            self.check(&key);
        }
    }

    /// Adds a line to the trace of the simulation.
    pub(crate) fn note(&self, line: impl fmt::Display) {
        let line = format!("{:?} {line}", self.timer.now());
        let mut state = self.lock();
        line.hash(&mut state.trace);
        state.lines.push(line);
    }

    /// A hash of all that was noted.
    pub(crate) fn trace(&self) -> u64 {
        self.lock().trace.finish()
    }

    /// The lines that were noted.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// How many operations started in all.
    pub(crate) fn executions(&self) -> usize {
        self.lock().accounts.values().map(|account| account.executions).sum()
    }

    /// How often an operation started while another of its key had not stopped.
    pub(crate) fn overlaps(&self) -> usize {
        self.lock().overlaps
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A broken promise panics under the lock; what follows may still want to print the trace.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// An operation that has not ended.
pub(crate) struct Running {
    ledger: Ledger,
    key: String,
    id: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.ledger.lock();
        if let Some(account) = state.accounts.get_mut(&self.key) {
            account.running.remove(&self.id);
        }
    }
}
