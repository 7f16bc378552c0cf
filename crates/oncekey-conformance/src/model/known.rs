//! The model's side of a sequence: the records as they must be, and what commands refer to.

use std::time::Duration;

use bytes::Bytes;
use oncekey::runtime::{ProcessRandom, Random, Timestamp};
use oncekey::store::{
    Abandon, AttemptId, Claim, Complete, Completion, Evict, Expected, FencingToken, Grant, Known,
    Observed, OnInterrupted, OnRetired, Progress, Record, Renew, Settle, Settlement,
};
use oncekey::{Fingerprint, Key, KeyError, Scope};

use super::steps::{ATTEMPTS, By, Change, Done, Edge, KEYS, Scale, Side, Sketch, Who, Whom};
use super::world::Mismatch;
use crate::history::{Legend, Operation, next_change};

/// What the model knows in the course of one sequence.
pub(super) struct Model {
    pub(super) keys: Vec<Key>,
    /// The records, key by key, exactly as the store keeps them.
    pub(super) records: Vec<Option<Record>>,
    attempts: Vec<AttemptId>,
    /// Every grant that was seen, key by key.
    grants: Vec<Vec<Grant>>,
    pub(super) legend: Legend,
}

impl Model {
    pub(super) fn new(start: Timestamp) -> Result<Self, Mismatch> {
        let attempts: Vec<_> = (0..ATTEMPTS).map(|_| attempt()).collect();
        Ok(Self {
            keys: keys(KEYS)?,
            records: vec![None; KEYS],
            legend: Legend::new(attempts.clone(), start),
            attempts,
            grants: vec![Vec::new(); KEYS],
        })
    }

    /// Takes over what the store keeps, once it was found to be right: its times are now known.
    pub(super) fn adopt(&mut self, key: usize, seen: Option<Observed>) {
        self.records[key] = seen.map(|seen| seen.record);
        if let Some(record) = &self.records[key] {
            let grants = &mut self.grants[key];
            if grants.last() != Some(&record.grant()) {
                grants.push(record.grant());
            }
        }
    }

    /// The command that `command` stands for, now.
    pub(super) fn fill_in(&self, command: &Sketch, key: usize, scale: &Scale) -> Operation {
        let completion = |done: &Done| Completion {
            value: Bytes::from_static(done.value.0),
            replayable: done.replayable,
            retention: scale.span(done.retention),
            hold: scale.span(done.hold),
        };
        match command {
            Sketch::Claim {
                by,
                other_fingerprint,
                lease,
                hold,
                refuse_interrupted,
                tell_retired,
            } => Operation::Claim(Claim {
                attempt: self.attempt(*by, key),
                fingerprint: fingerprint(*other_fingerprint),
                lease: scale.lease(*lease),
                hold: scale.span(*hold),
                on_interrupted: if *refuse_interrupted {
                    OnInterrupted::Refuse
                } else {
                    OnInterrupted::TakeOver
                },
                on_retired: if *tell_retired { OnRetired::Tell } else { OnRetired::Forget },
            }),
            Sketch::Renew { by, lease, progress } => Operation::Renew(Renew {
                grant: self.grant(*by, key),
                lease: scale.lease(*lease),
                progress: progress.map(|(sequence, content)| Progress {
                    sequence,
                    data: Bytes::from_static(content.0),
                }),
            }),
            Sketch::Complete { by, done } => Operation::Complete(Complete {
                grant: self.grant(*by, key),
                completion: completion(done),
            }),
            Sketch::Release { by, hold } => Operation::Abandon(Abandon {
                grant: self.grant(*by, key),
                known: Known::NotStarted { hold: scale.span(*hold) },
            }),
            Sketch::GiveUp { by } => {
                Operation::Abandon(Abandon { grant: self.grant(*by, key), known: Known::Unknown })
            }
            Sketch::SettleAsDone { of, done } => Operation::Settle(Settle {
                expected: self.expected(*of, key),
                settlement: Settlement::Done(completion(done)),
            }),
            Sketch::SettleAsNotDone { of, hold } => Operation::Settle(Settle {
                expected: self.expected(*of, key),
                settlement: Settlement::NotDone { hold: scale.span(*hold) },
            }),
            Sketch::Evict { of, force } => {
                Operation::Evict(Evict { expected: self.expected(*of, key), force: *force })
            }
            Sketch::Get => Operation::Get,
        }
    }

    fn attempt(&self, who: Who, key: usize) -> AttemptId {
        match who {
            Who::Last => self.grants[key].last().map_or(self.attempts[0], |grant| grant.attempt),
            Who::Attempt(attempt) => self.attempts[attempt],
        }
    }

    /// What the attempt was last granted; what it might make up if it never was.
    fn grant(&self, by: By, key: usize) -> Grant {
        let attempt = self.attempt(by.who, key);
        let mut grants = self.grants[key].iter().rev();
        let granted = grants.find(|grant| grant.attempt == attempt);
        let token = granted.map_or(1, |grant| grant.token.get());
        Grant { token: FencingToken::new(token + u64::from(by.wrong_token)), attempt }
    }

    fn expected(&self, of: Whom, key: usize) -> Expected {
        let token = |back: usize| {
            let grant = self.grants[key].iter().rev().nth(back);
            Expected::Token(grant.map_or(FencingToken::new(1), |grant| grant.token))
        };
        match of {
            Whom::Any => Expected::Any,
            Whom::Who(who) => Expected::Attempt(self.attempt(who, key)),
            Whom::LastToken => token(0),
            Whom::EarlierToken => token(1),
            Whom::UnknownToken => Expected::Token(FencingToken::new(1)),
        }
    }

    /// How long it is from `now` to the edge, if there is one and time may pass that long.
    pub(super) fn until(
        &self,
        edge: Edge,
        key: usize,
        now: Timestamp,
        scale: &Scale,
    ) -> Option<Duration> {
        let moment = self.records[key].as_ref().and_then(|record| match edge.of {
            Change::State => next_change(record),
            Change::Forget => Some(record.forget_at),
        });
        let Some(moment) = moment else {
            return scale.idle;
        };
        let moment = match edge.side {
            Side::JustBefore => Timestamp::from_micros(moment.as_micros().saturating_sub(1)),
            Side::At => moment,
            Side::After => moment.saturating_add(scale.beyond),
        };
        let by = moment.saturating_since(now);
        (!by.is_zero() && by <= scale.patience).then_some(by)
    }
}

/// Keys that nobody has used.
pub(super) fn keys(count: usize) -> Result<Vec<Key>, Mismatch> {
    let named = |_| -> Result<Key, KeyError> {
        let id = format!("{:032x}", ProcessRandom::new().next());
        Key::new(&Scope::new("oncekey-conformance", "model")?, id)
    };
    let keys: Result<_, KeyError> = (0..count).map(named).collect();
    keys.map_err(|error| Mismatch {
        required: "keys of the suite to be valid".to_owned(),
        observed: error.to_string(),
    })
}

pub(super) fn attempt() -> AttemptId {
    AttemptId::from_bytes(ProcessRandom::new().next().to_be_bytes())
}

pub(super) fn fingerprint(other: bool) -> Fingerprint {
    Fingerprint::of(if other { "other" } else { "same" })
}
