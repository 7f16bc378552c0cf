//! What must be true after a play, whatever went wrong in it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use indicatif::HumanCount;

use crate::log::Operation;
use crate::play::{End, Ending, Played};
use crate::processor::Answer;
use crate::report::identity;
use crate::service::Service;

/// The most culprits that are printed; the rest is counted.
const SHOWN: usize = 8;

/// Something that must be true, with all for which it is not.
pub(crate) struct Check {
    pub(crate) what: &'static str,
    figures: String,
    culprits: BTreeSet<String>,
}

impl Check {
    pub(crate) fn is_good(&self) -> bool {
        self.culprits.is_empty()
    }
}

pub(crate) fn checks(played: &Played, service: &Service) -> Vec<Check> {
    let endings = &played.endings;
    vec![
        moved_once("no order was charged twice", "charge", Operation::Charge, service),
        moved_once("no order was refunded twice", "refund", Operation::Refund, service),
        all_answered(endings),
        one_answer_each(endings),
        own_answer(endings),
        all_known(played, service),
        ledger_agrees(service),
    ]
}

fn moved_once(what: &'static str, thing: &str, wanted: Operation, service: &Service) -> Check {
    let mut counts = service.processor.counts();
    counts.retain(|(_, _, operation), _| *operation == wanted);
    let total: usize = counts.values().sum();
    let twice = counts.iter().filter(|(_, count)| **count > 1);
    Check {
        what,
        figures: format!("{}, {}", many(counts.len(), "order"), many(total, thing)),
        culprits: twice
            .map(|((account, order, _), count)| format!("{order} of {account}: {count} times"))
            .collect(),
    }
}

fn all_answered(endings: &[Ending]) -> Check {
    let silent = endings.iter().filter(|it| it.end == End::NoAnswer);
    let left = endings.iter().filter(|it| it.end == End::Left).count();
    Check {
        what: "every request was answered",
        figures: format!("{}, {} left", many(endings.len(), "request"), many(left, "client")),
        culprits: silent.map(|it| it.request.name()).collect(),
    }
}

fn one_answer_each(endings: &[Ending]) -> Check {
    let mut answers: BTreeMap<_, Vec<&Answer>> = BTreeMap::new();
    let mut duplicates = 0;
    for Ending { request, end, .. } in endings {
        let End::Answer(answer) = end else { continue };
        let known = answers.entry(identity(request)).or_default();
        duplicates += usize::from(!known.is_empty());
        known.push(answer);
    }
    let torn = answers.iter().filter(|(_, all)| all.iter().any(|it| *it != all[0]));
    Check {
        what: "every duplicate got the same answer",
        figures: format!("{}, {}", many(answers.len(), "order"), many(duplicates, "duplicate")),
        culprits: torn.map(|((account, order, _), _)| format!("{order} of {account}")).collect(),
    }
}

fn own_answer(endings: &[Ending]) -> Check {
    let mut receipts = 0;
    let mut culprits = BTreeSet::new();
    for Ending { request, end, .. } in endings {
        let End::Answer(Ok(receipt)) = end else {
            continue;
        };
        receipts += 1;
        if (receipt.amount, &receipt.currency) != (request.amount, &request.currency) {
            culprits.insert(request.name());
        }
    }
    Check {
        what: "nobody got the receipt of another",
        figures: many(receipts, "receipt"),
        culprits,
    }
}

/// Money that moved, and that neither a client nor the record of the service knows of.
fn all_known(played: &Played, service: &Service) -> Check {
    let moved: usize = service.processor.counts().values().sum();
    let numbers = played.endings.iter().filter_map(|it| match &it.end {
        End::Answer(Ok(receipt)) => Some(receipt.number),
        _ => None,
    });
    let mut known: HashSet<_> = numbers.collect();
    let told = known.len();
    known.extend(&played.unclaimed);
    let unseen = moved.abs_diff(known.len()) + played.completions.unknown;
    let culprits = match unseen {
        0 => BTreeSet::new(),
        _ => BTreeSet::from([many(unseen, "receipt") + " that nobody has"]),
    };
    Check {
        what: "no money moved unseen",
        figures: format!(
            "{} told, {} without a client",
            many(told, "receipt"),
            many(known.len() - told, "record")
        ),
        culprits,
    }
}

/// Both steps of every refund were made, and the second one once.
fn ledger_agrees(service: &Service) -> Check {
    let entered = service.ledger.receipts();
    let counts = service.processor.counts();
    let refunds = counts.iter().filter(|((_, _, operation), _)| *operation == Operation::Refund);
    let refunded: usize = refunds.map(|(_, count)| count).sum();
    let distinct = entered.iter().collect::<HashSet<_>>().len();
    let culprits = if distinct == refunded && entered.len() == refunded {
        BTreeSet::new()
    } else {
        BTreeSet::from([format!(
            "{} in the ledger, {} made",
            many(distinct, "refund"),
            HumanCount(refunded as u64)
        )])
    };
    Check {
        what: "every refund is in the ledger once",
        figures: many(entered.len(), "refund"),
        culprits,
    }
}

/// A count with its noun: `1 order`, `2,000 orders`.
fn many(count: usize, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", HumanCount(count as u64))
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_good() { "OK" } else { "FAILED" };
        write!(f, "  {:<36}{verdict:>8}  ({})", self.what, self.figures)?;
        for culprit in self.culprits.iter().take(SHOWN) {
            write!(f, "\n      {culprit}")?;
        }
        if self.culprits.len() > SHOWN {
            write!(f, "\n      and {} more", HumanCount((self.culprits.len() - SHOWN) as u64))?;
        }
        Ok(())
    }
}
