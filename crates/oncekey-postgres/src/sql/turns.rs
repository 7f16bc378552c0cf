//! How a claim waits for a row that somebody's transaction has, without keeping connections from others.
//!
//! Of all claims in a process that wait for the same key, one is with the server at a time; the others wait
//! here, for their turn. And that one waits in parts, between which its connection is free for others. Where
//! more keys are waited for than there are connections, the parts are shorter, so that together they keep a
//! connection from others no longer than one does.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{Either, select};
use futures::lock::OwnedMutexGuard;
use oncekey::Key;
use oncekey::runtime::{ThreadTimer, Timer};

use super::Terms;

/// How long a claim waits that has no turn yet. For most keys this is never needed.
const GLANCE: Duration = Duration::from_millis(1);
/// How long a claim waits at once, and how long it then leaves its connection to others.
const PART: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(20);

/// How long a turn is waited for without another glance.
const LONG: Duration = Duration::from_secs(60);

type Line = Arc<futures::lock::Mutex<()>>;

/// Who waits for a row in this process, by keys.
#[derive(Default)]
pub struct Turns {
    lines: Mutex<HashMap<Key, Line>>,
}

impl Turns {
    /// A wait for the row of `key`, for `limit` at most, or for ever if that is zero, by a pool of so many
    /// `connections`.
    #[must_use]
    pub fn wait_for<'a>(
        &'a self,
        key: &'a Key,
        limit: Duration,
        connections: usize,
    ) -> Waiting<'a> {
        let until =
            (limit > Duration::ZERO).then(|| ThreadTimer::new().now().saturating_add(limit));
        let place = Place { turns: self, key, line: None };
        Waiting { until, connections, place, turn: None }
    }

    /// How long one of those who have a turn waits at once.
    fn part(&self, connections: usize) -> Duration {
        let (lines, connections) = (self.lock().len(), connections.max(1));
        if lines <= connections {
            return PART;
        }
        PART.mul_f64(connections as f64 / lines as f64)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One claim's wait for a row.
pub struct Waiting<'a> {
    until: Option<Duration>,
    connections: usize,
    // The turn ends before the place in the line is given up.
    turn: Option<OwnedMutexGuard<()>>,
    place: Place<'a>,
}

impl Waiting<'_> {
    /// The terms of the next try: how long it may wait for the row.
    #[must_use]
    pub fn terms(&self, terms: &Terms) -> Terms {
        let part = match self.turn {
            Some(_) => self.place.turns.part(self.connections).min(self.left()),
            None => GLANCE,
        };
        let millis = part.max(GLANCE).as_millis();
        Terms { patience: Some(millis.to_string()), ..terms.clone() }
    }

    /// Waits until the next try is due, when one has met a row that was not free. Hold no connection
    /// meanwhile. Returns whether there is to be one: the time may be over.
    ///
    /// # Cancel safety
    /// Dropped: others get the turn.
    #[must_use]
    pub async fn again(&mut self) -> bool {
        let timer = ThreadTimer::new();
        if self.turn.is_some() {
            timer.sleep_until(timer.now().saturating_add(PAUSE)).await;
        } else {
            let turn = self.place.line().lock_owned();
            let over = self.until.unwrap_or_else(|| timer.now().saturating_add(LONG));
            let over = timer.sleep_until(over);
            if let Either::Left((turn, _)) = select(turn, over).await {
                self.turn = Some(turn);
            }
        }
        self.left() > Duration::ZERO
    }

    fn left(&self) -> Duration {
        self.until.map_or(Duration::MAX, |until| until.saturating_sub(ThreadTimer::new().now()))
    }
}

impl fmt::Debug for Turns {
    /// Shows no key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").field("lines", &self.lock().len()).finish()
    }
}

impl fmt::Debug for Waiting<'_> {
    /// Shows no key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("has_turn", &self.turn.is_some()).finish_non_exhaustive()
    }
}

/// A place in the line of a key. The last to leave takes the line away.
struct Place<'a> {
    turns: &'a Turns,
    key: &'a Key,
    line: Option<Line>,
}

impl Place<'_> {
    fn line(&mut self) -> Line {
        let Self { turns, key, line } = self;
        let line =
            line.get_or_insert_with(|| Arc::clone(turns.lock().entry((*key).clone()).or_default()));
        Arc::clone(line)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(line) = self.line.take() else { return };
        let mut lines = self.turns.lock();
        // The other one is that of the map. Places are taken under the same lock.
        if Arc::strong_count(&line) <= 2 {
            lines.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::executor::block_on;
    use oncekey::Scope;

    use super::*;

    fn key(id: &str) -> Key {
        Key::new(&Scope::new("tenant", "operation").unwrap(), id).unwrap()
    }

    fn patience(waiting: &Waiting<'_>) -> String {
        let terms = Terms { durable: true, patience: None };
        waiting.terms(&terms).patience.unwrap()
    }

    #[test]
    fn of_a_key_one_has_the_turn_and_then_the_next() {
        let turns = Turns::default();
        let (a, b) = (key("a"), key("b"));
        let (mut first, mut second) =
            (turns.wait_for(&a, LONG, 2), turns.wait_for(&a, Duration::ZERO, 2));
        let mut other = turns.wait_for(&b, LONG, 2);
        assert_eq!(patience(&first), "1");
        assert!(block_on(first.again()) && block_on(other.again()));
        assert_eq!((patience(&first), patience(&second)), ("250".to_owned(), "1".to_owned()));
        assert!((&mut Box::pin(second.again())).now_or_never().is_none());
        // It goes on with its turn, until it is gone.
        assert!(block_on(first.again()));
        drop(first);
        assert!(block_on(second.again()));
        assert_eq!(patience(&second), "250");
    }

    /// A key that nobody waits for comes through between them, however many there are.
    #[test]
    fn together_they_keep_a_connection_no_longer_than_one_does() {
        let turns = Turns::default();
        let keys: Vec<_> = (0..50).map(|number| key(&number.to_string())).collect();
        for (connections, part) in [(1, "5"), (5, "25"), (50, "250"), (500, "250"), (0, "5")] {
            let mut waits: Vec<_> =
                keys.iter().map(|key| turns.wait_for(key, LONG, connections)).collect();
            for waiting in &mut waits {
                assert!(block_on(waiting.again()));
            }
            assert!(waits.iter().all(|waiting| patience(waiting) == part), "{connections}");
            // As some go, the others have more time.
            drop(waits.split_off(1));
            assert_eq!(patience(&waits[0]), "250");
        }
    }

    #[test]
    fn a_wait_has_an_end() {
        let turns = Turns::default();
        let key = key("a");
        let mut first = turns.wait_for(&key, LONG, 2);
        assert!(block_on(first.again()));
        let mut second = turns.wait_for(&key, Duration::from_millis(20), 2);
        assert!(!block_on(second.again()));
        drop(first);
        assert!(!block_on(second.again()));
    }

    #[test]
    fn nothing_is_left_of_those_who_are_gone() {
        let turns = Turns::default();
        let key = key("a");
        let (mut first, mut second) =
            (turns.wait_for(&key, LONG, 2), turns.wait_for(&key, LONG, 2));
        let third = turns.wait_for(&key, LONG, 2);
        assert!(block_on(first.again()));
        assert!((&mut Box::pin(second.again())).now_or_never().is_none());
        for (gone, lines) in [(third, 1), (first, 1), (second, 0)] {
            drop(gone);
            assert_eq!(turns.lock().len(), lines);
        }
    }
}
