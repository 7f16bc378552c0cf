//! A cage: the fixture that shows an inhabitant to the suite.

use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use oncekey::Key;
use oncekey::store::Store;
use oncekey_conformance::{Capabilities, Capability, Damage, Fixture};

use crate::base::Database;
use crate::defect::{Defect, SOUND};
use crate::handle::Handle;
use crate::runner;

thread_local! {
    /// The defect of the fixtures that this thread makes. A fixture is made from its type alone, and
    /// a type for each inhabitant would have the whole suite compiled for each.
    static DEFECT: Cell<Defect> = const { Cell::new(SOUND) };
}

/// Makes the fixtures of this thread have `defect` from now on.
pub(crate) fn exhibit(defect: Defect) {
    DEFECT.set(defect);
}

/// One database with a defect.
#[derive(Debug)]
pub(crate) struct Cage {
    database: Arc<Database>,
}

#[async_trait]
impl Fixture for Cage {
    async fn create() -> Self {
        Self { database: Arc::new(Database::new(DEFECT.get())) }
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(Handle::new(self.database.clone()))
    }

    async fn advance(&self, duration: Duration) {
        self.database.advance(duration);
    }

    fn capabilities(&self) -> Capabilities {
        let inspect = self.database.defect.says_it_lists.then_some(Capability::Inspect);
        let others = [
            Capability::Restart,
            Capability::Damage,
            Capability::Bounded,
            Capability::Watch,
            Capability::ClockStep,
        ];
        others.into_iter().chain(inspect).fold(Capabilities::injected_time(), Capabilities::with)
    }

    async fn restart(&self) {
        self.database.restart();
    }

    async fn step_back(&self, by: Duration) {
        self.database.step_back(by);
    }

    async fn damage(&self, key: &Key, damage: Damage) {
        self.database.damage(key.as_bytes(), |bytes| hurt(bytes, damage));
    }

    async fn open_bounded(&self, keys: usize) -> Arc<dyn Store> {
        Arc::new(Handle::new(Arc::new(self.database.bounded(keys))))
    }

    fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
        runner::block_on(future)
    }
}

/// Does `damage` to an encoded record.
pub(crate) fn hurt(bytes: &mut Vec<u8>, damage: Damage) {
    match damage {
        Damage::Truncate => bytes.truncate(bytes.len() / 2),
        // The version is the first byte of the encoding.
        Damage::NewerVersion => bytes[0] = 200,
        _ => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
    }
}
