//! Results as bytes: [`Encoded`], an envelope that says how it was made.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// First byte of every stored value.
const VERSION: u8 = 1;
const HEADER_LEN: usize = 2;

/// A result as it is stored and replayed: a version, a codec, and the payload.
///
/// A newer oncekey reads what an older one wrote. An older one refuses what it does not know, with
/// [`CodecError`], and never runs the operation because of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Encoded(Bytes);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Codec {
    Raw = 0,
    Json = 1,
}

impl Encoded {
    /// `value` as JSON: what [`run`](crate::Idempotency::run) stores.
    ///
    /// # Errors
    /// [`CodecError`] when the value cannot be JSON, for example a map whose keys are no strings.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, CodecError> {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&[VERSION, Codec::Json as u8]);
        serde_json::to_writer(&mut bytes, value).map_err(|_| CodecError::Encode)?;
        Ok(Self(bytes.into()))
    }

    /// `payload` as it is: what [`run_bytes`](crate::Idempotency::run_bytes) stores.
    #[must_use]
    pub fn raw(payload: impl AsRef<[u8]>) -> Self {
        let payload = payload.as_ref();
        let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
        bytes.extend_from_slice(&[VERSION, Codec::Raw as u8]);
        bytes.extend_from_slice(payload);
        Self(bytes.into())
    }

    /// The value of a JSON payload.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes are of another version or codec, or no JSON of a `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        serde_json::from_slice(self.payload(Codec::Json)?).map_err(CodecError::undecodable)
    }

    /// The bytes of a raw payload.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes are of another version or codec.
    pub fn decode_raw(&self) -> Result<Bytes, CodecError> {
        self.payload(Codec::Raw)?;
        Ok(self.0.slice(HEADER_LEN..))
    }

    /// What a store keeps: header and payload.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The value that a store kept as `bytes`. Whether they make sense is found out when decoding.
    #[must_use]
    pub const fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        self.0
    }

    fn payload(&self, wanted: Codec) -> Result<&[u8], CodecError> {
        match self.0.get(..HEADER_LEN) {
            Some(&[VERSION, codec]) if codec == wanted as u8 => Ok(&self.0[HEADER_LEN..]),
            Some(&[VERSION, _]) => Err(CodecError::OtherCodec),
            _ => Err(CodecError::UnknownVersion),
        }
    }
}

impl fmt::Debug for Encoded {
    /// Shows the length only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded({} bytes)", self.0.len())
    }
}

/// Why a value could not be turned into bytes or back.
///
/// Carries no cause: what a JSON library says of a fault quotes the content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The value cannot be written as JSON.
    #[error("the value cannot be written as JSON; use string keys in maps, or `run_bytes`")]
    Encode,
    /// The stored JSON is not of this type.
    #[error(
        "the stored result is not of the type asked for (line {line}, column {column}); did the type \
         change since it ran?"
    )]
    Decode {
        /// The line of the JSON, from 1.
        line: usize,
        /// The column of the line, from 1.
        column: usize,
    },
    /// The value was stored by the other family of `run` methods.
    #[error("the stored result was written by another codec; read it with the method that ran it")]
    OtherCodec,
    /// The value was stored in a form that this build does not know.
    #[error("the stored result has a version that this build does not know; upgrade oncekey here")]
    UnknownVersion,
}

impl CodecError {
    pub(crate) fn undecodable(error: serde_json::Error) -> Self {
        Self::Decode { line: error.line(), column: error.column() }
    }
}
