//! The service's own books, with a unique key on the entries, as a database would have it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::journal::{Entry, Journal};
use crate::processor::Receipt;

pub(crate) struct Ledger {
    entries: Mutex<HashMap<String, Receipt>>,
    journal: Arc<Journal>,
}

impl Ledger {
    /// One that has the entries of the journal.
    pub(crate) fn new(journal: Arc<Journal>) -> Self {
        let entered = journal.past().iter().filter_map(|entry| match entry {
            Entry::Entered { name, receipt } => Some((name.clone(), receipt.clone())),
            _ => None,
        });
        Self { entries: Mutex::new(entered.collect()), journal }
    }

    /// Enters a refund; a second time changes nothing.
    pub(crate) fn enter(&self, name: String, receipt: &Receipt) {
        self.entries().entry(name).or_insert_with_key(|name| {
            self.journal.write(Entry::Entered { name: name.clone(), receipt: receipt.clone() });
            receipt.clone()
        });
    }

    pub(crate) fn find(&self, name: &str) -> Option<Receipt> {
        self.entries().get(name).cloned()
    }

    /// The numbers of the receipts that were entered.
    pub(crate) fn receipts(&self) -> Vec<u64> {
        self.entries().values().map(|receipt| receipt.number).collect()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Receipt>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
