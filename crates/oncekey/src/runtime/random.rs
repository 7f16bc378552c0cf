//! Where attempt ids and jitter come from.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A source of numbers that are never handed out twice.
pub trait Random: Send + Sync + fmt::Debug {
    /// 128 bits, different from any that any process of the system ever got.
    fn next(&self) -> u128;
}

impl<R: Random + ?Sized> Random for Arc<R> {
    fn next(&self) -> u128 {
        (**self).next()
    }
}

/// The default: a random seed per thread, counted up and mixed.
///
/// Asking the operating system for every number would cost more than all else in a run on a store in
/// memory. A process that was forked notices and takes a new seed, so parent and child never mint the
/// same attempt id; machines restored from one snapshot are told apart by their wall clocks, to the
/// nanosecond.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct ProcessRandom;

/// For how long a thread takes its process to be the same without asking: a system call for every id
/// would be a tenth of a run in memory. A fork takes longer than this, so whoever comes out of one asks;
/// and besides, the time is in every number.
const SAME_PROCESS: Duration = Duration::from_micros(20);

#[derive(Clone, Copy)]
struct Seed {
    count: u128,
    process: u32,
    asked: SystemTime,
}

thread_local! {
    static SEED: Cell<Option<Seed>> = const { Cell::new(None) };
}

impl ProcessRandom {
    /// The default source.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Random for ProcessRandom {
    fn next(&self) -> u128 {
        SEED.with(|cell| {
            let now = SystemTime::now();
            let just_asked =
                |seed: Seed| now.duration_since(seed.asked).is_ok_and(|ago| ago < SAME_PROCESS);
            let mut seed = match cell.get() {
                Some(seed) if just_asked(seed) => seed,
                last => {
                    let process = std::process::id();
                    match last {
                        Some(seed) if seed.process == process => Seed { asked: now, ..seed },
                        _ => Seed { count: fresh_seed(), process, asked: now },
                    }
                }
            };
            seed.count = seed.count.wrapping_add(1);
            cell.set(Some(seed));
            // Two machines that were restored from one snapshot count on from one seed, at different
            // times. The low half still counts, so nothing repeats here.
            let time = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
            mix(seed.count.wrapping_add(time << 64))
        })
    }
}

fn fresh_seed() -> u128 {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // The standard library's hash keys are the other randomness that every platform has.
        for half in bytes.chunks_exact_mut(8) {
            let now = Instant::now();
            half.copy_from_slice(&RandomState::new().hash_one(now).to_ne_bytes());
        }
    }
    u128::from_ne_bytes(bytes)
}

/// Spreads a count over all bits. A bijection (odd factors, xor of a shift), so nothing repeats.
const fn mix(count: u128) -> u128 {
    let mut bits = count.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    bits ^= bits >> 64;
    bits = bits.wrapping_mul(0xd134_2543_de82_ef95_7f4a_7c15_9e37_79b9);
    bits ^ (bits >> 67)
}

/// Numbers that follow from a seed: for simulations that must run the same way again.
///
/// Never use it outside tests: two processes with one seed mint the same attempt ids.
#[derive(Debug)]
pub struct SeededRandom {
    state: AtomicU64,
}

impl SeededRandom {
    /// The numbers that follow from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }

    /// `SplitMix64`.
    fn next_half(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut bits = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

impl Random for SeededRandom {
    fn next(&self) -> u128 {
        u128::from(self.next_half()) << 64 | u128::from(self.next_half())
    }
}
