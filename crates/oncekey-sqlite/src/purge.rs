//! Removing what is over: one step at a time, in the order in which the records' times come.

use oncekey::store::{Purge, StoreError};
use rusqlite::params;

use crate::columns;
use crate::error::Purpose;
use crate::session::Session;

use oncekey::store::{Change, transition};

/// The most rows that one step looks at: bounds how long claims wait for it.
const LOOKS_PER_STEP: usize = 128;

/// A row in the order of purging: its time to forget, and its number for rows of the same time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place(i64, i64);

impl Place {
    /// Before every row.
    pub(crate) const FIRST: Self = Self(i64::MIN, i64::MIN);
}

pub(crate) struct Step {
    pub(crate) removed: usize,
    /// Where to go on; `None` if nothing is left to remove now.
    pub(crate) next: Option<Place>,
}

/// Removes at most `most` of the next rows after `after`.
///
/// The write lock is held, so a row is removed exactly as it was read: whoever renewed or claimed it did
/// so before, and then it is no longer due, or comes after, and finds nothing. A row that cannot be
/// understood is passed over, and the next step goes on behind it.
pub(crate) fn step(
    session: &mut Session<'_>,
    purpose: Purpose,
    after: Place,
    most: usize,
) -> Result<Step, StoreError> {
    let looks = most.min(LOOKS_PER_STEP);
    let mut looked_at = 0;
    let mut last = after;
    let mut over = Vec::new();
    let mut example = None;
    let failed = |error| purpose.failed(error);
    let now = session.now();
    {
        let sql = &session.schema().due;
        let connection = session.connection();
        let mut statement = connection.prepare_cached(sql).map_err(failed)?;
        let parameters = params![columns::micros(now), after.0, after.1, looks as i64];
        let mut rows = statement.query(parameters).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            looked_at += 1;
            last = Place(row.get(1).map_err(failed)?, row.get(0).map_err(failed)?);
            let key: Vec<u8> = row.get(2).map_err(failed)?;
            if let Ok(record) = columns::read(row, 3, &key)
                && transition(Some(&record), &Purge, now).change == Change::Remove
            {
                over.push(key);
                example = Some(record);
            }
        }
    }
    for key in &over {
        session.delete(key).map_err(failed)?;
    }
    let removed = over.len();
    if let (Some(key), Some(record)) = (over.pop(), example) {
        session.replaced(key, record);
    }
    Ok(Step { removed, next: (looked_at == looks).then_some(last) })
}
