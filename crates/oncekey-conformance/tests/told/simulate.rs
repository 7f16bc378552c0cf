//! Random true histories: clients whose calls overlap, take effect and come back in a random order.

use std::time::Duration;

use oncekey::runtime::{Random, SeededRandom};
use oncekey::store::{Expected, OnInterrupted, OnRetired};
use oncekey_conformance::history::{History, Operation};

use super::{
    Begun, LONG, SHORT, Told, attempt, claim, claims, completes, evicts, gives_up, releases,
    renews, settles,
};

/// How large a history becomes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) clients: usize,
    pub(crate) keys: usize,
    pub(crate) calls: usize,
    /// One in so many calls has an unknown outcome.
    pub(crate) unknown: usize,
    /// Whether time passes within phases too.
    pub(crate) ticks: bool,
}

/// The history that follows from `random`.
pub(crate) fn simulate(random: &SeededRandom, size: Size) -> History {
    let mut told = Told::new();
    let mut clients: Vec<Client> = (0..size.clients).map(|_| Client::Idle).collect();
    let mut lost: Vec<Begun> = Vec::new();
    let mut begun = 0;
    while begun < size.calls || clients.iter().any(|client| !matches!(client, Client::Idle)) {
        if size.ticks {
            told.tick = Duration::from_micros(1_u64 << below(random, 24));
        }
        match below(random, 24) {
            0 => told.advance([SHORT, SHORT + SHORT, LONG][below(random, 3)]),
            1 => told.purge(),
            2 if !lost.is_empty() => {
                let number = below(random, lost.len());
                told.take_effect(&mut lost.swap_remove(number));
            }
            _ => {}
        }
        let number = below(random, clients.len());
        let client = std::mem::replace(&mut clients[number], Client::Idle);
        clients[number] = match client {
            Client::Idle if begun < size.calls => {
                begun += 1;
                let key = below(random, size.keys);
                Client::Asked(told.begin(number, key, operation(random)))
            }
            Client::Idle => Client::Idle,
            Client::Asked(call) if below(random, size.unknown) == 0 => {
                lost.push(call);
                Client::Idle
            }
            Client::Asked(mut call) => {
                told.take_effect(&mut call);
                Client::Done(call)
            }
            Client::Done(call) if below(random, 2 * size.unknown) == 0 => {
                drop(call);
                Client::Idle
            }
            Client::Done(call) => {
                told.end(call);
                Client::Idle
            }
        };
    }
    told.history
}

enum Client {
    Idle,
    /// The call has begun.
    Asked(Begun),
    /// It has taken effect.
    Done(Begun),
}

fn operation(random: &SeededRandom) -> Operation {
    let number = 1 + below(random, 3) as u8;
    let value = ["one", "two"][below(random, 2)];
    match below(random, 16) {
        0..5 => claims(number),
        5 => {
            let mut claim = claim(number);
            claim.fingerprint = oncekey::Fingerprint::of("other");
            Operation::Claim(claim)
        }
        6 => {
            let mut claim = claim(number);
            claim.on_interrupted = OnInterrupted::Refuse;
            claim.on_retired = OnRetired::Tell;
            claim.hold = SHORT;
            Operation::Claim(claim)
        }
        7 => renews(number, Some((1 + below(random, 2) as u64, value))),
        8..11 => completes(number, value),
        11 => gives_up(number),
        12 => releases(number),
        13 => settles(number, value),
        14 => match evicts() {
            Operation::Evict(mut evict) => {
                evict.force = below(random, 2) == 0;
                evict.expected = Expected::Attempt(attempt(number));
                Operation::Evict(evict)
            }
            other => other,
        },
        _ => Operation::Get,
    }
}

pub(crate) fn below(random: &SeededRandom, bound: usize) -> usize {
    (random.next() % bound as u128) as usize
}
