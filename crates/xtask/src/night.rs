//! `night`: the tests again, in release, with far larger numbers, for as long as one likes.
//!
//! Tests that draw random numbers read `ONCEKEY_SEEDS` (how many seeds) and `ONCEKEY_SEED` (the
//! first of them); without these they keep to small numbers. `PROPTEST_CASES` and
//! `PROPTEST_RNG_SEED` do the same for property tests.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::{
    Verdict,
    backends::Backends,
    error::Result,
    runner::{Profile, Runner},
    test::{self, Tally},
    workspace::Workspace,
};

pub(crate) const DEFAULT_SEEDS: u32 = 2_000;
pub(crate) const DEFAULT_CASES: u32 = 20_000;

#[derive(Debug)]
pub(crate) struct Options {
    /// Without it, one round.
    pub(crate) minutes: Option<u32>,
    pub(crate) seeds: u32,
    pub(crate) cases: u32,
    pub(crate) seed: Option<u64>,
    /// Names of backends.
    pub(crate) skip: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            minutes: None,
            seeds: DEFAULT_SEEDS,
            cases: DEFAULT_CASES,
            seed: None,
            skip: Vec::new(),
        }
    }
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<Verdict> {
    let start = Instant::now();
    let time = options.minutes.map_or(Duration::ZERO, |m| Duration::from_secs(u64::from(m) * 60));
    let backends = Backends::prepare(workspace, &options.skip)?;
    let runner = Runner::detect();
    let everything = test::everything(&backends);

    let mut tally = Tally::default();
    let mut seed = options.seed.unwrap_or_else(seed_of_now);
    for round in 1.. {
        println!("night: round {round}, seed {seed}");
        let env = environment(options, seed);
        let outcome = runner.run(&backends, &everything, Profile::Release, &env)?;
        tally.add(format!("round {round}"), outcome);
        if !outcome.good {
            println!("{}", failure(options, round, seed));
            break;
        }
        if start.elapsed() >= time {
            break;
        }
        seed = next_seed(seed, options.seeds);
    }

    println!("{}", tally.closing_line("night"));
    Ok(Verdict::good_if(tally.failures.is_empty()))
}

fn environment(options: &Options, seed: u64) -> [(&'static str, String); 4] {
    [
        ("ONCEKEY_SEED", seed.to_string()),
        ("ONCEKEY_SEEDS", options.seeds.to_string()),
        ("PROPTEST_CASES", options.cases.to_string()),
        ("PROPTEST_RNG_SEED", seed.to_string()),
    ]
}

fn failure(options: &Options, round: u32, seed: u64) -> String {
    let skip: String = options.skip.iter().map(|name| format!(" --skip {name}")).collect();
    format!(
        "night: round {round} failed with seed {seed}; repeat it with\n  \
         cargo xtask night --seed {seed} --seeds {} --cases {}{skip}",
        options.seeds, options.cases
    )
}

/// A round uses `seeds` numbers from its first one on, so the next round starts behind them.
fn next_seed(seed: u64, seeds: u32) -> u64 {
    seed.wrapping_add(u64::from(seeds.max(1)))
}

/// Differs from night to night, and leaves room above for the seeds of many rounds.
fn seed_of_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs() << 20 | u64::from(now.subsec_micros())
}

#[cfg(test)]
mod tests {
    use super::{Options, environment, failure, next_seed, seed_of_now};

    #[test]
    fn rounds_share_no_seed() {
        assert_eq!(next_seed(10, 2_000), 2_010);
        assert_eq!(next_seed(10, 0), 11);
        assert_eq!(next_seed(u64::MAX, 2), 1);
    }

    #[test]
    fn a_failure_says_how_to_repeat_it() {
        let options = Options { skip: vec!["memory".to_owned()], ..Options::default() };

        let text = failure(&options, 3, 77);

        assert!(text.contains("round 3 failed with seed 77"), "{text}");
        assert!(
            text.ends_with("cargo xtask night --seed 77 --seeds 2000 --cases 20000 --skip memory"),
            "{text}"
        );
    }

    #[test]
    fn the_tests_are_told_the_numbers() {
        let env = environment(&Options::default(), 5);

        assert!(env.contains(&("ONCEKEY_SEED", "5".to_owned())));
        assert!(env.contains(&("ONCEKEY_SEEDS", "2000".to_owned())));
        assert!(env.contains(&("PROPTEST_CASES", "20000".to_owned())));
    }

    #[test]
    fn the_clock_leaves_room_for_many_rounds() {
        assert!(seed_of_now() < u64::MAX / 2);
    }
}
