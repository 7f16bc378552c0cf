//! Makes any operation safe to retry.
#![forbid(unsafe_code)]

mod fingerprint;
mod key;
pub mod runtime;
pub mod store;

pub use fingerprint::{Fingerprint, FingerprintBuilder};
pub use key::{ChildKey, Key, KeyError, KeyHasher, Scope};
