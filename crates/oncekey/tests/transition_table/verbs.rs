//! The second table: what the verbs of an attempt, and of an operator about one, do in each state.

use bytes::Bytes;
use oncekey::store::{
    Abandon, Cause, Change, Complete, Completion, Evict, Expected, Fenced, FencingToken, Grant,
    Known, Record, Renew, Replaced, Settle, Settlement, State, Status, StoredValue, transition,
};

use super::records::{
    ALL, HOLD, LEASE, NEW_HOLD, OTHER, OWNER, RETENTION, TOKEN, at, progress, record, result,
    seconds,
};

/// What becomes of the record.
#[derive(Debug, Clone, Copy)]
enum Then {
    Kept,
    Extended,
    Completed,
    Released,
    GaveUp,
    Removed,
}
use Then::{Extended, GaveUp, Kept, Released, Removed};

const APPLIED: (Fenced, Then) = (Fenced::Applied, Kept);
const LOST: (Fenced, Then) = (Fenced::Lost, Kept);
const BUSY: (Fenced, Then) = (Fenced::Busy, Kept);
const CONFLICT: (Fenced, Then) = (Fenced::Conflict, Kept);
const EXTENDED: (Fenced, Then) = (Fenced::Applied, Extended);
const COMPLETED: (Fenced, Then) = (Fenced::Applied, Then::Completed);
const RELEASED: (Fenced, Then) = (Fenced::Applied, Released);
const GAVE_UP: (Fenced, Then) = (Fenced::Applied, GaveUp);
const REMOVED: (Fenced, Then) = (Fenced::Applied, Removed);

#[derive(Debug, Clone, Copy)]
enum Verb {
    Renew,
    Complete(&'static [u8]),
    Release,
    GiveUp,
    SettleDone(&'static [u8]),
    SettleNotDone,
    Evict { force: bool },
}

const SAME: &[u8] = b"receipt";
const OTHERS: &[u8] = b"another receipt";

/// Columns: live, lapsed, given up, released, completed, retired.
const TABLE: [(Verb, [(Fenced, Then); 6]); 10] = [
    (Verb::Renew, [EXTENDED, EXTENDED, LOST, LOST, LOST, LOST]),
    (Verb::Complete(SAME), [COMPLETED, COMPLETED, COMPLETED, COMPLETED, APPLIED, APPLIED]),
    (Verb::Complete(OTHERS), [COMPLETED, COMPLETED, COMPLETED, COMPLETED, CONFLICT, CONFLICT]),
    (Verb::Release, [RELEASED, RELEASED, RELEASED, APPLIED, LOST, LOST]),
    (Verb::GiveUp, [GAVE_UP, GAVE_UP, APPLIED, LOST, LOST, LOST]),
    (Verb::SettleDone(SAME), [BUSY, COMPLETED, COMPLETED, COMPLETED, APPLIED, APPLIED]),
    (Verb::SettleDone(OTHERS), [BUSY, COMPLETED, COMPLETED, COMPLETED, CONFLICT, CONFLICT]),
    (Verb::SettleNotDone, [BUSY, RELEASED, RELEASED, APPLIED, LOST, LOST]),
    (Verb::Evict { force: false }, [BUSY, REMOVED, REMOVED, REMOVED, REMOVED, REMOVED]),
    (Verb::Evict { force: true }, [REMOVED; 6]),
];

impl Verb {
    const fn is_of_an_operator(self) -> bool {
        matches!(self, Self::SettleDone(_) | Self::SettleNotDone | Self::Evict { .. })
    }

    /// Sends it for the attempt or, from an operator, about whom it expects.
    fn send(self, record: Option<&Record>, by: Expected) -> (Change, Fenced) {
        match by {
            Expected::Attempt(attempt) => {
                self.send_by(record, Grant { token: FencingToken::new(TOKEN), attempt })
            }
            _ => self.operate(record, by),
        }
    }

    fn send_by(self, record: Option<&Record>, grant: Grant) -> (Change, Fenced) {
        let decided = match self {
            Self::Renew => {
                let (lease, progress) = (seconds(LEASE), None);
                transition(record, &Renew { grant, lease, progress }, at(0))
            }
            Self::Complete(value) => {
                let completion = completion(value);
                transition(record, &Complete { grant, completion }, at(0))
            }
            Self::Release => {
                let known = Known::NotStarted { hold: seconds(NEW_HOLD) };
                transition(record, &Abandon { grant, known }, at(0))
            }
            Self::GiveUp => transition(record, &Abandon { grant, known: Known::Unknown }, at(0)),
            _ => return self.operate(record, Expected::Attempt(grant.attempt)),
        };
        (decided.change, decided.outcome)
    }

    fn operate(self, record: Option<&Record>, expected: Expected) -> (Change, Fenced) {
        let settle = |settlement| {
            let decided = transition(record, &Settle { expected, settlement }, at(0));
            (decided.change, decided.outcome)
        };
        match self {
            Self::SettleDone(value) => settle(Settlement::Done(completion(value))),
            Self::SettleNotDone => settle(Settlement::NotDone { hold: seconds(NEW_HOLD) }),
            Self::Evict { force } => {
                let decided = transition(record, &Evict { expected, force }, at(0));
                (decided.change, decided.outcome)
            }
            _ => panic!("{self:?} names an attempt"),
        }
    }

    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Complete(value) | Self::SettleDone(value) => value,
            _ => b"",
        }
    }
}

fn completion(value: &'static [u8]) -> Completion {
    Completion {
        value: Bytes::from_static(value),
        replayable: true,
        retention: seconds(RETENTION),
        hold: seconds(NEW_HOLD),
    }
}

fn expected(then: Then, before: &Record, value: &'static [u8]) -> Change {
    let ended = Record { previous: None, progress: None, ..before.clone() };
    match then {
        Kept => Change::Keep,
        Extended => Change::Put(Record {
            status: Status::InProgress { deadline: at(LEASE as i64) },
            forget_at: at((LEASE + HOLD) as i64),
            ..before.clone()
        }),
        Then::Completed => Change::Put(Record {
            status: Status::Completed {
                value: StoredValue::Replayable(Bytes::from_static(value)),
                retained_until: at(RETENTION as i64),
            },
            forget_at: at((RETENTION + NEW_HOLD) as i64),
            ..ended
        }),
        Released => Change::Put(Record {
            status: Status::Released,
            forget_at: at(NEW_HOLD as i64),
            ..ended
        }),
        GaveUp => Change::Put(Record { status: Status::GaveUp, ..before.clone() }),
        Removed => Change::Remove,
    }
}

/// The records that a row is tried on: with and without a takeover behind them.
fn records(state: State) -> [Record; 2] {
    let replaced = Replaced { cause: Cause::Lapsed, token: FencingToken::new(9) };
    [record(state), Record { previous: Some(replaced), ..record(state) }]
}

fn matching() -> [Expected; 3] {
    [Expected::Attempt(OWNER), Expected::Token(FencingToken::new(TOKEN)), Expected::Any]
}

#[test]
fn every_cell() {
    for (verb, cells) in TABLE {
        for (state, (outcome, then)) in ALL.into_iter().zip(cells) {
            for before in records(state) {
                let ways = if verb.is_of_an_operator() { 3 } else { 1 };
                for by in matching().into_iter().take(ways) {
                    let change = expected(then, &before, verb.bytes());
                    let decided = verb.send(Some(&before), by);
                    assert_eq!(decided, (change, outcome), "{verb:?} by {by:?} on {before:?}");
                }
            }
        }
    }
}

#[test]
fn nobody_else_changes_anything() {
    for (verb, _) in TABLE {
        for state in ALL {
            let others = [
                Expected::Attempt(OTHER),
                Expected::Token(FencingToken::new(TOKEN - 1)),
                Expected::Token(FencingToken::new(TOKEN + 1)),
            ];
            let ways = if verb.is_of_an_operator() { 3 } else { 1 };
            for by in others.into_iter().take(ways) {
                let decided = verb.send(Some(&record(state)), by);
                assert_eq!(decided, (Change::Keep, Fenced::Lost), "{verb:?} on {state:?}");
            }
        }
    }
}

#[test]
fn the_same_attempt_by_another_token_changes_nothing() {
    for (verb, _) in TABLE.into_iter().filter(|(verb, _)| !verb.is_of_an_operator()) {
        for state in ALL {
            for token in [TOKEN - 1, TOKEN + 1] {
                let grant = Grant { token: FencingToken::new(token), attempt: OWNER };
                let decided = verb.send_by(Some(&record(state)), grant);
                assert_eq!(decided, (Change::Keep, Fenced::Lost), "{verb:?} on {state:?}");
            }
        }
    }
}

#[test]
fn nothing_can_be_done_to_an_absent_key() {
    for (verb, _) in TABLE {
        let ways = if verb.is_of_an_operator() { 3 } else { 1 };
        for by in matching().into_iter().take(ways) {
            assert_eq!(verb.send(None, by), (Change::Keep, Fenced::Gone), "{verb:?}");
        }
    }
}

#[test]
fn whoever_saved_progress_is_not_released() {
    for saved in [progress(3), progress(0)] {
        for state in [State::Live, State::Lapsed, State::GaveUp] {
            let before = Record { progress: saved.clone(), ..record(state) };
            let change = match state {
                State::GaveUp => Change::Keep,
                _ => Change::Put(Record { status: Status::GaveUp, ..before.clone() }),
            };
            let decided = Verb::Release.send(Some(&before), Expected::Attempt(OWNER));
            assert_eq!(decided, (change, Fenced::Applied), "{state:?}");
        }
    }
}

#[test]
fn an_operator_may_know_that_nothing_was_done_whatever_was_saved() {
    for state in [State::Lapsed, State::GaveUp] {
        let before = Record { progress: progress(3), ..record(state) };
        let decided = Verb::SettleNotDone.send(Some(&before), Expected::Attempt(OWNER));
        assert_eq!(decided, (expected(Released, &before, b""), Fenced::Applied));
    }
}

#[test]
fn a_result_that_is_not_replayable_leaves_its_digest() {
    for state in [State::Live, State::Lapsed, State::GaveUp, State::Released] {
        let completion = Completion { replayable: false, ..completion(SAME) };
        let grant = Grant { token: FencingToken::new(TOKEN), attempt: OWNER };
        let decided = transition(Some(&record(state)), &Complete { grant, completion }, at(0));
        let Change::Put(next) = decided.change else { panic!("{state:?}") };
        let Status::Completed { value, .. } = &next.status else { panic!("{state:?}") };
        assert_eq!(*value, StoredValue::new(&result(), false));
        assert_eq!(value.replay(), None);

        // Completing again is compared by the digest.
        let again = Verb::Complete(SAME).send(Some(&next), Expected::Attempt(OWNER));
        assert_eq!(again, (Change::Keep, Fenced::Applied));
        let other = Verb::Complete(OTHERS).send(Some(&next), Expected::Attempt(OWNER));
        assert_eq!(other, (Change::Keep, Fenced::Conflict));
    }
}
