#![doc = include_str!("../README.md")]
//!
//! # Where things are
//!
//! | step | item |
//! |---|---|
//! | read the key | [`KeyHeader`], [`ClientKey`] |
//! | digest the request | [`RequestFingerprint`] |
//! | say what is known of the effect | [`Knowledge`] |
//! | keep the response | [`StoredResponse`], [`KeptHeaders`] |
//! | understand a refusal that is passed on | [`ProblemKind::of_document`], [`ProblemKind::knowledge`] |
//! | refuse | [`Problem`], [`ProblemKind`]; for clients: [`problems`] |
//! | what the draft asks for, and where it is met | [`draft`] |
#![forbid(unsafe_code)]

#[doc = include_str!("draft.md")]
pub mod draft {}
mod fingerprint;
mod kept_headers;
mod key_header;
mod knowledge;
mod problem;
mod problem_kind;
#[doc = include_str!("problems.md")]
pub mod problems {}
mod stored;
mod structured_field;

pub use fingerprint::RequestFingerprint;
pub use kept_headers::{ForbiddenHeader, KeptHeaders};
pub use key_header::{ClientKey, KeyHeader, KeyHeaderError};
pub use knowledge::Knowledge;
pub use problem::{DEFAULT_TYPE_BASE, Problem};
pub use problem_kind::ProblemKind;
pub use stored::{FrameError, StoredResponse};

use http::HeaderName;

/// The request header that carries the key, as the draft names it.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The response header that marks a replay, as `Idempotent-Replayed: true`.
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The metadata of gRPC that carries the [slug](ProblemKind::slug) of a problem beside its status.
pub const IDEMPOTENCY_PROBLEM: HeaderName = HeaderName::from_static("idempotency-problem");
