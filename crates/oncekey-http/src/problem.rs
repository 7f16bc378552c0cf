//! Refusals, as clients see them: [`Problem`], by RFC 9457 or as a status of gRPC.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use oncekey::store::{ErrorKind, StoreError};
use oncekey::{RecordError, RunError};
use serde_json::Value;

use crate::KeyHeaderError;

/// What the `type` of every problem begins with, unless a service documents them itself. The
/// [slug](ProblemKind::slug) follows. It leads to [`problems`](crate::problems).
pub const DEFAULT_TYPE_BASE: &str =
    "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#";

/// The longest that a client is asked to wait for a request in progress. Its lease may last longer, and
/// most requests end long before their leases do.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(5);
const SHORTLY: Duration = Duration::from_secs(1);

/// Why a request got no answer of its own. [`problems`](crate::problems) says of each what a client
/// should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// There is no key, and one is required.
    KeyMissing,
    /// The key cannot be read.
    KeyMalformed,
    /// It is not known who asks.
    NoPrincipal,
    /// The body ended before it was complete.
    BodyIncomplete,
    /// The body is larger than the service takes.
    BodyTooLarge,
    /// The same request is being worked on.
    InProgress,
    /// The key was used for another request.
    KeyReused,
    /// An earlier attempt was interrupted, and running again is not allowed.
    Interrupted,
    /// The handler was stopped in the middle.
    OutcomeUnknown,
    /// It is done, and the result is no longer kept.
    ResultRetired,
    /// It is done, and the result was not kept.
    ResultNotKept,
    /// It is done, and the stored result cannot be read.
    ResultUnreadable,
    /// It is done, and the record of it is another one.
    Unrecorded,
    /// The right to run was lost before the handler started, or at a step.
    LeaseLost,
    /// The handler was stopped at a step that could not be saved.
    StepUnsaved,
    /// The handler was stopped at a step whose saved result cannot be read.
    StepUnreadable,
    /// The store cannot be reached.
    StoreUnavailable,
    /// The store has no room for another key.
    StoreFull,
    /// The store is broken in a way that does not pass by itself.
    StoreFailed,
    /// The service has too many requests at work.
    Overloaded,
    /// The service is about to stop.
    ShuttingDown,
}

impl ProblemKind {
    /// All kinds.
    pub const ALL: [Self; 21] = [
        Self::KeyMissing,
        Self::KeyMalformed,
        Self::NoPrincipal,
        Self::BodyIncomplete,
        Self::BodyTooLarge,
        Self::InProgress,
        Self::KeyReused,
        Self::Interrupted,
        Self::OutcomeUnknown,
        Self::ResultRetired,
        Self::ResultNotKept,
        Self::ResultUnreadable,
        Self::Unrecorded,
        Self::LeaseLost,
        Self::StepUnsaved,
        Self::StepUnreadable,
        Self::StoreUnavailable,
        Self::StoreFull,
        Self::StoreFailed,
        Self::Overloaded,
        Self::ShuttingDown,
    ];

    /// The stable name: the end of the `type`, and a label for metrics.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        self.describe().0
    }

    /// The status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.describe().1
    }

    /// The status code of gRPC.
    #[must_use]
    pub const fn grpc_code(self) -> u16 {
        self.describe().2
    }

    /// The `title`, the same for every problem of this kind.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.describe().3
    }

    const fn describe(self) -> (&'static str, StatusCode, u16, &'static str, &'static str) {
        match self {
            Self::KeyMissing => (
                "key-missing",
                StatusCode::BAD_REQUEST,
                3,
                "The idempotency key is missing",
                "This operation requires an idempotency key; send one that is unique to the request.",
            ),
            Self::KeyMalformed => (
                "key-malformed",
                StatusCode::BAD_REQUEST,
                3,
                "The idempotency key cannot be read",
                "Send one idempotency key, as a string of printable ASCII in double quotes.",
            ),
            Self::NoPrincipal => (
                "no-principal",
                StatusCode::FORBIDDEN,
                7,
                "It is not known who asks",
                "An idempotency key is kept for whoever sent it; send the request with who you are.",
            ),
            Self::BodyIncomplete => (
                "body-incomplete",
                StatusCode::BAD_REQUEST,
                3,
                "The body is incomplete",
                "The body ended before it was complete, and nothing was done; retry with the same key.",
            ),
            Self::BodyTooLarge => (
                "body-too-large",
                StatusCode::PAYLOAD_TOO_LARGE,
                8,
                "The body is too large",
                "The body is larger than this operation takes, and nothing was done.",
            ),
            Self::InProgress => (
                "in-progress",
                StatusCode::CONFLICT,
                10,
                "A request with this idempotency key is in progress",
                "The same request is being worked on; retry with the same key to get its result.",
            ),
            Self::KeyReused => (
                "key-reused",
                StatusCode::UNPROCESSABLE_ENTITY,
                3,
                "The idempotency key was used for another request",
                "This key belongs to a request with other content; send a new key for a new request.",
            ),
            Self::Interrupted => (
                "interrupted",
                StatusCode::CONFLICT,
                9,
                "An earlier attempt was interrupted",
                "It is not known whether an earlier attempt did its work, so it is not repeated; do \
                 not send the request with another key before that is found out.",
            ),
            Self::OutcomeUnknown => (
                "outcome-unknown",
                StatusCode::INTERNAL_SERVER_ERROR,
                2,
                "The outcome is unknown",
                "The request failed in the middle, and may have done its work; retry with the same key.",
            ),
            Self::ResultRetired => (
                "result-retired",
                StatusCode::GONE,
                6,
                "The result is no longer kept",
                "The request was done long ago; do not send it again.",
            ),
            Self::ResultNotKept => (
                "result-not-kept",
                StatusCode::GONE,
                6,
                "The result was not kept",
                "The request is done, and its response could not be kept; do not send it again.",
            ),
            Self::ResultUnreadable => (
                "result-unreadable",
                StatusCode::INTERNAL_SERVER_ERROR,
                15,
                "The result cannot be read",
                "The request is done, and its stored response cannot be read; do not send it again.",
            ),
            Self::Unrecorded => (
                "unrecorded",
                StatusCode::INTERNAL_SERVER_ERROR,
                13,
                "The result could not be recorded",
                "The request was done, and another attempt at it may have been made meanwhile; retry \
                 with the same key to learn what is recorded.",
            ),
            Self::LeaseLost => (
                "lease-lost",
                StatusCode::SERVICE_UNAVAILABLE,
                14,
                "The right to run was lost",
                "The request could not be worked on in time; retry with the same key.",
            ),
            Self::StepUnsaved => (
                "step-unsaved",
                StatusCode::SERVICE_UNAVAILABLE,
                14,
                "The progress could not be saved",
                "The request was stopped after a part of it; retry with the same key.",
            ),
            Self::StepUnreadable => (
                "step-unreadable",
                StatusCode::INTERNAL_SERVER_ERROR,
                13,
                "The saved progress cannot be read",
                "The request was stopped after a part of it; do not send it with another key.",
            ),
            Self::StoreUnavailable => (
                "store-unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                14,
                "The idempotency store is unavailable",
                "The request was not started; retry with the same key.",
            ),
            Self::StoreFull => (
                "store-full",
                StatusCode::SERVICE_UNAVAILABLE,
                14,
                "The idempotency store is full",
                "The request was not started; retry with the same key.",
            ),
            Self::StoreFailed => (
                "store-failed",
                StatusCode::INTERNAL_SERVER_ERROR,
                13,
                "The idempotency store failed",
                "The request was not started here; do not send it with another key.",
            ),
            Self::Overloaded => (
                "overloaded",
                StatusCode::SERVICE_UNAVAILABLE,
                14,
                "Too many requests are in progress",
                "The request was not started; retry with the same key.",
            ),
            Self::ShuttingDown => (
                "shutting-down",
                StatusCode::SERVICE_UNAVAILABLE,
                14,
                "The service is shutting down",
                "The request was not started; retry with the same key.",
            ),
        }
    }
}

/// One refusal. It never carries a key, a body or a fingerprint.
///
/// ```
/// use oncekey_http::{DEFAULT_TYPE_BASE, Problem, ProblemKind};
///
/// let response = Problem::new(ProblemKind::KeyReused).into_response(DEFAULT_TYPE_BASE);
/// assert_eq!(response.status(), 422);
/// assert_eq!(response.headers()["content-type"], "application/problem+json");
/// let body = String::from_utf8(response.into_body().to_vec()).unwrap();
/// assert!(body.contains(r#""type":"https://docs.rs/oncekey-http/latest/"#));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    kind: ProblemKind,
    detail: Cow<'static, str>,
    retry_after: Option<Duration>,
}

impl Problem {
    /// A problem of `kind`.
    #[must_use]
    pub const fn new(kind: ProblemKind) -> Self {
        let retry_after = match kind.status() {
            StatusCode::SERVICE_UNAVAILABLE => Some(SHORTLY),
            _ => None,
        };
        Self { kind, detail: Cow::Borrowed(kind.describe().4), retry_after }
    }

    /// What to tell a client of a run that has no result; `None` where the operation itself has
    /// failed, and so has an answer of its own.
    ///
    /// | error | problem | |
    /// |---|---|---|
    /// | `NotStarted`, `Unknown` | none | the response of the handler is the answer |
    /// | `Busy` | [`InProgress`](ProblemKind::InProgress) | 409, `Retry-After` |
    /// | `Mismatch` | [`KeyReused`](ProblemKind::KeyReused) | 422 |
    /// | `Interrupted` | [`Interrupted`](ProblemKind::Interrupted) | 409, without `Retry-After`: waiting alone does not help |
    /// | `Retired` | [`ResultRetired`](ProblemKind::ResultRetired) | 410 |
    /// | `NotReplayable` | [`ResultNotKept`](ProblemKind::ResultNotKept) | 410 |
    /// | `LeaseLost` | [`LeaseLost`](ProblemKind::LeaseLost) | 503, `Retry-After` |
    /// | `StepUnsaved` | [`StepUnsaved`](ProblemKind::StepUnsaved) | 503, `Retry-After` |
    /// | `StepUnreadable` | [`StepUnreadable`](ProblemKind::StepUnreadable) | 500 |
    /// | `Unrecorded` | [`Unrecorded`](ProblemKind::Unrecorded) | 500; see [`is_answered`](Self::is_answered) |
    /// | `Codec` | [`ResultUnreadable`](ProblemKind::ResultUnreadable) | 500 |
    /// | `Store` | [`StoreUnavailable`](ProblemKind::StoreUnavailable), [`StoreFull`](ProblemKind::StoreFull) | 503, `Retry-After` |
    /// | `Store`, corrupt, misconfigured or too large | [`StoreFailed`](ProblemKind::StoreFailed) | 500 |
    #[must_use]
    pub fn of_run<E>(error: &RunError<E>) -> Option<Self> {
        let kind = match error {
            RunError::NotStarted(_) | RunError::Unknown(_) => return None,
            RunError::Busy { retry_after } => {
                let retry_after = (*retry_after).clamp(SHORTLY, LONGEST_RETRY_AFTER);
                return Some(Self::new(ProblemKind::InProgress).with_retry_after(retry_after));
            }
            RunError::Mismatch => ProblemKind::KeyReused,
            RunError::Interrupted => ProblemKind::Interrupted,
            RunError::Retired => ProblemKind::ResultRetired,
            RunError::NotReplayable => ProblemKind::ResultNotKept,
            RunError::LeaseLost => ProblemKind::LeaseLost,
            RunError::StepUnsaved(_) => ProblemKind::StepUnsaved,
            RunError::StepUnreadable(_) => ProblemKind::StepUnreadable,
            RunError::Unrecorded { .. } => ProblemKind::Unrecorded,
            RunError::Codec(_) => ProblemKind::ResultUnreadable,
            RunError::Store(error) => Self::kind_of_store_error(error),
            _ => ProblemKind::OutcomeUnknown,
        };
        Some(Self::new(kind))
    }

    /// Whether a run that could not be recorded for this reason is best answered with the response that
    /// it gave.
    ///
    /// When the store failed, yes: the client learns what was done and has no reason to ask again, which
    /// after the lease might do it again. When somebody else has the key by now, no: the client should
    /// ask again, and get what all others get.
    #[must_use]
    pub const fn is_answered(error: &RecordError) -> bool {
        matches!(error, RecordError::Store(_))
    }

    const fn kind_of_store_error(error: &StoreError) -> ProblemKind {
        match error.kind() {
            ErrorKind::Full => ProblemKind::StoreFull,
            _ if error.is_retryable() => ProblemKind::StoreUnavailable,
            _ => ProblemKind::StoreFailed,
        }
    }

    /// Asks the client to retry after `delay`, told in whole seconds, rounded up.
    #[must_use]
    pub const fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Says what exactly is wrong. Must not contain anything that a client sent.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = detail.into();
        self
    }

    /// The kind.
    #[must_use]
    pub const fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// The `detail`.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// When to retry, if that makes sense.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The response, its `type` being `type_base` and the slug of the kind. The [`ProblemKind`] is in
    /// its extensions.
    #[must_use]
    pub fn into_response(self, type_base: &str) -> Response<Bytes> {
        let status = self.kind.status();
        let text = |text: &str| Value::from(text).to_string();
        let body = format!(
            r#"{{"type":{},"title":{},"status":{},"detail":{}}}"#,
            text(&format!("{type_base}{}", self.kind.slug())),
            text(self.kind.title()),
            status.as_u16(),
            text(&self.detail),
        );
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static("en"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(delay) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(delay)));
        }
        response.extensions_mut().insert(self.kind);
        response
    }

    /// The response in gRPC: a status without a message. When to retry is told as
    /// `grpc-retry-pushback-ms`.
    #[must_use]
    pub fn into_grpc_response(self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(self.kind.grpc_code()));
        if let Ok(message) = HeaderValue::try_from(percent_encoded(&self.detail)) {
            headers.insert("grpc-message", message);
        }
        if let Some(delay) = self.retry_after {
            let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            headers.insert("grpc-retry-pushback-ms", HeaderValue::from(delay));
        }
        response.extensions_mut().insert(self.kind);
        response
    }
}

impl From<KeyHeaderError> for Problem {
    fn from(error: KeyHeaderError) -> Self {
        Self::new(ProblemKind::KeyMalformed).with_detail(error.to_string())
    }
}

fn whole_seconds(delay: Duration) -> u64 {
    delay.as_secs() + u64::from(delay.subsec_nanos() > 0)
}

/// As gRPC wants messages: what is not printable ASCII, and the percent sign, as `%XX`.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, 0x20..=0x7e) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
