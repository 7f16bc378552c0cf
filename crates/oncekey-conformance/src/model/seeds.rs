//! Which random choices are made: the same every time, unless the environment asks for others.

use std::env;

use crate::Violation;

/// `ONCEKEY_SEED`: the first seed. `ONCEKEY_SEEDS`: how many in a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seeds {
    first: u64,
    pub(crate) count: u64,
}

impl Seeds {
    /// What the environment asks for, or `count` seeds from a fixed one.
    pub(crate) fn from_env(count: u64) -> Result<Self, Violation> {
        Ok(Self {
            first: number("ONCEKEY_SEED")?.unwrap_or(5_000),
            count: number("ONCEKEY_SEEDS")?.unwrap_or(count),
        })
    }

    /// How many times as many as a rule runs by default the environment asks for, by the rule that runs
    /// fewest; one at least.
    pub(crate) fn more_than_usual() -> u32 {
        const FEWEST: u64 = 4;
        let count = number("ONCEKEY_SEEDS").ok().flatten().unwrap_or(FEWEST);
        u32::try_from(count / FEWEST).unwrap_or(u32::MAX).max(1)
    }

    pub(crate) const fn number(self, offset: u64) -> u64 {
        self.first.wrapping_add(offset)
    }
}

fn number(variable: &str) -> Result<Option<u64>, Violation> {
    let Ok(value) = env::var(variable) else {
        return Ok(None);
    };
    match value.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => {
            Err(Violation::new(format!("{variable}, where it is set, to be a whole number"), value))
        }
    }
}
