//! How many tests passed, read from the closing lines of the runners.

use std::{fmt, ops::AddAssign};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// Chosen, but not reached before the runner stopped.
    pub(crate) unreached: u64,
}

impl Counts {
    /// Reads `Summary [ 0.1s] 3 tests run: 2 passed (1 slow), 1 failed, 4 skipped`, which nextest
    /// prints on stderr.
    pub(crate) fn from_nextest(stderr: &str) -> Option<Self> {
        let plain = without_colours(stderr);
        let line = plain.lines().rfind(|line| line.trim_start().starts_with("Summary ["))?;
        let (_, rest) = line.split_once(']')?;
        let (run, outcomes) = rest.split_once(" run: ")?;

        let mut counts = Self::default();
        let run = run.split_whitespace().next()?;
        if let Some((run, chosen)) = run.split_once('/') {
            counts.unreached = chosen.parse::<u64>().ok()?.checked_sub(run.parse().ok()?)?;
        }
        for outcome in without_parentheses(outcomes).split(',') {
            let (number, kind) = outcome.trim().split_once(' ')?;
            let number: u64 = number.parse().ok()?;
            match kind.trim() {
                "passed" => counts.passed += number,
                "skipped" => counts.skipped += number,
                // "failed", "timed out", "exec failed": nextest has several words for it.
                _ => counts.failed += number,
            }
        }
        Some(counts)
    }

    /// Adds up `test result: ok. 3 passed; 0 failed; 1 ignored; ...`, which every test binary
    /// prints on stdout.
    pub(crate) fn from_cargo_test(stdout: &str) -> Option<Self> {
        let mut total = None;
        for line in without_colours(stdout).lines() {
            let Some(rest) = line.trim().strip_prefix("test result: ") else {
                continue;
            };
            let (_, outcomes) = rest.split_once(". ")?;
            let counts: &mut Self = total.get_or_insert_default();
            for outcome in outcomes.split(';') {
                let Some((number, kind)) = outcome.trim().split_once(' ') else {
                    continue;
                };
                let Ok(number) = number.parse::<u64>() else {
                    continue;
                };
                match kind {
                    "passed" => counts.passed += number,
                    "failed" => counts.failed += number,
                    "ignored" | "filtered out" => counts.skipped += number,
                    _ => {}
                }
            }
        }
        total
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.unreached += other.unreached;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)?;
        if self.unreached > 0 {
            write!(f, ", {} not reached", self.unreached)?;
        }
        Ok(())
    }
}

fn without_parentheses(text: &str) -> String {
    let mut depth = 0_u32;
    text.chars()
        .filter(|c| {
            match c {
                '(' => depth += 1,
                ')' => {
                    depth = depth.saturating_sub(1);
                    return false;
                }
                _ => {}
            }
            depth == 0
        })
        .collect()
}

/// Drops terminal sequences of the form ESC [ ... letter.
fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn nextest_all_passed() {
        let counts = Counts::from_nextest(
            "  PASS x\n     Summary [   0.009s] 3 tests run: 3 passed, 0 skipped\n",
        );

        assert_eq!(counts, Some(Counts { passed: 3, ..Counts::default() }));
    }

    #[test]
    fn nextest_every_kind_of_failure_counts() {
        let line = "     Summary [  10.0s] 9/12 tests run: 4 passed (1 slow, 1 leaky), \
                    2 failed (1 due to being leaky), 1 exec failed, 2 timed out, 5 skipped";

        assert_eq!(
            Counts::from_nextest(line),
            Some(Counts { passed: 4, failed: 5, skipped: 5, unreached: 3 })
        );
    }

    #[test]
    fn nextest_in_colour() {
        let line = "\u{1b}[32;1m     Summary\u{1b}[0m [   0.0s] \u{1b}[1m1\u{1b}[0m test run: \
                    \u{1b}[1m1\u{1b}[0m \u{1b}[32;1mpassed\u{1b}[0m, \u{1b}[1m2\u{1b}[0m skipped";

        assert_eq!(
            Counts::from_nextest(line),
            Some(Counts { passed: 1, skipped: 2, ..Counts::default() })
        );
    }

    #[test]
    fn nextest_without_a_summary_has_no_counts() {
        assert_eq!(Counts::from_nextest("error: could not compile `x`"), None);
        assert_eq!(Counts::from_nextest("Summary [ 1s ] soon"), None);
    }

    #[test]
    fn cargo_test_adds_up_its_binaries() {
        let stdout = "\
running 2 tests
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.1s
";

        assert_eq!(
            Counts::from_cargo_test(stdout),
            Some(Counts { passed: 3, failed: 3, skipped: 3, unreached: 0 })
        );
        assert_eq!(Counts::from_cargo_test("nothing was run"), None);
    }

    #[test]
    fn are_shown_on_one_line() {
        let mut counts = Counts { passed: 2, failed: 1, skipped: 0, unreached: 0 };
        assert_eq!(counts.to_string(), "2 passed, 1 failed, 0 skipped");

        counts += Counts { unreached: 4, ..Counts::default() };
        assert_eq!(counts.to_string(), "2 passed, 1 failed, 0 skipped, 4 not reached");
    }
}
