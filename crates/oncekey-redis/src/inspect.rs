//! Listing, by `SCAN`.

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::future::join_all;
use oncekey::Key;
use oncekey::store::{Cursor, ErrorKind, Inspect, Observed, Page, Query, StoreError};
use redis::{Cmd, Value};

use crate::fault::Purpose;
use crate::link::Failed;
use crate::nodes::Nodes;
use crate::shared::Shared;
use crate::store::RedisStore;

const LIST: Purpose = Purpose::read("list");
/// How many keys a page looks at for each that it may return.
const LOOKS_PER_ENTRY: usize = 8;
/// How many records are asked for at a time.
const AT_ONCE: usize = 64;

/// Where a listing is: on which node, how far that node's scan is, and which names it found that no page
/// has looked at.
#[derive(Default)]
struct Place {
    /// As [`Nodes`] names it; empty where there is only one.
    node: String,
    scan: u64,
    /// Whether the node's scan has come to its end.
    scanned: bool,
    names: Vec<Vec<u8>>,
}

impl Place {
    fn encode(&self) -> Cursor {
        let mut out = BytesMut::new();
        put(&mut out, self.node.as_bytes());
        out.put_u64(self.scan);
        out.put_u8(self.scanned.into());
        for name in &self.names {
            put(&mut out, name);
        }
        Cursor::new(out.freeze())
    }

    fn decode(cursor: &Cursor) -> Option<Self> {
        let mut bytes = Bytes::copy_from_slice(cursor.as_bytes());
        let node = String::from_utf8(take(&mut bytes)?).ok()?;
        let scan = bytes.try_get_u64().ok()?;
        let scanned = match bytes.try_get_u8().ok()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let mut names = Vec::new();
        while !bytes.is_empty() {
            names.push(take(&mut bytes)?);
        }
        Some(Self { node, scan, scanned, names })
    }
}

fn put(out: &mut BytesMut, part: &[u8]) {
    // Names have a few thousand bytes at most.
    out.put_u32(u32::try_from(part.len()).unwrap_or(u32::MAX));
    out.put_slice(part);
}

fn take(bytes: &mut Bytes) -> Option<Vec<u8>> {
    let len = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
    (len <= bytes.len()).then(|| bytes.split_to(len).to_vec())
}

/// Lists while keys come and go, and a node at a time in a cluster: what moves from one node to another
/// meanwhile may be missed, or listed twice.
#[async_trait]
impl Inspect for RedisStore {
    async fn list(&self, query: &Query) -> Result<Page, StoreError> {
        let shared = &*self.shared;
        shared.server().await?;
        let nodes = Nodes::of(&*shared.link).await.map_err(|f| shared.error(LIST, f))?;
        let mut place = match &query.after {
            Some(cursor) => Place::decode(cursor).ok_or_else(|| {
                LIST.error(ErrorKind::Misconfigured, "the cursor is of another kind of store")
            })?,
            None => Place { node: nodes.first(), ..Place::default() },
        };
        let limit = query.limit.max(1);
        let mut page = Page { entries: Vec::new(), undecodable: 0, next: None };
        let mut looks = limit.saturating_mul(LOOKS_PER_ENTRY);
        loop {
            while !place.names.is_empty() {
                let room = limit - page.entries.len();
                if room == 0 || looks == 0 {
                    page.next = Some(place.encode());
                    return Ok(page);
                }
                let count = place.names.len().min(room).min(AT_ONCE);
                looks = looks.saturating_sub(count);
                let names: Vec<_> = place.names.drain(..count).collect();
                shared.look_at(&names, query, &mut page).await?;
            }
            if place.scanned {
                match nodes.after(&place.node) {
                    Some(node) => place = Place { node, ..Place::default() },
                    None => return Ok(page),
                }
            }
            if looks == 0 || page.entries.len() == limit {
                page.next = Some(place.encode());
                return Ok(page);
            }
            let count = limit.clamp(10, 500);
            looks = looks.saturating_sub(count);
            let scan = scan(&shared.names.pattern(), place.scan, count);
            let answer = nodes.send(&*shared.link, &place.node, &scan).await;
            let answer = answer.map_err(|error| shared.error(LIST, Failed::Command(error)))?;
            (place.scan, place.names) = scanned(answer).ok_or_else(|| LIST.no_answer())?;
            place.scanned = place.scan == 0;
        }
    }
}

impl Shared {
    async fn look_at(
        &self,
        names: &[Vec<u8>],
        query: &Query,
        page: &mut Page,
    ) -> Result<(), StoreError> {
        let found = join_all(names.iter().map(|name| self.get(name))).await;
        for (name, found) in names.iter().zip(found) {
            let key = self.names.key(name);
            match (key, found) {
                (Some(key), Ok(Some(seen))) => add(key, seen, query, page),
                (Some(_), Err(error)) if error.kind() == ErrorKind::Corrupt => {
                    page.undecodable += 1;
                }
                (Some(_), Err(error)) => return Err(error),
                // Gone meanwhile, or no key of this store.
                (_, Ok(_)) | (None, _) => {}
            }
        }
        Ok(())
    }
}

fn add(key: Key, seen: Observed, query: &Query, page: &mut Page) {
    if query.states.contains(&seen.state) {
        page.entries.push((key, seen));
    }
}

fn scan(pattern: &str, from: u64, count: usize) -> Cmd {
    let mut scan = redis::cmd("SCAN");
    scan.arg(from).arg("MATCH").arg(pattern).arg("COUNT").arg(count);
    scan
}

/// Where the scan goes on, and what it found.
fn scanned(answer: Value) -> Option<(u64, Vec<Vec<u8>>)> {
    let (next, names): (String, Vec<Vec<u8>>) = redis::from_redis_value(answer).ok()?;
    Some((next.parse().ok()?, names))
}
