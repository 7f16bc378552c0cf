//! Each cell of the tables of the rules is checked by a rule of the suite: a store that errs in that
//! cell alone is rejected, without the model's and the histories' help.
#![allow(clippy::unwrap_used, reason = "tests")]

#[allow(dead_code, reason = "other tests use the rest")]
mod cells;
#[allow(dead_code, reason = "other tests use the rest")]
mod ruled;

use std::cell::RefCell;
use std::panic::{catch_unwind, set_hook, take_hook};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use oncekey::runtime::Timestamp;
use oncekey::store::{ClaimOutcome, Fenced, Record};
use oncekey_conformance::history::{Answer, Operation};
use oncekey_conformance::{rules, run_rule};

use ruled::{Ruled, Rules};

/// How a store errs in its cell.
#[derive(Debug, Clone, Copy)]
enum Error {
    /// It does as it should, and answers something else.
    Answers,
    /// It answers as it should, and does something else: nothing, or it removes the record.
    Does,
}

thread_local! {
    static WRONG: RefCell<Option<(String, Error)>> = const { RefCell::new(None) };
}

struct Errs;

impl Rules for Errs {
    fn apply(
        operation: &Operation,
        record: Option<&Record>,
        now: Timestamp,
    ) -> (Answer, Option<Record>) {
        let (answer, after) = operation.apply(record, now);
        let cell = cells::cell(operation, record, now, &answer);
        let error = WRONG.with_borrow(|wrong| match (wrong, cell) {
            (Some((wrong, error)), Some(cell)) if *wrong == cell => Some(*error),
            _ => None,
        });
        match error {
            None => (answer, after),
            Some(Error::Answers) => (another(&answer), after),
            Some(Error::Does) if after.as_ref() == record => (answer, None),
            Some(Error::Does) => (answer, record.cloned()),
        }
    }
}

fn another(answer: &Answer) -> Answer {
    match answer {
        Answer::Claim(ClaimOutcome::Busy { .. }) => Answer::Claim(ClaimOutcome::Interrupted),
        Answer::Claim(_) => {
            Answer::Claim(ClaimOutcome::Busy { retry_after: Duration::from_secs(1) })
        }
        Answer::Fenced(Fenced::Applied | Fenced::Gone) => Answer::Fenced(Fenced::Lost),
        _ => Answer::Fenced(Fenced::Applied),
    }
}

/// Rules that check everything at once, and rules that wait or use threads of their own.
const LEFT_OUT: [&str; 7] = [
    "model::",
    "history::",
    "contention::",
    "cancel::",
    "purge::races",
    "fencing::a_v",
    "limits::",
];

fn is_rejected() -> bool {
    let quick = rules().iter().filter(|rule| !LEFT_OUT.iter().any(|it| rule.name.starts_with(it)));
    quick
        .filter(|rule| rule.needs.is_empty())
        .any(|rule| catch_unwind(|| run_rule::<Ruled<Errs>>(rule.name, &[])).is_err())
}

#[test]
fn a_store_that_errs_in_one_cell_is_rejected() {
    set_hook(Box::new(|_| {}));
    assert!(!is_rejected(), "the store that does not err is rejected");
    let errors = [Error::Answers, Error::Does];
    let wrongs =
        cells::all().into_iter().flat_map(|cell| errors.map(|error| (cell.clone(), error)));
    // What is absent and stays absent can be done in no other way.
    let wrongs = wrongs
        .filter(|(cell, error)| !(matches!(error, Error::Does) && cell.ends_with("Absent: Gone")));
    let wrongs: Vec<_> = wrongs.collect();
    let accepted = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(wrong) = wrongs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    WRONG.set(Some(wrong.clone()));
                    if !is_rejected() {
                        accepted.lock().unwrap().push(wrong);
                    }
                }
            });
        }
    });
    drop(take_hook());
    let accepted = accepted.into_inner().unwrap();
    assert!(accepted.is_empty(), "of {}, accepted: {accepted:#?}", wrongs.len());
}
