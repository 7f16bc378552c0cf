//! The table: rules down, backends across, then the reasons, then the totals.

use super::report::{Cell, Column, Merged, RuleVerdict};

pub(super) fn render(merged: &Merged) -> String {
    let mut text = grid(merged);
    let reasons = reasons(merged);
    if !reasons.is_empty() {
        text.push_str(&format!("\n{reasons}"));
    }
    text.push('\n');
    for column in &merged.backends {
        text.push_str(&format!("{}\n", total(column)));
    }
    text
}

fn grid(merged: &Merged) -> String {
    const HEAD: &str = "rule";
    let names = merged.rules.iter().map(|row| row.name.as_str());
    let first = names.chain([HEAD]).map(width).max().unwrap_or_default();

    let mut lines = vec![line(HEAD, first, merged.backends.iter().map(|c| (c, c.name.as_str())))];
    for row in &merged.rules {
        let marks = merged.backends.iter().map(|c| (c, mark(row.results.get(&c.name))));
        lines.push(line(&row.name, first, marks));
    }
    lines.concat()
}

/// Cells are as wide as the name of their backend.
fn line<'a>(
    head: &str,
    first: usize,
    cells: impl Iterator<Item = (&'a Column, &'a str)>,
) -> String {
    let mut line = pad(head, first);
    for (column, cell) in cells {
        line.push_str("  ");
        line.push_str(&pad(cell, width(&column.name)));
    }
    format!("{}\n", line.trim_end())
}

fn mark(cell: Option<&Cell>) -> &'static str {
    match cell.map(|cell| cell.verdict) {
        Some(RuleVerdict::Passed) => "✓",
        Some(RuleVerdict::Failed) => "✗",
        Some(RuleVerdict::Skipped) => "–",
        None => "?",
    }
}

/// Why a cell is no tick, and why a column is empty.
fn reasons(merged: &Merged) -> String {
    let mut lines = String::new();
    for column in &merged.backends {
        if let Some(error) = &column.error {
            lines.push_str(&format!("! {}: {error}\n", column.name));
            continue;
        }
        for row in &merged.rules {
            let cell = row.results.get(&column.name);
            let why = match cell {
                Some(Cell { verdict: RuleVerdict::Passed, .. }) => continue,
                Some(cell) if cell.detail.is_empty() => "no reason given",
                Some(cell) => cell.detail.as_str(),
                None => "not reported",
            };
            lines.push_str(&format!("{} {} on {}: {why}\n", mark(cell), row.name, column.name));
        }
    }
    lines
}

fn total(column: &Column) -> String {
    if column.error.is_some() {
        return format!("{}: could not be run", column.name);
    }
    let totals = column.totals;
    let mut line = format!(
        "{}: {} passed, {} failed, {} skipped",
        column.name, totals.passed, totals.failed, totals.skipped
    );
    if totals.missing > 0 {
        line.push_str(&format!(", {} not reported", totals.missing));
    }
    line
}

fn pad(text: &str, to: usize) -> String {
    format!("{text}{}", " ".repeat(to.saturating_sub(width(text))))
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::{Merged, render};
    use crate::conformance::report::tests::report;

    #[test]
    fn columns_are_aligned_and_reasons_follow() {
        let near =
            report("near", &["claim::is_exclusive passed", "purge::keeps failed it is gone"]);
        let far =
            report("far", &["claim::is_exclusive passed", "reopen::survives skipped no disk"]);
        let merged = Merged::new(vec![
            ("near".into(), Ok(near)),
            ("far".into(), Ok(far)),
            ("gone".into(), Err("no server".into())),
        ]);

        assert_eq!(
            render(&merged),
            "\
rule                 near  far  gone
claim::is_exclusive  ✓     ✓    ?
purge::keeps         ✗     ?    ?
reopen::survives     ?     –    ?

✗ purge::keeps on near: it is gone
? reopen::survives on near: not reported
? purge::keeps on far: not reported
– reopen::survives on far: no disk
! gone: no server

near: 1 passed, 1 failed, 0 skipped, 1 not reported
far: 1 passed, 0 failed, 1 skipped, 1 not reported
gone: could not be run
"
        );
    }

    #[test]
    fn without_reasons_the_totals_follow() {
        let merged = Merged::new(vec![("near".into(), Ok(report("near", &["a passed"])))]);

        assert_eq!(render(&merged), "rule  near\na     ✓\n\nnear: 1 passed, 0 failed, 0 skipped\n");
    }
}
