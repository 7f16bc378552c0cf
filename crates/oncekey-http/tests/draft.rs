//! The table of the draft names tests that are there.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

const TABLE: &str = include_str!("../src/draft.md");
const CRATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// What is in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_requirement_names_tests_that_exist() {
    let rows: Vec<_> =
        TABLE.lines().filter(|line| line.starts_with("| 2.") || line.starts_with("| 5 ")).collect();
    assert!(rows.len() >= 14, "{} rows", rows.len());
    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let mut source = None;
        let mut found = 0;
        for name in quoted(tests) {
            if let Some((folder, file)) = name.split_once('/') {
                let path = format!("{CRATES}/oncekey-{folder}/tests/{file}.rs");
                source = Some(std::fs::read_to_string(&path).expect(&path));
                found += usize::from(!tests.contains(':'));
            } else {
                let source = source.as_ref().expect("a file is named before its tests");
                assert!(
                    source.contains(&format!("fn {name}(")),
                    "there is no test `{name}`: {row}"
                );
                found += 1;
            }
        }
        assert!(found > 0, "no test is named: {row}");
    }
}
