//! Time and randomness, as the core needs them: three small traits and their defaults.
//!
//! The core knows no async runtime. What it needs of one it gets from a [`Timer`] (a monotonic clock
//! and sleeping) and a [`Random`]; stores that live in this process read a [`Clock`]. All three are
//! injectable, so that a whole run can be simulated from one seed.

mod clock;
mod random;
mod timer;
#[cfg(feature = "tokio")]
mod tokio;

#[cfg(feature = "tokio")]
pub use self::tokio::TokioTimer;
pub use clock::{Clock, SystemClock, Timestamp};
pub use random::{ProcessRandom, Random, SeededRandom};
pub use timer::{Sleep, ThreadTimer, Timer, TimerClock};
