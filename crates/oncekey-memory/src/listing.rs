//! Listing: pages in the order of record ids.
//!
//! An id stays with its record and does not depend on what other records there are. So a record that
//! is there during a whole listing is passed exactly once, however many come and go around it, and a
//! page costs what it looks at, however large the store is.

use oncekey::store::{ErrorKind, Observed, Page, Query, StoreError};

use crate::id::RecordId;
use crate::shared::Shared;

/// How many records a page looks at for each that it may return.
const LOOKS_PER_ENTRY: usize = 8;

/// How many records are looked at under one lock before others get a turn.
const LOOKS_PER_LOCK: usize = 128;

pub(crate) fn list(shared: &Shared, query: &Query) -> Result<Page, StoreError> {
    let mut page = Page { entries: Vec::new(), undecodable: 0, next: None };
    // A page of nothing would be followed by pages of nothing for ever.
    let limit = query.limit.max(1);
    let mut looks = limit.saturating_mul(LOOKS_PER_ENTRY);
    let mut place = match &query.after {
        None => Some(RecordId::FIRST),
        Some(cursor) => Some(RecordId::from_cursor(cursor).ok_or_else(foreign_cursor)?),
    };
    while let Some(from) = place {
        if looks == 0 || page.entries.len() >= limit {
            page.next = Some(from.to_cursor());
            break;
        }
        let shard = shared.lock_shard(from.shard());
        let now = shared.now();
        let chunk = looks.min(LOOKS_PER_LOCK);
        let mut looked_at = 0;
        for (id, kept) in shard.records.range(from).take(chunk) {
            if page.entries.len() >= limit {
                break;
            }
            looked_at += 1;
            place = id.next();
            if query.states.contains(&kept.record.state(now)) {
                let observed = Observed::new(kept.record.clone(), now);
                page.entries.push((kept.key.clone(), observed));
            }
        }
        looks -= looked_at;
        if looked_at < chunk && page.entries.len() < limit {
            place = from.next_shard();
        }
    }
    Ok(page)
}

fn foreign_cursor() -> StoreError {
    StoreError::new(ErrorKind::Misconfigured, "list")
        .with_message("the cursor is not one that a memory store returned; start without one")
}
