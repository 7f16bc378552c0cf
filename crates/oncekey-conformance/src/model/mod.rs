//! Random sequences of commands, on the store and on a model that runs the rules.
//!
//! The model is the rules themselves ([`transition`](oncekey::store::transition)) over a map. After
//! every step the answer and every record are compared. What follows from the store's clock is
//! compared exactly where time is injected. Elsewhere it must lie within what the store's own readings
//! before and after allow, give or take what a store may be off that estimates its clock.
//!
//! Sequences follow from a seed. `ONCEKEY_SEED` chooses the first one, `ONCEKEY_SEEDS` how many are
//! run. A violation shows the smallest sequence that still fails, and how to repeat it.

mod choices;
mod known;
mod seeds;
mod steps;
mod world;

use std::time::{Duration, Instant};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

pub(crate) use self::seeds::Seeds;
use self::steps::Step;
use self::world::{Disagreement, World};
use crate::Capability::InjectedTime;
use crate::{Fixture, Verdict, Violation};

/// The most steps of a sequence, and how many sequences are run unless the environment asks for more.
const LENGTH: usize = 150;
const SEQUENCES: u64 = 200;
/// The same where time passes by itself, and where shrinking takes as long as what it repeats.
const REAL_TIME_LENGTH: usize = 100;
const REAL_TIME_SEQUENCES: u64 = 30;

/// How often a failing sequence is repeated, ever shorter.
const SHRINKS: usize = 2_000;
const REAL_TIME_SHRINKS: usize = 100;
/// When a slow store is repeated no more: what was found is worth more than that it is small.
const SHRINK_FOR: Duration = Duration::from_secs(60);

/// Every answer and every record is what the rules say, command by command, in random sequences.
pub async fn agrees_with_the_rules<F: Fixture>(fixture: &F) -> Verdict {
    let capabilities = fixture.capabilities();
    let (length, count, shrinks) = if capabilities.has(InjectedTime) {
        (LENGTH, SEQUENCES, SHRINKS)
    } else {
        (REAL_TIME_LENGTH, REAL_TIME_SEQUENCES, REAL_TIME_SHRINKS)
    };
    let strategy = choices::sequences(length, &capabilities);
    let mut world = World::new(fixture).await.map_err(|found| violation(&found, 0))?;
    let seeds = Seeds::from_env(count)?;
    for seed in (0..seeds.count).map(|offset| seeds.number(offset)) {
        let mut tree = sequence(&strategy, seed)?;
        if let Err(found) = world.run(&tree.current()).await {
            let smallest = shrink(&mut world, &mut tree, shrinks, found).await;
            return Err(violation(&smallest, seed));
        }
    }
    Ok(())
}

/// The sequence that follows from `seed`, and how to make it smaller.
fn sequence<S: Strategy<Value = Vec<Step>>>(strategy: &S, seed: u64) -> Result<S::Tree, Violation> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    let tree = strategy.new_tree(&mut runner);
    tree.map_err(|reason| Violation::new("a sequence to be generated", reason.message()))
}

/// The smallest sequence that still fails, of at most `budget` tried within [`SHRINK_FOR`]; `found` is
/// what `tree` found.
async fn shrink<F: Fixture>(
    world: &mut World<'_, F>,
    tree: &mut (impl ValueTree<Value = Vec<Step>> + Send),
    budget: usize,
    found: Disagreement,
) -> Disagreement {
    let (mut smallest, mut steps) = (found, tree.current());
    let began = Instant::now();
    let mut tries = (0..budget).take_while(|_| began.elapsed() < SHRINK_FOR);
    let mut failed = true;
    while tries.next().is_some() {
        let changed = if failed { tree.simplify() } else { tree.complicate() };
        if !changed {
            break;
        }
        let smaller = tree.current();
        failed = match world.run(&smaller).await {
            Ok(()) => false,
            Err(found) => {
                (smallest, steps) = (found, smaller);
                true
            }
        };
    }
    // The tree tries to drop each step once, and simplifies the others after that. Now that they are
    // simple, more of them may turn out not to matter.
    let mut number = 0;
    while number < steps.len() && tries.next().is_some() {
        let mut fewer = steps.clone();
        fewer.remove(number);
        match world.run(&fewer).await {
            Ok(()) => number += 1,
            Err(found) => {
                (smallest, steps) = (found, fewer);
                number = 0;
            }
        }
    }
    smallest
}

fn violation(found: &Disagreement, seed: u64) -> Violation {
    let mut steps = String::new();
    for (number, step) in (1..).zip(&found.trace) {
        steps.push_str(&format!("\n  {number}. {step}"));
    }
    Violation::new(
        &found.required,
        format_args!(
            "{}, in this sequence (ONCEKEY_SEED={seed} ONCEKEY_SEEDS=1 repeats it):{steps}",
            found.observed
        ),
    )
}
