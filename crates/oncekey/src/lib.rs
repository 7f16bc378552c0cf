//! Makes any operation safe to retry.
#![forbid(unsafe_code)]

mod engine;
mod fingerprint;
mod key;
pub mod observe;
pub mod operate;
pub mod runtime;
pub mod store;
pub mod transaction;

pub use engine::{
    Attempt, CodecError, Encoded, Failure, Idempotency, Interruption, Outcome, RecordError,
    RunError, StepError, Verdict, Verify,
};
pub use fingerprint::{Fingerprint, FingerprintBuilder};
pub use key::{ChildKey, Key, KeyError, KeyHasher, Scope};
