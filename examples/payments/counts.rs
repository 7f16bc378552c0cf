//! Counts what the engine reports, in this life of the service and in earlier ones.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use oncekey::observe::{Event, Observer, VerdictKind};

use crate::journal::{Entry, Journal};

/// How often each event happened, by its name. Clones count together.
#[derive(Clone)]
pub(crate) struct Counts {
    counts: Arc<Mutex<HashMap<String, u64>>>,
    journal: Arc<Journal>,
}

impl Counts {
    /// Goes on from what the journal counted.
    pub(crate) fn new(journal: Arc<Journal>) -> Self {
        let mut counts = HashMap::new();
        for entry in journal.past() {
            if let Entry::Counted(name) = entry {
                *counts.entry(name.clone()).or_default() += 1;
            }
        }
        Self { counts: Arc::new(Mutex::new(counts)), journal }
    }

    /// How often the event `name` happened until now.
    pub(crate) fn of(&self, name: &str) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(name).copied().unwrap_or(0)
    }
}

impl Observer for Counts {
    fn observe(&self, _operation: &str, event: &Event) {
        let name = match event {
            Event::Verified { verdict: VerdictKind::Done } => "verified_done",
            Event::Verified { verdict: VerdictKind::NotDone } => "verified_not_done",
            _ => event.name(),
        };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(name.to_owned()).or_default() += 1;
        drop(counts);
        self.journal.write(Entry::Counted(name.to_owned()));
    }
}
