//! The rules under uncertainty about time.
//!
//! Nobody but the store knows the exact time at which it decided; an observer knows a [`Window`]
//! that holds it. What follows from the time (deadlines, tokens, what is left of a lease) is then
//! known as a [`Range`]. Where time is injected the window is a point, and so is every range.

use std::time::Duration;

use oncekey::runtime::Timestamp;
use oncekey::store::{
    ClaimOutcome, FencingToken, Grant, Observed, Previous, Record, Replaced, State, Status,
    StoredValue,
};

use super::operation::{Answer, Operation};

/// A stretch of the store's time, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a pair by definition")]
pub struct Window {
    /// The earliest that it can have been.
    pub earliest: Timestamp,
    /// The latest that it can have been.
    pub latest: Timestamp,
}

impl Window {
    /// The time is known.
    #[must_use]
    pub const fn at(now: Timestamp) -> Self {
        Self { earliest: now, latest: now }
    }

    /// One that reaches `by` further, both ways.
    #[must_use]
    pub fn widened(self, by: Duration) -> Self {
        let by_micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        Self {
            earliest: Timestamp::from_micros(self.earliest.as_micros().saturating_sub(by_micros)),
            latest: self.latest.saturating_add(by),
        }
    }

    fn contains(self, now: Timestamp) -> bool {
        self.earliest <= now && now <= self.latest
    }
}

/// Plain data with numbers in it that follow from the time at which it was made.
pub(crate) trait Timed: Clone + PartialEq {
    /// The same with each of those numbers replaced by what `replace` makes of it, in a fixed order.
    fn map_numbers(&self, replace: &mut dyn FnMut(u64) -> u64) -> Self;

    fn numbers(&self) -> Vec<u64> {
        let mut numbers = Vec::new();
        self.map_numbers(&mut |number| {
            numbers.push(number);
            number
        });
        numbers
    }

    /// What is left when all those numbers are left out.
    fn shape(&self) -> Self {
        self.map_numbers(&mut |_| 0)
    }
}

/// All values of one shape whose numbers lie between those of `low` and those of `high`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Range<T> {
    pub(crate) low: T,
    pub(crate) high: T,
}

impl<T: Timed> Range<T> {
    pub(crate) fn exactly(value: T) -> Self {
        Self { low: value.clone(), high: value }
    }

    pub(crate) fn contains(&self, value: &T) -> bool {
        self.has_shape_of(value) && {
            let (low, high) = (self.low.numbers(), self.high.numbers());
            let mut bounds = low.into_iter().zip(high);
            value.numbers().into_iter().all(|number| {
                bounds.next().is_some_and(|(low, high)| low <= number && number <= high)
            })
        }
    }

    fn has_shape_of(&self, value: &T) -> bool {
        self.low.shape() == value.shape()
    }

    fn widen(&mut self, value: &T) {
        self.low = combine(&self.low, value, u64::min);
        self.high = combine(&self.high, value, u64::max);
    }
}

fn combine<T: Timed>(one: &T, other: &T, choose: impl Fn(u64, u64) -> u64) -> T {
    let mut numbers = other.numbers().into_iter();
    one.map_numbers(&mut |number| numbers.next().map_or(number, |other| choose(number, other)))
}

/// One thing that the rules allow: an answer, and the record after it.
#[derive(Debug, Clone)]
pub(crate) struct Allowed {
    pub(crate) answer: Range<Answer>,
    pub(crate) after: Range<Option<Record>>,
}

/// What the rules allow `operation` to do to `record`, at some time in `clock`.
///
/// More than one thing where the window includes a moment at which the record's state changes, or
/// where the record may have been purged already.
pub(crate) fn allowed(
    operation: &Operation,
    record: &Range<Option<Record>>,
    clock: Window,
) -> Vec<Allowed> {
    let mut found = decisions(operation, record, clock);
    if may_be_gone(record, clock.latest) {
        found.extend(decisions(operation, &Range::exactly(None), clock));
    }
    found
}

/// Whether a purge may have removed the record by `now`.
pub(crate) fn may_be_gone(record: &Range<Option<Record>>, now: Timestamp) -> bool {
    let low = record.low.as_ref();
    low.is_some_and(|record| record.is_purgeable(now))
}

fn decisions(operation: &Operation, record: &Range<Option<Record>>, clock: Window) -> Vec<Allowed> {
    let (Some(grant), Some(low), Some(high)) = (operation.grant(), &record.low, &record.high)
    else {
        return decisions_on(operation, record, clock);
    };
    let tokens = low.token..=high.token;
    if low.token == high.token || low.attempt != grant.attempt || !tokens.contains(&grant.token) {
        return decisions_on(operation, record, clock);
    }
    // Nobody was told the token yet: it may be the one that the command names, or any other.
    let named = |record: &Record| Some(Record { token: grant.token, ..record.clone() });
    let named = Range { low: named(low), high: named(high) };
    let another = FencingToken::new(high.token.get().saturating_add(1));
    let mut found = decisions_on(operation, &named, clock);
    found.extend(decisions_on(&operation.with_token(another), record, clock));
    found
}

fn decisions_on(
    operation: &Operation,
    record: &Range<Option<Record>>,
    clock: Window,
) -> Vec<Allowed> {
    let mut found: Vec<Allowed> = Vec::new();
    let ends: &[_] =
        if record.low == record.high { &[&record.low] } else { &[&record.low, &record.high] };
    for now in decisive_moments(ends, clock) {
        let turning = turning_at(record, now);
        for record in ends.iter().copied().chain(&turning) {
            let (answer, after) = operation.apply(record.as_ref(), now);
            let same_shape = found
                .iter_mut()
                .find(|one| one.answer.has_shape_of(&answer) && one.after.has_shape_of(&after));
            match same_shape {
                Some(one) => {
                    one.answer.widen(&answer);
                    one.after.widen(&after);
                }
                None => found
                    .push(Allowed { answer: Range::exactly(answer), after: Range::exactly(after) }),
            }
        }
    }
    found
}

/// Between two neighbours of these moments nothing but numbers changes, and those only one way.
fn decisive_moments(ends: &[&Option<Record>], clock: Window) -> Vec<Timestamp> {
    let mut moments = vec![clock.earliest, clock.latest];
    for record in ends.iter().filter_map(|record| record.as_ref()) {
        if let Some(change) = next_change(record) {
            let just_before = Timestamp::from_micros(change.as_micros().saturating_sub(1));
            moments.extend([just_before, change].into_iter().filter(|at| clock.contains(*at)));
        }
    }
    moments.sort_unstable();
    moments.dedup();
    moments
}

/// Those of the range whose state has changed just now, or is about to: neither end of the range tells
/// what the rules do to them, if one end has changed long ago and the other will long after.
fn turning_at(record: &Range<Option<Record>>, now: Timestamp) -> Vec<Option<Record>> {
    let (Some(low), Some(high)) = (&record.low, &record.high) else { return Vec::new() };
    let (Some(first), Some(last)) = (next_change(low), next_change(high)) else {
        return Vec::new();
    };
    let soon = Timestamp::from_micros(now.as_micros().saturating_add(1));
    let changed = (first < now && now < last).then(|| Some(changing_at(high, now)));
    let changes = (first < soon && soon < last).then(|| Some(changing_at(low, soon)));
    changed.into_iter().chain(changes).collect()
}

fn changing_at(record: &Record, at: Timestamp) -> Record {
    let mut record = record.clone();
    match &mut record.status {
        Status::InProgress { deadline } => *deadline = at,
        Status::Completed { retained_until, .. } => *retained_until = at,
        Status::GaveUp | Status::Released => {}
    }
    record
}

/// When the record's state changes by the passing of time.
pub(crate) const fn next_change(record: &Record) -> Option<Timestamp> {
    match record.status {
        Status::InProgress { deadline } => Some(deadline),
        Status::Completed { retained_until, .. } => Some(retained_until),
        Status::GaveUp | Status::Released => None,
    }
}

impl Allowed {
    pub(crate) fn admits(&self, answer: &Answer) -> bool {
        match answer {
            Answer::Get(Some(seen)) => {
                let seen = self.restored(seen);
                self.answer.contains(&Answer::Get(Some(seen)))
            }
            _ => self.answer.contains(answer),
        }
    }

    pub(crate) fn admits_after(&self, seen: Option<&Observed>, clock: Window) -> bool {
        match seen {
            Some(seen) => self.after.contains(&Some(self.restored(seen).record)),
            None => self.after.low.is_none() || may_be_gone(&self.after, clock.latest),
        }
    }

    /// What is known of the record after `answer` was given.
    pub(crate) fn after_answer(&self, answer: &Answer) -> Range<Option<Record>> {
        match answer {
            Answer::Get(Some(seen)) => Range::exactly(Some(self.restored(seen).record)),
            Answer::Claim(ClaimOutcome::Acquired { grant, previous, .. }) => {
                let learn = |record: &Option<Record>| {
                    record.clone().map(|mut record| {
                        record.token = grant.token;
                        if let (Some(replaced), Some(previous)) = (&mut record.previous, previous) {
                            replaced.token = previous.token;
                        }
                        record
                    })
                };
                Range { low: learn(&self.after.low), high: learn(&self.after.high) }
            }
            _ => self.after.clone(),
        }
    }

    /// A store may shrink a retired result to its digest; the rules cannot tell the difference.
    pub(crate) fn restored(&self, seen: &Observed) -> Observed {
        let mut seen = seen.clone();
        if let (
            State::Retired,
            Status::Completed { value, .. },
            Some(Record { status: Status::Completed { value: known, .. }, .. }),
        ) = (seen.state, &mut seen.record.status, &self.after.low)
            && let (StoredValue::Digest(_), StoredValue::Replayable(bytes)) = (&*value, known)
            && value.is_of(bytes)
        {
            *value = known.clone();
        }
        seen
    }
}

impl<T: Timed> Timed for Option<T> {
    fn map_numbers(&self, replace: &mut dyn FnMut(u64) -> u64) -> Self {
        self.as_ref().map(|value| value.map_numbers(replace))
    }
}

impl Timed for Timestamp {
    fn map_numbers(&self, replace: &mut dyn FnMut(u64) -> u64) -> Self {
        Self::from_micros(replace(self.as_micros()))
    }
}

impl Timed for FencingToken {
    fn map_numbers(&self, replace: &mut dyn FnMut(u64) -> u64) -> Self {
        Self::new(replace(self.get()))
    }
}

impl Timed for Duration {
    fn map_numbers(&self, replace: &mut dyn FnMut(u64) -> u64) -> Self {
        Self::from_micros(replace(u64::try_from(self.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Timed for Record {
    fn map_numbers(&self, replace: &mut dyn FnMut(u64) -> u64) -> Self {
        Self {
            token: self.token.map_numbers(replace),
            previous: self.previous.map(|previous| Replaced {
                token: previous.token.map_numbers(replace),
                ..previous
            }),
            status: match &self.status {
                Status::InProgress { deadline } => {
                    Status::InProgress { deadline: deadline.map_numbers(replace) }
                }
                Status::Completed { value, retained_until } => Status::Completed {
                    value: value.clone(),
                    retained_until: retained_until.map_numbers(replace),
                },
                Status::GaveUp => Status::GaveUp,
                Status::Released => Status::Released,
            },
            forget_at: self.forget_at.map_numbers(replace),
            ..self.clone()
        }
    }
}

impl Timed for Answer {
    fn map_numbers(&self, replace: &mut dyn FnMut(u64) -> u64) -> Self {
        match self {
            Self::Claim(ClaimOutcome::Acquired { grant, number, lease_left, previous }) => {
                Self::Claim(ClaimOutcome::Acquired {
                    grant: Grant { token: grant.token.map_numbers(replace), ..*grant },
                    number: *number,
                    lease_left: lease_left.map_numbers(replace),
                    previous: previous.as_ref().map(|previous| Previous {
                        token: previous.token.map_numbers(replace),
                        ..previous.clone()
                    }),
                })
            }
            Self::Claim(ClaimOutcome::Busy { retry_after }) => {
                Self::Claim(ClaimOutcome::Busy { retry_after: retry_after.map_numbers(replace) })
            }
            Self::Get(Some(seen)) => Self::Get(Some(Observed {
                record: seen.record.map_numbers(replace),
                state: seen.state,
                now: seen.now.map_numbers(replace),
            })),
            Self::Claim(_) | Self::Fenced(_) | Self::Get(None) => self.clone(),
        }
    }
}
