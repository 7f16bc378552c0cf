//! The rules against the inhabitants: what rejects what, and which rules nothing else replaces.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use oncekey_conformance::{Rule, rules};

use crate::base::lock;
use crate::cage::{Cage, exhibit};
use crate::defect::SOUND;
use crate::runner::{in_parallel, rejections, verdict};
use crate::{INHABITANTS, Inhabitant};

/// Rules that hold a store to the whole contract at once. They reject most of the inhabitants, so
/// they do not count where the others are asked for a store that only one of them rejects.
const GENERAL: &[&str] = &["model::agrees_with_the_rules", "history::is_linearizable"];

/// Rules that reject no store that all others accept, each with the reason.
const SHARED: &[(&str, &str)] = &[];

/// Subjects whose rules wait, and come last.
const SLOW: &[&str] =
    &["contention::", "watch::", "cancel::", "purge::races", "fencing::a_version"];

pub(crate) fn assert_rejected(inhabitant: &Inhabitant) {
    let rule = (inhabitant.defect)().fault;
    assert!(is_rejected(inhabitant, rule), "{rule} accepts a store with the fault that it names");
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

/// No rule without a store that only this rule rejects. Of each inhabitant no more is found out than
/// whether a second rule rejects it.
#[test]
fn no_rule_is_superfluous() {
    let (general, mut named): (Vec<&Rule>, Vec<_>) =
        rules().iter().partition(|rule| GENERAL.contains(&rule.name));
    named.sort_by_key(|rule| SLOW.iter().any(|slow| rule.name.starts_with(slow)));
    let rejected = every_inhabitant(|inhabitant| {
        let fault = (inhabitant.defect)().fault;
        let mut by = By::new();
        let general = general.iter().filter(|rule| rule.name == fault);
        let own = named.iter().filter(|rule| rule.name == fault);
        for rule in general.chain(own).chain(&named) {
            let named = by.iter().filter(|rule| !GENERAL.contains(rule)).count();
            if named < 2 && is_rejected(inhabitant, rule.name) {
                by.insert(rule.name);
            }
        }
        by
    });

    let mut problems = String::new();
    for rule in rules() {
        let own = own_of(rule.name, &rejected);
        println!("{:<62} {}", rule.name, own.join(" "));
        let by_fault = INHABITANTS.iter().any(|inhabitant| {
            (inhabitant.defect)().fault == rule.name && is_rejected(inhabitant, rule.name)
        });
        if !by_fault {
            let _ = writeln!(problems, "{} rejects no store with its fault", rule.name);
        }
        let is_shared = SHARED.iter().any(|(shared, _)| *shared == rule.name);
        if own.is_empty() && !is_shared {
            let _ = writeln!(problems, "{} rejects no store that all others accept", rule.name);
        }
    }
    assert!(problems.is_empty(), "{problems}");
}

/// The inhabitants that this rule rejects, and no other does but the general ones.
fn own_of(rule: &str, rejected: &[By]) -> Vec<&'static str> {
    let only = |by: &By| {
        let mut others = by.iter().filter(|other| **other != rule);
        by.contains(rule) && others.all(|other| GENERAL.contains(other))
    };
    let inhabitants = INHABITANTS.iter().zip(rejected);
    inhabitants.filter(|(_, by)| only(by)).map(|(inhabitant, _)| inhabitant.name).collect()
}

/// The rules that reject an inhabitant.
type By = BTreeSet<&'static str>;

fn every_inhabitant(look: impl Fn(&Inhabitant) -> By + Sync) -> Vec<By> {
    let looks = Mutex::new(vec![By::new(); INHABITANTS.len()]);
    in_parallel(INHABITANTS.len(), |index| {
        let seen = look(&INHABITANTS[index]);
        lock(&looks)[index] = seen;
    });
    looks.into_inner().unwrap_or_default()
}

/// Whether the rule rejects the inhabitant. Found out once: the tests of the inhabitants and those of
/// the matrix ask for the same.
fn is_rejected(inhabitant: &Inhabitant, rule: &'static str) -> bool {
    type Known = BTreeMap<(&'static str, &'static str), Arc<OnceLock<bool>>>;
    static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
    let known = lock(&KNOWN).entry((inhabitant.name, rule)).or_default().clone();
    *known.get_or_init(|| {
        exhibit((inhabitant.defect)());
        // Whether a history shows a fault depends on how its clients meet.
        let tries = if rule.starts_with("history::") { 4 } else { 1 };
        (0..tries).any(|_| verdict::<Cage>(rule).is_err())
    })
}
