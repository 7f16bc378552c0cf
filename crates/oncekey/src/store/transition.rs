//! The rules of the lifecycle, once: a pure function from a record and a command to what changes.
//!
//! Every store agrees with it. A store may express it in SQL or Lua to save round trips; the
//! conformance suite holds it to this code, sequence by sequence. Each `match` below is a command's table, a
//! cell an arm.

use std::time::Duration;

use super::command::{
    Abandon, Claim, ClaimOutcome, Complete, Completion, Evict, Expected, Fenced, Known,
    OnInterrupted, OnRetired, Previous, Renew, Settle, Settlement,
};
use super::grant::{FencingToken, Grant};
use super::record::{Cause, Record, Replaced, State, Status, StoredValue};
use crate::runtime::Timestamp;

/// What a command does to a record, and what it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the result of the rules; every store takes it apart")]
pub struct Transition<O> {
    /// What changes. A refusal changes nothing.
    pub change: Change,
    /// The answer.
    pub outcome: O,
}

/// What changes in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a store must know all of them")]
pub enum Change {
    /// Nothing.
    Keep,
    /// This record is kept from now on.
    Put(Record),
    /// The record is removed.
    Remove,
}

/// A command of the lifecycle: plain data with its rules.
///
/// Implemented by [`Claim`], [`Renew`], [`Complete`], [`Abandon`], [`Settle`], [`Evict`] and
/// [`Purge`]. An implementation of your own is only for what wraps one of them, to change a record before it is
/// kept; the rules stay these.
pub trait Command {
    /// What the command answers.
    type Outcome;

    /// The rules: what this command does to `record` at `now`, by the store's clock.
    fn apply(&self, record: Option<&Record>, now: Timestamp) -> Transition<Self::Outcome>;
}

/// What `command` does to `record` at `now`, by the store's clock.
///
/// Pure: no I/O, no clock of its own, no allocation beyond what the new record holds.
///
/// A claim; without a record, it is granted as number 1:
///
/// | the record is | same attempt | another, same fingerprint | another, other fingerprint |
/// |---|---|---|---|
/// | live | the same grant | `Busy` | `Mismatch` |
/// | lapsed | the same grant | takes over, or `Interrupted` | `Mismatch` |
/// | given up | `Spent` | takes over, or `Interrupted` | `Mismatch` |
/// | released | `Spent` | granted, one number higher | `Mismatch` |
/// | completed | `Replay` | `Replay` | `Mismatch` |
/// | retired | `Spent` | granted as number 1, or `Retired` | the same |
///
/// What an owner sends; without a record it is `Gone`, and with another grant `Lost`:
///
/// | the record is | renew | complete | abandon, nothing done | abandon, unknown |
/// |---|---|---|---|---|
/// | live, lapsed | extended | completed | released; given up if progress was saved | given up |
/// | given up | `Lost` | completed | released; stays if progress was saved | stays |
/// | released | `Lost` | completed | stays | `Lost` |
/// | completed, retired | `Lost` | stays if it is the same result, else `Conflict` | `Lost` | `Lost` |
///
/// *Settle* is `Busy` while the record is live. As done, it is *complete*; as not done, it releases what lapsed or
/// was given up, and is `Lost` on a result. *Evict* removes; a live record only by force, else `Busy`.
///
/// ```
/// use std::time::Duration;
/// use oncekey::runtime::Timestamp;
/// use oncekey::store::{
///     AttemptId, Change, Claim, ClaimOutcome, OnInterrupted, OnRetired, transition,
/// };
///
/// let claim = Claim {
///     attempt: AttemptId::from_bytes([7; 16]),
///     fingerprint: oncekey::Fingerprint::of("100 EUR"),
///     lease: Duration::from_secs(30),
///     hold: Duration::from_secs(3600),
///     on_interrupted: OnInterrupted::Refuse,
///     on_retired: OnRetired::Forget,
/// };
/// let now = Timestamp::from_micros(1_800_000_000_000_000);
/// let granted = transition(None, &claim, now);
/// assert!(matches!(granted.outcome, ClaimOutcome::Acquired { number: 1, .. }));
///
/// let Change::Put(record) = granted.change else { panic!("a grant is recorded") };
/// let other = Claim { attempt: AttemptId::from_bytes([8; 16]), ..claim };
/// let refused = transition(Some(&record), &other, now);
/// assert!(matches!(refused.outcome, ClaimOutcome::Busy { .. }));
/// assert_eq!(refused.change, Change::Keep);
/// ```
pub fn transition<C: Command>(
    record: Option<&Record>,
    command: &C,
    now: Timestamp,
) -> Transition<C::Outcome> {
    command.apply(record, now)
}

impl Command for Claim {
    type Outcome = ClaimOutcome;

    fn apply(&self, record: Option<&Record>, now: Timestamp) -> Transition<ClaimOutcome> {
        let Some(record) = record else {
            return self.grant(self.fresh(None, now), now);
        };
        let own = record.attempt == self.attempt;
        let same = record.fingerprint == self.fingerprint;
        match (record.state(now), same, own) {
            (State::Retired, _, true) => keep(ClaimOutcome::Spent),
            (State::Retired, _, false) => match self.on_retired {
                OnRetired::Forget => self.grant(self.fresh(Some(record), now), now),
                OnRetired::Tell => keep(ClaimOutcome::Retired),
            },
            (_, false, _) => keep(ClaimOutcome::Mismatch),
            (State::Live | State::Lapsed, true, true) => self.grant_again(record, now),
            (State::Live, true, false) => keep(busy(record, now)),
            (State::Lapsed, true, false) => self.take_over(record, Cause::Lapsed, now),
            (State::GaveUp, true, false) => self.take_over(record, Cause::GaveUp, now),
            (State::GaveUp | State::Released, true, true) => keep(ClaimOutcome::Spent),
            (State::Released, true, false) => {
                let number = record.number.saturating_add(1);
                self.grant(Record { number, ..self.fresh(Some(record), now) }, now)
            }
            (State::Completed, true, _) => keep(ClaimOutcome::Replay(match &record.status {
                Status::Completed { value, .. } => value.replay(),
                _ => None,
            })),
        }
    }
}

impl Claim {
    /// A record of this claim's grant after `last`, with nothing inherited.
    fn fresh(&self, last: Option<&Record>, now: Timestamp) -> Record {
        let deadline = now.saturating_add(self.lease);
        Record {
            fingerprint: self.fingerprint,
            attempt: self.attempt,
            token: next_token(last.map(|record| record.token), now),
            number: 1,
            previous: None,
            progress: None,
            status: Status::InProgress { deadline },
            forget_at: deadline.saturating_add(self.hold),
        }
    }

    fn take_over(&self, record: &Record, cause: Cause, now: Timestamp) -> Transition<ClaimOutcome> {
        if self.on_interrupted == OnInterrupted::Refuse {
            return keep(ClaimOutcome::Interrupted);
        }
        let mut next = self.fresh(Some(record), now);
        next.number = record.number.saturating_add(1);
        next.previous = Some(Replaced { cause, token: record.token });
        next.progress.clone_from(&record.progress);
        if let Some(progress) = &mut next.progress {
            // Sequence numbers count the saves of one attempt.
            progress.sequence = 0;
        }
        self.grant(next, now)
    }

    /// The grant that an earlier copy of this claim got: same token, lease no shorter.
    fn grant_again(&self, record: &Record, now: Timestamp) -> Transition<ClaimOutcome> {
        let mut next = record.clone();
        extend(&mut next, now, self.lease, |deadline| deadline.saturating_add(self.hold));
        self.grant(next, now)
    }

    fn grant(&self, record: Record, now: Timestamp) -> Transition<ClaimOutcome> {
        let outcome = ClaimOutcome::Acquired {
            grant: record.grant(),
            number: record.number,
            lease_left: lease_left(&record, now),
            previous: record.previous.map(|replaced| Previous {
                cause: replaced.cause,
                token: replaced.token,
                progress: record.progress.as_ref().map(|progress| progress.data.clone()),
            }),
        };
        put(record, outcome)
    }
}

impl Command for Renew {
    type Outcome = Fenced;

    fn apply(&self, record: Option<&Record>, now: Timestamp) -> Transition<Fenced> {
        let record = match own(record, self.grant) {
            Ok(record) => record,
            Err(outcome) => return keep(outcome),
        };
        match record.state(now) {
            State::Live | State::Lapsed => {
                let mut next = record.clone();
                // What is remembered beyond the deadline moves with it.
                let hold = match record.status {
                    Status::InProgress { deadline } => record.forget_at.saturating_since(deadline),
                    _ => Duration::ZERO,
                };
                let forever = record.forget_at == Timestamp::MAX;
                extend(&mut next, now, self.lease, |deadline| {
                    if forever { Timestamp::MAX } else { deadline.saturating_add(hold) }
                });
                let saved = record.progress.as_ref().map_or(0, |progress| progress.sequence);
                if let Some(progress) = &self.progress
                    && progress.sequence > saved
                {
                    next.progress = Some(Box::new(progress.clone()));
                }
                put(next, Fenced::Applied)
            }
            State::GaveUp | State::Released | State::Completed | State::Retired => {
                keep(Fenced::Lost)
            }
        }
    }
}

impl Command for Complete {
    type Outcome = Fenced;

    fn apply(&self, record: Option<&Record>, now: Timestamp) -> Transition<Fenced> {
        match own(record, self.grant) {
            Ok(record) => finish(record, &self.completion, now),
            Err(outcome) => keep(outcome),
        }
    }
}

impl Command for Abandon {
    type Outcome = Fenced;

    fn apply(&self, record: Option<&Record>, now: Timestamp) -> Transition<Fenced> {
        let record = match own(record, self.grant) {
            Ok(record) => record,
            Err(outcome) => return keep(outcome),
        };
        match (record.state(now), self.known) {
            (State::Live | State::Lapsed | State::GaveUp, Known::NotStarted { hold })
                if record.progress.is_none() =>
            {
                put(released(record, now, hold), Fenced::Applied)
            }
            (State::GaveUp, _) | (State::Released, Known::NotStarted { .. }) => {
                keep(Fenced::Applied)
            }
            // Whoever saved progress did something, whatever it says.
            (State::Live | State::Lapsed, _) => {
                put(Record { status: Status::GaveUp, ..record.clone() }, Fenced::Applied)
            }
            (State::Released, Known::Unknown) | (State::Completed | State::Retired, _) => {
                keep(Fenced::Lost)
            }
        }
    }
}

impl Command for Settle {
    type Outcome = Fenced;

    fn apply(&self, record: Option<&Record>, now: Timestamp) -> Transition<Fenced> {
        let record = match expected(record, self.expected) {
            Ok(record) => record,
            Err(outcome) => return keep(outcome),
        };
        match (record.state(now), &self.settlement) {
            (State::Live, _) => keep(Fenced::Busy),
            (_, Settlement::Done(completion)) => finish(record, completion, now),
            (State::Lapsed | State::GaveUp, Settlement::NotDone { hold }) => {
                put(released(record, now, *hold), Fenced::Applied)
            }
            (State::Released, Settlement::NotDone { .. }) => keep(Fenced::Applied),
            (State::Completed | State::Retired, Settlement::NotDone { .. }) => keep(Fenced::Lost),
        }
    }
}

impl Command for Evict {
    type Outcome = Fenced;

    fn apply(&self, record: Option<&Record>, now: Timestamp) -> Transition<Fenced> {
        match expected(record, self.expected) {
            Err(outcome) => keep(outcome),
            Ok(record) if record.state(now) == State::Live && !self.force => keep(Fenced::Busy),
            Ok(_) => Transition { change: Change::Remove, outcome: Fenced::Applied },
        }
    }
}

/// Removes a record whose time is over. What [`Store::purge`](super::Store::purge) does to each
/// record that it looks at; the outcome is whether the record was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::exhaustive_structs, reason = "a command without parameters")]
pub struct Purge;

impl Command for Purge {
    type Outcome = bool;

    fn apply(&self, record: Option<&Record>, now: Timestamp) -> Transition<bool> {
        match record {
            Some(record) if record.is_purgeable(now) => {
                Transition { change: Change::Remove, outcome: true }
            }
            _ => keep(false),
        }
    }
}

/// Records a result, unless there is one: the shared columns of *complete* and *settle as done*.
fn finish(record: &Record, completion: &Completion, now: Timestamp) -> Transition<Fenced> {
    match &record.status {
        Status::Completed { value, .. } if value.is_of(&completion.value) => keep(Fenced::Applied),
        Status::Completed { .. } => keep(Fenced::Conflict),
        // Also when the lease lapsed: the effect happened, and nobody has taken over.
        Status::InProgress { .. } | Status::GaveUp | Status::Released => {
            let retained_until = now.saturating_add(completion.retention);
            let value = StoredValue::new(&completion.value, completion.replayable);
            let next = Record {
                previous: None,
                progress: None,
                status: Status::Completed { value, retained_until },
                forget_at: retained_until.saturating_add(completion.hold),
                ..*record
            };
            put(next, Fenced::Applied)
        }
    }
}

fn released(record: &Record, now: Timestamp, hold: Duration) -> Record {
    Record {
        previous: None,
        progress: None,
        status: Status::Released,
        forget_at: now.saturating_add(hold),
        ..*record
    }
}

/// Moves the deadline forward, never back, and with it the time to forget.
fn extend(
    record: &mut Record,
    now: Timestamp,
    lease: Duration,
    forget_at: impl FnOnce(Timestamp) -> Timestamp,
) {
    if let Status::InProgress { deadline } = &mut record.status {
        *deadline = (*deadline).max(now.saturating_add(lease));
        record.forget_at = record.forget_at.max(forget_at(*deadline));
    }
}

/// The record, if its last grant is `grant`. The token counts too: a late copy of a claim may be granted
/// again, to nobody, and then other late copies of the same attempt must not act under that grant.
fn own(record: Option<&Record>, grant: Grant) -> Result<&Record, Fenced> {
    let record = record.ok_or(Fenced::Gone)?;
    if record.grant() == grant { Ok(record) } else { Err(Fenced::Lost) }
}

fn expected(record: Option<&Record>, expected: Expected) -> Result<&Record, Fenced> {
    let record = record.ok_or(Fenced::Gone)?;
    let matches = match expected {
        Expected::Attempt(attempt) => record.attempt == attempt,
        Expected::Token(token) => record.token == token,
        Expected::Any => true,
    };
    if matches { Ok(record) } else { Err(Fenced::Lost) }
}

/// Higher than the last token while that is remembered, and the store's clock otherwise, so that
/// tokens keep growing across a loss of the record too.
fn next_token(last: Option<FencingToken>, now: Timestamp) -> FencingToken {
    let after_last = last.map_or(1, |token| token.get().saturating_add(1));
    FencingToken::new(after_last.max(now.as_micros()))
}

fn lease_left(record: &Record, now: Timestamp) -> Duration {
    match record.status {
        Status::InProgress { deadline } => deadline.saturating_since(now),
        _ => Duration::ZERO,
    }
}

fn busy(record: &Record, now: Timestamp) -> ClaimOutcome {
    ClaimOutcome::Busy { retry_after: lease_left(record, now) }
}

fn keep<O>(outcome: O) -> Transition<O> {
    Transition { change: Change::Keep, outcome }
}

fn put<O>(record: Record, outcome: O) -> Transition<O> {
    Transition { change: Change::Put(record), outcome }
}
