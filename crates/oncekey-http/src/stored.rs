//! A response as bytes in a store: [`StoredResponse`].
//!
//! ```text
//! version   1 byte, 1
//! status    2 bytes
//! headers   2 bytes: how many; each: 2 bytes and the name, 4 bytes and the value
//! trailers  1 byte: whether there are any; if so, as headers
//! body      the rest
//! ```
//! Numbers are big-endian. The record around it is checksummed by the store.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use oncekey::Encoded;

use crate::KeptHeaders;

const VERSION: u8 = 1;

/// What is stored of a response, and replayed: status, kept headers in order and repeated, body,
/// trailers.
///
/// The same response always gives the same bytes, which is what makes a repeated completion harmless.
/// Its `Debug` shows no content.
///
/// ```
/// use bytes::Bytes;
/// use http::{HeaderMap, HeaderValue, StatusCode, header};
/// use oncekey_http::StoredResponse;
///
/// let mut headers = HeaderMap::new();
/// headers.insert(header::LOCATION, HeaderValue::from_static("/payments/17"));
/// let receipt = StoredResponse::new(StatusCode::CREATED, headers, Bytes::from("receipt 1"));
///
/// let stored = receipt.encode()?;
/// assert_eq!(StoredResponse::decode(stored)?, receipt);
/// # Ok::<(), oncekey_http::FrameError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct StoredResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

impl StoredResponse {
    /// A response of these parts, without trailers. All `headers` are taken as they are.
    ///
    /// For a hook, or an operator, that has found out what an interrupted attempt did, and has to say what its
    /// handler would have answered; [`to_encoded`](Self::to_encoded) is what they hand to the engine.
    #[must_use]
    pub const fn new(status: StatusCode, headers: HeaderMap, body: Bytes) -> Self {
        Self { status, headers, body, trailers: None }
    }

    /// Adds trailers.
    #[must_use]
    pub fn with_trailers(mut self, trailers: HeaderMap) -> Self {
        self.trailers = Some(trailers);
        self
    }

    /// What `kept` keeps of a response, and `kept_trailers` of its trailers, encoded.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`].
    pub fn encode_kept(
        parts: &http::response::Parts,
        body: &[u8],
        trailers: Option<&HeaderMap>,
        kept: &KeptHeaders,
        kept_trailers: &KeptHeaders,
    ) -> Result<Bytes, FrameError> {
        let trailers = trailers.map(|trailers| kept_trailers.of(trailers));
        encode(parts.status, kept.of(&parts.headers), body, trailers)
    }

    /// The bytes to store.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] when there are more than 65,535 headers, a name has more than 65,535
    /// bytes, or a value more than four gigabytes.
    pub fn encode(&self) -> Result<Bytes, FrameError> {
        let trailers = self.trailers.as_ref().map(HeaderMap::iter);
        encode(self.status, self.headers.iter(), &self.body, trailers)
    }

    /// As an engine stores it under a key: what an operator [settles](oncekey::operate::Operator::settle_done) a
    /// key with, and a hook answers by [`Verdict::Done`](oncekey::Verdict::Done).
    ///
    /// `Encoded::json` and `Verdict::done` make JSON of what they are given, which is no stored response: duplicates
    /// would be refused, with [`ResultUnreadable`](crate::ProblemKind::ResultUnreadable).
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode).
    /// ```
    /// use bytes::Bytes;
    /// use http::{HeaderMap, StatusCode};
    /// use oncekey::{Interruption, Verdict};
    /// use oncekey_http::StoredResponse;
    ///
    /// let look_up = async |interruption: Interruption| {
    ///     let charge = interruption.key().child("charge");
    ///     // Ask the card processor about `charge.as_str()`; here it knows of one.
    ///     # let _ = charge;
    ///     let found = Bytes::from("receipt 1");
    ///     let receipt = StoredResponse::new(StatusCode::CREATED, HeaderMap::new(), found);
    ///     receipt.to_encoded().map_or(Verdict::Unknown, Verdict::Done)
    /// };
    /// # let _ = look_up;
    /// ```
    pub fn to_encoded(&self) -> Result<Encoded, FrameError> {
        self.encode().map(Encoded::raw)
    }

    /// The response that was stored as `bytes`. The body is not copied.
    ///
    /// Nothing is allocated because a number in `bytes` says so.
    ///
    /// # Errors
    /// [`FrameError`] when they are no such response.
    pub fn decode(bytes: Bytes) -> Result<Self, FrameError> {
        let mut input = Input(bytes);
        match input.take::<1>()? {
            [VERSION] => {}
            _ => return Err(FrameError::UnknownVersion),
        }
        let status = u16::from_be_bytes(input.take()?);
        let status = StatusCode::from_u16(status).map_err(|_| FrameError::Corrupt)?;
        let headers = input.headers()?;
        let trailers = match input.take::<1>()? {
            [0] => None,
            [1] => Some(input.headers()?),
            _ => return Err(FrameError::Corrupt),
        };
        Ok(Self { status, headers, body: input.0, trailers })
    }

    /// The status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers.
    #[must_use]
    pub const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// The trailers, if there were any.
    #[must_use]
    pub const fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }

    /// As a response, and its trailers beside it.
    #[must_use]
    pub fn into_response(self) -> (Response<Bytes>, Option<HeaderMap>) {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        (response, self.trailers)
    }
}

impl fmt::Debug for StoredResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredResponse").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Why bytes and response do not go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The response has more, or longer, headers than a stored one can have.
    #[error("the response has too many or too long headers to be stored")]
    TooLarge,
    /// The bytes were written by a newer version.
    #[error(
        "the stored response has a version that this build does not know; upgrade oncekey here"
    )]
    UnknownVersion,
    /// The bytes are no stored response.
    #[error("the stored response is corrupt; settle or evict its key")]
    Corrupt,
}

fn encode<'a>(
    status: StatusCode,
    headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    body: &[u8],
    trailers: Option<impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>>,
) -> Result<Bytes, FrameError> {
    let mut out = Vec::with_capacity(256 + body.len());
    out.push(VERSION);
    out.extend_from_slice(&status.as_u16().to_be_bytes());
    push_headers(&mut out, headers)?;
    match trailers {
        Some(trailers) => {
            out.push(1);
            push_headers(&mut out, trailers)?;
        }
        None => out.push(0),
    }
    out.extend_from_slice(body);
    Ok(out.into())
}

fn push_headers<'a>(
    out: &mut Vec<u8>,
    headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
) -> Result<(), FrameError> {
    let too_large = |_| FrameError::TooLarge;
    let at = out.len();
    out.extend_from_slice(&[0; 2]);
    let mut count = 0_u16;
    for (name, value) in headers {
        count = count.checked_add(1).ok_or(FrameError::TooLarge)?;
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        out.extend_from_slice(&u16::try_from(name.len()).map_err(too_large)?.to_be_bytes());
        out.extend_from_slice(name);
        out.extend_from_slice(&u32::try_from(value.len()).map_err(too_large)?.to_be_bytes());
        out.extend_from_slice(value);
    }
    out[at..at + 2].copy_from_slice(&count.to_be_bytes());
    Ok(())
}

/// What is left to decode.
struct Input(Bytes);

impl Input {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let taken = *self.0.first_chunk::<N>().ok_or(FrameError::Corrupt)?;
        self.0 = self.0.slice(N..);
        Ok(taken)
    }

    fn take_slice(&mut self, len: usize) -> Result<Bytes, FrameError> {
        if len > self.0.len() {
            return Err(FrameError::Corrupt);
        }
        Ok(self.0.split_to(len))
    }

    fn headers(&mut self) -> Result<HeaderMap, FrameError> {
        let count = u16::from_be_bytes(self.take()?);
        let mut headers = HeaderMap::new();
        for _ in 0..count {
            let len = u16::from_be_bytes(self.take()?);
            let name = self.take_slice(len.into())?;
            // Written in lower case: another spelling was not written by us.
            let name = HeaderName::from_lowercase(&name).map_err(|_| FrameError::Corrupt)?;
            let len = u32::from_be_bytes(self.take()?);
            let len = usize::try_from(len).map_err(|_| FrameError::Corrupt)?;
            let value = self.take_slice(len)?;
            let value = HeaderValue::from_maybe_shared(value).map_err(|_| FrameError::Corrupt)?;
            headers.try_append(name, value).map_err(|_| FrameError::Corrupt)?;
        }
        Ok(headers)
    }
}
