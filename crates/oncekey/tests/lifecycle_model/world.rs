//! The world around one key: attempts, a network that keeps every message for ever, an operator, a
//! sweeper and a clock of few ticks.
//!
//! A message, once sent, may be delivered at any later time and any number of times, which covers
//! delay, reordering and duplicates; a message that is never delivered is lost. A reply arrives at
//! once or is lost: a late reply is the same as an owner that is slow to act on it. Whoever crashes
//! and comes back does so as a new attempt, so clients are told apart by attempt only, and `clients`
//! bounds how many attempts are alive at a time.

use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use oncekey::Fingerprint;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    AttemptId, Claim, Completion, Fenced, FencingToken, Grant, OnInterrupted, OnRetired, Progress,
    Record, State, Status, StoredValue,
};
use std::time::Duration;

use super::promises::{Broken, Promise};

/// Microseconds in a tick: enough that tokens, which grow by one, stay behind the clock.
const TICK: u64 = 100;

/// What one model contains, and under which policies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    /// Attempts alive at a time.
    pub(crate) clients: usize,
    /// Attempts in all.
    pub(crate) attempts: usize,
    /// Grants in a row, at most.
    pub(crate) grants: u32,
    /// The last tick of the clock.
    pub(crate) ticks: u8,
    pub(crate) claim_lease: u8,
    pub(crate) renew_lease: u8,
    pub(crate) retention: u8,
    /// `None`: for ever.
    pub(crate) hold: Option<u8>,
    pub(crate) on_interrupted: OnInterrupted,
    pub(crate) on_retired: OnRetired,
    /// How many different requests are sent under the key.
    pub(crate) requests: u8,
    pub(crate) renews: bool,
    /// How many saves of progress an attempt sends.
    pub(crate) saves: u8,
    /// How many verdicts an operator sends.
    pub(crate) verdicts: u32,
    pub(crate) evicts: bool,
    pub(crate) purges: bool,
    /// Whether owners send one end after another: completed, released, given up.
    pub(crate) confused: bool,
    /// How many times the store's clock steps back by a tick.
    pub(crate) steps_back: u8,
    /// How many times the store loses the record.
    pub(crate) losses: u8,
}

/// A verb as it is sent on behalf of an attempt, or about one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Claim,
    Renew,
    /// A renewal that saves the progress with this number.
    Save(u8),
    Complete,
    Release,
    GiveUp,
    SettleDone,
    SettleNotDone,
    Evict,
}

impl Verb {
    pub(crate) const ALL: [Self; 10] = [
        Self::Claim,
        Self::Renew,
        Self::Save(1),
        Self::Save(2),
        Self::Complete,
        Self::Release,
        Self::GiveUp,
        Self::SettleDone,
        Self::SettleNotDone,
        Self::Evict,
    ];

    const fn bit(self) -> u16 {
        1 << match self {
            Self::Claim => 0,
            Self::Renew => 1,
            Self::Save(1) => 2,
            Self::Save(_) => 3,
            Self::Complete => 4,
            Self::Release => 5,
            Self::GiveUp => 6,
            Self::SettleDone => 7,
            Self::SettleNotDone => 8,
            Self::Evict => 9,
        }
    }
}

/// One attempt of some client, and what was ever sent for it or about it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Attempt {
    pub(crate) request: u8,
    pub(crate) phase: Phase,
    sent: u16,
    /// The token that it was told; 0 until then. All its commands carry it.
    pub(crate) token: u64,
    /// Until which tick the store granted it the key, as its answers say; 0 once that is over.
    pub(crate) leased_until: u8,
}

impl Attempt {
    /// An attempt whose claim is out.
    pub(crate) const fn new(request: u8) -> Self {
        Self { request, phase: Phase::Claiming, sent: Verb::Claim.bit(), token: 0, leased_until: 0 }
    }

    /// Whether it takes itself for the owner.
    pub(crate) const fn believes(&self, now: u8) -> bool {
        matches!(self.phase, Phase::Owning { until, .. } if now < until)
    }

    pub(crate) const fn has_sent(&self, verb: Verb) -> bool {
        self.sent & verb.bit() != 0
    }

    pub(crate) const fn send(&mut self, verb: Verb) {
        self.sent |= verb.bit();
    }

    pub(crate) const fn is_alive(&self) -> bool {
        !matches!(self.phase, Phase::Over)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// The claim is out, and unanswered or refused as busy.
    Claiming,
    /// It was told that it owns the key.
    Owning {
        /// Until which tick it takes that to be true; 0 once that is over.
        until: u8,
        /// Whether it has begun to have an effect.
        begun: bool,
        /// How many saves of progress it knows to be in force.
        saved: u8,
    },
    /// It has sent its last command, was refused, or crashed.
    Over,
}

/// What the promises need to remember beyond what the store and the attempts do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Ghost {
    pub(crate) broken: Broken,
    /// The highest token ever granted.
    pub(crate) token: u64,
    /// The first result that was acknowledged since the key was new, and until which tick it must be
    /// replayed.
    pub(crate) result: Option<(u8, u8)>,
    /// How many attempts began to have an effect.
    pub(crate) effects: u8,
    /// How many the operator, or the end of the key's memory, allowed beyond the first.
    pub(crate) pardons: u8,
    /// Whether an owner began to have an effect, and nobody has found out since what became of it.
    pub(crate) doubt: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) now: u8,
    pub(crate) store: Option<Kept>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) ghost: Ghost,
    pub(crate) steps_back: u8,
    pub(crate) losses: u8,
}

impl World {
    pub(crate) const fn new() -> Self {
        Self {
            now: 1,
            store: None,
            attempts: Vec::new(),
            ghost: Ghost {
                broken: Broken::NOTHING,
                token: 0,
                result: None,
                effects: 0,
                pardons: 0,
                doubt: false,
            },
            steps_back: 0,
            losses: 0,
        }
    }

    pub(crate) fn record(&self) -> Option<&Record> {
        self.store.as_ref().map(|kept| &kept.0)
    }

    pub(crate) fn state(&self) -> Option<State> {
        self.record().map(|record| record.state(time(self.now)))
    }

    /// The attempt that the store granted last, by its place among the attempts.
    pub(crate) fn last_attempt(&self) -> Option<usize> {
        self.record().map(|record| usize::from(record.attempt.as_bytes()[0]) - 1)
    }

    /// The grant of `attempt`, as it knows it.
    pub(crate) fn grant(&self, attempt: usize) -> Grant {
        let token = FencingToken::new(self.attempts[attempt].token);
        Grant { token, attempt: attempt_id(attempt) }
    }

    pub(crate) fn verdicts(&self) -> u32 {
        let verdicts = Verb::SettleDone.bit() | Verb::SettleNotDone.bit();
        self.attempts.iter().map(|attempt| (attempt.sent & verdicts).count_ones()).sum()
    }

    /// Forgets what no longer makes a difference, so that equal futures are equal states.
    pub(crate) fn normalize(&mut self) {
        let now = self.now;
        let over = |until: &mut u8| {
            if *until <= now {
                *until = 0;
            }
        };
        for attempt in &mut self.attempts {
            over(&mut attempt.leased_until);
            if let Phase::Owning { until, .. } = &mut attempt.phase {
                over(until);
            }
        }
    }

    pub(crate) const fn keeps(&self, promise: Promise) -> bool {
        !self.ghost.broken.contains(promise)
    }
}

/// A record that can be hashed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Kept(pub(crate) Record);

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Hash for Kept {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Record { fingerprint, attempt, token, number, previous, progress, status, forget_at } =
            &self.0;
        (fingerprint.digest()[0], attempt, token, number, forget_at).hash(state);
        previous.map(|replaced| (replaced.cause, replaced.token)).hash(state);
        progress.as_ref().map(|progress| (progress.sequence, &progress.data)).hash(state);
        match status {
            Status::InProgress { deadline } => (1, deadline).hash(state),
            Status::GaveUp => 2.hash(state),
            Status::Released => 3.hash(state),
            Status::Completed { value, retained_until } => {
                (4, retained_until).hash(state);
                match value {
                    StoredValue::Replayable(value) => value.hash(state),
                    StoredValue::Digest(digest) => digest.hash(state),
                }
            }
        }
    }
}

/// The value that an operator settles with; attempts complete with their own number.
const OPERATORS_VALUE: u8 = 100;

impl Setup {
    pub(crate) fn claim(&self, attempt: AttemptId, fingerprint: Fingerprint) -> Claim {
        Claim {
            attempt,
            fingerprint,
            lease: ticks(self.claim_lease),
            hold: self.hold(),
            on_interrupted: self.on_interrupted,
            on_retired: self.on_retired,
        }
    }

    /// With a clock that steps back, or a record that is lost, a lease means nothing; tokens do.
    pub(crate) const fn is_faultless(&self) -> bool {
        self.steps_back == 0 && self.losses == 0
    }

    pub(crate) fn hold(&self) -> Duration {
        self.hold.map_or(Duration::MAX, ticks)
    }

    pub(crate) fn completion(&self, value: u8) -> Completion {
        Completion {
            value: value_of(value),
            replayable: true,
            retention: ticks(self.retention),
            hold: self.hold(),
        }
    }

    /// The value that `verb` records, sent for or about `attempt`.
    pub(crate) const fn value(verb: Verb, attempt: usize) -> u8 {
        match verb {
            Verb::SettleDone => OPERATORS_VALUE,
            _ => attempt as u8 + 1,
        }
    }

    pub(crate) const fn lease(&self, verb: Verb) -> u8 {
        match verb {
            Verb::Claim => self.claim_lease,
            _ => self.renew_lease,
        }
    }
}

pub(crate) fn attempt_id(attempt: usize) -> AttemptId {
    let mut bytes = [0; 16];
    bytes[0] = attempt as u8 + 1;
    AttemptId::from_bytes(bytes)
}

pub(crate) const fn fingerprint(request: u8) -> Fingerprint {
    Fingerprint::from_digest(Fingerprint::FIRST_CUSTOM, [request; 32])
}

pub(crate) fn value_of(number: u8) -> Bytes {
    Bytes::copy_from_slice(&[number])
}

pub(crate) fn progress(attempt: usize, sequence: u8) -> Progress {
    Progress { sequence: sequence.into(), data: Bytes::copy_from_slice(&[attempt as u8, sequence]) }
}

pub(crate) fn ticks(ticks: u8) -> Duration {
    Duration::from_micros(u64::from(ticks) * TICK)
}

pub(crate) const fn time(tick: u8) -> Timestamp {
    Timestamp::from_micros(tick as u64 * TICK)
}

/// What the store answered, of either kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Claim(oncekey::store::ClaimOutcome),
    Fenced(Fenced),
}
