//! Counts what the engine reports.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oncekey::observe::{Event, Observer, VerdictKind};

/// How often each event happened, by its name. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts(Arc<Mutex<HashMap<String, u64>>>);

impl Counts {
    /// How often the event `name` happened until now.
    pub(crate) fn of(&self, name: &str) -> u64 {
        self.counts().get(name).copied().unwrap_or(0)
    }

    /// One more event of this name.
    pub(crate) fn add(&self, name: &str) {
        *self.counts().entry(name.to_owned()).or_default() += 1;
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Counts {
    fn observe(&self, _operation: &str, event: &Event) {
        self.add(name_of(event));
    }
}

/// The name under which an event is counted: what a hook said makes a difference here.
pub(crate) const fn name_of(event: &Event) -> &'static str {
    match event {
        Event::Verified { verdict: VerdictKind::Done } => "verified_done",
        Event::Verified { verdict: VerdictKind::NotDone } => "verified_not_done",
        _ => event.name(),
    }
}
