//! What a response says of the effect behind it: [`Knowledge`].

use http::{HeaderMap, HeaderName, StatusCode, header, response};

use crate::{IDEMPOTENCY_PROBLEM, ProblemKind};

/// What is known of an operation that has answered.
///
/// A handler that knows puts it into the extensions of its response, and that decides. For all others
/// there are defaults: [`by_head`](Self::by_head) and [`by_grpc_code`](Self::by_grpc_code). None of them ever
/// says [`NotStarted`](Self::NotStarted): that would let a retry do it all again, and whoever sees only a status
/// cannot know whether it is the handler's own, given before it did anything, or one that the handler passes
/// on, of somebody whom it asked last.
///
/// ```
/// use http::{Response, StatusCode};
/// use oncekey_http::Knowledge;
///
/// let mut refused = Response::new("the card processor is closed; nothing was charged");
/// *refused.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
/// refused.extensions_mut().insert(Knowledge::NotStarted);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Knowledge {
    /// It is done, or refused for good: the response is stored, and every duplicate gets it.
    Done,
    /// It is done, and the response must not be stored, being a secret or a stream: duplicates are told
    /// that it is done.
    DoneNotKept,
    /// Nothing was done: the key is released, and a retry runs.
    NotStarted,
    /// The outcome is unknown: the guarantee of the engine decides what a retry does.
    Unknown,
}

impl Knowledge {
    /// What a status says if nobody knows better.
    ///
    /// | status | is taken for | since |
    /// |---|---|---|
    /// | 2xx, 3xx | done | |
    /// | 4xx, but for those below | done | an answer, also where it is no |
    /// | 401, 407, 421, 425 | unknown | they are about one sending of a request, so they must not be replayed to another |
    /// | 408, 499 | unknown | somebody stopped waiting in the middle |
    /// | 429 | unknown | a temporary refusal |
    /// | 5xx | unknown | anything may have happened |
    /// | 101 | done, not kept | what follows is no response |
    /// | other 1xx | unknown | no final response |
    ///
    /// So a handler's validation is kept as an answer (400, 404, 415, 422): the unchanged request would fail it
    /// again, and a mended one is another request, which needs a key of its own. The draft asks for errors to
    /// be replayed as successes are. Stripe saves no result where validation fails before the endpoint begins;
    /// here, that is what is checked by a layer outside, before the key is claimed.
    ///
    /// A status cannot tell an answer of the handler's own from one that it passes on. What is not final where it
    /// comes from, as a conflict with what another service is doing, the handler marks [`Unknown`](Self::Unknown).
    #[must_use]
    pub fn by_status(status: StatusCode) -> Self {
        match status.as_u16() {
            101 => Self::DoneNotKept,
            401 | 407 | 408 | 421 | 425 | 429 | 499 => Self::Unknown,
            200..500 => Self::Done,
            _ => Self::Unknown,
        }
    }

    /// What the head of a response says if nobody knows better: as [`by_status`](Self::by_status), but a
    /// refusal (4xx) with `Retry-After` is not final, and so unknown. A 409 in progress that a handler passes on
    /// is one.
    #[must_use]
    pub fn by_head(head: &response::Parts) -> Self {
        let temporary =
            head.status.is_client_error() && head.headers.contains_key(header::RETRY_AFTER);
        if temporary { Self::Unknown } else { Self::by_status(head.status) }
    }

    /// What a gRPC status code says if nobody knows better.
    ///
    /// | code | is taken for |
    /// |---|---|
    /// | `OK`, `INVALID_ARGUMENT`, `NOT_FOUND`, `ALREADY_EXISTS`, `PERMISSION_DENIED`, `FAILED_PRECONDITION`, `OUT_OF_RANGE`, `UNIMPLEMENTED` | done |
    /// | all others, also `UNAUTHENTICATED` | unknown |
    #[must_use]
    pub const fn by_grpc_code(code: u16) -> Self {
        match code {
            0 | 3 | 5 | 6 | 7 | 9 | 11 | 12 => Self::Done,
            _ => Self::Unknown,
        }
    }

    /// What the `grpc-status` in `trailers` (or in the headers of a response that has no message) says;
    /// `None` if there is none that can be read.
    ///
    /// Beside an error, `idempotency-problem` says more: a handler that passes on the status of another
    /// service passes it on, too. It makes final only what the code it came with says: one that was put
    /// under another code is not trusted so far.
    #[must_use]
    pub fn by_grpc_status(trailers: &HeaderMap) -> Option<Self> {
        let text = |name| trailers.get(name)?.to_str().ok();
        let code = text(HeaderName::from_static("grpc-status"))?.parse().ok()?;
        let problem = text(IDEMPOTENCY_PROBLEM).filter(|_| code != 0);
        let problem = problem
            .and_then(ProblemKind::of_slug)
            .filter(|problem| problem.knowledge() != Self::Done || problem.grpc_code() == code);
        Some(problem.map_or_else(|| Self::by_grpc_code(code), ProblemKind::knowledge))
    }
}
