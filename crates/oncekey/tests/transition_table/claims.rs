//! The first table: what a claim gets in each state.

use oncekey::Fingerprint;
use oncekey::store::{
    AttemptId, Cause, Change, Claim, ClaimOutcome, FencingToken, Grant, OnInterrupted, OnRetired,
    Previous, Record, Replaced, State, Status, StoredValue, transition,
};

use super::records::{
    HOLD, LEASE, NOW, NUMBER, OTHER, OTHER_REQUEST, OWNER, REQUEST, TOKEN, at, progress, record,
    result, seconds,
};

/// What a cell of the first table says.
#[derive(Debug, Clone, Copy)]
enum Cell {
    Again,
    Busy,
    /// Taken over, or refused as interrupted.
    Policy(Cause),
    Replay,
    AfterRelease,
    /// Granted as new, or told.
    Forgotten,
    Spent,
    Mismatch,
}
use Cell::{AfterRelease, Again, Busy, Forgotten, Mismatch, Policy, Replay, Spent};

/// Columns: own attempt, another's; both with the same request; both again with another request.
const TABLE: [(State, [Cell; 4]); 6] = [
    (State::Live, [Again, Busy, Mismatch, Mismatch]),
    (State::Lapsed, [Again, Policy(Cause::Lapsed), Mismatch, Mismatch]),
    (State::GaveUp, [Spent, Policy(Cause::GaveUp), Mismatch, Mismatch]),
    (State::Completed, [Replay, Replay, Mismatch, Mismatch]),
    (State::Released, [Spent, AfterRelease, Mismatch, Mismatch]),
    (State::Retired, [Spent, Forgotten, Spent, Forgotten]),
];

const COLUMNS: [(AttemptId, Fingerprint); 4] =
    [(OWNER, REQUEST), (OTHER, REQUEST), (OWNER, OTHER_REQUEST), (OTHER, OTHER_REQUEST)];

fn policies() -> impl Iterator<Item = (OnInterrupted, OnRetired)> {
    [OnInterrupted::TakeOver, OnInterrupted::Refuse].into_iter().flat_map(|interrupted| {
        [OnRetired::Forget, OnRetired::Tell].map(|retired| (interrupted, retired))
    })
}

fn claims() -> impl Iterator<Item = (usize, Claim)> {
    policies().flat_map(|(on_interrupted, on_retired)| {
        COLUMNS.into_iter().enumerate().map(move |(column, (attempt, fingerprint))| {
            let (lease, hold) = (seconds(LEASE), seconds(HOLD));
            let claim = Claim { attempt, fingerprint, lease, hold, on_interrupted, on_retired };
            (column, claim)
        })
    })
}

/// A grant of this claim that inherits nothing.
fn granted(claim: &Claim, token: u64, number: u32) -> Record {
    Record {
        fingerprint: claim.fingerprint,
        attempt: claim.attempt,
        token: FencingToken::new(token),
        number,
        previous: None,
        progress: None,
        status: Status::InProgress { deadline: at(LEASE as i64) },
        forget_at: at((LEASE + HOLD) as i64),
    }
}

fn expected(cell: Cell, before: &Record, claim: &Claim) -> Result<Record, ClaimOutcome> {
    match cell {
        Again => Ok(Record {
            status: Status::InProgress { deadline: at(LEASE as i64) },
            forget_at: at((LEASE + HOLD) as i64),
            ..before.clone()
        }),
        Busy => Err(ClaimOutcome::Busy { retry_after: seconds(4) }),
        Policy(cause) => match claim.on_interrupted {
            OnInterrupted::Refuse => Err(ClaimOutcome::Interrupted),
            OnInterrupted::TakeOver => Ok(Record {
                previous: Some(Replaced { cause, token: before.token }),
                progress: before.progress.as_ref().and_then(|_| progress(0)),
                ..granted(claim, TOKEN + 1, NUMBER + 1)
            }),
        },
        Replay => Err(ClaimOutcome::Replay(Some(result()))),
        AfterRelease => Ok(granted(claim, TOKEN + 1, NUMBER + 1)),
        Forgotten => match claim.on_retired {
            OnRetired::Forget => Ok(granted(claim, TOKEN + 1, 1)),
            OnRetired::Tell => Err(ClaimOutcome::Retired),
        },
        Spent => Err(ClaimOutcome::Spent),
        Mismatch => Err(ClaimOutcome::Mismatch),
    }
}

fn check(before: Option<&Record>, claim: &Claim, expected: Result<Record, ClaimOutcome>) {
    let decided = transition(before, claim, at(0));
    let (change, outcome) = match expected {
        Err(refused) => (Change::Keep, refused),
        Ok(next) => {
            let Status::InProgress { deadline } = next.status else {
                panic!("a grant is in progress");
            };
            let saved = next.progress.as_ref().map(|progress| progress.data.clone());
            let outcome = ClaimOutcome::Acquired {
                grant: Grant { token: next.token, attempt: next.attempt },
                number: next.number,
                lease_left: deadline.saturating_since(at(0)),
                previous: next.previous.map(|replaced| Previous {
                    cause: replaced.cause,
                    token: replaced.token,
                    progress: saved,
                }),
            };
            (Change::Put(next), outcome)
        }
    };
    assert_eq!(decided.outcome, outcome, "{claim:?} on {before:?}");
    assert_eq!(decided.change, change, "{claim:?} on {before:?}");
}

#[test]
fn every_cell() {
    for (state, cells) in TABLE {
        for (column, claim) in claims() {
            for saved in [None, progress(5)] {
                let before = Record { progress: saved, ..record(state) };
                let expected = expected(cells[column], &before, &claim);
                check(Some(&before), &claim, expected);
            }
        }
    }
}

#[test]
fn an_absent_key_is_granted_to_whoever_asks() {
    for (_, claim) in claims() {
        check(None, &claim, Ok(granted(&claim, NOW, 1)));
    }
}

#[test]
fn a_token_is_the_clock_once_that_has_passed_the_last_token() {
    for state in [State::Lapsed, State::GaveUp, State::Released, State::Retired] {
        for last in [0, 5, NOW - 1] {
            let before = Record { token: FencingToken::new(last), ..record(state) };
            let (_, claim) = claims().nth(1).unwrap();
            let outcome = transition(Some(&before), &claim, at(0)).outcome;
            let ClaimOutcome::Acquired { grant, .. } = outcome else {
                panic!("{state:?}: {outcome:?}");
            };
            assert_eq!(grant.token, FencingToken::new(NOW));
        }
    }
}

#[test]
fn a_claim_that_is_sent_again_never_shortens_anything() {
    let (_, claim) = claims().next().unwrap();
    let long = Record {
        status: Status::InProgress { deadline: at(500) },
        forget_at: at(10_000),
        ..record(State::Live)
    };
    check(Some(&long), &claim, Ok(long.clone()));
    // The time to forget alone is late: the deadline moves under it.
    let held = Record { forget_at: at(10_000), ..record(State::Live) };
    let status = Status::InProgress { deadline: at(LEASE as i64) };
    check(Some(&held), &claim, Ok(Record { status, ..held.clone() }));
}

#[test]
fn a_claim_that_is_sent_again_tells_again_whom_it_replaced() {
    let (_, claim) = claims().next().unwrap();
    let replaced = Replaced { cause: Cause::GaveUp, token: FencingToken::new(77) };
    let before = Record { previous: Some(replaced), progress: progress(0), ..record(State::Live) };
    check(Some(&before), &claim, expected(Again, &before, &claim));
}

#[test]
fn a_result_that_was_not_kept_is_replayed_as_done() {
    for (column, claim) in claims() {
        let value = StoredValue::new(&result(), false);
        let status = Status::Completed { value, retained_until: at(50) };
        let before = Record { status, ..record(State::Completed) };
        let same = column < 2;
        let outcome = if same { ClaimOutcome::Replay(None) } else { ClaimOutcome::Mismatch };
        check(Some(&before), &claim, Err(outcome));
    }
}
