//! Is there an order that explains what was seen?
//!
//! A history is *linearizable* if its calls can be put in an order in which each takes effect at one
//! moment between its beginning and its end, and the rules give every answer that was given. The
//! search is that of Wing and Gong with Lowe's memory of what was tried: depth first, one call after
//! the other; which calls are done and what the record then is, is tried once. Keys are independent,
//! so each is searched for itself.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::fmt;

use oncekey::store::Record;

use super::log::{Call, History};
use super::range::{Allowed, Range, allowed};

/// Checks that `history` is linearizable by the rules of [`transition`](oncekey::store::transition).
///
/// A call without a reply may take effect at any time after it began, by the store's clock of that
/// time, or never. A record whose time to forget has come may be gone at any time.
///
/// # Errors
/// The shortest beginning of the history that no order explains.
pub fn check(history: &History) -> Result<(), Counterexample> {
    let mut keys = history.keys().into_iter();
    keys.try_for_each(|key| check_key(history, key))
}

fn check_key(history: &History, key: usize) -> Result<(), Counterexample> {
    let is_explained = |until: u64| Search::new(&history.prefix(key, until)).succeeds();
    if is_explained(u64::MAX) {
        return Ok(());
    }
    let replies = history.calls.iter().filter(|call| call.key == key);
    let mut ends: Vec<_> = replies.filter_map(end_of).collect();
    ends.sort_unstable();
    // Whatever explains a history explains its beginnings, so the first that fails can be bisected.
    let explained = ends.partition_point(|until| is_explained(*until));
    Err(Counterexample::new(history, key, ends.get(explained).copied()))
}

fn end_of(call: &Call) -> Option<u64> {
    call.reply.as_ref().map(|reply| reply.at)
}

/// The beginning of a history that no order of its calls explains.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counterexample {
    /// The key that it is about.
    pub key: usize,
    /// What happened on that key, up to the first answer that cannot be explained.
    pub history: History,
    /// What the rules allow in place of that answer.
    pub allowed: Vec<String>,
}

impl Counterexample {
    fn new(history: &History, key: usize, until: Option<u64>) -> Self {
        let prefix = history.prefix(key, until.unwrap_or(u64::MAX));
        let last = prefix.calls.iter().position(|call| end_of(call) == until);
        Self {
            key,
            allowed: last.map_or_else(Vec::new, |last| Search::new(&prefix).answers(last)),
            history: prefix,
        }
    }
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no order of the calls explains the last answer below; ")?;
        writeln!(f, "the rules allow {}", self.allowed.join(", or "))?;
        write!(f, "{}", self.history)
    }
}

impl Error for Counterexample {}

/// The search for an order of the calls on one key.
struct Search<'a> {
    history: &'a History,
    steps: Vec<Step<'a>>,
    tried: HashMap<Vec<bool>, Vec<State>>,
    /// The call whose answer is asked for, and the answers that were found.
    asked: Option<&'a Call>,
    answers: BTreeSet<String>,
}

/// What has to find its place in the order.
struct Step<'a> {
    begins: u64,
    /// Never, for a call that was not answered: it need not take place.
    ends: u64,
    what: What<'a>,
}

#[derive(Clone, Copy)]
enum What<'a> {
    Call(&'a Call),
    Phase(usize),
}

/// Where a search stands, beside what it has placed.
#[derive(Clone, PartialEq)]
struct State {
    phase: usize,
    record: Range<Option<Record>>,
    /// The answer that was given to the call that is asked for.
    said: Option<String>,
}

impl<'a> Search<'a> {
    fn new(history: &'a History) -> Self {
        let calls = history.calls.iter().map(|call| Step {
            begins: call.invoked,
            ends: end_of(call).unwrap_or(u64::MAX),
            what: What::Call(call),
        });
        let later_phases = history.phases.iter().enumerate().skip(1);
        let phases = later_phases.map(|(number, phase)| Step {
            begins: phase.from,
            ends: phase.from,
            what: What::Phase(number),
        });
        let mut steps: Vec<_> = calls.chain(phases).collect();
        // The order of the answers is likely to be close to the order of what was done.
        steps.sort_by_key(|step| step.ends);
        Self { history, steps, tried: HashMap::new(), asked: None, answers: BTreeSet::new() }
    }

    fn succeeds(mut self) -> bool {
        self.run()
    }

    /// Every answer to `call` with which there is an order.
    fn answers(mut self, call: usize) -> Vec<String> {
        self.asked = self.history.calls.get(call);
        // Never succeeds while an answer is asked for.
        self.run();
        self.answers.into_iter().collect()
    }

    fn run(&mut self) -> bool {
        let start = State { phase: 0, record: Range::exactly(None), said: None };
        self.place(&mut vec![false; self.steps.len()], start)
    }

    /// Whether the steps that are not `placed` yet can follow on `state`.
    fn place(&mut self, placed: &mut Vec<bool>, state: State) -> bool {
        let open = self.steps.iter().zip(placed.iter());
        let open = open.filter(|(_, placed)| !**placed);
        let first_end = open.map(|(step, _)| step.ends).min().unwrap_or(u64::MAX);
        if first_end == u64::MAX {
            self.answers.extend(state.said);
            return self.asked.is_none();
        }
        if !self.is_new(placed, &state) {
            return false;
        }
        for number in 0..self.steps.len() {
            let step = &self.steps[number];
            // What began after another step ended cannot come before it.
            if placed[number] || step.begins > first_end {
                continue;
            }
            for next in self.after(step, &state) {
                placed[number] = true;
                if self.place(placed, next) {
                    return true;
                }
                placed[number] = false;
            }
        }
        false
    }

    fn is_new(&mut self, placed: &[bool], state: &State) -> bool {
        let states = self.tried.entry(placed.to_vec()).or_default();
        let is_new = !states.contains(state);
        if is_new {
            states.push(state.clone());
        }
        is_new
    }

    /// What there can be after `step` took place on `state`.
    fn after(&self, step: &Step<'_>, state: &State) -> Vec<State> {
        let call = match step.what {
            What::Call(call) => call,
            What::Phase(phase) => {
                return vec![State { phase, ..state.clone() }];
            }
        };
        let clock = self.history.phases[state.phase].clock;
        let next = |allowed: Allowed| self.next(call, state, &allowed);
        let allowed = allowed(&call.operation, &state.record, clock);
        allowed.into_iter().filter_map(next).collect()
    }

    fn next(&self, call: &Call, state: &State, allowed: &Allowed) -> Option<State> {
        let mut next = state.clone();
        match &call.reply {
            Some(_) if self.asked.is_some_and(|asked| std::ptr::eq(asked, call)) => {
                next.said = Some(self.history.legend().answer(&allowed.answer.low));
                next.record = allowed.after_answer(&allowed.answer.low);
            }
            Some(reply) if allowed.admits(&reply.answer) => {
                next.record = allowed.after_answer(&reply.answer);
            }
            Some(_) => return None,
            // To take place without a trace is the same as not to take place.
            None if allowed.after == state.record => return None,
            None => next.record = allowed.after.clone(),
        }
        Some(next)
    }
}
