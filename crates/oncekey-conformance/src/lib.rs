//! The conformance suite for oncekey stores.
#![forbid(unsafe_code)]

mod fixture;
pub mod history;
mod list;
pub mod model;
mod report;
pub mod rules;
mod run;
mod support;
mod verdict;

pub use fixture::{Capabilities, Capability, Damage, Fixture};
pub use list::{Rule, rules};
pub use report::{Entry, Outcome, Report, Skip};
pub use run::run_all;
#[doc(hidden)]
pub use run::run_rule;
pub use verdict::{Verdict, Violation};
