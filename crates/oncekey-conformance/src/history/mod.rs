//! Recorded histories of many clients, checked for linearizability against the rules.
//!
//! Clients on threads of their own, with handles of their own, race on a few keys; replies are lost,
//! calls are dropped. [`check`] then looks for an order of all calls that the rules explain. It is
//! open to histories from elsewhere: [`History`] is plain data.
//!
//! Time stands still while clients race and passes between, so that what a call met does not depend
//! on when exactly it was decided. Where time cannot be stopped, leases are long against a race; what
//! lapses all the same may have lapsed at any moment.
//!
//! What clients ask follows from a seed, as in [`model`](crate::model); how their calls meet does not.

mod check;
mod clients;
mod legend;
mod log;
mod operation;
mod range;
mod scenes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use oncekey::runtime::{ProcessRandom, Random, SeededRandom, Timestamp};
use oncekey::store::{AttemptId, Claim, OnInterrupted, OnRetired, Store};
use oncekey::{Fingerprint, Key, KeyError, Scope};

pub use self::check::{Counterexample, check};
use self::clients::{Notes, Purge, Stage, play};
pub(crate) use self::legend::Legend;
pub use self::log::{Call, CallId, History, Phase, Reply};
pub use self::operation::{Answer, Operation};
pub use self::range::Window;
pub(crate) use self::range::{Range, allowed, next_change};
use self::scenes::{CLIENTS, Lengths, SCENES, Scene, Script};
use crate::Capability::InjectedTime;
use crate::model::Seeds;
use crate::{Fixture, Verdict, Violation};

/// What many clients are answered at the same time can be put in an order that the rules explain.
pub async fn is_linearizable<F: Fixture>(fixture: &F) -> Verdict {
    let theatre = Theatre::new(fixture).await?;
    let seeds = Seeds::from_env(theatre.rounds.least)?;
    let mut unraced = SCENES.to_vec();
    unraced.dedup();
    let mut round = 0;
    while round < seeds.count || !unraced.is_empty() && round < theatre.rounds.most {
        let seed = seeds.number(round);
        let recorded = theatre.record(seed, round % 2 == 1).await?;
        check(&recorded.history).map_err(|found| {
            Violation::new(
                "answers that some order of the calls explains",
                format_args!("{found}(the script of ONCEKEY_SEED={seed})"),
            )
        })?;
        unraced.retain(|scene| !recorded.proves(*scene));
        round += 1;
    }
    if unraced.is_empty() {
        return Ok(());
    }
    Err(Violation::new(
        "clients that race: a rule that was not put to the test was not kept",
        format_args!("in no round were these under way at the same time: {unraced:?}"),
    ))
}

/// Where histories are made.
struct Theatre<'a, F> {
    fixture: &'a F,
    handles: Vec<Arc<dyn Store>>,
    /// A key that is always there: reading it tells the store's time.
    clock: Key,
    lengths: Lengths,
    /// How long passes between two acts.
    pause: Duration,
    /// How far a store may be off that estimates its clock.
    estimate: Duration,
    rounds: Rounds,
}

/// How many histories are made.
struct Rounds {
    /// Unless the environment asks for another number.
    least: u64,
    /// If it takes so many until every race was seen to happen.
    most: u64,
}

/// A history, and what else the clients did.
struct Recorded {
    history: History,
    purges: Vec<Purge>,
}

impl<'a, F: Fixture> Theatre<'a, F> {
    async fn new(fixture: &'a F) -> Result<Self, Violation> {
        let mut handles = Vec::new();
        for _ in 0..CLIENTS {
            handles.push(fixture.open().await);
        }
        let theatre = if fixture.capabilities().has(InjectedTime) {
            let (short, long) = (Duration::from_secs(30), Duration::from_secs(3600));
            Self {
                fixture,
                handles,
                clock: fresh_key()?,
                lengths: Lengths { short, long },
                pause: Duration::from_secs(90),
                estimate: Duration::ZERO,
                rounds: Rounds { least: 12, most: 500 },
            }
        } else {
            let (short, long) = (Duration::from_millis(150), Duration::from_secs(3600));
            Self {
                fixture,
                handles,
                clock: fresh_key()?,
                lengths: Lengths { short, long },
                pause: Duration::from_millis(600),
                estimate: Duration::from_millis(100),
                rounds: Rounds { least: 4, most: 20 },
            }
        };
        theatre.start_clock().await?;
        Ok(theatre)
    }

    async fn start_clock(&self) -> Verdict {
        let claim = Claim {
            attempt: AttemptId::from_bytes(ProcessRandom::new().next().to_be_bytes()),
            fingerprint: Fingerprint::of("clock"),
            lease: Duration::MAX,
            hold: Duration::MAX,
            on_interrupted: OnInterrupted::Refuse,
            on_retired: OnRetired::Tell,
        };
        self.handles[0].claim(&self.clock, &claim).await?;
        Ok(())
    }

    async fn now(&self) -> Result<Timestamp, Violation> {
        let seen = self.handles[0].get(&self.clock).await?;
        let lost = || Violation::new("a key with a lease that never lapses", "no record");
        Ok(seen.ok_or_else(lost)?.now)
    }

    /// Plays the script that follows from `seed` on fresh keys.
    async fn record(&self, seed: u64, yields: bool) -> Result<Recorded, Violation> {
        let script = Script::new(&SeededRandom::new(seed), self.lengths);
        let keys: Vec<_> = SCENES.iter().map(|_| fresh_key()).collect::<Result<_, _>>()?;
        let position = AtomicU64::new(0);
        let stage = Stage { keys: &keys, handles: &self.handles, position: &position, yields };
        let mut notes: Vec<Notes> = (0..CLIENTS).map(|_| Notes::default()).collect();
        let mut phases = Vec::new();
        for (number, act) in script.acts.iter().enumerate() {
            if number > 0 {
                self.fixture.advance(self.pause).await;
            }
            let from = position.fetch_add(1, SeqCst);
            let earliest = self.now().await?;
            play::<F>(&stage, act, &mut notes)?;
            let latest = self.now().await?;
            let clock = Window { earliest, latest };
            let clock = clock.widened(self.estimate);
            phases.push(Phase { from, clock });
        }
        let mut recorded =
            Recorded { history: History { phases, calls: Vec::new() }, purges: Vec::new() };
        for notes in notes {
            recorded.history.calls.extend(notes.calls);
            recorded.purges.extend(notes.purges);
        }
        Ok(recorded)
    }
}

impl Recorded {
    /// Whether what `scene` is about was under way at the same time as another client's claim.
    fn proves(&self, scene: Scene) -> bool {
        let acts = self.history.phases.iter().map(|phase| phase.from);
        let race_begins = acts.skip(1).min().unwrap_or(u64::MAX);
        let calls = self.history.calls.iter();
        let mut claims = calls.clone().filter(|call| {
            SCENES[call.key] == scene
                && call.invoked > race_begins
                && call.reply.is_some()
                && matches!(call.operation, Operation::Claim(_))
        });
        claims.any(|claim| match scene {
            Scene::PurgeOrClaim => self.purges.iter().any(|purge| purge.overlaps(claim)),
            _ => calls.clone().any(|call| {
                call.key == claim.key && scene.is_lead(&call.operation) && call.overlaps(claim)
            }),
        })
    }
}

impl Purge {
    fn overlaps(&self, call: &Call) -> bool {
        let ended = call.reply.as_ref().map_or(u64::MAX, |reply| reply.at);
        self.client != call.client && self.invoked < ended && call.invoked < self.ended
    }
}

/// A key that nobody has used.
fn fresh_key() -> Result<Key, Violation> {
    let id = format!("{:032x}", ProcessRandom::new().next());
    let key = Scope::new("oncekey-conformance", "history").and_then(|scope| Key::new(&scope, id));
    key.map_err(|error: KeyError| Violation::new("keys of the suite to be valid", error))
}
