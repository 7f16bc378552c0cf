//! Every rule against every inhabitant: what rejects what, and which rules nothing else replaces.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::panic::{catch_unwind, set_hook, take_hook};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};
use std::thread;

use oncekey_conformance::{Fixture, rules, run_rule};

use crate::base::lock;
use crate::cage::{Cage, exhibit};
use crate::defect::{Defect, SOUND};
use crate::{INHABITANTS, Inhabitant};

/// Rules that hold a store to the whole contract at once. They reject most of the inhabitants, so
/// they do not count where the others are asked for a store that only one of them rejects.
const GENERAL: &[&str] = &["model::agrees_with_the_rules", "history::is_linearizable"];

/// Rules that reject no store that all others accept, each with the reason.
const SHARED: &[(&str, &str)] = &[];

/// What a rule says of the fixtures of this thread: nothing, or what it found.
pub(crate) fn verdict<F: Fixture>(rule: &str) -> Result<(), String> {
    silence_panics();
    IS_QUIET.set(true);
    let verdict = catch_unwind(|| run_rule::<F>(rule, &[]));
    IS_QUIET.set(false);
    verdict.map_err(|panic| {
        let message = panic.downcast_ref::<String>();
        message.map_or_else(|| "a panic".to_owned(), String::clone)
    })
}

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// A rejection is a panic, and here it is what is wanted: no message, no backtrace.
fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_QUIET.get() {
                loud(panic);
            }
        }));
    });
}

/// The rules that reject the fixtures that `prepare` makes this thread create, with what they say.
/// The rules are shared out among threads.
pub(crate) fn rejections<F: Fixture>(prepare: impl Fn() + Sync) -> Vec<String> {
    let found = Mutex::new(Vec::new());
    in_parallel(rules().len(), |index| {
        prepare();
        if let Err(message) = verdict::<F>(rules()[index].name) {
            lock(&found).push(message);
        }
    });
    found.into_inner().unwrap_or_default()
}

fn in_parallel(jobs: usize, run: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    // Rules about races and notifications wait more than they work.
    let threads = 4 * thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    match next.fetch_add(1, Ordering::Relaxed) {
                        job if job < jobs => run(job),
                        _ => break,
                    }
                }
            });
        }
    });
}

pub(crate) fn assert_rejected(defect: Defect) {
    exhibit(defect);
    let rule = defect.fault;
    assert!(verdict::<Cage>(rule).is_err(), "{rule} accepts a store with the fault that it names");
}

#[test]
fn the_base_without_a_defect_passes_every_rule() {
    let found = rejections::<Cage>(|| exhibit(SOUND));
    assert!(found.is_empty(), "{}", found.join("\n\n"));
}

#[test]
fn every_fault_is_named_by_a_rule_of_the_suite() {
    let rules: BTreeSet<_> = rules().iter().map(|rule| rule.name).collect();
    for Inhabitant { name, defect } in INHABITANTS {
        let fault = defect().fault;
        assert!(rules.contains(fault), "{name} names {fault}");
    }
}

/// No rule without a store that only this rule rejects.
#[test]
fn no_rule_is_superfluous() {
    let rules = rules();
    let rejected = Mutex::new(vec![BTreeSet::new(); INHABITANTS.len()]);
    in_parallel(INHABITANTS.len(), |index| {
        exhibit((INHABITANTS[index].defect)());
        let by = rules.iter().map(|rule| rule.name);
        let by: BTreeSet<_> = by.filter(|rule| verdict::<Cage>(rule).is_err()).collect();
        lock(&rejected)[index] = by;
    });
    let rejected = rejected.into_inner().unwrap_or_default();

    let mut table = String::new();
    let mut problems = String::new();
    for rule in rules {
        let all = rejected.iter().filter(|by| by.contains(rule.name)).count();
        let own: Vec<_> = INHABITANTS
            .iter()
            .zip(&rejected)
            .filter(|(_, by)| is_only(by, rule.name))
            .map(|(inhabitant, _)| inhabitant.name)
            .collect();
        let _ = writeln!(table, "{all:>4} {:<66} {}", rule.name, own.join(" "));
        let shared = SHARED.iter().any(|(name, _)| *name == rule.name);
        if all == 0 {
            let _ = writeln!(problems, "{} rejects nothing", rule.name);
        } else if own.is_empty() && !shared && !GENERAL.contains(&rule.name) {
            let _ = writeln!(problems, "{} rejects nothing of its own", rule.name);
        }
    }
    println!("rejections by rule, and the stores that no other rule rejects\n{table}");
    for (Inhabitant { name, defect }, by) in INHABITANTS.iter().zip(&rejected) {
        let fault = defect().fault;
        let others: Vec<_> = by.iter().copied().filter(|rule| *rule != fault).collect();
        let missed = if by.contains(fault) { "" } else { "MISSED " };
        println!("{missed}{name}: {fault}; also {}", others.join(" "));
    }
    assert!(problems.is_empty(), "{problems}");
}

/// Whether this rule, and no other that is not general, is among those that reject.
fn is_only(by: &BTreeSet<&str>, rule: &str) -> bool {
    let mut named = by.iter().filter(|rule| !GENERAL.contains(rule));
    named.next() == Some(&rule) && named.next().is_none()
}
