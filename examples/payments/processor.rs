//! A pretend card processor. It counts what it does, and never recognises a repeated call by itself:
//! whoever calls it twice has charged twice.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::journal::{Entry, Journal};
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
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) token: u64,
}

/// Whose order, its number, and what is to be done about it.
pub(crate) type Order = (String, String, Operation);

pub(crate) struct Processor {
    pace: Pace,
    books: Mutex<Books>,
    journal: Arc<Journal>,
    /// After every so many movements of money, the service is killed in the middle of a call.
    kill_every: Option<u64>,
}

struct Books {
    random: Random,
    receipts: u64,
    /// What was done, by whose order, oldest first. More than one is what must not be.
    movements: HashMap<Order, Vec<Receipt>>,
    by_reference: HashMap<String, Noted>,
    outdated: u64,
}

#[derive(Default)]
struct Noted {
    newest: Option<u64>,
    receipt: Option<Receipt>,
}

impl Processor {
    /// One that knows what the journal says it did.
    pub(crate) fn new(
        pace: Pace,
        seed: u64,
        journal: Arc<Journal>,
        kill_every: Option<u64>,
    ) -> Self {
        let mut books = Books {
            random: Random::new(seed),
            receipts: 0,
            movements: HashMap::new(),
            by_reference: HashMap::new(),
            outdated: 0,
        };
        for entry in journal.past() {
            match entry.clone() {
                Entry::Moved { order, reference, receipt } => {
                    books.note(order, reference.as_ref(), &receipt);
                }
                Entry::Asked { reference } => books.refuse_older_than(&reference),
                Entry::TurnedAway => books.outdated += 1,
                _ => {}
            }
        }
        Self { pace, books: Mutex::new(books), journal, kill_every }
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
        let receipt = self.book(request, reference)?;
        if self.kill_every.is_some_and(|every| receipt.number.is_multiple_of(every)) {
            kill_this_process().await;
        }
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
        books.refuse_older_than(reference);
        self.journal.write(Entry::Asked { reference: reference.clone() });
        books.by_reference.get(&reference.name).and_then(|noted| noted.receipt.clone())
    }

    fn book(&self, request: &Request, from: Option<&Reference>) -> Result<Receipt, Trouble> {
        let mut books = self.books();
        if books.is_outdated(from) {
            books.outdated += 1;
            self.journal.write(Entry::TurnedAway);
            return Err(Trouble::Outdated);
        }
        let receipt = Receipt {
            number: books.receipts + 1,
            amount: request.amount,
            currency: request.currency.clone(),
        };
        let order = (request.account.clone(), request.order.clone(), request.operation);
        books.note(order.clone(), from, &receipt);
        let reference = from.cloned();
        self.journal.write(Entry::Moved { order, reference, receipt: receipt.clone() });
        Ok(receipt)
    }

    /// How often each order had its money moved.
    pub(crate) fn counts(&self) -> HashMap<Order, usize> {
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
    fn is_outdated(&self, from: Option<&Reference>) -> bool {
        from.is_some_and(|from| {
            let noted = self.by_reference.get(&from.name);
            noted.is_some_and(|noted| noted.newest > Some(from.token))
        })
    }

    fn refuse_older_than(&mut self, reference: &Reference) {
        let noted = self.by_reference.entry(reference.name.clone()).or_default();
        noted.newest = noted.newest.max(Some(reference.token));
    }

    fn note(&mut self, order: Order, from: Option<&Reference>, receipt: &Receipt) {
        self.receipts = receipt.number;
        if let Some(from) = from {
            self.refuse_older_than(from);
            self.by_reference.entry(from.name.clone()).or_default().receipt = Some(receipt.clone());
        }
        self.movements.entry(order).or_default().push(receipt.clone());
    }
}

/// SIGKILL: nothing is flushed, nothing is dropped, nobody is told.
async fn kill_this_process() {
    let process = std::process::id().to_string();
    match std::process::Command::new("kill").args(["-9", &process]).status() {
        Ok(status) if status.success() => std::future::pending().await,
        // Where there is no such command.
        _ => std::process::abort(),
    }
}
