//! The time of the log, made shorter: five minutes of traffic in a few seconds.

use std::time::Duration;

/// How many times faster than written the log is played. All times of the play shrink alike: the
/// lease of the keys, the patience of the clients, the latency of the processor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    speed: u32,
}

impl Pace {
    pub(crate) const fn new(speed: u32) -> Self {
        Self { speed }
    }

    /// How long `millis` of the log take in the play.
    pub(crate) fn real(self, millis: u64) -> Duration {
        Duration::from_millis(millis) / self.speed
    }

    pub(crate) async fn pass(self, millis: u64) {
        tokio::time::sleep(self.real(millis)).await;
    }
}
