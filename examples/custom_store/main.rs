//! A store of one's own, in `store.rs`, takes the conformance suite, as every store of oncekey does.
//! The fixture is what the suite needs to know of it.
#![allow(clippy::expect_used, reason = "a fixture may panic: the rule then fails")]

mod store;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use oncekey::Key;
use oncekey::store::{CasStore, CompareAndSwap, Entry, Store};
use oncekey_conformance::{Capabilities, Capability, Damage, Fixture, run_all};
use oncekey_memory::ManualClock;

use store::Journal;

fn main() -> ExitCode {
    let report = run_all(&Temporary::block_on(Temporary::create()));
    println!("{report}");
    if report.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The store in a temporary file, with a clock that can be moved.
struct Temporary {
    path: PathBuf,
    clock: ManualClock,
    store: Mutex<Arc<CasStore<Journal>>>,
}

impl Temporary {
    fn store(&self) -> MutexGuard<'_, Arc<CasStore<Journal>>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(path: &Path, clock: &ManualClock) -> Arc<CasStore<Journal>> {
    let journal = Journal::open(path, Arc::new(clock.clone()));
    Arc::new(CasStore::new(journal.expect("a temporary file can be opened")))
}

#[async_trait]
impl Fixture for Temporary {
    async fn create() -> Self {
        static FILES: AtomicU64 = AtomicU64::new(0);
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let name = format!("oncekey-{}-{number}.journal", std::process::id());
        let path = std::env::temp_dir().join(name);
        let clock = ManualClock::default();
        let store = Mutex::new(open(&path, &clock));
        Self { path, clock, store }
    }

    async fn open(&self) -> Arc<dyn Store> {
        self.store().clone()
    }

    async fn advance(&self, duration: Duration) {
        self.clock.advance(duration);
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::injected_time().with(Capability::Restart).with(Capability::Damage)
    }

    /// Nothing but the file is left.
    async fn restart(&self) {
        *self.store() = open(&self.path, &self.clock);
    }

    async fn damage(&self, key: &Key, damage: Damage) {
        let store = self.store().clone();
        let (found, now) = store.get_ref().load(key.as_bytes()).await.expect("memory is there");
        let found = found.expect("the suite damages what is stored");
        let mut record = found.bytes.to_vec();
        match damage {
            Damage::FlipBit => record[7] ^= 1,
            Damage::Truncate => record.truncate(9),
            // The first byte of a record is the version of its format.
            _ => record[0] = u8::MAX,
        }
        let entry = Entry { bytes: record.into(), forget_at: now };
        let swapped = store.get_ref().swap(key.as_bytes(), Some(&found.version), Some(entry)).await;
        assert!(swapped.expect("the file can be written"), "nobody else writes here");
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
oncekey_conformance::suite!(Temporary);
