//! The service's own books, with a unique key on the entries, as a database would have it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use oncekey::ChildKey;

use crate::processor::Receipt;

#[derive(Default)]
pub(crate) struct Ledger {
    entries: Mutex<HashMap<ChildKey, Receipt>>,
}

impl Ledger {
    /// Enters a refund; a second time changes nothing.
    pub(crate) fn enter(&self, reference: ChildKey, receipt: &Receipt) {
        self.entries().entry(reference).or_insert_with(|| receipt.clone());
    }

    pub(crate) fn find(&self, reference: &ChildKey) -> Option<Receipt> {
        self.entries().get(reference).cloned()
    }

    /// The numbers of the receipts that were entered.
    pub(crate) fn receipts(&self) -> Vec<u64> {
        self.entries().values().map(|receipt| receipt.number).collect()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<ChildKey, Receipt>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
