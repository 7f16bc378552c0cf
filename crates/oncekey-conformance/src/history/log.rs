//! What was recorded: who asked what when, and what came back.

use std::fmt;

use oncekey::store::AttemptId;

use super::legend::Legend;
use super::operation::{Answer, Operation};
use super::range::Window;

/// What many clients asked of one store, and what they were answered, in the order in which it was
/// seen.
///
/// Plain data: record one with the methods below, or build or alter one field by field. Positions
/// (`invoked`, `at`, `from`) are numbers on one line; only their order matters, and no two are equal.
///
/// ```
/// use oncekey::runtime::Timestamp;
/// use oncekey_conformance::history::{Answer, History, Operation, Window, check};
///
/// let mut history = History::new(Window::at(Timestamp::from_micros(1)));
/// let read = history.invoke(0, 0, Operation::Get);
/// history.answer(read, Answer::Get(None));
/// assert!(check(&history).is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "plain data, for anyone to build")]
pub struct History {
    /// The phases, by position: within one, the store's clock is within a window.
    pub phases: Vec<Phase>,
    /// The calls, in any order.
    pub calls: Vec<Call>,
}

/// A stretch of a history in which the store's clock is within a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "plain data, for anyone to build")]
pub struct Phase {
    /// Where it begins.
    pub from: u64,
    /// The store's clock meanwhile.
    pub clock: Window,
}

/// One call of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "plain data, for anyone to build")]
pub struct Call {
    /// Who asked.
    pub client: usize,
    /// About which key.
    pub key: usize,
    /// What.
    pub operation: Operation,
    /// Where the call began.
    pub invoked: u64,
    /// What came back. Nothing: the call may have taken effect, may yet do so, or never will.
    pub reply: Option<Reply>,
}

/// What a call came back with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "plain data, for anyone to build")]
pub struct Reply {
    /// Where the call ended.
    pub at: u64,
    /// What the store said.
    pub answer: Answer,
}

/// Names a call of the history that is being recorded.
#[derive(Debug)]
pub struct CallId(usize);

impl History {
    /// An empty history that begins with the store's clock in `clock`.
    #[must_use]
    pub fn new(clock: Window) -> Self {
        Self { phases: vec![Phase { from: 0, clock }], calls: Vec::new() }
    }

    /// Records that `client` asks for `operation` on `key`.
    pub fn invoke(&mut self, client: usize, key: usize, operation: Operation) -> CallId {
        let invoked = self.end();
        self.calls.push(Call { client, key, operation, invoked, reply: None });
        CallId(self.calls.len() - 1)
    }

    /// Records the answer to `call`. A call that is never answered has an unknown outcome.
    pub fn answer(&mut self, call: CallId, answer: Answer) {
        let at = self.end();
        if let Some(call) = self.calls.get_mut(call.0) {
            call.reply = Some(Reply { at, answer });
        }
    }

    /// Records that time passed: the store's clock is in `clock` from now on.
    pub fn advance(&mut self, clock: Window) {
        let from = self.end();
        self.phases.push(Phase { from, clock });
    }

    /// The first position after all that was recorded.
    fn end(&self) -> u64 {
        let calls = self.calls.iter().map(|call| match &call.reply {
            Some(reply) => reply.at.max(call.invoked),
            None => call.invoked,
        });
        let phases = self.phases.iter().map(|phase| phase.from);
        calls.chain(phases).max().map_or(0, |last| last + 1)
    }

    /// The keys that it is about, in order.
    #[must_use]
    pub fn keys(&self) -> Vec<usize> {
        let mut keys: Vec<_> = self.calls.iter().map(|call| call.key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// What had happened on `key` at the position `until`, that included.
    #[must_use]
    pub fn prefix(&self, key: usize, until: u64) -> Self {
        let phases = self.phases.iter().filter(|phase| phase.from <= until);
        let calls = self.calls.iter();
        let calls = calls.filter(|call| call.key == key && call.invoked <= until);
        Self {
            phases: phases.copied().collect(),
            calls: calls
                .cloned()
                .map(|mut call| {
                    call.reply = call.reply.filter(|reply| reply.at <= until);
                    call
                })
                .collect(),
        }
    }

    /// The attempts in the order in which they appear, and the time at which all begins.
    pub(super) fn legend(&self) -> Legend {
        let mut calls: Vec<_> = self.calls.iter().collect();
        calls.sort_by_key(|call| call.invoked);
        let mut attempts: Vec<AttemptId> = Vec::new();
        for attempt in calls.iter().filter_map(|call| call.operation.attempt()) {
            if !attempts.contains(&attempt) {
                attempts.push(attempt);
            }
        }
        let start = self.phases.iter().map(|phase| phase.clock.earliest).min();
        Legend::new(attempts, start.unwrap_or_default())
    }
}

impl Call {
    /// Whether this and `other` were under way at the same time, by different clients.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let ended = |call: &Self| call.reply.as_ref().map_or(u64::MAX, |reply| reply.at);
        self.client != other.client && self.invoked < ended(other) && other.invoked < ended(self)
    }
}

impl fmt::Display for History {
    /// One line an event, in order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let legend = self.legend();
        let mut lines: Vec<(u64, String)> = Vec::new();
        for phase in &self.phases {
            let (from, until) = (phase.clock.earliest, phase.clock.latest);
            let mut line = format!("the store's clock is at {}", legend.time(from));
            if from != until {
                line = format!("{line} to {}", legend.time(until));
            }
            lines.push((phase.from, line));
        }
        for (number, call) in self.calls.iter().enumerate() {
            let name = format!("client {} key {} call {number}", call.client, call.key);
            let operation = legend.operation(&call.operation);
            lines.push((call.invoked, format!("{name}: {operation} ..")));
            if let Some(reply) = &call.reply {
                let answer = legend.answer(&reply.answer);
                lines.push((reply.at, format!("{name}: .. {answer}")));
            }
        }
        lines.sort_by_key(|(position, _)| *position);
        for (_, line) in lines {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}
