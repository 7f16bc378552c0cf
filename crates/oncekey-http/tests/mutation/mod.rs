//! Mutation of bytes, the same for the same seed.

use std::ops::Range;

/// The seeds of this run: few, unless `ONCEKEY_SEEDS` says otherwise.
pub(crate) fn seeds() -> Range<u64> {
    let number = |name: &str| {
        std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number of seeds"))
    };
    let first = number("ONCEKEY_SEED").unwrap_or(1);
    first..first.saturating_add(number("ONCEKEY_SEEDS").unwrap_or(20))
}

/// Makes new inputs of known ones.
pub(crate) struct Mutator<'a> {
    random: u64,
    corpus: Vec<Vec<u8>>,
    /// How many of them were given; the rest is what was found.
    given: usize,
    tokens: &'a [&'a [u8]],
    max_len: usize,
}

/// How much of what was found is kept.
const FOUND: usize = 64;

impl<'a> Mutator<'a> {
    pub(crate) fn new(seed: u64, corpus: &[&[u8]], tokens: &'a [&'a [u8]], max_len: usize) -> Self {
        let corpus: Vec<_> = corpus.iter().map(|entry| entry.to_vec()).collect();
        Self { random: seed, given: corpus.len(), corpus, tokens, max_len }
    }

    /// Splitmix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// A part of `len` bytes, often a short one.
    fn part(&mut self, len: usize) -> Range<usize> {
        let start = self.below(len + 1);
        let longest = (len - start).min(if self.below(4) == 0 { len } else { 8 });
        start..start + self.below(longest + 1)
    }

    fn entry(&mut self) -> Vec<u8> {
        let index = self.below(self.corpus.len());
        self.corpus[index].clone()
    }

    /// An entry, changed in one to five places.
    pub(crate) fn mutate(&mut self) -> Vec<u8> {
        let mut bytes = self.entry();
        for _ in 0..=self.below(5) {
            self.change(&mut bytes);
        }
        bytes.truncate(self.max_len);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let part = self.part(bytes.len());
        match self.below(8) {
            0 => drop(bytes.drain(part)),
            1 => {
                let copy = bytes[part.clone()].to_vec();
                bytes.splice(part.end..part.end, copy);
            }
            // The end of another entry behind the start of this one.
            2 => {
                let other = self.entry();
                let from = self.below(other.len() + 1);
                bytes.splice(part.start.., other[from..].iter().copied());
            }
            3 => {
                let byte = self.next() as u8;
                bytes.insert(part.start, byte);
            }
            4 => {
                let bit = self.below(8);
                if let Some(byte) = bytes.get_mut(part.start) {
                    *byte ^= 1 << bit;
                }
            }
            5 => {
                let step = if self.below(2) == 0 { 1 } else { 255 };
                if let Some(byte) = bytes.get_mut(part.start) {
                    *byte = byte.wrapping_add(step);
                }
            }
            place => {
                let token = self.tokens[self.below(self.tokens.len())];
                let end = if place == 6 { part.start } else { part.end };
                bytes.splice(part.start..end, token.iter().copied());
            }
        }
    }

    /// Goes on from `bytes`, too.
    pub(crate) fn keep(&mut self, bytes: &[u8]) {
        if self.corpus.len() < self.given + FOUND {
            self.corpus.push(bytes.to_vec());
        } else {
            let index = self.given + self.below(FOUND);
            self.corpus[index] = bytes.to_vec();
        }
    }
}
