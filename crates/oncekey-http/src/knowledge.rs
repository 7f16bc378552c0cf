//! What a response says of the effect behind it: [`Knowledge`].

use http::{HeaderMap, StatusCode};

/// What is known of an operation that has answered.
///
/// A handler that knows puts it into the extensions of its response, and that decides. For all others
/// there are defaults: [`by_status`](Self::by_status) and [`by_grpc_code`](Self::by_grpc_code).
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
    /// | 101 | done, not kept | what follows is no response |
    /// | 1xx to 4xx, but for those below | done | an answer, also where it is no |
    /// | 401, 421, 425 | not started | their definitions say that the request was not applied |
    /// | 408 | unknown | layers that stop a handler in the middle answer with it |
    /// | 429 | unknown | it may be passed on, of somebody asked after something was done |
    /// | 5xx | unknown | anything may have happened |
    ///
    /// A handler that answers 429 before it does anything says so by [`NotStarted`](Self::NotStarted). One that
    /// passes on the 401 of somebody else after it did something has to say that, too.
    #[must_use]
    pub fn by_status(status: StatusCode) -> Self {
        match status {
            StatusCode::SWITCHING_PROTOCOLS => Self::DoneNotKept,
            StatusCode::UNAUTHORIZED | StatusCode::MISDIRECTED_REQUEST | StatusCode::TOO_EARLY => {
                Self::NotStarted
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Self::Unknown,
            status if status.as_u16() < 500 => Self::Done,
            _ => Self::Unknown,
        }
    }

    /// What a gRPC status code says if nobody knows better.
    ///
    /// | code | is taken for |
    /// |---|---|
    /// | `OK`, `INVALID_ARGUMENT`, `NOT_FOUND`, `ALREADY_EXISTS`, `PERMISSION_DENIED`, `FAILED_PRECONDITION`, `OUT_OF_RANGE`, `UNIMPLEMENTED` | done |
    /// | `UNAUTHENTICATED` | not started |
    /// | all others | unknown |
    #[must_use]
    pub const fn by_grpc_code(code: u16) -> Self {
        match code {
            0 | 3 | 5 | 6 | 7 | 9 | 11 | 12 => Self::Done,
            16 => Self::NotStarted,
            _ => Self::Unknown,
        }
    }

    /// What the `grpc-status` in `trailers` (or in the headers of a response that has no message) says;
    /// `None` if there is none that can be read.
    #[must_use]
    pub fn by_grpc_status(trailers: &HeaderMap) -> Option<Self> {
        let status = trailers.get("grpc-status")?.to_str().ok()?;
        status.parse().ok().map(Self::by_grpc_code)
    }
}
