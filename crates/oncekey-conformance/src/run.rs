//! Running rules: all of them on one fixture, or one of them as a test.

use std::any::Any;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use oncekey::store::Expected;

use crate::list::{Rule, Run, rules, runs};
use crate::model::Seeds;
use crate::report::{Entry, Outcome, Report, Skip};
use crate::support::{Trial, soon};
use crate::{Capabilities, Fixture, Verdict, Violation};

/// No rule of a store that answers at once takes this long, on any machine.
const PROMPT: Duration = Duration::from_secs(300);

/// More calls, one after the other, than any rule makes unless the environment asks for more sequences.
const CALLS: u32 = 400_000;

/// Runs every rule on `fixture`, and reports every one.
///
/// A rule that panics is reported as failed. The rules run one after the other, through
/// [`Fixture::block_on`]; do not call this from within a runtime.
///
/// ```no_run
/// # fn demo<MyFixture: oncekey_conformance::Fixture>() {
/// let fixture = MyFixture::block_on(MyFixture::create());
/// let report = oncekey_conformance::run_all(&fixture);
/// println!("{report}");
/// assert!(report.is_success());
/// # }
/// ```
pub fn run_all<F: Fixture>(fixture: &F) -> Report {
    let capabilities = fixture.capabilities();
    let entries = rules().iter().zip(runs::<F>()).map(|(rule, run)| {
        let outcome = match missing(rule, &capabilities) {
            Some(skip) => Outcome::Skipped(skip),
            None => match catch_unwind(AssertUnwindSafe(|| F::block_on(bounded(fixture, run)))) {
                Ok(Ok(())) => Outcome::Passed,
                Ok(Err(violation)) => Outcome::Failed(violation),
                Err(panic) => Outcome::Failed(panicked(panic.as_ref())),
            },
        };
        Entry { rule: rule.clone(), outcome }
    });
    Report::new(entries.collect())
}

/// One test of [`suite!`](crate::suite): the rule `name` on a new fixture.
#[doc(hidden)]
#[track_caller]
pub fn run_rule<F: Fixture>(name: &str, excused: &[(&str, &str)]) {
    let mut listed = rules().iter().zip(runs::<F>());
    let Some((rule, run)) = listed.find(|(rule, _)| rule.name == name) else {
        panic!("the suite has no rule {name}");
    };
    if let Some((_, reason)) = excused.iter().find(|(rule, _)| *rule == name) {
        return print_skipped(rule, &Skip::Excused((*reason).to_owned()));
    }
    let verdict = F::block_on(async {
        let fixture = F::create().await;
        match missing(rule, &fixture.capabilities()) {
            Some(skip) => {
                print_skipped(rule, &skip);
                Ok(())
            }
            None => bounded(&fixture, run).await,
        }
    });
    if let Err(Violation { required, observed }) = verdict {
        panic!("{name}: {}\n  required: {required}\n  observed: {observed}", rule.doc);
    }
}

fn missing(rule: &Rule, capabilities: &Capabilities) -> Option<Skip> {
    let missing: Vec<_> =
        rule.needs.iter().copied().filter(|need| !capabilities.has(*need)).collect();
    (!missing.is_empty()).then_some(Skip::Missing(missing))
}

/// Past the capture of the test harness: a skipped rule must not look like a passed one.
fn print_skipped(rule: &Rule, skip: &Skip) {
    let line = format!("skipped {}: {skip}\n", rule.name);
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// The verdict of a rule, unless it takes so long that a store as slow as this one must have hung.
async fn bounded<F: Fixture>(fixture: &F, rule: Run<F>) -> Verdict {
    let pace = within(PROMPT, Box::pin(pace(fixture))).await?;
    within(limit(pace), rule(fixture)).await?
}

/// How long a rule may take of a store of which each call takes `pace`.
fn limit(pace: Duration) -> Duration {
    let calls = Duration::saturating_mul(pace, CALLS);
    PROMPT.saturating_add(calls.saturating_mul(Seeds::more_than_usual()))
}

/// What a call of this store takes: a write, since some take longer for those. What the store answers is
/// the business of the rules.
async fn pace<F: Fixture>(fixture: &F) -> Duration {
    let trial = Trial::new(fixture).await;
    let (key, claim) = (trial.key(), trial.claim());
    let began = Instant::now();
    let _ = trial.store.claim(&key, &claim).await;
    let pace = began.elapsed();
    let _ = trial.evict(&key, Expected::Attempt(claim.attempt), true).await;
    pace
}

async fn within<T>(limit: Duration, work: BoxFuture<'_, T>) -> Result<T, Violation> {
    soon(limit, work).await.map_err(|_| {
        Violation::new(
            "the store answers every call",
            format_args!("the rule has not ended after {limit:?}"),
        )
    })
}

fn panicked(panic: &(dyn Any + Send)) -> Violation {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    Violation::new("the rule runs to its end", format_args!("a panic: {message}"))
}

/// One named test for every rule of the suite, each on a new fixture: `mod claim { #[test] fn
/// grants_an_absent_key() .. }`, and so on. See the [crate documentation](crate).
///
/// A rule that the store cannot keep is excused by name, with a reason; its test then prints that it was
/// skipped, and why. The name of a rule that does not exist does not compile.
///
/// ```
/// # use oncekey_conformance::{Capabilities, Fixture};
/// # struct MyFixture;
/// # #[async_trait::async_trait]
/// # impl Fixture for MyFixture {
/// #     async fn create() -> Self { Self }
/// #     async fn open(&self) -> std::sync::Arc<dyn oncekey::store::Store> {
/// #         std::sync::Arc::new(oncekey_memory::MemoryStore::new())
/// #     }
/// #     async fn advance(&self, _: std::time::Duration) {}
/// #     fn capabilities(&self) -> Capabilities { Capabilities::real_time() }
/// # }
/// oncekey_conformance::suite!(MyFixture, skip {
///     limits::the_longest_keys_are_distinct: "the database indexes at most 767 bytes",
/// });
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! suite {
    ($fixture:ty $(,)?) => {
        $crate::suite!($fixture, skip {});
    };
    ($fixture:ty, skip { $($subject:ident :: $rule:ident : $reason:literal),* $(,)? } $(,)?) => {
        type OncekeyFixture = $fixture;

        const ONCEKEY_EXCUSED: &[(&str, &str)] = &[$({
            // Does not compile for a rule that does not exist.
            let _ = $crate::rules::$subject::$rule::<OncekeyFixture>;
            (concat!(stringify!($subject), "::", stringify!($rule)), $reason)
        }),*];

        $crate::__rules!([__tests] ());
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __tests {
    (() $($subject:ident $file:literal {
        $($rule:ident $([$($need:ident),+])?;)*
    })*) => {$(
        mod $subject {$(
            #[test]
            fn $rule() {
                $crate::run_rule::<super::OncekeyFixture>(
                    concat!(stringify!($subject), "::", stringify!($rule)),
                    super::ONCEKEY_EXCUSED,
                );
            }
        )*}
    )*};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_store_gets_more_time() {
        assert_eq!(limit(Duration::ZERO), PROMPT);
        // Longer than the longest rule takes at that pace: some hundred thousand calls.
        let slow = limit(Duration::from_millis(100));
        assert!(slow > 200_000 * Duration::from_millis(100), "{slow:?}");
        assert_eq!(limit(Duration::MAX), Duration::MAX);
    }

    #[test]
    fn what_hangs_is_given_up() {
        let hung = Box::pin(std::future::pending::<()>());
        let given_up = futures::executor::block_on(within(Duration::from_millis(1), hung));
        assert!(given_up.is_err_and(|found| found.observed.contains("has not ended")));
    }
}
