//! What a request asks for, as a [`Fingerprint`].

use http::{HeaderMap, Method, Uri, header};
use oncekey::{Fingerprint, FingerprintBuilder, KeyError};

/// Digests requests: method, path, query, content type and body.
///
/// The path is the concrete one, as it was sent: two resources never share an answer. What is not in
/// here may differ between retries: the host, credentials, trace ids, `User-Agent`.
///
/// A multipart body, and its content type, have a boundary that most clients draw anew each time they make one: a
/// retry is then another request, and refused. Have clients send the bytes again that they sent, or digest what is
/// in the parts by a [`Fingerprint::builder`] of your own.
///
/// ```
/// use http::{HeaderMap, Method, Uri};
/// use oncekey_http::RequestFingerprint;
///
/// let requests = RequestFingerprint::new();
/// let (headers, uri) = (HeaderMap::new(), Uri::from_static("/payments?dry=1"));
/// let first = requests.of(&Method::POST, &uri, &headers, b"100 EUR");
/// assert_eq!(first, requests.of(&Method::POST, &uri, &headers, b"100 EUR"));
/// assert_ne!(first, requests.of(&Method::POST, &uri, &headers, b"200 EUR"));
/// assert_ne!(first, requests.of(&Method::PATCH, &uri, &headers, b"100 EUR"));
/// ```
#[derive(Debug, Clone)]
pub struct RequestFingerprint {
    empty: FingerprintBuilder,
}

impl RequestFingerprint {
    /// Digests with SHA-256.
    #[must_use]
    pub fn new() -> Self {
        Self { empty: Fingerprint::builder() }
    }

    /// Digests with HMAC-SHA-256 under `secret`, at least 16 bytes, so that whoever reads the store
    /// cannot test guesses about bodies.
    ///
    /// # Errors
    /// [`KeyError::SecretTooShort`] when the secret is shorter.
    pub fn keyed(secret: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        Ok(Self { empty: Fingerprint::keyed(secret)? })
    }

    /// The fingerprint of a request.
    #[must_use]
    pub fn of(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: impl AsRef<[u8]>,
    ) -> Fingerprint {
        self.head(method, uri, headers).part("body", body).finish()
    }

    /// All but the body, for adding parts of your own before it: what the operation depends on and
    /// the request line does not show, such as a tenant that a router has cut off the path.
    pub fn head(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> FingerprintBuilder {
        let mut builder =
            self.empty.clone().part("method", method.as_str()).part("path", uri.path());
        if let Some(query) = uri.query() {
            builder = builder.part("query", query);
        }
        for value in headers.get_all(header::CONTENT_TYPE) {
            builder = builder.part("content-type", value);
        }
        builder
    }
}

impl Default for RequestFingerprint {
    fn default() -> Self {
        Self::new()
    }
}
