//! The server's clock, as far as a client knows it, and durations by it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use oncekey::store::FencingToken;

/// Milliseconds: what the server keeps times in.
pub(crate) type Millis = u64;

/// Longer than from 1970 to the last [`Timestamp`](oncekey::runtime::Timestamp): a sum with it is *never*.
const FOREVER: Millis = 10_000_000_000_000;

/// How long a key outlives its record, at least, so that its token is remembered. The scripts have the
/// same number.
pub(crate) const GRACE: Millis = 60_000;

/// A grant that came later than this was written too late for its token, which was made before it was sent:
/// with [`OLDEST`] less than [`GRACE`].
pub(crate) const LATEST: Duration = Duration::from_secs(30);

/// An answer that took longer tells the time too badly.
const SLOWEST: Duration = Duration::from_millis(250);
/// An older one is not built upon.
const OLDEST: Duration = Duration::from_secs(10);

/// Whole milliseconds, rounded up, at most as many as *for ever*.
pub(crate) fn millis(duration: Duration) -> Millis {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    u64::try_from(millis).unwrap_or(u64::MAX).min(FOREVER)
}

/// A recent estimate of the server's clock, never ahead of it while the clocks run alike.
///
/// Tokens of new keys are made of it, and nothing else: no lease is judged by it. Where the clocks of several
/// servers are too far apart, it is not used. It is behind by less than [`GRACE`], and each key
/// is there for longer than that: so a token is above that of any record that was there before, unless its
/// claim was on the way for longer than [`LATEST`]. Such a grant is given back, and a copy of the claim that
/// meets it later gets another token of the script.
#[derive(Debug, Default)]
pub(crate) struct ServerClock {
    seen: Mutex<Option<(u64, Moment)>>,
}

/// A moment of the past. While a machine sleeps, its monotonic clock may stand still; its wall clock is set
/// when it wakes up. So the one counts by which more has passed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    instant: Instant,
    wall: SystemTime,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { instant: Instant::now(), wall: SystemTime::now() }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Self::now().since(self)
    }

    fn since(&self, earlier: &Self) -> Duration {
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        self.instant.saturating_duration_since(earlier.instant).max(wall)
    }
}

impl ServerClock {
    /// An answer that was asked for at `asked` says that it is `micros` since 1970.
    pub(crate) fn note(&self, micros: u64, asked: Instant) {
        let now = Moment::now();
        // Of the same look at the clock: a pause between two would make the estimate too old.
        if now.instant.saturating_duration_since(asked) <= SLOWEST {
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((micros, now));
        }
    }

    /// A token for `now`, if the time is known well enough.
    pub(crate) fn token(&self, now: Moment) -> Option<FencingToken> {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (micros, at) = seen?;
        let since = now.instant.saturating_duration_since(at.instant);
        // A thousandth less: more than any clock drifts.
        let passed = since - since / 1000;
        let micros = micros.saturating_add(u64::try_from(passed.as_micros()).ok()?);
        (now.since(&at) <= OLDEST).then(|| FencingToken::new(micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_up_and_bounded() {
        assert_eq!(millis(Duration::ZERO), 0);
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::from_micros(1_001)), 2);
        assert_eq!(millis(Duration::MAX), FOREVER);
    }

    #[test]
    fn a_token_is_no_later_than_the_server_and_no_earlier_than_what_it_said() {
        let clock = ServerClock::default();
        assert_eq!(clock.token(Moment::now()), None);
        clock.note(5_000_000, Instant::now());
        let token = clock.token(Moment::now()).unwrap();
        assert!((5_000_000..5_500_000).contains(&token.get()), "{token}");
    }

    #[test]
    fn a_slow_answer_tells_nothing() {
        let clock = ServerClock::default();
        let Some(long_ago) = Instant::now().checked_sub(2 * SLOWEST) else { return };
        clock.note(5_000_000, long_ago);
        assert_eq!(clock.token(Moment::now()), None);
    }

    /// The machine slept: its monotonic clock stood still, its wall clock was set.
    #[test]
    fn an_estimate_from_before_a_sleep_is_not_used() {
        let clock = ServerClock::default();
        clock.note(5_000_000, Instant::now());
        assert!(clock.token(Moment::now()).is_some());
        let mut seen = clock.seen.lock().unwrap();
        if let Some((_, at)) = &mut *seen {
            at.wall -= 2 * OLDEST;
        }
        drop(seen);
        assert_eq!(clock.token(Moment::now()), None);
    }

    #[test]
    fn a_wall_clock_that_steps_back_changes_nothing() {
        let ahead = Moment { wall: SystemTime::now() + OLDEST, ..Moment::now() };
        assert!(ahead.elapsed() < SLOWEST);
    }
}
