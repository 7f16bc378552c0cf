//! The commands inside one open transaction: read the row, decide by the core's rules, write it back.

use oncekey::Key;
use oncekey::runtime::{Clock, Timestamp};
use oncekey::store::{
    Change, Claim, ClaimOutcome, Command, FencingToken, Record, StoreError, Transition, transition,
};
use rusqlite::Connection;

use crate::columns::{self, Problem};
use crate::error::Purpose;
use crate::schema::{Schema, TOKEN_FLOOR};

/// One transaction that holds the write lock.
pub(crate) struct Session<'a> {
    connection: &'a Connection,
    schema: &'a Schema,
    clock: &'a dyn Clock,
    floor: Option<Floor>,
    /// Whether the last command found a record of its key.
    knew_key: bool,
    /// A record that was changed, as it was before. Nobody can bring that back: deadlines only go up, and
    /// attempts that ended, were replaced or removed stay so.
    replaced: Option<(Vec<u8>, Record)>,
}

/// The greatest time at which a token was made, or the greatest token made since the clock stepped
/// back behind it. It keeps tokens from going back with the clock; it never takes the place of *now*.
#[derive(Clone, Copy)]
struct Floor {
    stored: u64,
    current: u64,
}

const NO_FLOOR: Problem = "the row `token_floor` of the second table is no token: it was damaged, or edited by \
                           hand; set it to the highest token that was ever granted";

/// What the key has in the table.
enum Found {
    Nothing,
    Record(Record),
    Corrupt(Problem),
}

impl<'a> Session<'a> {
    /// The write lock must be held already: time must not be read before a wait for it.
    pub(crate) const fn new(
        connection: &'a Connection,
        schema: &'a Schema,
        clock: &'a dyn Clock,
    ) -> Self {
        Self { connection, schema, clock, floor: None, knew_key: false, replaced: None }
    }

    /// Applies `command` to the record of `key`.
    pub(crate) fn apply<C: Command>(
        &mut self,
        purpose: Purpose,
        key: &Key,
        command: &C,
    ) -> Result<C::Outcome, StoreError> {
        let found = self.find(key.as_bytes()).map_err(|error| purpose.failed(error))?;
        self.decide(purpose, key, found, command)
    }

    /// Applies a claim; its token never goes back, whatever the clock does.
    pub(crate) fn claim(
        &mut self,
        purpose: Purpose,
        key: &Key,
        claim: &Claim,
    ) -> Result<ClaimOutcome, StoreError> {
        let found = self.find(key.as_bytes()).map_err(|error| purpose.failed(error))?;
        let floor = self.floor(purpose)?;
        let floored = Floored::new(claim, floor.current);
        let outcome = self.decide(purpose, key, found, &floored)?;
        if let Some(raised) = floored.raised.get() {
            self.floor = Some(Floor { current: raised, ..floor });
        }
        Ok(outcome)
    }

    /// Removes the record of `key`, also one that cannot be understood, if `command` says so.
    pub(crate) fn evict_any<C: Command>(
        &mut self,
        purpose: Purpose,
        key: &Key,
        command: &C,
        removed: C::Outcome,
    ) -> Result<C::Outcome, StoreError> {
        match self.find(key.as_bytes()).map_err(|error| purpose.failed(error))? {
            Found::Corrupt(_) => {
                self.delete(key.as_bytes()).map_err(|error| purpose.failed(error))?;
                Ok(removed)
            }
            found => self.decide(purpose, key, found, command),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) const fn connection(&self) -> &'a Connection {
        self.connection
    }

    pub(crate) const fn schema(&self) -> &'a Schema {
        self.schema
    }

    pub(crate) const fn knew_key(&self) -> bool {
        self.knew_key
    }

    pub(crate) fn delete(&self, key: &[u8]) -> rusqlite::Result<()> {
        let sql = &self.schema.delete;
        one_row(self.connection.prepare_cached(sql)?.execute([key])?)
    }

    /// Remembers one of the records that were changed: `before` was in the row of `key`.
    pub(crate) fn replaced(&mut self, key: Vec<u8>, before: Record) {
        self.replaced = Some((key, before));
    }

    /// Writes what the whole transaction has to remember. Call it before the commit.
    pub(crate) fn finish(&self) -> rusqlite::Result<()> {
        let Some(floor) = self.raised_floor() else { return Ok(()) };
        let sql = &self.schema.set_floor;
        one_row(self.connection.prepare_cached(sql)?.execute([floor.cast_signed()])?)
    }

    /// Whether nothing of this transaction, which is over, is in force, as far as the rows tell. Others may have
    /// written since.
    pub(crate) fn is_undone(&self) -> rusqlite::Result<bool> {
        if let Some(floor) = self.raised_floor() {
            let stored = self.schema.meta(self.connection, TOKEN_FLOOR)?;
            return Ok(stored.is_some_and(|stored| stored.cast_unsigned() < floor));
        }
        let Some((key, before)) = &self.replaced else { return Ok(false) };
        Ok(matches!(self.find(key)?, Found::Record(now) if now == *before))
    }

    /// The floor after this transaction, if it goes up. It never comes down again.
    fn raised_floor(&self) -> Option<u64> {
        let floor = self.floor?;
        (floor.current > floor.stored).then_some(floor.current)
    }

    fn decide<C: Command>(
        &mut self,
        purpose: Purpose,
        key: &Key,
        found: Found,
        command: &C,
    ) -> Result<C::Outcome, StoreError> {
        let record = match found {
            Found::Nothing => None,
            Found::Record(record) => Some(record),
            Found::Corrupt(problem) => return Err(purpose.corrupt(problem)),
        };
        self.knew_key = record.is_some();
        let decided = transition(record.as_ref(), command, self.now());
        let key = key.as_bytes();
        let sql = match (&decided.change, &record) {
            (Change::Put(_), None) => &self.schema.insert,
            _ => &self.schema.update,
        };
        match &decided.change {
            Change::Keep => Ok(()),
            Change::Put(record) => self
                .connection
                .prepare_cached(sql)
                .and_then(|mut statement| columns::write(&mut statement, key, record))
                .and_then(one_row),
            Change::Remove => self.delete(key),
        }
        .map_err(|error| purpose.on_known_key(self.knew_key).failed(error))?;
        let changed = match &decided.change {
            Change::Keep => false,
            Change::Put(after) => record.as_ref() != Some(after),
            Change::Remove => true,
        };
        if let Some(before) = record
            && changed
        {
            self.replaced(key.to_vec(), before);
        }
        Ok(decided.outcome)
    }

    fn find(&self, key: &[u8]) -> rusqlite::Result<Found> {
        let mut statement = self.connection.prepare_cached(&self.schema.select)?;
        let mut rows = statement.query([key])?;
        Ok(match rows.next()? {
            None => Found::Nothing,
            Some(row) => match columns::read(row, 0, key) {
                Ok(record) => Found::Record(record),
                Err(problem) => Found::Corrupt(problem),
            },
        })
    }

    fn floor(&mut self, purpose: Purpose) -> Result<Floor, StoreError> {
        if let Some(floor) = self.floor {
            return Ok(floor);
        }
        let stored = self.schema.meta(self.connection, TOKEN_FLOOR);
        let Some(stored) = stored.map_err(|error| purpose.failed(error))? else {
            return Err(self.schema.without_floor(purpose.operation));
        };
        let stored = u64::try_from(stored).ok().filter(|floor| *floor <= FencingToken::MAX.get());
        let stored = stored.ok_or_else(|| purpose.corrupt(NO_FLOOR))?;
        let floor = Floor { stored, current: stored };
        self.floor = Some(floor);
        Ok(floor)
    }
}

/// Refuses to go on where SQLite was told to leave a row as it is, and calls that a success.
fn one_row(changed: usize) -> rusqlite::Result<()> {
    if changed == 1 { Ok(()) } else { Err(rusqlite::Error::StatementChangedRows(changed)) }
}

/// A claim whose new token is above the floor when the clock is behind it.
struct Floored<'a> {
    claim: &'a Claim,
    floor: u64,
    /// The floor after it, if it goes up.
    raised: std::cell::Cell<Option<u64>>,
}

impl<'a> Floored<'a> {
    const fn new(claim: &'a Claim, floor: u64) -> Self {
        Self { claim, floor, raised: std::cell::Cell::new(None) }
    }
}

impl Command for Floored<'_> {
    type Outcome = ClaimOutcome;

    fn apply(&self, last: Option<&Record>, now: Timestamp) -> Transition<ClaimOutcome> {
        let mut decided = transition(last, self.claim, now);
        let (Change::Put(record), ClaimOutcome::Acquired { grant, .. }) =
            (&mut decided.change, &mut decided.outcome)
        else {
            return decided;
        };
        if last.is_some_and(|last| last.attempt == record.attempt) {
            // The grant that this attempt has already, with its token.
            return decided;
        }
        let now = now.as_micros();
        if now >= self.floor {
            self.raised.set(Some(now));
        } else {
            let token = record.token.get().max(self.floor.saturating_add(1));
            record.token = FencingToken::new(token);
            grant.token = record.token;
            self.raised.set(Some(record.token.get()));
        }
        decided
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use oncekey::Fingerprint;
    use oncekey::store::{AttemptId, OnInterrupted, OnRetired};

    use super::*;

    fn claim(attempt: u8) -> Claim {
        Claim {
            attempt: AttemptId::from_bytes([attempt; 16]),
            fingerprint: Fingerprint::of("100 EUR"),
            lease: Duration::from_secs(30),
            hold: Duration::from_secs(600),
            on_interrupted: OnInterrupted::TakeOver,
            on_retired: OnRetired::Forget,
        }
    }

    #[test]
    fn a_clock_that_goes_on_makes_the_tokens_of_the_rules() {
        let (claim, now) = (claim(1), Timestamp::from_micros(1_000));
        for floor in [0, 999, 1_000] {
            let floored = Floored::new(&claim, floor);
            assert_eq!(transition(None, &floored, now), transition(None, &claim, now));
            assert_eq!(floored.raised.get(), Some(1_000));
        }
    }

    #[test]
    fn a_clock_that_stepped_back_makes_tokens_above_the_floor_and_deadlines_of_its_own() {
        let (claim, now) = (claim(1), Timestamp::from_micros(1_000));
        let floored = Floored::new(&claim, 5_000);
        let granted = transition(None, &floored, now);
        let plain = transition(None, &claim, now);
        let (Change::Put(record), Change::Put(expected)) = (granted.change, plain.change) else {
            panic!("a grant is recorded");
        };
        assert_eq!(record.token.get(), 5_001);
        assert_eq!(floored.raised.get(), Some(5_001));
        assert_eq!((record.status, record.forget_at), (expected.status, expected.forget_at));
    }

    #[test]
    fn the_own_grant_keeps_its_token() {
        let (claim, now) = (claim(1), Timestamp::from_micros(1_000));
        let Change::Put(record) = transition(None, &claim, now).change else {
            panic!("a grant is recorded");
        };
        let floored = Floored::new(&claim, 5_000);
        let again = transition(Some(&record), &floored, now);
        assert!(matches!(
            again.outcome,
            ClaimOutcome::Acquired { grant, .. } if grant == record.grant()
        ));
        assert_eq!(floored.raised.get(), None);
    }
}
