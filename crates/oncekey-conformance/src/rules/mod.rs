//! The rules, by subject. Each is a function of a fixture, with its requirement as its doc line.

pub mod cancel;
pub mod claim;
pub mod clock;
pub mod complete;
pub mod contention;
pub mod corrupt;
pub mod expiry;
pub mod fencing;
pub mod fingerprint;
pub mod fixture;
pub mod inspect;
pub mod limits;
pub mod operator;
pub mod purge;
pub mod release;
pub mod renew;
pub mod reopen;
pub mod replay;
pub mod retry;
pub mod watch;

pub use crate::{history, model};
