//! The kinds of refusals, each with its names, its statuses and its words: [`ProblemKind`].

use http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use crate::{DEFAULT_TYPE_BASE, Knowledge};

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
    /// The body did not arrive in time.
    BodyTooSlow,
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
    /// It was answered, and the result is no longer kept.
    ResultRetired,
    /// It was answered, and the result was not kept.
    ResultNotKept,
    /// It was answered, and the stored result cannot be read.
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
    /// The service has too many requests of this principal at work.
    TooManyRequests,
    /// The service is about to stop.
    ShuttingDown,
}

impl ProblemKind {
    /// All kinds.
    pub const ALL: &'static [Self] = &[
        Self::KeyMissing,
        Self::KeyMalformed,
        Self::NoPrincipal,
        Self::BodyIncomplete,
        Self::BodyTooSlow,
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
        Self::TooManyRequests,
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

    /// What it says of an operation that passes it on as its own answer, having asked somebody who gave
    /// it: whether a duplicate may get it, too.
    ///
    /// Those that stay true are answers, and [`Done`](Knowledge::Done). All others are
    /// [`Unknown`](Knowledge::Unknown): who was asked may have done nothing just now, but what the operation
    /// did before it asked, the problem cannot say.
    #[must_use]
    pub const fn knowledge(self) -> Knowledge {
        match self {
            Self::KeyMissing
            | Self::KeyMalformed
            | Self::BodyTooLarge
            | Self::KeyReused
            | Self::ResultRetired
            | Self::ResultNotKept => Knowledge::Done,
            Self::NoPrincipal
            | Self::BodyIncomplete
            | Self::BodyTooSlow
            | Self::InProgress
            | Self::Interrupted
            | Self::OutcomeUnknown
            | Self::ResultUnreadable
            | Self::Unrecorded
            | Self::LeaseLost
            | Self::StepUnsaved
            | Self::StepUnreadable
            | Self::StoreUnavailable
            | Self::StoreFull
            | Self::StoreFailed
            | Self::Overloaded
            | Self::TooManyRequests
            | Self::ShuttingDown => Knowledge::Unknown,
        }
    }

    /// The kind of a problem document that came over a network; `None` if it is none of these.
    ///
    /// Its `type` has to begin with `type_base`, or with the one that is the default.
    #[must_use]
    pub fn of_document(headers: &HeaderMap, body: &[u8], type_base: &str) -> Option<Self> {
        let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let media_type = content_type.split(';').next()?.trim();
        if !media_type.eq_ignore_ascii_case("application/problem+json") {
            return None;
        }
        let document: Value = serde_json::from_slice(body).ok()?;
        let uri = document.get("type")?.as_str()?;
        let slug = uri.strip_prefix(type_base).or_else(|| uri.strip_prefix(DEFAULT_TYPE_BASE))?;
        Self::of_slug(slug)
    }

    /// The kind that has this name.
    pub(crate) fn of_slug(slug: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.slug() == slug)
    }

    /// What to tell the client, unless there is more to say.
    pub(crate) const fn detail(self) -> &'static str {
        self.describe().4
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
                "The body ended before it was complete, and nothing was done this time; retry with the \
                 same key.",
            ),
            Self::BodyTooSlow => (
                "body-too-slow",
                StatusCode::REQUEST_TIMEOUT,
                4,
                "The body did not arrive in time",
                "The body took too long to arrive, and nothing was done this time; retry with the same key.",
            ),
            Self::BodyTooLarge => (
                "body-too-large",
                StatusCode::PAYLOAD_TOO_LARGE,
                8,
                "The body is too large",
                "The body is larger than this operation takes, and nothing was done this time.",
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
                "The request was answered long ago; do not send it again.",
            ),
            Self::ResultNotKept => (
                "result-not-kept",
                StatusCode::GONE,
                6,
                "The result was not kept",
                "The request was answered, and its response was not kept; do not send it again.",
            ),
            Self::ResultUnreadable => (
                "result-unreadable",
                StatusCode::INTERNAL_SERVER_ERROR,
                15,
                "The result cannot be read",
                "The request was answered, and its stored response cannot be read; do not send it again.",
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
                "The request was not started this time; retry with the same key.",
            ),
            Self::StoreFull => (
                "store-full",
                StatusCode::SERVICE_UNAVAILABLE,
                14,
                "The idempotency store is full",
                "The request was not started this time; retry with the same key.",
            ),
            Self::StoreFailed => (
                "store-failed",
                StatusCode::INTERNAL_SERVER_ERROR,
                13,
                "The idempotency store failed",
                "The request was not started this time; do not send it with another key.",
            ),
            Self::Overloaded => (
                "overloaded",
                StatusCode::SERVICE_UNAVAILABLE,
                14,
                "Too many requests are in progress",
                "The request was not started this time; retry with the same key.",
            ),
            Self::TooManyRequests => (
                "too-many-requests",
                StatusCode::TOO_MANY_REQUESTS,
                8,
                "Too many of your requests are in progress",
                "The request was not started this time; retry with the same key when others have ended.",
            ),
            Self::ShuttingDown => (
                "shutting-down",
                StatusCode::SERVICE_UNAVAILABLE,
                14,
                "The service is shutting down",
                "The request was not started this time; retry with the same key.",
            ),
        }
    }
}
