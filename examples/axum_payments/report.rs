//! What came of a play, as a table, and whether it is what must come of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use indicatif::HumanCount;

use crate::books::Moved;
use crate::client::{End, Ending};
use crate::counts::Counts;
use crate::log::{Operation, Request};

/// The most culprits that are printed; the rest is counted.
const SHOWN: usize = 8;

pub(crate) struct Report {
    sections: Vec<(&'static str, Vec<(&'static str, u64)>)>,
    checks: Vec<Check>,
}

/// Something that must be true, with all for which it is not.
struct Check {
    what: &'static str,
    culprits: BTreeSet<String>,
}

impl Report {
    pub(crate) fn new(endings: &[Ending], counts: &Counts, books: &[Moved], metrics: &str) -> Self {
        let sections = vec![
            ("the clients", client_lines(endings)),
            ("oncekey", engine_lines(counts)),
            ("the books", book_lines(books)),
        ];
        let checks = vec![
            moved_once("no order was charged twice", "charge", books),
            moved_once("no order was refunded twice", "refund", books),
            all_answered(endings),
            one_answer_each(endings),
            own_answer(endings),
            none_without_reason(endings, books),
            metrics_agree(counts, metrics),
        ];
        Self { sections, checks }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.checks.iter().all(|check| check.culprits.is_empty())
    }

    /// The number on the line `what`.
    #[cfg(test)]
    pub(crate) fn number(&self, what: &str) -> u64 {
        let mut lines = self.sections.iter().flat_map(|(_, lines)| lines);
        lines.find(|(name, _)| *name == what).unwrap().1
    }

    /// What the checks that failed say.
    #[cfg(test)]
    pub(crate) fn failures(&self) -> Vec<&str> {
        let failed = self.checks.iter().filter(|check| !check.culprits.is_empty());
        failed.map(|check| check.what).collect()
    }
}

fn client_lines(endings: &[Ending]) -> Vec<(&'static str, u64)> {
    let sum = |of: fn(&Ending) -> u64| endings.iter().map(of).sum::<u64>();
    let count = |is: fn(&Ending) -> bool| endings.iter().filter(|it| is(it)).count() as u64;
    vec![
        ("requests in the log", endings.len() as u64),
        ("sent over sockets", sum(|it| it.tries)),
        ("hung up in the middle", sum(|it| it.hang_ups)),
        ("told to try again", sum(|it| it.refusals)),
        ("got a receipt", count(|it| matches!(it.end, End::Receipt(_)))),
        ("got `declined`", count(|it| it.end == End::Declined)),
        ("got 422, key reused", count(|it| it.end == End::Mismatch)),
        ("left without an answer", count(|it| it.end == End::Left)),
        ("of all answers, replays", count(|it| it.replayed)),
    ]
}

fn engine_lines(counts: &Counts) -> Vec<(&'static str, u64)> {
    vec![
        ("executed", counts.of("executed")),
        ("replayed", counts.of("replayed")),
        ("waited for another", counts.of("waiting")),
        ("refused: busy", counts.of("busy")),
        ("refused: mismatch", counts.of("mismatch")),
        ("released, nothing done", counts.of("released")),
        ("gave up, outcome unknown", counts.of("gave_up")),
        ("takeovers", counts.of("taken_over")),
        ("leases lost", counts.of("lease_lost")),
    ]
}

fn book_lines(books: &[Moved]) -> Vec<(&'static str, u64)> {
    vec![
        ("orders", books.len() as u64),
        ("movements of money", books.iter().map(|it| it.times).sum()),
    ]
}

fn moved_once(what: &'static str, operation: &str, books: &[Moved]) -> Check {
    let twice = books.iter().filter(|it| it.operation == operation && it.times > 1);
    let name = |it: &Moved| format!("{} of {}: {} times", it.order, it.account, it.times);
    Check { what, culprits: twice.map(name).collect() }
}

fn all_answered(endings: &[Ending]) -> Check {
    let silent = endings.iter().filter(|it| it.end == End::NoAnswer);
    let culprits = silent.map(|it| it.request.name()).collect();
    Check { what: "every client that stayed was answered", culprits }
}

/// What two requests have in common that are one to oncekey.
fn identity(request: &Request) -> (&str, &str, Operation) {
    (&request.account, &request.order, request.operation)
}

fn one_answer_each(endings: &[Ending]) -> Check {
    let mut answers: BTreeMap<_, Vec<&End>> = BTreeMap::new();
    for Ending { request, end, .. } in endings {
        if matches!(end, End::Receipt(_) | End::Declined) {
            answers.entry(identity(request)).or_default().push(end);
        }
    }
    let torn = answers.iter().filter(|(_, all)| all.iter().any(|it| *it != all[0]));
    let culprits = torn.map(|((account, order, _), _)| format!("{order} of {account}")).collect();
    Check { what: "every duplicate got the same answer", culprits }
}

fn own_answer(endings: &[Ending]) -> Check {
    let mixed_up = endings.iter().filter(|it| match &it.end {
        End::Receipt(got) => {
            (got.amount, &got.currency) != (it.request.amount, &it.request.currency)
        }
        _ => false,
    });
    let culprits = mixed_up.map(|it| it.request.name()).collect();
    Check { what: "nobody got the receipt of another", culprits }
}

/// Money that moved for an order of which no client has a receipt, and none has left either.
fn none_without_reason(endings: &[Ending], books: &[Moved]) -> Check {
    let known: BTreeSet<_> = endings
        .iter()
        .filter(|it| matches!(it.end, End::Receipt(_) | End::Left))
        .map(|it| {
            (&*it.request.account, &*it.request.order, crate::books::name(it.request.operation))
        })
        .collect();
    let unseen =
        books.iter().filter(|it| !known.contains(&(&it.account, &it.order, &it.operation)));
    let culprits = unseen.map(|it| format!("{} of {}", it.order, it.account)).collect();
    Check { what: "no money moved unseen", culprits }
}

/// `/metrics` tells of no fewer runs than happened here. (It counts for the whole process.)
fn metrics_agree(counts: &Counts, metrics: &str) -> Check {
    let executed = metrics.lines().find_map(|line| {
        let line = line.strip_prefix("idempotency_events_total{")?;
        let (labels, value) = line.split_once("} ")?;
        let ours =
            labels.contains(r#"event="executed""#) && labels.contains(r#"operation="payments""#);
        if ours { value.parse::<u64>().ok() } else { None }
    });
    let wanted = counts.of("executed");
    let culprits = match executed.unwrap_or(0) {
        told if told >= wanted => BTreeSet::new(),
        told => BTreeSet::from([format!("{told} of {wanted} executed")]),
    };
    Check { what: "/metrics tells of every run", culprits }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, lines) in &self.sections {
            writeln!(f, "{title}")?;
            for (what, count) in lines {
                writeln!(f, "  {what:<36}{:>8}", HumanCount(*count).to_string())?;
            }
        }
        writeln!(f, "checks")?;
        for check in &self.checks {
            let verdict = if check.culprits.is_empty() { "OK" } else { "FAILED" };
            writeln!(f, "  {:<40}{verdict:>8}", check.what)?;
            for culprit in check.culprits.iter().take(SHOWN) {
                writeln!(f, "      {culprit}")?;
            }
            if check.culprits.len() > SHOWN {
                writeln!(
                    f,
                    "      and {} more",
                    HumanCount((check.culprits.len() - SHOWN) as u64)
                )?;
            }
        }
        Ok(())
    }
}
