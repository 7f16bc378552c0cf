//! The conformance suite for oncekey stores.
#![forbid(unsafe_code)]

mod fixture;
mod verdict;

pub use fixture::{Capabilities, Capability, Damage, Fixture};
pub use verdict::{Verdict, Violation};
