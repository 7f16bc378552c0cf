//! Many clients, a card processor and a store that fails in every way, all from one seed.
//!
//! `ONCEKEY_SEED` is the first seed and `ONCEKEY_SEEDS` how many follow. A failure names its seed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

mod support;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use futures::pin_mut;
use oncekey::observe::Event;
use oncekey::runtime::{Random, SeededRandom};
use oncekey::store::{Expected, Fenced};
use oncekey::{Attempt, Encoded, Failure, Idempotency, Interruption, Key, RunError, Verdict};
use support::{
    Chaos, Declined, Ledger, Promise, VirtualTimer, World, fingerprint, key, millis, seconds,
};

const LEASE: Duration = seconds(10);
const CLIENTS: usize = 6;
const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
/// How many keys are asked for at one time.
const CURRENT: usize = 3;
const REQUESTS: usize = 12;
const LONGEST_FAULT: Duration = seconds(25);

#[test]
fn an_effect_happens_at_most_once_unless_somebody_settles_it() {
    let (mut settled, mut adopted) = (0, 0);
    for_each_seed(|seed| {
        let done = Scenario::new(seed, Promise::OneStart).play();
        settled += done.settled;
        adopted += done.adopted;
    });
    assert!(settled > 0 || !is_default(), "no key was ever left interrupted");
    assert!(adopted > 0 || !is_default(), "no lost grant was ever found again");
}

#[test]
fn a_verified_effect_happens_once() {
    let mut overlaps = 0;
    for_each_seed(|seed| overlaps += Scenario::new(seed, Promise::OneCharge).play().overlaps);
    assert!(overlaps > 0 || !is_default(), "no owner was ever replaced while it ran");
}

#[test]
fn an_effect_that_may_happen_again_has_one_result() {
    let (mut again, mut overlaps) = (0, 0);
    for_each_seed(|seed| {
        let done = Scenario::new(seed, Promise::OneResult).play();
        again += done.executions - KEYS.len();
        overlaps += done.overlaps;
    });
    assert!(again > 0, "no operation ran again, so nothing was tested");
    assert!(overlaps > 0 || !is_default(), "no owner was ever replaced while it ran");
}

#[test]
fn the_same_seed_plays_the_same_way() {
    for promise in [Promise::OneStart, Promise::OneCharge, Promise::OneResult] {
        let play = |seed| Scenario::new(seed, promise).play();
        let (first, second, other) = (play(11), play(11), play(12));
        for (a, b) in first.lines.iter().zip(&second.lines) {
            assert_eq!(a, b);
        }
        assert_eq!(first.trace, second.trace);
        assert_ne!(first.trace, other.trace);
    }
}

/// What came of a scenario.
struct Played {
    trace: u64,
    lines: Vec<String>,
    executions: usize,
    overlaps: usize,
    settled: usize,
    adopted: usize,
}

struct Scenario {
    world: World,
    ledger: Ledger,
    promise: Promise,
    engines: Vec<Idempotency>,
    dice: Dice,
}

/// Decides what clients and operations do.
#[derive(Clone)]
struct Dice(Arc<SeededRandom>);

impl Dice {
    fn below(&self, limit: usize) -> usize {
        usize::try_from(self.0.next() % limit as u128).unwrap()
    }

    fn percent(&self, chance: usize) -> bool {
        self.below(100) < chance
    }

    fn time(&self, longest: Duration) -> Duration {
        let micros = usize::try_from(longest.as_micros()).unwrap();
        Duration::from_micros(self.below(micros.max(1)) as u64)
    }
}

impl Scenario {
    fn new(seed: u64, promise: Promise) -> Self {
        let world = World::seeded(seed);
        let dice = Dice(Arc::new(SeededRandom::new(seed ^ 0x5eed)));
        let ledger = Ledger::new(world.sim.timer.clone(), promise);
        let waits = [Duration::ZERO, seconds(5), seconds(60)];
        let engines = waits.map(|wait| {
            let engine = match promise {
                Promise::OneResult => world.at_least_once(),
                Promise::OneStart => world.at_most_once(),
                Promise::OneCharge => world.verified(hook(&ledger, &dice, &world.sim.timer, true)),
            };
            engine.lease(LEASE).wait_for_duplicate(wait)
        });
        Self { world, ledger, promise, engines: engines.into(), dice }
    }

    fn play(self) -> Played {
        let Self { world, ledger, dice, .. } = &self;
        let chaos = Chaos { per_mille: 50 + 50 * dice.below(8) as u32, longest: LONGEST_FAULT };
        world.store.chaos(chaos, self.dice.0.next() as u64);
        let clients: Vec<_> = (0..CLIENTS).map(|id| world.sim.spawn(self.client(id))).collect();
        let upkeep = [world.sim.spawn(self.completer()), world.sim.spawn(self.observer())];
        for client in &clients {
            world.sim.finish(client);
        }
        for task in &upkeep {
            world.sim.crash(task);
        }
        assert!(world.store.faults() > 0, "nothing went wrong");

        // Faults stop; what is on its way arrives.
        world.store.calm();
        world.sim.run_for(LONGEST_FAULT + LEASE * 2);
        let settled = KEYS.iter().filter(|key| self.settle(key)).count();
        world.sim.run_for(LONGEST_FAULT);
        assert_eq!(world.sim.timer.sleeping(), 0, "timers are left behind");
        Played {
            trace: ledger.trace(),
            lines: ledger.lines(),
            executions: ledger.executions(),
            overlaps: ledger.overlaps(),
            settled,
            adopted: world.recorder.count(|event| *event == Event::Adopted),
        }
    }

    /// Sends requests, some of them given up on half way.
    fn client(&self, id: usize) -> impl Future<Output = ()> + 'static {
        let (ledger, dice, timer) =
            (self.ledger.clone(), self.dice.clone(), self.world.sim.timer.clone());
        let (engines, steps) = (self.engines.clone(), self.promise == Promise::OneResult);
        async move {
            for round in 0..REQUESTS {
                timer.sleep(dice.time(seconds(15))).await;
                let engine = &engines[dice.below(engines.len())];
                let oldest = round * (KEYS.len() - CURRENT) / (REQUESTS - 1);
                let name = KEYS[oldest + dice.below(CURRENT)];
                let run = request(engine, name, &ledger, &dice, &timer, steps);
                let patience = timer.sleep(dice.time(seconds(90)));
                pin_mut!(run, patience);
                match select(run, patience).await {
                    Either::Left((told, _)) => ledger.note(format!("{id} {name} {told}")),
                    // The run is dropped here: as good as a crash.
                    Either::Right(_) => ledger.note(format!("{id} {name} crashed")),
                }
            }
        }
    }

    /// Settles interrupted keys every now and then.
    fn completer(&self) -> impl Future<Output = ()> + 'static {
        let (timer, ledger, dice) =
            (self.world.sim.timer.clone(), self.ledger.clone(), self.dice.clone());
        let hook = hook(&ledger, &dice, &timer, true);
        let completer = self.engines[0].completer("POST /payments", hook);
        async move {
            if dice.percent(50) {
                return;
            }
            loop {
                timer.sleep(dice.time(seconds(60))).await;
                let pass = completer.complete();
                let patience = timer.sleep(dice.time(seconds(60)));
                pin_mut!(pass, patience);
                if let Either::Left((completions, _)) = select(pass, patience).await {
                    ledger.note(format!("completed {completions:?}"));
                }
            }
        }
    }

    /// Looks at all times for two owners of one key.
    fn observer(&self) -> impl Future<Output = ()> + 'static {
        let (timer, ledger) = (self.world.sim.timer.clone(), self.ledger.clone());
        async move {
            loop {
                timer.sleep(millis(250)).await;
                ledger.check_all();
            }
        }
    }

    /// Retries until there is a result. Returns whether the key had to be settled by hand.
    fn settle(&self, name: &'static str) -> bool {
        let mut settled = false;
        for _ in 0..100 {
            let (engine, ledger, dice) =
                (self.engines[0].clone(), self.ledger.clone(), self.dice.clone());
            let (timer, steps) = (self.world.sim.timer.clone(), self.promise == Promise::OneResult);
            let told = self.world.sim.block_on(async move {
                request(&engine, name, &ledger, &dice, &timer, steps).await
            });
            self.ledger.note(format!("finally {name} {told}"));
            match told {
                "ok" => return settled,
                "interrupted" if self.promise == Promise::OneStart => {
                    self.settle_by_hand(name);
                    settled = true;
                }
                "unrecorded" | "store" => panic!("{name} ends with {told}, with nothing wrong"),
                _ => self.world.sim.run_for(seconds(1)),
            }
        }
        panic!("{name} never settles");
    }

    fn settle_by_hand(&self, name: &'static str) {
        let operator = self.engines[0].operator();
        let ledger = self.ledger.clone();
        let settled = self.world.sim.block_on(async move {
            let observed = operator.inspect(&key(name)).await.unwrap().unwrap();
            let expected = Expected::Attempt(observed.record.attempt);
            match ledger.receipt(name) {
                Some(receipt) => {
                    let receipt = Encoded::json(&receipt).unwrap();
                    operator.settle_done(&key(name), expected, &receipt).await
                }
                None => {
                    ledger.settled_as_not_done(name);
                    operator.settle_not_done(&key(name), expected).await
                }
            }
        });
        assert_eq!(settled.unwrap(), Fenced::Applied);
    }
}

/// Asks the processor what became of an interrupted attempt.
fn hook(
    ledger: &Ledger,
    dice: &Dice,
    timer: &VirtualTimer,
    may_fail: bool,
) -> impl oncekey::Verify + 'static {
    let (ledger, dice, timer) = (ledger.clone(), dice.clone(), timer.clone());
    move |interruption: Interruption| {
        let (ledger, dice, timer) = (ledger.clone(), dice.clone(), timer.clone());
        async move {
            let name = name_of(interruption.key());
            timer.sleep(dice.time(seconds(4))).await;
            if interruption.attempt().is_lease_lost() || (may_fail && dice.percent(10)) {
                return Verdict::Unknown;
            }
            match ledger.receipt(name) {
                Some(receipt) => Verdict::Done(Encoded::json(&receipt).unwrap()),
                None => {
                    ledger.settled_as_not_done(name);
                    Verdict::NotDone
                }
            }
        }
    }
}

/// One request: charges the card, unless the engine knows better.
async fn request(
    engine: &Idempotency,
    name: &'static str,
    ledger: &Ledger,
    dice: &Dice,
    timer: &VirtualTimer,
    steps: bool,
) -> &'static str {
    let operation = |attempt| charge(attempt, name, ledger, dice, timer, steps);
    let ran = engine.run_classified(&key(name), &fingerprint(), operation).await;
    match ran {
        Ok(outcome) => {
            ledger.acknowledge(name, outcome.value());
            "ok"
        }
        Err(RunError::NotStarted(_)) => "not started",
        Err(RunError::Unknown(_)) => "unknown",
        Err(RunError::Busy { .. }) => "busy",
        Err(RunError::Interrupted) => "interrupted",
        Err(RunError::LeaseLost) => "lease lost",
        Err(RunError::StepUnsaved(_)) => "step unsaved",
        Err(RunError::Unrecorded { .. }) => "unrecorded",
        Err(RunError::Store(_)) => "store",
        Err(error) => panic!("{name}: {error}"),
    }
}

async fn charge(
    attempt: Attempt,
    name: &'static str,
    ledger: &Ledger,
    dice: &Dice,
    timer: &VirtualTimer,
    steps: bool,
) -> Result<String, Failure<Declined>> {
    let _running = ledger.start(name, &attempt);
    if dice.percent(10) {
        timer.sleep(dice.time(seconds(2))).await;
        ledger.did_nothing(name);
        return Err(Failure::NotStarted(Declined));
    }
    for step in if steps { ["reserve", "book", "announce"].as_slice() } else { &[] } {
        let work = || async {
            timer.sleep(dice.time(seconds(3))).await;
            Ok::<_, Failure<Declined>>(dice.below(1_000_000).to_string())
        };
        let returned = attempt.step(step, work).await?;
        ledger.step(name, step, &returned);
    }
    timer.sleep(dice.time(seconds(30))).await;
    // The last look before what cannot be undone.
    if attempt.is_lease_lost() || dice.percent(5) {
        return Err(Failure::Unknown(Declined));
    }
    let receipt = ledger.charge(name);
    timer.sleep(dice.time(seconds(15))).await;
    if dice.percent(10) { Err(Failure::Unknown(Declined)) } else { Ok(receipt) }
}

fn name_of(found: &Key) -> &'static str {
    KEYS.into_iter().find(|name| key(name) == *found).unwrap()
}

fn for_each_seed(mut play: impl FnMut(u64)) {
    struct Named(u64);
    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("to see it again: ONCEKEY_SEED={} ONCEKEY_SEEDS=1", self.0);
            }
        }
    }

    let number = |name: &str, default| {
        let set = std::env::var(name).ok();
        set.map_or(default, |set| set.parse().expect("a seed is a number"))
    };
    let first: u64 = number("ONCEKEY_SEED", 1);
    for seed in first..first.saturating_add(number("ONCEKEY_SEEDS", 30)) {
        let named = Named(seed);
        play(seed);
        drop(named);
    }
}

/// Whether the seeds are those of which it is known what they show.
fn is_default() -> bool {
    std::env::var_os("ONCEKEY_SEED").is_none() && std::env::var_os("ONCEKEY_SEEDS").is_none()
}
