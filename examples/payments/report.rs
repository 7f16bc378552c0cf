//! What came of a play, as a table, and whether it is what must come of it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use indicatif::HumanCount;

use crate::checks::{Check, checks};
use crate::counts::Counts;
use crate::log::{Operation, Request};
use crate::play::{End, Ending, Played};
use crate::processor::Processor;
use crate::service::Service;

/// Sections of lines, then the checks.
pub(crate) struct Report {
    sections: Vec<(&'static str, Vec<Line>)>,
    checks: Vec<Check>,
}

struct Line {
    what: &'static str,
    count: u64,
    note: &'static str,
}

const fn line(what: &'static str, count: u64, note: &'static str) -> Line {
    Line { what, count, note }
}

impl Report {
    pub(crate) fn new(
        played: &Played,
        service: &Service,
        counts: Option<&Counts>,
        kills: u64,
    ) -> Self {
        let mut sections = vec![
            ("the log", log_lines(&played.endings)),
            ("the clients", client_lines(&played.endings)),
        ];
        if kills > 0 {
            let killed = line("killed, and started again", kills, "by SIGKILL, in mid-charge");
            sections.push(("the service", vec![killed]));
        }
        if let Some(counts) = counts {
            sections.push(("oncekey", engine_lines(counts)));
        }
        sections.push(("the processor", processor_lines(&service.processor)));
        if counts.is_some() {
            let completions = &played.completions;
            sections.push((
                "left behind, and finished afterwards",
                vec![
                    line("found done", completions.done as u64, "recorded"),
                    line("found not done", completions.not_done as u64, "free again"),
                    line("still unknown", completions.unknown as u64, ""),
                ],
            ));
        }
        Self { sections, checks: checks(played, service) }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.checks.iter().all(Check::is_good)
    }

    /// The number on the line `what`.
    #[cfg(test)]
    pub(crate) fn number(&self, what: &str) -> u64 {
        let mut lines = self.sections.iter().flat_map(|(_, lines)| lines);
        lines.find(|line| line.what == what).unwrap().count
    }

    /// What the checks that failed say.
    #[cfg(test)]
    pub(crate) fn failures(&self) -> Vec<&str> {
        let failed = self.checks.iter().filter(|check| !check.is_good());
        failed.map(|check| check.what).collect()
    }
}

fn log_lines(endings: &[Ending]) -> Vec<Line> {
    let requests = || endings.iter().map(|ending| &*ending.request);
    let orders: HashSet<_> = requests().map(identity).collect();
    let mut by_number: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for request in requests() {
        by_number.entry(&request.order).or_default().insert(&request.account);
    }
    let shared = by_number.values().filter(|accounts| accounts.len() > 1).count();
    vec![
        line("requests", endings.len() as u64, ""),
        line("orders to charge or refund", orders.len() as u64, ""),
        line("order numbers of several accounts", shared as u64, "must not collide"),
    ]
}

fn client_lines(endings: &[Ending]) -> Vec<Line> {
    let sum = |of: fn(&Ending) -> u64| endings.iter().map(of).sum();
    let count = |of: fn(&End) -> bool| endings.iter().filter(|it| of(&it.end)).count() as u64;
    vec![
        line("requests sent", sum(|it| it.tries), "with all retries"),
        line("got a receipt", count(|end| matches!(end, End::Answer(Ok(_)))), ""),
        line("got `declined`", count(|end| matches!(end, End::Answer(Err(_)))), "also an answer"),
        line("got `mismatch`", count(|end| *end == End::Mismatch), "same key, other request"),
        line("hung up", sum(|it| it.hang_ups), "in mid-charge"),
        line("of these never came back", count(|end| *end == End::Left), ""),
        line("lost their worker", sum(|it| it.crashes), "crashed in mid-charge"),
    ]
}

fn engine_lines(counts: &Counts) -> Vec<Line> {
    vec![
        line("executed", counts.of("executed"), "ran, and recorded"),
        line("replayed", counts.of("replayed"), "answered from the record"),
        line("waited", counts.of("waiting"), "for an owner at work"),
        line("refused: busy", counts.of("busy"), "waited long enough"),
        line("refused: mismatch", counts.of("mismatch"), ""),
        line("refused: interrupted", counts.of("interrupted"), ""),
        line("released", counts.of("released"), "nothing was done"),
        line("gave up", counts.of("gave_up"), "outcome unknown"),
        line("dropped", counts.of("dropped"), "in mid-charge"),
        line("takeovers", counts.of("taken_over"), "after a crash, or an unknown outcome"),
        line("verified: done", counts.of("verified_done"), "not run again"),
        line("verified: not done", counts.of("verified_not_done"), "run again, safely"),
        line("leases lost", counts.of("lease_lost"), "by a worker that lived"),
        line("unrecorded", counts.of("unrecorded"), ""),
        line("store errors", counts.of("store_failed"), ""),
    ]
}

fn processor_lines(processor: &Processor) -> Vec<Line> {
    let counts = processor.counts();
    let sum = |wanted: Operation| -> u64 {
        let moved = counts.iter().filter(|((_, _, operation), _)| *operation == wanted);
        moved.map(|(_, count)| *count as u64).sum()
    };
    vec![
        line("charges", sum(Operation::Charge), ""),
        line("refunds", sum(Operation::Refund), ""),
        line("late calls turned away", processor.outdated(), "by their fencing token"),
    ]
}

/// What an order is, to everybody: two requests with one identity are to move money once.
pub(crate) fn identity(request: &Request) -> (&str, &str, Operation) {
    (&request.account, &request.order, request.operation)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, lines) in &self.sections {
            writeln!(f, "{title}")?;
            for Line { what, count, note } in lines {
                let count = HumanCount(*count).to_string();
                let text = format!("  {what:<36}{count:>8}  {note}");
                writeln!(f, "{}", text.trim_end())?;
            }
            writeln!(f)?;
        }
        writeln!(f, "checks")?;
        for check in &self.checks {
            writeln!(f, "{check}")?;
        }
        Ok(())
    }
}
