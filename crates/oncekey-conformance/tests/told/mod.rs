//! Histories told by hand: every call takes effect when it is told to, by the rules.

pub(crate) mod corrupt;
pub(crate) mod naive;
pub(crate) mod simulate;
pub(crate) mod tales;

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use oncekey::Fingerprint;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    Abandon, AttemptId, Claim, ClaimOutcome, Complete, Completion, Evict, Expected, FencingToken,
    Grant, Known, OnInterrupted, OnRetired, Progress, Record, Renew, Settle, Settlement,
};
use oncekey_conformance::history::{Answer, CallId, History, Operation, Window};

pub(crate) const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
pub(crate) const SHORT: Duration = Duration::from_secs(30);
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// A store that does as it is told, and the history of it.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) history: History,
    records: HashMap<usize, Record>,
    /// What each attempt was granted last.
    tokens: HashMap<(usize, AttemptId), FencingToken>,
    now: Timestamp,
    /// How much time passes before a call takes effect.
    pub(crate) tick: Duration,
}

/// A call that is under way.
#[derive(Debug)]
pub(crate) struct Begun {
    id: CallId,
    key: usize,
    operation: Operation,
    answer: Option<Answer>,
}

impl Told {
    pub(crate) fn new() -> Self {
        let history = History::new(Window::at(START));
        let (records, tokens) = (HashMap::new(), HashMap::new());
        Self { history, records, tokens, now: START, tick: Duration::ZERO }
    }

    /// A call, by an owner with the token that its attempt was granted.
    pub(crate) fn begin(&mut self, client: usize, key: usize, mut operation: Operation) -> Begun {
        let grant = match &mut operation {
            Operation::Renew(renew) => Some(&mut renew.grant),
            Operation::Complete(complete) => Some(&mut complete.grant),
            Operation::Abandon(abandon) => Some(&mut abandon.grant),
            _ => None,
        };
        if let Some(grant) = grant
            && let Some(token) = self.tokens.get(&(key, grant.attempt))
        {
            grant.token = *token;
        }
        let id = self.history.invoke(client, key, operation.clone());
        Begun { id, key, operation, answer: None }
    }

    pub(crate) fn take_effect(&mut self, call: &mut Begun) {
        self.now = self.now.saturating_add(self.tick);
        if let Some(phase) = self.history.phases.last_mut() {
            phase.clock.latest = self.now;
        }
        let (answer, after) = call.operation.apply(self.records.get(&call.key), self.now);
        match after {
            Some(record) => self.records.insert(call.key, record),
            None => self.records.remove(&call.key),
        };
        if let Answer::Claim(ClaimOutcome::Acquired { grant, .. }) = &answer {
            self.tokens.insert((call.key, grant.attempt), grant.token);
        }
        call.answer = Some(answer);
    }

    /// The call comes back with its answer; a call that never took effect does not come back.
    pub(crate) fn end(&mut self, call: Begun) {
        if let Some(answer) = call.answer {
            self.history.answer(call.id, answer);
        }
    }

    /// A call on key 0 while nothing else happens.
    pub(crate) fn ask(&mut self, client: usize, operation: Operation) {
        let mut call = self.begin(client, 0, operation);
        self.take_effect(&mut call);
        self.end(call);
    }

    /// A call on key 0 that takes effect and is never answered.
    pub(crate) fn lose(&mut self, client: usize, operation: Operation) {
        let mut call = self.begin(client, 0, operation);
        self.take_effect(&mut call);
    }

    /// The answer that was given last.
    pub(crate) fn last(&self) -> &Answer {
        let replies = self.history.calls.iter().filter_map(|call| call.reply.as_ref());
        &replies.max_by_key(|reply| reply.at).expect("a call was answered").answer
    }

    /// The history in which another answer was given last.
    pub(crate) fn falsified(&self, falsify: impl FnOnce(&mut Answer)) -> History {
        let mut history = self.history.clone();
        let replies = history.calls.iter_mut().filter_map(|call| call.reply.as_mut());
        let last = replies.max_by_key(|reply| reply.at).expect("a call was answered");
        falsify(&mut last.answer);
        history
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.now = self.now.saturating_add(by);
        self.history.advance(Window::at(self.now));
    }

    /// Removes what is over.
    pub(crate) fn purge(&mut self) {
        let now = self.now;
        self.records.retain(|_, record| !record.is_purgeable(now));
    }
}

pub(crate) const fn attempt(number: u8) -> AttemptId {
    AttemptId::from_bytes([number; 16])
}

pub(crate) fn claim(number: u8) -> Claim {
    Claim {
        attempt: attempt(number),
        fingerprint: Fingerprint::of("same"),
        lease: SHORT,
        hold: LONG,
        on_interrupted: OnInterrupted::TakeOver,
        on_retired: OnRetired::Forget,
    }
}

/// Claims with attempt `number`, and with the plainest of everything else.
pub(crate) fn claims(number: u8) -> Operation {
    Operation::Claim(claim(number))
}

const fn grant(number: u8) -> Grant {
    Grant { token: FencingToken::new(1), attempt: attempt(number) }
}

pub(crate) fn renews(number: u8, progress: Option<(u64, &'static str)>) -> Operation {
    let progress = progress
        .map(|(sequence, data)| Progress { sequence, data: Bytes::from_static(data.as_bytes()) });
    Operation::Renew(Renew { grant: grant(number), lease: SHORT, progress })
}

fn completion(value: &'static str) -> Completion {
    Completion {
        value: Bytes::from_static(value.as_bytes()),
        replayable: true,
        retention: SHORT,
        hold: LONG,
    }
}

pub(crate) fn completes(number: u8, value: &'static str) -> Operation {
    Operation::Complete(Complete { grant: grant(number), completion: completion(value) })
}

pub(crate) const fn gives_up(number: u8) -> Operation {
    Operation::Abandon(Abandon { grant: grant(number), known: Known::Unknown })
}

pub(crate) const fn releases(number: u8) -> Operation {
    Operation::Abandon(Abandon { grant: grant(number), known: Known::NotStarted { hold: LONG } })
}

pub(crate) fn settles(number: u8, value: &'static str) -> Operation {
    Operation::Settle(Settle {
        expected: Expected::Attempt(attempt(number)),
        settlement: Settlement::Done(completion(value)),
    })
}

pub(crate) const fn evicts() -> Operation {
    Operation::Evict(Evict { expected: Expected::Any, force: true })
}

/// The grant in `answer`, to be changed.
pub(crate) fn acquired(
    answer: &mut Answer,
) -> (&mut Grant, &mut u32, &mut Duration, &mut Option<oncekey::store::Previous>) {
    match answer {
        Answer::Claim(ClaimOutcome::Acquired { grant, number, lease_left, previous }) => {
            (grant, number, lease_left, previous)
        }
        other => panic!("{other:?} is no grant"),
    }
}

/// What a claim by attempt `number` gets that is the first, at the start.
pub(crate) const fn first_grant(number: u8) -> Answer {
    Answer::Claim(ClaimOutcome::Acquired {
        grant: Grant { token: FencingToken::new(START.as_micros()), attempt: attempt(number) },
        number: 1,
        lease_left: SHORT,
        previous: None,
    })
}
