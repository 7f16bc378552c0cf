//! An observer that remembers.

use std::sync::{Arc, Mutex};

use oncekey::observe::{Event, Observer};

/// Remembers all events. Clones share what they remember.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorder {
    events: Arc<Mutex<Vec<Event>>>,
}

impl Recorder {
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events().iter().filter(|event| wanted(event)).count()
    }

    pub(crate) fn clear(&self) {
        self.events.lock().unwrap().clear();
    }
}

impl Observer for Recorder {
    fn observe(&self, _operation: &str, event: &Event) {
        self.events.lock().unwrap().push(event.clone());
    }
}
