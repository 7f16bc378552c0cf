//! The threads that read, beside the one that writes: each with a connection of its own.
//!
//! In WAL mode a reader waits for no writer, and sees every commit that was acknowledged before it
//! began. Nothing that is read here decides who may run: claims go through the writer.

use std::sync::Arc;
use std::time::Duration;

use oncekey::Key;
use oncekey::runtime::Clock;
use oncekey::store::{Cursor, Observed, Page, Query, StoreError};
use rusqlite::{Connection, params};

use crate::busy;
use crate::columns;
use crate::error::Purpose;
use crate::queue::{Closing, Queue};
use crate::schema::Schema;

/// How many rows a page looks at for each that it may return.
const LOOKS_PER_ENTRY: usize = 8;

pub(crate) type ReadTask = Box<dyn FnOnce(&Reader) + Send>;

/// What such a thread works with.
pub(crate) struct Reader {
    pub(crate) connection: Connection,
    pub(crate) schema: Arc<Schema>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) busy_timeout: Duration,
}

impl Reader {
    /// Works until the queue is closed and empty.
    pub(crate) fn run(self, queue: &Queue<ReadTask>) {
        let _closing = Closing(queue);
        while let Some(tasks) = queue.take(1) {
            for task in tasks {
                busy::allow(self.busy_timeout);
                task(&self);
            }
        }
    }

    pub(crate) fn get(&self, purpose: Purpose, key: &Key) -> Result<Option<Observed>, StoreError> {
        let failed = |error| purpose.failed(error);
        let sql = &self.schema.select;
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query([key.as_bytes()]).map_err(failed)?;
        let Some(row) = rows.next().map_err(failed)? else {
            return Ok(None);
        };
        match columns::read(row, 0, key.as_bytes()) {
            Ok(record) => Ok(Some(Observed::new(record, self.clock.now()))),
            Err(problem) => Err(purpose.corrupt(problem)),
        }
    }

    /// One page in the order of keys. The cursor is the last key looked at, so a record that is there
    /// during a whole listing is passed once, whatever comes and goes around it.
    pub(crate) fn list(&self, purpose: Purpose, query: &Query) -> Result<Page, StoreError> {
        let failed = |error| purpose.failed(error);
        let mut page = Page { entries: Vec::new(), undecodable: 0, next: None };
        // A page of nothing would be followed by pages of nothing for ever.
        let limit = query.limit.max(1);
        let looks = limit.saturating_mul(LOOKS_PER_ENTRY);
        // No key is empty, so this is before the first.
        let mut last = query.after.clone().unwrap_or_else(|| Cursor::new(Vec::new()));
        let sql = &self.schema.page;
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let most = i64::try_from(looks).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![last.as_bytes(), most]).map_err(failed)?;
        let mut looked_at = 0;
        while page.entries.len() < limit
            && let Some(row) = rows.next().map_err(failed)?
        {
            looked_at += 1;
            let bytes: Vec<u8> = row.get(0).map_err(failed)?;
            let now = self.clock.now();
            match (Key::from_bytes(&bytes), columns::read(row, 1, &bytes)) {
                (Ok(key), Ok(record)) => {
                    if query.states.contains(&record.state(now)) {
                        page.entries.push((key, Observed::new(record, now)));
                    }
                }
                _ => page.undecodable += 1,
            }
            last = Cursor::new(bytes);
        }
        if looked_at == looks || page.entries.len() >= limit {
            page.next = Some(last);
        }
        Ok(page)
    }
}
