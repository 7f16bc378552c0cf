//! A store of one's own in under 100 lines of code: a journal in one file, for one process at a time.
//! What it acknowledged survives that process; with `sync_data` after each write, it survives the
//! machine. `CompareAndSwap` is all that is implemented: the rules come from the core.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Error, Read, Write};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use oncekey::runtime::{Clock, Timestamp};
use oncekey::store::{CompareAndSwap, Entry, ErrorKind, StoreError, Version, Versioned};
use tokio::sync::Mutex;

pub(crate) struct Journal {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    file: File,
    /// How long the file is up to the end of its last whole entry, which is that entry's version.
    len: u64,
    entries: BTreeMap<Vec<u8>, (u64, Entry)>,
}

impl Journal {
    pub(crate) fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut state = State { file, len: 0, entries: BTreeMap::new() };
        // Who wrote half an entry at the end crashed, and has told nobody that it is written.
        while let Some((key, new, len)) = decode(&bytes[state.len as usize..]) {
            state.apply(key, new, len);
        }
        Ok(Self { clock, state: Mutex::new(state) })
    }
}

impl State {
    fn write(&mut self, key: &[u8], new: Option<Entry>) -> Result<(), Error> {
        let written = encode(key, new.as_ref());
        // Cuts off half an entry, which an earlier write may have left.
        self.file.set_len(self.len)?;
        self.file.write_all(&written)?;
        self.apply(key, new, written.len());
        Ok(())
    }

    fn apply(&mut self, key: &[u8], new: Option<Entry>, len: usize) {
        self.len += len as u64;
        match new {
            Some(entry) => drop(self.entries.insert(key.to_vec(), (self.len, entry))),
            None => drop(self.entries.remove(key)),
        }
    }
}

/// The lengths of key and record, when it may be forgotten, the key, the record. Without a record, the
/// key is removed.
fn encode(key: &[u8], new: Option<&Entry>) -> Vec<u8> {
    let (forget_at, record) = new.map_or((0, &[][..]), |it| (it.forget_at.as_micros(), &it.bytes));
    let head = [key.len() as u64, record.len() as u64, forget_at].map(u64::to_be_bytes);
    [&head.concat(), key, record].concat()
}

fn decode(from: &[u8]) -> Option<(&[u8], Option<Entry>, usize)> {
    let (key_len, rest) = from.split_first_chunk()?;
    let (record_len, rest) = rest.split_first_chunk()?;
    let (forget_at, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(u64::from_be_bytes(*key_len) as usize)?;
    let (record, rest) = rest.split_at_checked(u64::from_be_bytes(*record_len) as usize)?;
    let forget_at = Timestamp::from_micros(u64::from_be_bytes(*forget_at));
    let entry = Entry { bytes: Bytes::copy_from_slice(record), forget_at };
    Some((key, Some(entry).filter(|_| !record.is_empty()), from.len() - rest.len()))
}

#[async_trait]
impl CompareAndSwap for Journal {
    async fn load(&self, key: &[u8]) -> Result<(Option<Versioned>, Timestamp), StoreError> {
        let found = self.state.lock().await.entries.get(key).map(|(version, entry)| Versioned {
            version: Version::from(*version),
            bytes: entry.bytes.clone(),
        });
        Ok((found, self.clock.now()))
    }

    async fn swap(
        &self,
        key: &[u8],
        expected: Option<&Version>,
        new: Option<Entry>,
    ) -> Result<bool, StoreError> {
        let mut state = self.state.lock().await;
        let current = state.entries.get(key).map(|(version, _)| Version::from(*version));
        if current.as_ref() != expected {
            return Ok(false);
        }
        // Whether it is in the file after an error is not known: whoever opens it next will see.
        let unknown = |error| StoreError::new(ErrorKind::OutcomeUnknown, "swap").with_source(error);
        state.write(key, new).map(|()| true).map_err(unknown)
    }

    async fn expired(&self, limit: usize) -> Result<Vec<Bytes>, StoreError> {
        let (state, now) = (self.state.lock().await, self.clock.now());
        let over = state.entries.iter().filter(|(_, (_, entry))| entry.forget_at <= now);
        Ok(over.take(limit).map(|(key, _)| Bytes::copy_from_slice(key)).collect())
    }
}
