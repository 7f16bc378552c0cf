//! The header that carries a key: [`KeyHeader`] reads it, [`ClientKey`] is what it says.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, HeaderName};
use oncekey::{Key, KeyError, Scope};

use crate::IDEMPOTENCY_KEY;
use crate::structured_field::{string_item, trim_spaces};

/// Reads the key that a client sent.
///
/// The draft asks for a Structured Field String, `Idempotency-Key: "8e03978e-40d5"`. Most clients send
/// the bare id instead, so that is taken too, unless [`strict`](Self::strict) is asked for; the same id
/// quoted and bare is the same key. Parameters behind the string are checked and ignored.
///
/// ```
/// use http::{HeaderMap, HeaderValue};
/// use oncekey_http::KeyHeader;
///
/// let header = KeyHeader::new();
/// let mut headers = HeaderMap::new();
/// assert!(header.read(&headers)?.is_none());
///
/// headers.insert("idempotency-key", HeaderValue::from_static(r#""8e03978e-40d5";v=1"#));
/// let quoted = header.read(&headers)?.unwrap();
/// assert_eq!(quoted.as_str(), "8e03978e-40d5");
///
/// headers.append("idempotency-key", HeaderValue::from_static("another"));
/// assert!(header.read(&headers).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHeader {
    name: HeaderName,
    strict: bool,
    max_len: usize,
}

impl KeyHeader {
    /// The most bytes that an id may have unless [`max_len`](Self::max_len) says otherwise.
    pub const DEFAULT_MAX_LEN: usize = 255;

    /// Reads `Idempotency-Key`, quoted or bare, with ids of at most 255 bytes.
    #[must_use]
    pub const fn new() -> Self {
        Self { name: IDEMPOTENCY_KEY, strict: false, max_len: Self::DEFAULT_MAX_LEN }
    }

    /// Reads the header `name` instead.
    #[must_use]
    pub fn named(mut self, name: HeaderName) -> Self {
        self.name = name;
        self
    }

    /// Takes nothing but the String of RFC 9651 that the draft asks for.
    #[must_use]
    pub const fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Takes ids of at most `bytes`, and never more than [`Key::MAX_ID_LEN`].
    #[must_use]
    pub const fn max_len(mut self, bytes: usize) -> Self {
        self.max_len = if bytes < Key::MAX_ID_LEN { bytes } else { Key::MAX_ID_LEN };
        self
    }

    /// The name of the header.
    #[must_use]
    pub const fn name(&self) -> &HeaderName {
        &self.name
    }

    /// The key in `headers`; `None` if there is no such header.
    ///
    /// # Errors
    /// [`KeyHeaderError`], for a status of 400.
    pub fn read<'a>(
        &self,
        headers: &'a HeaderMap,
    ) -> Result<Option<ClientKey<'a>>, KeyHeaderError> {
        let mut values = headers.get_all(&self.name).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(KeyHeaderError::Repeated);
        }
        self.parse(value.as_bytes()).map(Some)
    }

    /// The key in one field value.
    fn parse<'a>(&self, value: &'a [u8]) -> Result<ClientKey<'a>, KeyHeaderError> {
        // Tabs around a value are cut off where HTTP is parsed; RFC 9651 knows spaces only.
        let value = trim_spaces(value);
        let id = if value.starts_with(b"\"") {
            string_item(value).ok_or(KeyHeaderError::Malformed)?
        } else if value.is_empty() {
            return Err(KeyHeaderError::Empty);
        } else if self.strict {
            return Err(KeyHeaderError::NotQuoted);
        } else {
            Cow::Borrowed(bare(value).ok_or(KeyHeaderError::Malformed)?)
        };
        match id.len() {
            0 => Err(KeyHeaderError::Empty),
            len if len > self.max_len => Err(KeyHeaderError::TooLong { max: self.max_len }),
            _ => Ok(ClientKey(id)),
        }
    }
}

impl Default for KeyHeader {
    fn default() -> Self {
        Self::new()
    }
}

/// A bare id: visible ASCII, without what separates, quotes or escapes. So no bare id means two things,
/// and two headers that somebody joined by a comma are none.
fn bare(value: &[u8]) -> Option<&str> {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !b"\"\\,;".contains(byte);
    if value.iter().all(plain) { std::str::from_utf8(value).ok() } else { None }
}

/// The id that a client sent, unquoted: 1 to 1024 bytes of printable ASCII.
///
/// Shows no content in `Debug`: keys stay out of logs.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClientKey<'a>(Cow<'a, str>);

impl ClientKey<'_> {
    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of this id under `scope`.
    ///
    /// # Errors
    /// None in practice: what [`KeyHeader`] lets through fits a [`Key`].
    pub fn under(&self, scope: &Scope) -> Result<Key, KeyError> {
        Key::new(scope, self.as_str())
    }
}

impl fmt::Debug for ClientKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientKey").finish_non_exhaustive()
    }
}

/// Why a key was refused. No variant carries what was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum KeyHeaderError {
    /// There is more than one header.
    #[error("the idempotency key was sent more than once; send one header with one key")]
    Repeated,
    /// There is nothing in it.
    #[error("the idempotency key is empty; send a random id, for example a UUID")]
    Empty,
    /// It is longer than the service takes.
    #[error("the idempotency key is longer than {max} bytes; send a shorter one")]
    TooLong {
        /// The most bytes that are taken.
        max: usize,
    },
    /// It is a bare id where only a String is taken.
    #[error("the idempotency key is not quoted; send it as a string, in double quotes")]
    NotQuoted,
    /// It is neither a String nor a bare id.
    #[error(
        "the idempotency key is malformed; send one string of printable ASCII in double quotes, \
         with \" and \\ escaped by a backslash"
    )]
    Malformed,
}
