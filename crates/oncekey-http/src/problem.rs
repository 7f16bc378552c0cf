//! Refusals, as clients see them: [`Problem`], by RFC 9457 or as a status of gRPC.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use oncekey::store::{ErrorKind, StoreError};
use oncekey::{RecordError, RunError};
use serde_json::Value;

use crate::{IDEMPOTENCY_PROBLEM, KeyHeaderError, ProblemKind};

/// What the `type` of every problem begins with, unless a service documents them itself. The
/// [slug](ProblemKind::slug) follows.
///
/// It is an identifier for clients to compare, as a whole, and as such it never changes. It also leads to
/// [`problems`](crate::problems), for as long as that page is where it is; a service that wants to promise more
/// documents its problems under a base of its own.
pub const DEFAULT_TYPE_BASE: &str =
    "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#";

/// The longest that a client is asked to wait for a request in progress. Its lease may last longer, and
/// most requests end long before their leases do.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(5);
const SHORTLY: Duration = Duration::from_secs(1);

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
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Some(SHORTLY),
            _ => None,
        };
        Self { kind, detail: Cow::Borrowed(kind.detail()), retry_after }
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
    /// | `InDoubt` | [`OutcomeUnknown`](ProblemKind::OutcomeUnknown) | 500 |
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
            // `InDoubt` among them.
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
    /// its extensions, and what it [says](ProblemKind::knowledge) of an operation that passes it on.
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
        response.extensions_mut().insert(self.kind.knowledge());
        response
    }

    /// The response in gRPC: a status without a message, and the slug of the kind as `idempotency-problem`.
    /// When to retry is told as `grpc-retry-pushback-ms`.
    #[must_use]
    pub fn into_grpc_response(self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(self.kind.grpc_code()));
        headers.insert(IDEMPOTENCY_PROBLEM, HeaderValue::from_static(self.kind.slug()));
        if let Ok(message) = HeaderValue::try_from(percent_encoded(&self.detail)) {
            headers.insert("grpc-message", message);
        }
        if let Some(delay) = self.retry_after {
            let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            headers.insert("grpc-retry-pushback-ms", HeaderValue::from(delay));
        }
        response.extensions_mut().insert(self.kind);
        response.extensions_mut().insert(self.kind.knowledge());
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
