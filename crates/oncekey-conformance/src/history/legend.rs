//! Commands, answers and records for a reader: attempts by letter, times from a common start.
//!
//! The core's own `Debug` hides contents, since they belong to users. What is shown here was made up
//! by the suite.

use std::time::Duration;

use oncekey::runtime::Timestamp;
use oncekey::store::{
    AttemptId, ClaimOutcome, Completion, Expected, FencingToken, Grant, Known, Observed,
    OnInterrupted, OnRetired, Record, Settlement, Status, StoredValue,
};

use super::operation::{Answer, Operation};

/// Who is called what, and when time starts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Legend {
    attempts: Vec<AttemptId>,
    start: Option<Timestamp>,
}

impl Legend {
    /// `attempts` are called A, B, C, .. in their order; times are shown as since `start`.
    pub(crate) const fn new(attempts: Vec<AttemptId>, start: Timestamp) -> Self {
        Self { attempts, start: Some(start) }
    }

    pub(crate) fn operation(&self, operation: &Operation) -> String {
        match operation {
            Operation::Claim(claim) => {
                let refuse = match claim.on_interrupted {
                    OnInterrupted::TakeOver => "",
                    OnInterrupted::Refuse => ", refuse interrupted",
                };
                let tell = match claim.on_retired {
                    OnRetired::Forget => "",
                    OnRetired::Tell => ", tell retired",
                };
                format!(
                    "claim by {} (fingerprint {}, lease {}, hold {}{refuse}{tell})",
                    self.attempt(claim.attempt),
                    fingerprint(&claim.fingerprint),
                    duration(claim.lease),
                    duration(claim.hold),
                )
            }
            Operation::Renew(renew) => {
                let progress = renew.progress.as_ref().map_or_else(String::new, |progress| {
                    format!(", progress #{} {}", progress.sequence, bytes(&progress.data))
                });
                format!(
                    "renew by {} (lease {}{progress})",
                    self.grant(renew.grant),
                    duration(renew.lease),
                )
            }
            Operation::Complete(complete) => format!(
                "complete by {} ({})",
                self.grant(complete.grant),
                completion(&complete.completion),
            ),
            Operation::Abandon(abandon) => {
                let by = self.grant(abandon.grant);
                match abandon.known {
                    Known::NotStarted { hold } => {
                        format!("release by {by} (hold {})", duration(hold))
                    }
                    Known::Unknown => format!("give up by {by}"),
                }
            }
            Operation::Settle(settle) => {
                let of = self.expected(settle.expected);
                match &settle.settlement {
                    Settlement::Done(done) => {
                        format!("settle {of} as done ({})", completion(done))
                    }
                    Settlement::NotDone { hold } => {
                        format!("settle {of} as not done (hold {})", duration(*hold))
                    }
                }
            }
            Operation::Evict(evict) => format!(
                "evict {}{}",
                self.expected(evict.expected),
                if evict.force { " by force" } else { "" },
            ),
            Operation::Get => "get".to_owned(),
        }
    }

    pub(crate) fn answer(&self, answer: &Answer) -> String {
        match answer {
            Answer::Claim(ClaimOutcome::Acquired { grant, number, lease_left, previous }) => {
                let previous = previous.as_ref().map_or_else(String::new, |previous| {
                    let progress = previous.progress.as_ref();
                    format!(
                        ", after {:?} token {} with {}",
                        previous.cause,
                        self.token(previous.token),
                        progress.map_or_else(|| "no progress".to_owned(), |data| bytes(data)),
                    )
                });
                format!(
                    "Acquired ({}, number {number}, lease left {}{previous})",
                    self.grant(*grant),
                    duration(*lease_left),
                )
            }
            Answer::Claim(ClaimOutcome::Replay(Some(value))) => format!("Replay {}", bytes(value)),
            Answer::Claim(ClaimOutcome::Busy { retry_after }) => {
                format!("Busy (retry after {})", duration(*retry_after))
            }
            Answer::Claim(outcome) => format!("{outcome:?}"),
            Answer::Fenced(outcome) => format!("{outcome:?}"),
            Answer::Get(None) => "no record".to_owned(),
            Answer::Get(Some(seen)) => self.observed(seen),
        }
    }

    pub(crate) fn observed(&self, seen: &Observed) -> String {
        format!("{:?} at {}: {}", seen.state, self.time(seen.now), self.record(Some(&seen.record)))
    }

    pub(crate) fn record(&self, record: Option<&Record>) -> String {
        let Some(record) = record else {
            return "no record".to_owned();
        };
        let status = match &record.status {
            Status::InProgress { deadline } => {
                format!("in progress until {}", self.time(*deadline))
            }
            Status::GaveUp => "given up".to_owned(),
            Status::Released => "released".to_owned(),
            Status::Completed { value, retained_until } => {
                format!("completed with {} until {}", stored(value), self.time(*retained_until))
            }
        };
        let previous = record.previous.map_or_else(String::new, |previous| {
            format!(", after {:?} token {}", previous.cause, self.token(previous.token))
        });
        let progress = record.progress.as_ref().map_or_else(String::new, |progress| {
            format!(", progress #{} {}", progress.sequence, bytes(&progress.data))
        });
        format!(
            "{status}, by {}, number {}, fingerprint {}, forget at {}{previous}{progress}",
            self.grant(record.grant()),
            record.number,
            fingerprint(&record.fingerprint),
            self.time(record.forget_at),
        )
    }

    pub(crate) fn time(&self, time: Timestamp) -> String {
        match self.start {
            _ if time == Timestamp::MAX => "never".to_owned(),
            Some(start) if time >= start => {
                format!("+{}", duration(time.saturating_since(start)))
            }
            Some(start) => format!("-{}", duration(start.saturating_since(time))),
            None => format!("{time:?}"),
        }
    }

    fn grant(&self, grant: Grant) -> String {
        format!("{} with token {}", self.attempt(grant.attempt), self.token(grant.token))
    }

    /// Most tokens are points in time, too.
    fn token(&self, token: FencingToken) -> String {
        match self.start {
            Some(start) if token.get() >= start.as_micros() => {
                self.time(Timestamp::from_micros(token.get()))
            }
            _ => token.to_string(),
        }
    }

    fn attempt(&self, id: AttemptId) -> String {
        let position = self.attempts.iter().position(|attempt| *attempt == id);
        match position.and_then(|position| u8::try_from(position).ok()) {
            Some(position) if position < 26 => char::from(b'A' + position).to_string(),
            _ => {
                let last = u128::from_be_bytes(*id.as_bytes()) & 0xffff;
                format!("..{last:04x}")
            }
        }
    }

    fn expected(&self, expected: Expected) -> String {
        match expected {
            Expected::Attempt(attempt) => self.attempt(attempt),
            Expected::Token(token) => format!("token {}", self.token(token)),
            Expected::Any => "any".to_owned(),
        }
    }
}

fn completion(completion: &Completion) -> String {
    format!(
        "{}{}, retention {}, hold {}",
        bytes(&completion.value),
        if completion.replayable { "" } else { " not replayable" },
        duration(completion.retention),
        duration(completion.hold),
    )
}

fn stored(value: &StoredValue) -> String {
    match value {
        StoredValue::Replayable(value) => bytes(value),
        StoredValue::Digest(digest) => format!("digest {:02x}{:02x}..", digest[0], digest[1]),
    }
}

fn bytes(bytes: &[u8]) -> String {
    const SHOWN: usize = 24;
    let shown = &bytes[..bytes.len().min(SHOWN)];
    let more = if bytes.len() > SHOWN { ".." } else { "" };
    format!("\"{}{more}\"", shown.escape_ascii())
}

fn duration(duration: Duration) -> String {
    if duration == Duration::MAX { "forever".to_owned() } else { format!("{duration:?}") }
}

fn fingerprint(fingerprint: &oncekey::Fingerprint) -> String {
    format!("{:02x}", fingerprint.digest()[0])
}
