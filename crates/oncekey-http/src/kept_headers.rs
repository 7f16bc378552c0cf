//! Which headers of a response are stored: [`KeptHeaders`].

use http::header::{
    AGE, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, DATE, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE,
};
use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION,
    CONTENT_TYPE, ETAG, LAST_MODIFIED, LINK, LOCATION, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::IDEMPOTENT_REPLAYED;

/// Kept by default: what describes the stored body and the result.
const DEFAULT: [HeaderName; 11] = [
    CACHE_CONTROL,
    CONTENT_DISPOSITION,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_LOCATION,
    CONTENT_TYPE,
    ETAG,
    LAST_MODIFIED,
    LINK,
    LOCATION,
    VARY,
];

/// Kept besides in gRPC, where a status may come in the headers.
const GRPC: [HeaderName; 4] = [
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-status-details-bin"),
];

/// Never kept: credentials and sessions, which would be handed to whoever replays; what is true of one
/// moment or one connection only; and our own mark.
const NEVER: [HeaderName; 20] = [
    AGE,
    AUTHORIZATION,
    CONNECTION,
    CONTENT_LENGTH,
    COOKIE,
    DATE,
    IDEMPOTENT_REPLAYED,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    SET_COOKIE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    WWW_AUTHENTICATE,
    HeaderName::from_static("authentication-info"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("set-cookie2"),
];

/// The headers of a response that are stored and replayed: those on a list, and no others.
///
/// The first caller gets its response with all headers; the list is for duplicates.
///
/// By default: `Cache-Control`, `Content-Disposition`, `Content-Encoding`, `Content-Language`,
/// `Content-Location`, `Content-Type`, `ETag`, `Last-Modified`, `Link`, `Location` and `Vary`.
///
/// Never, not even if asked for: `Set-Cookie`, `Cookie`, `Authorization`, `WWW-Authenticate`,
/// `Authentication-Info` and their likes for proxies, `Date`, `Age`, `Content-Length` (it is made anew),
/// and what belongs to one connection, also by being named in `Connection`.
///
/// ```
/// use http::HeaderName;
/// use oncekey_http::KeptHeaders;
///
/// let kept = KeptHeaders::new().and(HeaderName::from_static("x-receipt"))?;
/// assert!(kept.contains(&HeaderName::from_static("x-receipt")));
/// assert!(kept.and(http::header::SET_COOKIE).is_err());
/// # Ok::<(), oncekey_http::ForbiddenHeader>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptHeaders {
    names: Vec<HeaderName>,
    all: bool,
}

impl KeptHeaders {
    /// The default list.
    #[must_use]
    pub fn new() -> Self {
        Self { names: DEFAULT.to_vec(), all: false }
    }

    /// An empty list.
    #[must_use]
    pub const fn none() -> Self {
        Self { names: Vec::new(), all: false }
    }

    /// The default list, and what gRPC needs of headers.
    #[must_use]
    pub fn grpc() -> Self {
        Self { names: DEFAULT.into_iter().chain(GRPC).collect(), all: false }
    }

    /// Everything that is not forbidden: for trailers of gRPC, which are part of the result.
    #[must_use]
    pub const fn all_allowed() -> Self {
        Self { names: Vec::new(), all: true }
    }

    /// Adds `name` to the list.
    ///
    /// # Errors
    /// [`ForbiddenHeader`] when it is one that is never kept: better found when the service starts
    /// than missed in a replay.
    pub fn and(mut self, name: HeaderName) -> Result<Self, ForbiddenHeader> {
        if NEVER.contains(&name) {
            return Err(ForbiddenHeader { name });
        }
        if !self.names.contains(&name) {
            self.names.push(name);
        }
        Ok(self)
    }

    /// Whether headers of this name are kept, unless the response names them in `Connection`.
    #[must_use]
    pub fn contains(&self, name: &HeaderName) -> bool {
        if self.all { !NEVER.contains(name) } else { self.names.contains(name) }
    }

    /// What is kept of `headers`, in their order.
    pub(crate) fn of<'a>(
        &'a self,
        headers: &'a HeaderMap,
    ) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
        let listed = headers.iter().filter(|(name, _)| self.contains(name));
        listed.filter(|(name, _)| !is_of_connection(headers, name))
    }
}

impl Default for KeptHeaders {
    fn default() -> Self {
        Self::new()
    }
}

fn is_of_connection(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get_all(CONNECTION).iter().any(|value| {
        let mut named = value.as_bytes().split(|byte| *byte == b',');
        named.any(|it| it.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
    })
}

/// A header that is never kept was to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the header `{name}` is never stored: it would hand one caller's secret, or an old moment, to another"
)]
#[non_exhaustive]
pub struct ForbiddenHeader {
    /// Its name.
    pub name: HeaderName,
}
