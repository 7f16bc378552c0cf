//! What a rule says of a store: nothing, or a [`Violation`].

use std::error::Error;
use std::fmt;

use oncekey::store::StoreError;

/// What a rule returns.
pub type Verdict = Result<(), Violation>;

/// A rule that was broken: what it requires, and what was observed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// What the contract requires.
    pub required: String,
    /// What the store did.
    pub observed: String,
}

impl Violation {
    /// `required` was not met: the store did `observed`.
    #[must_use]
    pub fn new(required: impl Into<String>, observed: impl fmt::Debug) -> Self {
        Self { required: required.into(), observed: format!("{observed:?}") }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "required: {}; observed: {}", self.required, self.observed)
    }
}

impl Error for Violation {}

impl From<StoreError> for Violation {
    fn from(error: StoreError) -> Self {
        let mut observed = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            observed = format!("{observed}: {error}");
            cause = error.source();
        }
        Self { required: "a working store answers".to_owned(), observed }
    }
}
