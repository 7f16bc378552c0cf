//! A timer that follows tokio's clock.

use std::time::Duration;

use tokio::time::Instant;

use super::timer::{Sleep, Timer};

/// Sleeps by tokio's clock, also when a test has paused it.
///
/// Must be made, and used, inside a tokio runtime with time enabled.
#[derive(Debug, Clone, Copy)]
pub struct TokioTimer {
    origin: Instant,
}

impl TokioTimer {
    /// A timer whose origin is now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for TokioTimer {
    fn default() -> Self {
        Self::new()
    }
}

impl Timer for TokioTimer {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn sleep_until(&self, at: Duration) -> Sleep {
        match self.origin.checked_add(at) {
            Some(instant) => Box::pin(tokio::time::sleep_until(instant)),
            None => Box::pin(std::future::pending()),
        }
    }
}
