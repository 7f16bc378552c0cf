//! What a client sends, and under whose name: [`Scope`], [`Key`], and keys derived from them.
//!
//! A key alone means nothing: two customers may send the same one, and one customer may send it to
//! two operations. A [`Key`] is therefore always made under a [`Scope`]. All parts are arbitrary
//! bytes; their encoding is injective, so no choice of bytes in one part can imitate another part.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// First byte of an encoding: which form of key follows.
const FORM_PLAIN: u8 = 1;
const FORM_HASHED: u8 = 2;

/// Who is asking, and for which operation: the namespace of a [`Key`].
///
/// The principal must be stable for as long as a client may retry: an account or tenant id, not a
/// credential that rotates. There is no default and no anonymous scope, since one shared bucket
/// hands one customer's answer to another.
///
/// ```
/// use oncekey::{Key, Scope};
///
/// let scope = Scope::new("tenant-42", "POST /payments")?;
/// let key = Key::new(&scope, "8e03978e-40d5-43dd-bc93-6894a57f9324")?;
/// # let _ = key;
/// # Ok::<(), oncekey::KeyError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Form byte, then both parts with their lengths: the prefix of every key of this scope.
    prefix: Vec<u8>,
}

impl Scope {
    /// The most bytes that a principal, and that an operation, may have.
    pub const MAX_PART_LEN: usize = 512;

    /// A scope for `principal` (who) and `operation` (what for), both 1 to 512 arbitrary bytes.
    ///
    /// # Errors
    /// [`KeyError`] when a part is empty or too long.
    pub fn new(principal: impl AsRef<[u8]>, operation: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        let (principal, operation) = (principal.as_ref(), operation.as_ref());
        check("the principal of a scope", principal, Self::MAX_PART_LEN)?;
        check("the operation of a scope", operation, Self::MAX_PART_LEN)?;
        let mut prefix = Vec::with_capacity(5 + principal.len() + operation.len());
        prefix.push(FORM_PLAIN);
        push_part(&mut prefix, principal);
        push_part(&mut prefix, operation);
        Ok(Self { prefix })
    }
}

impl fmt::Debug for Scope {
    /// Shows no content: principals are personal data in many systems.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}

/// An idempotency key under its [`Scope`], as every store sees it.
///
/// Cheap to clone. Its `Debug` shows no content, and there is no `Display`: keys stay out of logs.
#[derive(Clone)]
pub struct Key {
    bytes: Arc<[u8]>,
}

impl Key {
    /// The most bytes that a client's key may have.
    pub const MAX_ID_LEN: usize = 1024;

    /// The most bytes that [`as_bytes`](Self::as_bytes) ever returns. It fits the index entries of
    /// common databases (Postgres allows about 2,700 bytes).
    pub const MAX_ENCODED_LEN: usize = 1 + 2 * (2 + Scope::MAX_PART_LEN) + Self::MAX_ID_LEN;

    /// The key `id`, 1 to 1024 arbitrary bytes, under `scope`.
    ///
    /// Nothing is trimmed, folded or normalized: keys that differ in one bit are different keys.
    ///
    /// # Errors
    /// [`KeyError`] when `id` is empty or too long.
    pub fn new(scope: &Scope, id: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        let id = id.as_ref();
        check("an idempotency key", id, Self::MAX_ID_LEN)?;
        let mut bytes = Vec::with_capacity(scope.prefix.len() + id.len());
        bytes.extend_from_slice(&scope.prefix);
        bytes.extend_from_slice(id);
        Ok(Self { bytes: bytes.into() })
    }

    /// The injective encoding of scope and key: what a store uses as its primary key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The key whose [`as_bytes`](Self::as_bytes) are `bytes`, for a store that lists what it holds.
    ///
    /// # Errors
    /// [`KeyError`] when `bytes` is no encoding of a key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let valid = match bytes.split_first() {
            Some((&FORM_HASHED, digest)) => digest.len() == 32,
            Some((&FORM_PLAIN, rest)) => take_part(rest)
                .and_then(|(_, rest)| take_part(rest))
                .is_some_and(|(_, id)| (1..=Self::MAX_ID_LEN).contains(&id.len())),
            _ => false,
        };
        if valid { Ok(Self { bytes: bytes.into() }) } else { Err(KeyError::Malformed) }
    }

    /// Who asks, as given to [`Scope::new`]. `None` of a hashed key, as for the other two parts.
    #[must_use]
    pub fn principal(&self) -> Option<&[u8]> {
        self.parts().map(|parts| parts[0])
    }

    /// For which operation, as given to [`Scope::new`].
    #[must_use]
    pub fn operation(&self) -> Option<&[u8]> {
        self.parts().map(|parts| parts[1])
    }

    /// What the client sent.
    #[must_use]
    pub fn id(&self) -> Option<&[u8]> {
        self.parts().map(|parts| parts[2])
    }

    fn parts(&self) -> Option<[&[u8]; 3]> {
        match self.bytes.split_first() {
            Some((&FORM_PLAIN, rest)) => {
                let (principal, rest) = take_part(rest)?;
                let (operation, id) = take_part(rest)?;
                Some([principal, operation, id])
            }
            _ => None,
        }
    }

    /// A key for a call that this operation makes to somebody else, for example a card processor.
    ///
    /// It depends on this key and on `purpose` alone: every attempt, on every machine, sends the
    /// same one, so the other side can recognise a repeated call. It is a digest: it does not show this
    /// key, but whoever can guess scope and id can test the guess. Use ids that cannot be guessed where
    /// that matters.
    ///
    /// ```
    /// # use oncekey::{Key, Scope};
    /// # let scope = Scope::new("tenant-42", "POST /payments")?;
    /// let key = Key::new(&scope, "order-17")?;
    /// let charge = key.child("charge");
    /// assert_eq!(charge, key.child("charge"));
    /// assert_ne!(charge, key.child("refund"));
    /// assert_eq!(charge.as_str().len(), 64);
    /// # Ok::<(), oncekey::KeyError>(())
    /// ```
    #[must_use]
    pub fn child(&self, purpose: impl AsRef<[u8]>) -> ChildKey {
        ChildKey::derive(&self.bytes, purpose.as_ref())
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl fmt::Debug for Key {
    /// Shows no content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}

/// A key derived by [`Key::child`] for a downstream call: 64 hexadecimal characters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ChildKey(String);

impl ChildKey {
    fn derive(parent: &[u8], purpose: &[u8]) -> Self {
        let mut digest = Sha256::new();
        digest.update(b"oncekey child key 1");
        digest.update((parent.len() as u64).to_be_bytes());
        digest.update(parent);
        digest.update(purpose);
        let mut hex = String::with_capacity(64);
        for byte in digest.finalize() {
            for nibble in [byte >> 4, byte & 15] {
                hex.push(char::from_digit(nibble.into(), 16).unwrap_or('0'));
            }
        }
        Self(hex)
    }

    /// The key as text, ready for a header or a field.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A key derived from this one, for a call with several parts.
    #[must_use]
    pub fn child(&self, purpose: impl AsRef<[u8]>) -> Self {
        Self::derive(self.0.as_bytes(), purpose.as_ref())
    }
}

impl fmt::Debug for ChildKey {
    /// Shows no content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildKey").finish_non_exhaustive()
    }
}

/// Replaces keys by their HMAC-SHA-256 before they reach a store.
///
/// With it, whoever reads the store learns neither who asked nor which keys exist. The price: an
/// operator finds a record only by its full scope and key, and a lost secret orphans every record.
#[derive(Clone)]
pub struct KeyHasher {
    mac: Hmac<Sha256>,
}

impl KeyHasher {
    /// The fewest bytes that a secret may have.
    pub const MIN_SECRET_LEN: usize = 16;

    /// A hasher under `secret`, at least 16 bytes.
    ///
    /// # Errors
    /// [`KeyError`] when the secret is shorter.
    pub fn new(secret: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        keyed_mac(secret.as_ref()).map(|mac| Self { mac })
    }

    /// The key that a store sees in place of `key`. Hashing a hashed key changes nothing.
    #[must_use]
    pub fn hash(&self, key: &Key) -> Key {
        if key.bytes.first() == Some(&FORM_HASHED) {
            return key.clone();
        }
        let digest = self.mac.clone().chain_update(&key.bytes).finalize().into_bytes();
        let mut bytes = [0; 33];
        bytes[0] = FORM_HASHED;
        bytes[1..].copy_from_slice(&digest);
        Key { bytes: bytes.as_slice().into() }
    }
}

impl fmt::Debug for KeyHasher {
    /// Shows no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyHasher").finish_non_exhaustive()
    }
}

/// A keyed hash over SHA-256, refusing secrets that can be guessed.
pub(crate) fn keyed_mac(secret: &[u8]) -> Result<Hmac<Sha256>, KeyError> {
    let too_short = KeyError::SecretTooShort { len: secret.len(), min: KeyHasher::MIN_SECRET_LEN };
    if secret.len() < KeyHasher::MIN_SECRET_LEN {
        return Err(too_short);
    }
    Hmac::new_from_slice(secret).map_err(|_| too_short)
}

/// Why a [`Scope`], a [`Key`] or a secret was refused. No variant carries what was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A part has no bytes.
    #[error("{what} is empty; pass at least one byte that identifies it")]
    Empty {
        /// The part.
        what: &'static str,
    },
    /// A part has too many bytes.
    #[error("{what} has {len} bytes, at most {max} are allowed; pass a digest of it instead")]
    TooLong {
        /// The part.
        what: &'static str,
        /// The bytes it has.
        len: usize,
        /// The bytes it may have.
        max: usize,
    },
    /// A secret has too few bytes.
    #[error("the secret has {len} bytes, at least {min} are needed; use random bytes")]
    SecretTooShort {
        /// The bytes it has.
        len: usize,
        /// The bytes it needs.
        min: usize,
    },
    /// Stored bytes are no encoding of a key.
    #[error("these bytes are no encoded key; the store holds something that oncekey did not write")]
    Malformed,
}

fn check(what: &'static str, part: &[u8], max: usize) -> Result<(), KeyError> {
    match part.len() {
        0 => Err(KeyError::Empty { what }),
        len if len > max => Err(KeyError::TooLong { what, len, max }),
        _ => Ok(()),
    }
}

fn push_part(out: &mut Vec<u8>, part: &[u8]) {
    // Checked to be at most 512 bytes, so the length fits.
    out.extend_from_slice(&(part.len() as u16).to_be_bytes());
    out.extend_from_slice(part);
}

/// A valid length-prefixed part, and what follows it.
fn take_part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    let len = usize::from(u16::from_be_bytes(*len));
    if !(1..=Scope::MAX_PART_LEN).contains(&len) {
        return None;
    }
    rest.split_at_checked(len)
}
