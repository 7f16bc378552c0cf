//! A pretend card processor. It counts what it does, and never recognises a repeated call by itself:
//! whoever calls it twice has charged twice.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use oncekey::ChildKey;
use oncekey::store::FencingToken;
use serde::{Deserialize, Serialize};

use crate::log::{Fate, Operation, Request};
use crate::pace::Pace;
use crate::random::Random;

/// How long a call of a service waits for a reply, in milliseconds of the log.
const TIMEOUT: u64 = 10_000;
/// What a slow call takes.
const SLOW: u64 = 45_000;

/// What the processor says when it has done its part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Receipt {
    /// Counts up: two receipts with one number are one movement of money.
    pub(crate) number: u64,
    pub(crate) amount: u64,
    pub(crate) currency: String,
}

/// The card is declined, for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Declined {
    pub(crate) reason: String,
}

/// An answer, also where it is no: it is stored and replayed either way.
pub(crate) type Answer = Result<Receipt, Declined>;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Turned away at the door: certainly nothing was done.
    Refused,
    /// No reply in time: anything may have happened.
    TimedOut,
    /// Somebody with a newer token has asked about this order: certainly nothing was done now.
    Outdated,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "the processor refused the call",
            Self::TimedOut => "the processor did not reply in time",
            Self::Outdated => "the processor has seen a newer token",
        })
    }
}

impl std::error::Error for Trouble {}

/// Under which name a service will look for what it asked for, and the token of who asks.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    pub(crate) name: ChildKey,
    pub(crate) token: FencingToken,
}

pub(crate) struct Processor {
    pace: Pace,
    books: Mutex<Books>,
}

struct Books {
    random: Random,
    receipts: u64,
    /// What was done, by whose order, oldest first. More than one is what must not be.
    movements: HashMap<(String, String, Operation), Vec<Receipt>>,
    by_reference: HashMap<ChildKey, Noted>,
    outdated: u64,
}

#[derive(Default)]
struct Noted {
    newest: Option<FencingToken>,
    receipt: Option<Receipt>,
}

impl Processor {
    pub(crate) fn new(pace: Pace, seed: u64) -> Self {
        Self {
            pace,
            books: Mutex::new(Books {
                random: Random::new(seed),
                receipts: 0,
                movements: HashMap::new(),
                by_reference: HashMap::new(),
                outdated: 0,
            }),
        }
    }

    /// Moves the money, whether or not it did so before.
    pub(crate) async fn execute(
        &self,
        request: &Request,
        reference: Option<&Reference>,
        fate: Fate,
    ) -> Result<Answer, Trouble> {
        let latency = match fate {
            Fate::Slow => SLOW,
            _ => self.books().random.between(400, 2_000),
        };
        self.pace.pass(latency / 2).await;
        match fate {
            Fate::Refused => return Err(Trouble::Refused),
            Fate::CallLost => {
                self.pace.pass(TIMEOUT).await;
                return Err(Trouble::TimedOut);
            }
            Fate::Declined => {
                let reason = "insufficient funds".to_owned();
                return Ok(Err(Declined { reason }));
            }
            _ => {}
        }
        let receipt = self.books().book(request, reference)?;
        if fate == Fate::ReplyLost {
            self.pace.pass(TIMEOUT).await;
            return Err(Trouble::TimedOut);
        }
        self.pace.pass(latency - latency / 2).await;
        Ok(Ok(receipt))
    }

    /// What was done under a reference. From now on, calls with an older token are turned away: what
    /// this says stays true.
    pub(crate) async fn find(&self, reference: &Reference) -> Option<Receipt> {
        self.pace.pass(300).await;
        let mut books = self.books();
        let noted = books.by_reference.entry(reference.name.clone()).or_default();
        noted.newest = noted.newest.max(Some(reference.token));
        noted.receipt.clone()
    }

    /// How often each order had its money moved.
    pub(crate) fn counts(&self) -> HashMap<(String, String, Operation), usize> {
        let books = self.books();
        let movements = books.movements.iter();
        movements.map(|(order, receipts)| (order.clone(), receipts.len())).collect()
    }

    /// How many calls came too late.
    pub(crate) fn outdated(&self) -> u64 {
        self.books().outdated
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn book(&mut self, request: &Request, from: Option<&Reference>) -> Result<Receipt, Trouble> {
        let mut noted = None;
        if let Some(from) = from {
            let found = self.by_reference.entry(from.name.clone()).or_default();
            if found.newest > Some(from.token) {
                self.outdated += 1;
                return Err(Trouble::Outdated);
            }
            found.newest = Some(from.token);
            noted = Some(found);
        }
        self.receipts += 1;
        let receipt = Receipt {
            number: self.receipts,
            amount: request.amount,
            currency: request.currency.clone(),
        };
        if let Some(noted) = noted {
            noted.receipt = Some(receipt.clone());
        }
        let order = (request.account.clone(), request.order.clone(), request.operation);
        self.movements.entry(order).or_default().push(receipt.clone());
        Ok(receipt)
    }
}
