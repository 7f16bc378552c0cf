//! Recorded histories of many clients, checked for linearizability against the rules.

mod check;
mod legend;
mod log;
mod operation;
mod range;

pub use self::check::{Counterexample, check};
pub(crate) use self::legend::Legend;
pub use self::log::{Call, CallId, History, Phase, Reply};
pub use self::operation::{Answer, Operation};
pub use self::range::Window;
pub(crate) use self::range::{Range, allowed, next_change};
