//! Keeping keys in order, apart from requests: sweeping, completing, and an operator's verbs.

mod completer;
mod operator;
mod sweeper;

pub use completer::{Completer, Completions};
pub use operator::Operator;
pub use sweeper::Sweeper;

use std::sync::Arc;
use std::time::Duration;

use crate::Verify;
use crate::engine::Idempotency;

impl Idempotency {
    /// Removes records whose time is over, at an interval.
    #[must_use]
    pub fn sweeper(&self) -> Sweeper {
        Sweeper::new(Arc::clone(&self.inner))
    }

    /// Finishes interrupted keys of `operation`, as given to [`Scope::new`](crate::Scope::new), by
    /// asking `hook`, without waiting for a client to retry.
    #[must_use]
    pub fn completer(
        &self,
        operation: impl Into<Vec<u8>>,
        hook: impl Verify + 'static,
    ) -> Completer {
        Completer::new(Arc::clone(&self.inner), operation.into(), Arc::new(hook))
    }

    /// What an operator can do with single keys.
    #[must_use]
    pub fn operator(&self) -> Operator {
        Operator::new(Arc::clone(&self.inner))
    }
}

/// Between half and all of `interval`, so that a fleet does not sweep in step. Never nothing: whoever
/// works at an interval lets others run in between.
fn jittered(interval: Duration, random: &dyn crate::runtime::Random) -> Duration {
    let interval = interval.max(Duration::from_millis(1));
    crate::engine::Backoff::doubling(interval, interval).next(random)
}
