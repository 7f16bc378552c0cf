//! The one error type: what was attempted, why it failed, what to do about it.

use std::fmt;

pub(crate) type Result<T> = std::result::Result<T, Error>;

#[derive(Debug)]
pub(crate) struct Error {
    attempt: String,
    cause: String,
    advice: String,
}

impl Error {
    /// `attempt` completes the sentence "could not ...".
    pub(crate) fn new(
        attempt: impl Into<String>,
        cause: impl fmt::Display,
        advice: impl Into<String>,
    ) -> Self {
        Self { attempt: attempt.into(), cause: cause.to_string(), advice: advice.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {}: {}\n  help: {}", self.attempt, self.cause, self.advice)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn says_what_why_and_what_to_do() {
        let error = Error::new("start `cargo`", "not found", "install Rust");

        assert_eq!(error.to_string(), "could not start `cargo`: not found\n  help: install Rust");
    }
}
