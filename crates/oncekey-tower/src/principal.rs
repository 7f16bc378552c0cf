//! Who sends a request: [`Principal`].

use std::fmt;
use std::sync::Arc;

use http::HeaderName;
use http::request::Parts;

/// How to tell who sends a request, from its head: the principal under whom its keys are kept.
///
/// It must be stable for as long as clients retry: an account or tenant, not a credential that rotates.
/// And it must be true: whoever can choose the principal can read the answers of others. A request whose
/// principal is not known is refused with 403; there is no anonymous one.
///
/// ```
/// use oncekey_tower::Principal;
///
/// #[derive(Clone)]
/// struct Account {
///     id: String,
/// }
///
/// // Put there by the layer that authenticates, which has to be outside of the layer of this crate.
/// let principal = Principal::from_extension(|account: &Account| account.id.clone());
/// # let _ = principal;
/// ```
#[derive(Clone)]
pub struct Principal {
    of: Arc<Of>,
}

type Of = dyn Fn(&Parts) -> Option<Vec<u8>> + Send + Sync;

impl Principal {
    /// What `id` makes of the extension `T`, which an authenticating layer has put into the request.
    pub fn from_extension<T, P>(id: impl Fn(&T) -> P + Send + Sync + 'static) -> Self
    where
        T: Clone + Send + Sync + 'static,
        P: Into<Vec<u8>>,
    {
        Self::from_fn(move |parts| parts.extensions.get().map(|found| id(found).into()))
    }

    /// The value of the header `name`, which must be there once.
    ///
    /// Only behind something that sets this header itself and lets none through from outside, such as
    /// a gateway that authenticates.
    #[must_use]
    pub fn from_header(name: HeaderName) -> Self {
        Self::from_fn(move |parts| {
            let mut values = parts.headers.get_all(&name).iter();
            match (values.next(), values.next()) {
                (Some(value), None) => Some(value.as_bytes().to_vec()),
                _ => None,
            }
        })
    }

    /// One and the same for all requests: for a service with a single client, or whose clients may see
    /// each other's answers.
    #[must_use]
    pub fn single_tenant() -> Self {
        Self::from_fn(|_| Some(b"single tenant".to_vec()))
    }

    /// What `of` says; `None` if it cannot tell.
    pub fn from_fn(of: impl Fn(&Parts) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self { of: Arc::new(of) }
    }

    pub(crate) fn of(&self, parts: &Parts) -> Option<Vec<u8>> {
        (self.of)(parts)
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal").finish_non_exhaustive()
    }
}
