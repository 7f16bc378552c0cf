//! Checks whose violations name what was required and what was observed.

use std::fmt;
use std::time::Duration;

use oncekey::Key;
use oncekey::store::{Claim, ClaimOutcome, ErrorKind, StoreError};

use super::Owner;
use crate::{Verdict, Violation};

/// `observed` is `required`, for `what`.
pub(crate) fn expect<T: fmt::Debug + PartialEq>(
    what: impl fmt::Display,
    observed: T,
    required: T,
) -> Verdict {
    ensure(observed == required, format_args!("{what}: {required:?}"), &observed)
}

pub(crate) fn ensure(
    holds: bool,
    required: impl fmt::Display,
    observed: impl fmt::Debug,
) -> Verdict {
    if holds { Ok(()) } else { broken(required, observed) }
}

pub(crate) fn broken<T>(
    required: impl fmt::Display,
    observed: impl fmt::Debug,
) -> Result<T, Violation> {
    Err(Violation::new(required.to_string(), observed))
}

/// The grant that `claim` got.
pub(crate) fn acquired(
    what: impl fmt::Display,
    key: &Key,
    claim: &Claim,
    outcome: ClaimOutcome,
) -> Result<Owner, Violation> {
    match outcome {
        ClaimOutcome::Acquired { grant, number, lease_left, previous } => {
            expect(
                format_args!("{what}, for the attempt that asked"),
                grant.attempt,
                claim.attempt,
            )?;
            Ok(Owner { key: key.clone(), claim: *claim, grant, number, lease_left, previous })
        }
        other => broken(format_args!("{what}: Acquired"), other),
    }
}

/// How long the claim is told to wait.
pub(crate) fn busy(what: impl fmt::Display, outcome: &ClaimOutcome) -> Result<Duration, Violation> {
    match outcome {
        ClaimOutcome::Busy { retry_after } => Ok(*retry_after),
        other => broken(format_args!("{what}: Busy"), other),
    }
}

/// The outcome is a replay of exactly `value`.
pub(crate) fn replayed(what: impl fmt::Display, outcome: &ClaimOutcome, value: &[u8]) -> Verdict {
    let required = format_args!("{what}: Replay of the {} bytes", value.len()).to_string();
    match outcome {
        ClaimOutcome::Replay(Some(bytes)) if bytes == value => Ok(()),
        ClaimOutcome::Replay(Some(bytes)) => {
            let common = value.iter().zip(bytes).take_while(|(a, b)| a == b).count();
            let observed = format_args!("{} bytes, the first {common} of them right", bytes.len());
            broken(required, observed)
        }
        other => broken(required, other),
    }
}

/// `what` fails as `Corrupt`.
pub(crate) fn corrupt<T: fmt::Debug>(
    what: impl fmt::Display,
    result: Result<T, StoreError>,
) -> Verdict {
    match result {
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(()),
        other => broken(format_args!("{what} fails as Corrupt"), other),
    }
}
