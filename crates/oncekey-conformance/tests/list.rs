//! The list of rules: complete, without repetition, and what the contract refers to.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use oncekey_conformance::rules;

#[test]
fn every_rule_has_a_name_of_its_own_and_one_sentence() {
    let mut names = BTreeSet::new();
    let mut docs = BTreeSet::new();
    for rule in rules() {
        assert!(names.insert(rule.name), "{} is listed twice", rule.name);
        assert!(docs.insert(&rule.doc), "{} repeats a sentence", rule.name);
        assert!(
            rule.doc.len() > 30 && rule.doc.ends_with('.') && !rule.doc.contains(". "),
            "{} needs one sentence, not {:?}",
            rule.name,
            rule.doc
        );
    }
    assert!(names.len() > 120, "rules were lost: {}", names.len());
}

/// A function that was written and not listed would never run.
#[test]
fn every_rule_that_is_written_is_listed() {
    let names: BTreeSet<_> = rules().iter().map(|rule| rule.name.to_owned()).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rules");
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let subject = path.file_stem().unwrap().to_str().unwrap();
        for line in fs::read_to_string(&path).unwrap().lines() {
            let Some(head) = line.strip_prefix("pub async fn ") else {
                continue;
            };
            let rule = head.split(['<', '(']).next().unwrap();
            assert!(
                names.contains(&format!("{subject}::{rule}")),
                "{subject}::{rule} is not listed"
            );
        }
    }
}

/// Each MUST of the contract names the rule that checks it.
#[test]
fn every_rule_that_the_contract_names_exists() {
    let names: BTreeSet<_> = rules().iter().map(|rule| rule.name).collect();
    let subjects: BTreeSet<_> = names.iter().filter_map(|name| name.split("::").next()).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../oncekey/src/store");
    let mut named = 0;
    for file in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let docs = text.lines().map(str::trim_start).filter(|line| line.starts_with("//"));
        for word in docs.flat_map(|line| line.split('`').skip(1).step_by(2)) {
            let subject = word.split("::").next().unwrap_or_default();
            if word.contains("::") && subjects.contains(subject) {
                assert!(names.contains(word), "the contract names {word}");
                named += 1;
            }
        }
    }
    assert!(named > 30, "the contract names only {named} rules");
}
