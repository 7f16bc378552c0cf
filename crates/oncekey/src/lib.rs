#![doc = include_str!("../README.md")]
//!
//! # Where things are
//!
//! - This module: what users need. [`Idempotency`] is the engine; [`Key`], [`Scope`] and
//!   [`Fingerprint`] are what it is given, [`Attempt`] what an operation is given, [`Outcome`] and
//!   [`RunError`] what comes back.
//! - [`store`]: what store authors need: the contract, the rules, the data on both sides.
//! - [`transaction`]: what authors of stores with transactions need besides.
//! - [`observe`] and [`operate`]: watching over it, and keeping it in order.
//! - [`runtime`]: timers, clocks and randomness, all replaceable.
//!
//! # Crate features
//! None is on by default, and none changes a default.
//! - `tokio`: [`runtime`]'s `TokioTimer`, which follows tokio's clock, also a paused one.
//! - `tracing`: [`observe`]'s `TracingObserver`.
//! - `metrics`: [`observe`]'s `MetricsObserver`.
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
    Attempt, CodecError, Effect, Encoded, Failure, Idempotency, Interruption, Outcome, RecordError,
    RunError, StepError, Verdict, Verify,
};
pub use fingerprint::{Fingerprint, FingerprintBuilder};
pub use key::{ChildKey, Key, KeyError, KeyHasher, Scope};
