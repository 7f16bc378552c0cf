//! The cells of the tables of the rules: every command in every state, and what it answers.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use oncekey::Fingerprint;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    Abandon, AttemptId, Cause, Claim, ClaimOutcome, Complete, Completion, Evict, Expected,
    FencingToken, Grant, Known, OnInterrupted, OnRetired, Progress, Record, Renew, Replaced,
    Settle, Settlement, Status, StoredValue,
};
use oncekey_conformance::history::{Answer, Operation};

use crate::ruled::Rules;

/// The rules, with a note of what was decided by them.
#[derive(Debug)]
pub(crate) struct Watched;

static VISITED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

impl Rules for Watched {
    fn apply(
        operation: &Operation,
        record: Option<&Record>,
        now: Timestamp,
    ) -> (Answer, Option<Record>) {
        let (answer, after) = operation.apply(record, now);
        if let Some(cell) = cell(operation, record, now, &answer) {
            VISITED.lock().unwrap().insert(cell);
        }
        (answer, after)
    }
}

/// The cells that stores over [`Watched`] have come to.
pub(crate) fn visited() -> BTreeSet<String> {
    VISITED.lock().unwrap().clone()
}

/// Every cell there is.
pub(crate) fn all() -> BTreeSet<String> {
    let now = Timestamp::from_micros(1_000);
    let records = records();
    let operations = operations();
    let pairs = records
        .iter()
        .flat_map(|record| operations.iter().map(move |operation| (record, operation)));
    pairs
        .filter_map(|(record, operation)| {
            let (answer, _) = operation.apply(record.as_ref(), now);
            cell(operation, record.as_ref(), now, &answer)
        })
        .collect()
}

pub(crate) fn cell(
    operation: &Operation,
    record: Option<&Record>,
    now: Timestamp,
    answer: &Answer,
) -> Option<String> {
    let state = record.map_or("Absent".to_owned(), |it| format!("{:?}", it.state(now)));
    let saved = record.is_some_and(|it| it.progress.is_some());
    let whose = |own: bool| if own { "" } else { " of another" };
    let by = |grant: Grant| whose(record.is_none_or(|it| it.attempt == grant.attempt));
    let of = |expected: Expected| {
        whose(record.is_none_or(|it| match expected {
            Expected::Attempt(attempt) => it.attempt == attempt,
            Expected::Token(token) => it.token == token,
            Expected::Any => true,
        }))
    };
    let what = match operation {
        Operation::Claim(claim) => {
            let differs = record.is_some_and(|it| it.fingerprint != claim.fingerprint);
            let own = whose(record.is_none_or(|it| it.attempt == claim.attempt));
            format!("claim{} {state}{own}", if differs { " with another fingerprint" } else { "" })
        }
        Operation::Renew(renew) => {
            let saving = if renew.progress.is_some() { " with progress" } else { "" };
            format!("renew{saving} {state}{}", by(renew.grant))
        }
        Operation::Complete(complete) => format!("complete {state}{}", by(complete.grant)),
        Operation::Abandon(abandon) => match abandon.known {
            Known::NotStarted { .. } => {
                let saved = if saved { " with progress" } else { "" };
                format!("release {state}{saved}{}", by(abandon.grant))
            }
            Known::Unknown => format!("give up {state}{}", by(abandon.grant)),
        },
        Operation::Settle(settle) => {
            let verdict = match settle.settlement {
                Settlement::Done(_) => "done",
                Settlement::NotDone { .. } => "not done",
            };
            format!("settle as {verdict} {state}{}", of(settle.expected))
        }
        Operation::Evict(evict) => {
            let force = if evict.force { " by force" } else { "" };
            format!("evict{force} {state}{}", of(evict.expected))
        }
        _ => return None,
    };
    let outcome = match answer {
        Answer::Claim(ClaimOutcome::Acquired { previous, .. }) => match previous {
            Some(previous) if previous.progress.is_some() => "Acquired, with progress".to_owned(),
            Some(previous) => format!("Acquired, after {:?}", previous.cause),
            None => "Acquired".to_owned(),
        },
        Answer::Claim(ClaimOutcome::Busy { .. }) => "Busy".to_owned(),
        Answer::Claim(ClaimOutcome::Replay(None)) => "Replay of nothing".to_owned(),
        Answer::Claim(ClaimOutcome::Replay(Some(_))) => "Replay".to_owned(),
        Answer::Claim(outcome) => format!("{outcome:?}"),
        Answer::Fenced(outcome) => format!("{outcome:?}"),
        _ => return None,
    };
    Some(format!("{what}: {outcome}"))
}

const OWN: Grant = Grant { token: FencingToken::new(7), attempt: AttemptId::from_bytes([7; 16]) };
const ANOTHER: Grant =
    Grant { token: FencingToken::new(8), attempt: AttemptId::from_bytes([8; 16]) };

/// A record in every state, with and without what it may carry.
fn records() -> Vec<Option<Record>> {
    let (past, future) = (Timestamp::from_micros(1), Timestamp::MAX);
    let statuses = [past, future].into_iter().flat_map(|time| {
        let completed = |value| Status::Completed { value, retained_until: time };
        [
            Status::InProgress { deadline: time },
            completed(StoredValue::new(&Bytes::from_static(b"one"), true)),
            completed(StoredValue::new(&Bytes::from_static(b"one"), false)),
        ]
    });
    let statuses = statuses.chain([Status::GaveUp, Status::Released]);
    let carried = [
        (None, None),
        (Some(Cause::Lapsed), None),
        (Some(Cause::GaveUp), None),
        (Some(Cause::Lapsed), Some(b"saved".as_slice())),
        (None, Some(b"saved".as_slice())),
    ];
    let records = statuses.flat_map(|status| {
        let ended = matches!(status, Status::Completed { .. } | Status::Released);
        let carried = carried.iter().take(if ended { 1 } else { carried.len() });
        carried
            .map(|(cause, saved)| Record {
                fingerprint: Fingerprint::of("same"),
                attempt: OWN.attempt,
                token: OWN.token,
                number: 1,
                previous: cause.map(|cause| Replaced { cause, token: FencingToken::new(6) }),
                progress: saved
                    .map(|data| Box::new(Progress { sequence: 1, data: Bytes::from_static(data) })),
                status: status.clone(),
                forget_at: Timestamp::MAX,
            })
            .map(Some)
            .collect::<Vec<_>>()
    });
    records.chain([None]).collect()
}

/// Every command, by and about the owner and others, in every form.
fn operations() -> Vec<Operation> {
    let span = Duration::from_secs(30);
    let mut operations = Vec::new();
    for grant in [OWN, ANOTHER] {
        for (fingerprint, on_interrupted, on_retired) in [
            ("same", OnInterrupted::TakeOver, OnRetired::Forget),
            ("same", OnInterrupted::Refuse, OnRetired::Tell),
            ("other", OnInterrupted::TakeOver, OnRetired::Forget),
            ("other", OnInterrupted::Refuse, OnRetired::Tell),
        ] {
            operations.push(Operation::Claim(Claim {
                attempt: grant.attempt,
                fingerprint: Fingerprint::of(fingerprint),
                lease: span,
                hold: span,
                on_interrupted,
                on_retired,
            }));
        }
        for saved in [None, Some(b"more".as_slice())] {
            operations.push(Operation::Renew(Renew {
                grant,
                lease: span,
                progress: saved
                    .map(|data| Progress { sequence: 2, data: Bytes::from_static(data) }),
            }));
        }
        for known in [Known::Unknown, Known::NotStarted { hold: span }] {
            operations.push(Operation::Abandon(Abandon { grant, known }));
        }
        let expected = Expected::Attempt(grant.attempt);
        for value in [b"one".as_slice(), b"two"] {
            let completion = Completion {
                value: Bytes::from_static(value),
                replayable: true,
                retention: span,
                hold: span,
            };
            operations
                .push(Operation::Complete(Complete { grant, completion: completion.clone() }));
            operations.push(Operation::Settle(Settle {
                expected,
                settlement: Settlement::Done(completion),
            }));
        }
        operations.push(Operation::Settle(Settle {
            expected,
            settlement: Settlement::NotDone { hold: span },
        }));
        for force in [false, true] {
            operations.push(Operation::Evict(Evict { expected, force }));
        }
    }
    operations
}
