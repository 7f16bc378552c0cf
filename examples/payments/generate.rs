//! Makes a request log from a seed: the same seed, the same log, byte for byte.

use crate::log::{Fate, Operation, Request};
use crate::random::Random;

/// How many requests a log has, at the least.
const REQUESTS: usize = 3_000;

const ADJECTIVES: [&str; 8] =
    ["amber", "blue", "coral", "golden", "little", "north", "quiet", "red"];
const NOUNS: [&str; 8] =
    ["anchor", "bakery", "bicycle", "garden", "kiosk", "lantern", "records", "teahouse"];
const CURRENCIES: [&str; 4] = ["EUR", "EUR", "GBP", "USD"];

/// What goes wrong with an order, and how often in a thousand. All others are charged once, by one
/// request.
const TROUBLES: [(u64, Trouble); 14] = [
    (80, Trouble::Later),
    (60, Trouble::Burst),
    (20, Trouble::OtherBody),
    (20, Trouble::Fate(Fate::Declined)),
    (12, Trouble::Fate(Fate::Refused)),
    (15, Trouble::Fate(Fate::HangUp)),
    (10, Trouble::Fate(Fate::Gone)),
    (10, Trouble::Fate(Fate::CrashBefore)),
    (15, Trouble::Fate(Fate::CrashOnTheWay)),
    (15, Trouble::Fate(Fate::CrashAfter)),
    (10, Trouble::Fate(Fate::CallLost)),
    (10, Trouble::Fate(Fate::ReplyLost)),
    (8, Trouble::Fate(Fate::Slow)),
    (10, Trouble::CrashInBurst),
];

#[derive(Clone, Copy)]
enum Trouble {
    /// One or two duplicates, some time later.
    Later,
    /// Duplicates at the very same moment.
    Burst,
    /// The same key again, for another amount.
    OtherBody,
    Fate(Fate),
    /// Duplicates at the same moment, and whoever runs dies.
    CrashInBurst,
}

/// The log of `seed`, as text.
pub(crate) fn generate(seed: u64) -> Result<String, serde_json::Error> {
    let mut log = String::new();
    for request in requests(seed) {
        log.push_str(&serde_json::to_string(&request)?);
        log.push('\n');
    }
    Ok(log)
}

fn requests(seed: u64) -> Vec<Request> {
    let mut random = Random::new(seed);
    let mut last_orders = [[0_u64; NOUNS.len()]; ADJECTIVES.len()];
    let mut requests = Vec::new();
    let mut now = 0;
    while requests.len() < REQUESTS {
        now += random.between(0, 270);
        let adjective = random.between(0, ADJECTIVES.len() as u64 - 1) as usize;
        let noun = random.between(0, NOUNS.len() as u64 - 1) as usize;
        // Every account counts its orders from 1, so numbers of several accounts are the same.
        let order = &mut last_orders[adjective][noun];
        *order += 1;
        let mut request = Request {
            at: now,
            account: format!("{}-{}", ADJECTIVES[adjective], NOUNS[noun]),
            order: format!("order-{order}"),
            operation: Operation::Charge,
            amount: amount(&mut random),
            currency: CURRENCIES[(adjective + noun) % CURRENCIES.len()].to_owned(),
            fate: Fate::Normal,
        };
        let trouble = trouble(&mut random);
        tell(&mut requests, &mut random, &request, trouble);
        let was_charged =
            !matches!(trouble, Some(Trouble::Fate(Fate::Declined | Fate::Gone | Fate::Slow)));
        if was_charged && random.chance(9) {
            request.operation = Operation::Refund;
            request.at += random.between(25_000, 60_000);
            let trouble = refund_trouble(&mut random);
            tell(&mut requests, &mut random, &request, trouble);
        }
    }
    // Stable: of requests at the same moment, the first stays the first.
    requests.sort_by_key(|request| request.at);
    requests
}

/// Many small amounts, few large ones.
const fn amount(random: &mut Random) -> u64 {
    let base = random.between(150, 9_999);
    if random.chance(8) { base * 10 } else { base }
}

fn trouble(random: &mut Random) -> Option<Trouble> {
    let mut ticket = random.between(1, 1_000);
    for (weight, trouble) in TROUBLES {
        if ticket <= weight {
            return Some(trouble);
        }
        ticket -= weight;
    }
    None
}

fn refund_trouble(random: &mut Random) -> Option<Trouble> {
    let fates = [Fate::CrashBetween, Fate::CrashAfter, Fate::CrashOnTheWay, Fate::HangUp];
    match random.between(1, 10) {
        1 | 2 => Some(Trouble::Later),
        3 => Some(Trouble::Burst),
        4..=6 => Some(Trouble::Fate(random.pick(&fates))),
        _ => None,
    }
}

/// Adds `first`, and all that `trouble` brings with it.
fn tell(
    requests: &mut Vec<Request>,
    random: &mut Random,
    first: &Request,
    trouble: Option<Trouble>,
) {
    let mut add = |after: u64, amount: u64, fate: Fate| {
        requests.push(Request { at: first.at + after, amount, fate, ..first.clone() });
    };
    let amount = first.amount;
    match trouble {
        None => add(0, amount, Fate::Normal),
        Some(Trouble::Later) => {
            add(0, amount, Fate::Normal);
            for _ in 0..random.between(1, 2) {
                add(random.between(300, 40_000), amount, Fate::Normal);
            }
        }
        Some(Trouble::Burst) => {
            for _ in 0..random.between(2, 6) {
                add(0, amount, Fate::Normal);
            }
        }
        Some(Trouble::OtherBody) => {
            add(0, amount, Fate::Normal);
            add(random.between(3_000, 30_000), amount + random.between(1, 500), Fate::Normal);
        }
        Some(Trouble::Fate(fate)) => {
            add(0, amount, fate);
            // Of a client that never comes back there is no duplicate either.
            if fate != Fate::Gone && random.chance(50) {
                add(random.between(200, 12_000), amount, fate.next_try());
            }
        }
        Some(Trouble::CrashInBurst) => {
            let fates = [Fate::CrashBefore, Fate::CrashOnTheWay, Fate::CrashAfter];
            let fate = random.pick(&fates);
            for _ in 0..random.between(2, 3) {
                add(0, amount, fate);
            }
        }
    }
}
