//! What a request asks for, as 32 bytes: [`Fingerprint`].
//!
//! The same key with another fingerprint is a client's mistake (or an attack) and is refused as a
//! mismatch. A fingerprint must therefore cover everything that changes what the operation does, and
//! nothing that changes between honest retries (a trace id, a timestamp).

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::key::{KeyError, keyed_mac};

/// A 32-byte digest of what a request asks for, with the algorithm that made it.
///
/// Built from named parts; names and values are length-prefixed, so `("ab", "c")` and `("a", "bc")`
/// differ. The order of parts matters.
///
/// ```
/// use oncekey::Fingerprint;
///
/// let fingerprint = Fingerprint::builder()
///     .part("method", "POST")
///     .part("path", "/payments")
///     .part("body", br#"{"amount":100}"#)
///     .finish();
/// assert_ne!(fingerprint, Fingerprint::of(br#"{"amount":100}"#));
/// ```
///
/// A plain digest of a guessable body lets whoever reads the store test guesses; a keyed one
/// ([`keyed`](Self::keyed)) does not. Digests of different algorithms never match: change the
/// algorithm or the secret only when no client can still be retrying.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    algorithm: u8,
    digest: [u8; 32],
}

impl Fingerprint {
    /// SHA-256 over length-prefixed parts.
    pub const SHA256: u8 = 1;
    /// HMAC-SHA-256 over length-prefixed parts.
    pub const HMAC_SHA256: u8 = 2;
    /// The lowest algorithm number that is free for digests of your own making.
    pub const FIRST_CUSTOM: u8 = 128;

    /// A builder that digests with SHA-256.
    pub fn builder() -> FingerprintBuilder {
        FingerprintBuilder { state: State::Plain(Sha256::new()) }
    }

    /// A builder that digests with HMAC-SHA-256 under `secret`, at least 16 bytes.
    ///
    /// # Errors
    /// [`KeyError::SecretTooShort`] when the secret is shorter.
    pub fn keyed(secret: impl AsRef<[u8]>) -> Result<FingerprintBuilder, KeyError> {
        keyed_mac(secret.as_ref()).map(|mac| FingerprintBuilder { state: State::Keyed(mac) })
    }

    /// The fingerprint of a request that is fully described by its body.
    #[must_use]
    pub fn of(body: impl AsRef<[u8]>) -> Self {
        Self::builder().part("body", body).finish()
    }

    /// A fingerprint made elsewhere: a digest of your own (with an `algorithm` from
    /// [`FIRST_CUSTOM`](Self::FIRST_CUSTOM) up), or the parts of a stored one.
    ///
    /// The digest must be collision resistant; a checksum is not.
    #[must_use]
    pub const fn from_digest(algorithm: u8, digest: [u8; 32]) -> Self {
        Self { algorithm, digest }
    }

    /// The number of the algorithm, as kept in the record.
    #[must_use]
    pub const fn algorithm(&self) -> u8 {
        self.algorithm
    }

    /// The digest, as kept in the record.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl fmt::Debug for Fingerprint {
    /// Shows the algorithm only: a digest of a guessable request gives the request away.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fingerprint").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// Collects the parts of a [`Fingerprint`].
#[derive(Clone)]
#[must_use = "call `finish` to get the fingerprint"]
pub struct FingerprintBuilder {
    state: State,
}

#[derive(Clone)]
enum State {
    Plain(Sha256),
    Keyed(Hmac<Sha256>),
}

impl FingerprintBuilder {
    /// Adds the part `name` with its value, both arbitrary bytes, also empty ones.
    pub fn part(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        for bytes in [name.as_bytes(), value.as_ref()] {
            self.update(&(bytes.len() as u64).to_be_bytes());
            self.update(bytes);
        }
        self
    }

    /// The fingerprint of all parts added.
    #[must_use]
    pub fn finish(self) -> Fingerprint {
        match self.state {
            State::Plain(digest) => {
                Fingerprint::from_digest(Fingerprint::SHA256, digest.finalize().into())
            }
            State::Keyed(mac) => Fingerprint::from_digest(
                Fingerprint::HMAC_SHA256,
                mac.finalize().into_bytes().into(),
            ),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Plain(digest) => Digest::update(digest, bytes),
            State::Keyed(mac) => Mac::update(mac, bytes),
        }
    }
}

impl fmt::Debug for FingerprintBuilder {
    /// Shows no content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FingerprintBuilder").finish_non_exhaustive()
    }
}
