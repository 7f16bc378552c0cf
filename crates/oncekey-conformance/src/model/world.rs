//! The store and the model side by side: runs a sequence of steps on both, and says where they part.

use std::sync::Arc;
use std::time::Duration;

use oncekey::Key;
use oncekey::runtime::Timestamp;
use oncekey::store::{Claim, Observed, OnInterrupted, OnRetired, Store, StoreError};

use super::known::{Model, attempt, fingerprint, keys};
use super::steps::{HANDLES, KEYS, Scale, Step};
use crate::Fixture;
use crate::history::{Answer, Operation, Range, Window, allowed};

/// The store under test, across sequences.
pub(super) struct World<'a, F> {
    fixture: &'a F,
    scale: Scale,
    handles: Vec<Arc<dyn Store>>,
    /// A key that is always there: reading it tells the store's time.
    clock: Key,
    /// The latest time that the store has told.
    now: Timestamp,
}

/// Where the store and the rules part.
#[derive(Debug)]
pub(super) struct Disagreement {
    pub(super) required: String,
    pub(super) observed: String,
    /// What was done, and what came of it, up to here.
    pub(super) trace: Vec<String>,
}

/// A failed comparison, before it is known what led there.
pub(super) struct Mismatch {
    pub(super) required: String,
    pub(super) observed: String,
}

impl From<StoreError> for Mismatch {
    fn from(error: StoreError) -> Self {
        Self { required: "an answer".to_owned(), observed: format!("an error: {error}") }
    }
}

impl<'a, F: Fixture> World<'a, F> {
    pub(super) async fn new(fixture: &'a F) -> Result<Self, Disagreement> {
        let mut world = Self {
            fixture,
            scale: Scale::of(&fixture.capabilities()),
            handles: Vec::new(),
            clock: keys(1).map_err(setup)?.remove(0),
            now: Timestamp::default(),
        };
        world.open().await;
        world.start_clock().await.map_err(setup)?;
        Ok(world)
    }

    async fn open(&mut self) {
        self.handles.clear();
        for _ in 0..HANDLES {
            self.handles.push(self.fixture.open().await);
        }
    }

    async fn start_clock(&mut self) -> Result<(), Mismatch> {
        let claim = Claim {
            attempt: attempt(),
            fingerprint: fingerprint(false),
            lease: Duration::MAX,
            hold: Duration::MAX,
            on_interrupted: OnInterrupted::Refuse,
            on_retired: OnRetired::Tell,
        };
        self.handles[0].claim(&self.clock, &claim).await?;
        self.tell_time().await
    }

    /// Runs `steps` on fresh keys.
    pub(super) async fn run(&mut self, steps: &[Step]) -> Result<(), Disagreement> {
        let mut model = Model::new(self.now).map_err(setup)?;
        let mut trace = Vec::new();
        for step in steps {
            let (doing, done) = self.step(&mut model, step).await;
            match done {
                Ok(done) => trace.push(format!("{doing} -> {done}")),
                Err(Mismatch { required, observed }) => {
                    trace.push(format!("{doing} -> {observed}"));
                    return Err(Disagreement {
                        required: format!("{doing} -> {required}"),
                        observed,
                        trace,
                    });
                }
            }
        }
        Ok(())
    }

    /// Takes one step: what was done, and what came of it.
    async fn step(&mut self, model: &mut Model, step: &Step) -> (String, Result<String, Mismatch>) {
        match *step {
            Step::Send { key, handle, ref command } => {
                let operation = model.fill_in(command, key, &self.scale);
                let doing = format!("key {key}: {}", model.legend.operation(&operation));
                let answer = self.send(model, key, handle, &operation).await;
                (doing, answer.map(|answer| model.legend.answer(&answer)))
            }
            Step::Advance { key, to, purge } => {
                let Some(by) = model.until(to, key, self.now, &self.scale) else {
                    return (format!("key {key}: no advance {to}"), Ok("skipped".to_owned()));
                };
                let then = if purge { ", and purge" } else { "" };
                let doing = format!("key {key}: advance {by:?}, {to}{then}");
                let advanced = self.advance(model, by, purge).await;
                (doing, advanced.map(|()| model.legend.time(self.now)))
            }
            Step::Purge { limit } => {
                let doing = format!("purge at most {limit}");
                (doing, self.purge_some(model, limit).await)
            }
            Step::Restart => {
                self.fixture.restart().await;
                self.open().await;
                let compared = self.compare_all(model, 0).await;
                ("restart".to_owned(), compared.map(|()| "done".to_owned()))
            }
        }
    }

    async fn send(
        &mut self,
        model: &mut Model,
        key: usize,
        handle: usize,
        operation: &Operation,
    ) -> Result<Answer, Mismatch> {
        let name = model.keys[key].clone();
        let before = self.now;
        let answer = operation.send(&*self.handles[handle], &name).await?;
        // Read through the other handle: what is answered is in force for everybody.
        let reader = (handle + 1) % HANDLES;
        let seen = self.read(&name, reader).await?;
        let clock = self.window(before);

        let known = Range::exactly(model.records[key].clone());
        let allowed = allowed(operation, &known, clock);
        let legend = &model.legend;
        let (admitted, refused): (Vec<_>, Vec<_>) =
            allowed.iter().partition(|one| one.admits(&answer));
        if admitted.is_empty() {
            return Err(Mismatch {
                required: either(&refused, |one| legend.answer(&one.answer.low)),
                observed: legend.answer(&answer),
            });
        }
        let kept = admitted.iter().find(|one| one.admits_after(seen.as_ref(), clock));
        let Some(kept) = kept else {
            let seen = seen.map(|seen| seen.record);
            return Err(Mismatch {
                required: format!(
                    "{}, and then {}",
                    legend.answer(&answer),
                    either(&admitted, |one| legend.record(one.after.low.as_ref()))
                ),
                observed: format!(
                    "{}, and then {}",
                    legend.answer(&answer),
                    legend.record(seen.as_ref())
                ),
            });
        };
        model.adopt(key, seen.map(|seen| kept.restored(&seen)));
        self.compare_all(model, reader).await?;
        Ok(answer)
    }

    async fn advance(
        &mut self,
        model: &mut Model,
        by: Duration,
        purge: bool,
    ) -> Result<(), Mismatch> {
        let due = self.now.saturating_add(by);
        self.fixture.advance(by).await;
        self.tell_time().await?;
        if self.now < due {
            return Err(Mismatch {
                required: format!("the store's clock at {}", model.legend.time(due)),
                observed: format!("it is at {}", model.legend.time(self.now)),
            });
        }
        if purge {
            self.purge_all(model).await?;
        }
        self.compare_all(model, 1).await
    }

    async fn purge_some(&mut self, model: &mut Model, limit: usize) -> Result<String, Mismatch> {
        let purged = self.handles[0].purge(limit).await?;
        self.compare_all(model, 1).await?;
        if purged.removed > limit {
            return Err(Mismatch {
                required: format!("at most {limit} records removed"),
                observed: format!("{} removed", purged.removed),
            });
        }
        Ok(format!("{} removed", purged.removed))
    }

    /// Purges until nothing is left to purge, and checks that nothing is.
    async fn purge_all(&mut self, model: &mut Model) -> Result<(), Mismatch> {
        const MANY: usize = 10_000;
        let since = self.now;
        let mut rounds = 0;
        while self.handles[0].purge(1_000).await?.more {
            rounds += 1;
            if rounds == MANY {
                return Err(Mismatch {
                    required: "a purge to come to an end".to_owned(),
                    observed: format!("`more` {MANY} times in a row"),
                });
            }
        }
        for key in 0..KEYS {
            let over = model.records[key].clone();
            let over = over.filter(|record| record.is_purgeable(since));
            let name = model.keys[key].clone();
            if let (Some(record), Some(seen)) = (over, self.read(&name, 1).await?) {
                let record = model.legend.record(Some(&record));
                return Err(Mismatch {
                    required: format!("key {key} purged, where there was: {record}"),
                    observed: format!("still there: {}", model.legend.observed(&seen)),
                });
            }
        }
        Ok(())
    }

    /// Checks that every record is as the model has it, unless it may be gone.
    async fn compare_all(&mut self, model: &mut Model, handle: usize) -> Result<(), Mismatch> {
        for key in 0..KEYS {
            let before = self.now;
            let name = model.keys[key].clone();
            let seen = self.read(&name, handle).await?;
            let clock = self.window(before);
            let known = Range::exactly(model.records[key].clone());
            let allowed = allowed(&Operation::Get, &known, clock);
            let answer = Answer::Get(seen.clone());
            let Some(admitted) = allowed.iter().find(|one| one.admits(&answer)) else {
                let legend = &model.legend;
                let required = either(&allowed.iter().collect::<Vec<_>>(), |one| {
                    legend.answer(&one.answer.low)
                });
                return Err(Mismatch {
                    required: format!("key {key} unchanged: {required}"),
                    observed: format!("key {key}: {}", legend.answer(&answer)),
                });
            };
            model.records[key] = seen.map(|seen| admitted.restored(&seen).record);
        }
        Ok(())
    }

    /// Reads `key`, and with it the time.
    async fn read(&mut self, key: &Key, handle: usize) -> Result<Option<Observed>, Mismatch> {
        let seen = self.handles[handle].get(key).await?;
        match &seen {
            Some(seen) => self.note_time(seen.now)?,
            None => self.tell_time().await?,
        }
        Ok(seen)
    }

    async fn tell_time(&mut self) -> Result<(), Mismatch> {
        let seen = self.handles[0].get(&self.clock).await?;
        let seen = seen.ok_or_else(|| Mismatch {
            required: "a key with a lease that never lapses".to_owned(),
            observed: "no record".to_owned(),
        })?;
        self.note_time(seen.now)
    }

    fn note_time(&mut self, now: Timestamp) -> Result<(), Mismatch> {
        if now.saturating_add(self.scale.estimate) < self.now {
            return Err(Mismatch {
                required: format!("the store's clock not to go back from {:?}", self.now),
                observed: format!("it is at {now:?}"),
            });
        }
        self.now = self.now.max(now);
        Ok(())
    }

    /// When something happened that began after `before` and is over now.
    fn window(&self, before: Timestamp) -> Window {
        let window = Window { earliest: before, latest: self.now };
        window.widened(self.scale.estimate)
    }
}

fn setup(mismatch: Mismatch) -> Disagreement {
    Disagreement {
        required: mismatch.required,
        observed: mismatch.observed,
        trace: vec!["before the first step".to_owned()],
    }
}

/// What `show` makes of each, once.
fn either<T>(all: &[&T], show: impl Fn(&T) -> String) -> String {
    let mut shown: Vec<_> = all.iter().map(|one| show(one)).collect();
    shown.dedup();
    shown.join(", or ")
}
