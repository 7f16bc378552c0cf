//! The base as a full store: every verb asks the defect for its rules, and [`Handle::run`] does the
//! rest.

use async_trait::async_trait;
use futures::stream::{self, StreamExt};
use oncekey::Key;
use oncekey::store::{
    Abandon, Claim, ClaimOutcome, Complete, Cursor, ErrorKind, Evict, Expected, Fenced, Inspect,
    Observed, Page, Purged, Query, Renew, Settle, Store, StoreError, Subscription, Watch,
};

use crate::base::pause;
use crate::defect::{Defect, Op, keep, remove};
use crate::handle::Handle;

#[async_trait]
impl Store for Handle {
    async fn claim(&self, key: &Key, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        let (defect, key) = self.at(key);
        self.run(Op::Claim, &key, |seen| (defect.claim)(seen, claim)).await
    }

    async fn renew(&self, key: &Key, renew: &Renew) -> Result<Fenced, StoreError> {
        let (defect, key) = self.at(key);
        self.run(Op::Renew, &key, |seen| (defect.renew)(seen, renew)).await
    }

    async fn complete(&self, key: &Key, complete: &Complete) -> Result<Fenced, StoreError> {
        let (defect, key) = self.at(key);
        self.run(Op::Complete, &key, |seen| (defect.complete)(seen, complete)).await
    }

    async fn abandon(&self, key: &Key, abandon: &Abandon) -> Result<Fenced, StoreError> {
        let (defect, key) = self.at(key);
        self.run(Op::Abandon, &key, |seen| (defect.abandon)(seen, abandon)).await
    }

    async fn settle(&self, key: &Key, settle: &Settle) -> Result<Fenced, StoreError> {
        let (defect, key) = self.at(key);
        self.run(Op::Settle, &key, |seen| (defect.settle)(seen, settle)).await
    }

    async fn evict(&self, key: &Key, evict: &Evict) -> Result<Fenced, StoreError> {
        let (defect, key) = self.at(key);
        let evicted = self.run(Op::Evict, &key, |seen| (defect.evict)(seen, evict)).await;
        match evicted {
            Err(error)
                if error.kind() == ErrorKind::Corrupt
                    && evict.expected == Expected::Any
                    && defect.evicts_what_it_cannot_read =>
            {
                self.remove(Op::Evict, &key)?;
                Ok(Fenced::Applied)
            }
            other => other,
        }
    }

    async fn get(&self, key: &Key) -> Result<Option<Observed>, StoreError> {
        let (defect, key) = self.at(key);
        self.run(Op::Get, &key, defect.get).await
    }

    async fn purge(&self, limit: usize) -> Result<Purged, StoreError> {
        let defect = self.database.defect;
        let mut due = Vec::new();
        for (key, slot) in self.database.rows() {
            match slot.read() {
                Ok(record) if (defect.is_due)(self.database.seen(&key, Some(&record))) => {
                    due.push(key);
                }
                Err(error) if defect.sweep_stops_at_damage => return Err(error),
                _ => {}
            }
        }
        let mut removed = 0;
        for key in due.iter().take((defect.sweep_limit)(limit)) {
            let purged = self.run(Op::Purge, key, |seen| match (defect.is_due)(seen) {
                true => remove(true),
                false => keep(false),
            });
            match purged.await {
                Ok(purged) => removed += usize::from(purged),
                Err(error) if error.kind() == ErrorKind::Corrupt => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Purged { removed, more: limit > 0 && due.len() > limit && defect.sweep_admits_more })
    }

    fn watch(&self) -> Option<&dyn Watch> {
        Some(self)
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }
}

impl Handle {
    fn at(&self, key: &Key) -> (Defect, Vec<u8>) {
        let defect = self.database.defect;
        (defect, (defect.key)(key.as_bytes()))
    }
}

#[async_trait]
impl Watch for Handle {
    async fn subscribe(&self, key: &Key) -> Result<Subscription, StoreError> {
        let (defect, key) = self.at(key);
        pause().await;
        if defect.subscribes_late {
            let database = self.database.clone();
            let late = stream::once(async move { database.subscribe(key) });
            return Ok(Subscription::new(late.flatten()));
        }
        Ok(Subscription::new(self.database.subscribe(key)))
    }
}

#[async_trait]
impl Inspect for Handle {
    async fn list(&self, query: &Query) -> Result<Page, StoreError> {
        pause().await;
        let defect = self.database.defect;
        let now = self.database.now();
        let mut page = Page { entries: Vec::new(), undecodable: 0, next: None };
        let after = query.after.as_ref().map_or(&[][..], Cursor::as_bytes);
        let mut looked_at = Vec::new();
        let rows = self.database.rows();
        for (offset, (stored_key, slot)) in (1_u64..).zip(&rows) {
            // What the cursor of a page that ends here is.
            let place = match defect.pages_by_offset {
                true => offset.to_be_bytes().to_vec(),
                false => stored_key.clone(),
            };
            if place.as_slice() <= after {
                continue;
            }
            if page.entries.len() >= query.limit {
                page.next = Some(Cursor::new(looked_at));
                break;
            }
            looked_at = place;
            match (Key::from_bytes(stored_key), slot.read()) {
                (Ok(key), Ok(record)) => {
                    let observed = Observed::new(record, now);
                    if query.states.contains(&(defect.listed_state)(&observed)) {
                        page.entries.push((key, observed));
                    }
                }
                _ => page.undecodable += 1,
            }
        }
        (defect.page)(&mut page, query);
        Ok(page)
    }
}
