//! Waiting for a lock that another process holds: often, and not for ever.
//!
//! SQLite's own waiting sleeps up to a tenth of a second between two looks, in which other writers
//! that commit every few milliseconds overtake a hundred times. This one looks every millisecond.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

thread_local! {
    /// Until when the current call of this thread may wait. A busy handler gets no arguments of its
    /// own, and is called on the thread that waits.
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The connection waits for locks as long as [`allow`] last said on its thread.
pub(crate) fn install(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.busy_handler(Some(wait as fn(i32) -> bool))
}

/// Lets the next statements of this thread wait for `timeout` in all.
pub(crate) fn allow(timeout: Duration) {
    DEADLINE.set(Instant::now().checked_add(timeout));
}

fn wait(_looks: i32) -> bool {
    let now = Instant::now();
    // No deadline: the sum is out of range, which is as good as for ever.
    if DEADLINE.get().is_some_and(|deadline| now >= deadline) {
        return false;
    }
    thread::sleep(pause(now));
    true
}

/// Between 0.2 and 1.2 ms, by the low digits of the time, so that processes do not keep step.
fn pause(now: Instant) -> Duration {
    thread_local!(static ORIGIN: Instant = Instant::now());
    let nanos = ORIGIN.with(|origin| now.saturating_duration_since(*origin).as_nanos());
    Duration::from_micros(200 + (nanos % 1_000) as u64)
}
