//! Rows as answers.

use std::time::Duration;

use bytes::Bytes;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    AttemptId, Cause, ClaimOutcome, Cursor, Fenced, FencingToken, Grant, Observed, Page, Previous,
    Progress, Query, Record, Replaced, State, Status, StoreError, StoredValue,
};
use oncekey::{Fingerprint, Key};

use super::fault::Purpose;

/// One row of an answer, as a driver has it. Each is `None` for what is null or of another type.
pub trait Row {
    /// The `bytea` in column `index`, from 0.
    fn bytes(&self, index: usize) -> Option<&[u8]>;
    /// The `bigint` in column `index`.
    fn int(&self, index: usize) -> Option<i64>;
    /// The `text` in column `index`.
    fn text(&self, index: usize) -> Option<&str>;
}

/// Where a row of an answer to many claims has the key.
pub const CLAIMED_KEY: usize = 8;
/// Where a row of an answer to many completions has the key.
pub const COMPLETED_KEY: usize = 1;

/// The format of a row that this build knows.
const FORMAT: i64 = 1;

const NEWER: &str = "the row has a format that this build does not know; upgrade oncekey here before \
                     the service that wrote it";
const NONSENSE: &str = "the row has a column that makes no sense: it was damaged, or edited by hand; \
                        find out what the operation did, then evict the key";
const NO_ANSWER: &str = "the function of the schema gave no answer that this build knows; run the \
                         migration of this build";

/// A claim's answer, and the id of the transaction in which it was granted.
///
/// # Errors
/// [`Corrupt`](oncekey::store::ErrorKind::Corrupt) and [`Misconfigured`](oncekey::store::ErrorKind::Misconfigured).
pub fn claim(
    purpose: Purpose,
    claim: &oncekey::store::Claim,
    row: &impl Row,
) -> Result<(ClaimOutcome, Option<String>), StoreError> {
    let missing = || purpose.misconfigured(NO_ANSWER);
    let outcome = match row.text(0).ok_or_else(missing)? {
        "acquired" => {
            let (grant, number, lease_left) = granted(claim, row).ok_or_else(missing)?;
            let previous = previous(row).map(|replaced| Previous {
                cause: replaced.cause,
                token: replaced.token,
                progress: row.bytes(6).map(Bytes::copy_from_slice),
            });
            ClaimOutcome::Acquired { grant, number, lease_left, previous }
        }
        "replay" => ClaimOutcome::Replay(row.bytes(6).map(Bytes::copy_from_slice)),
        "busy" => ClaimOutcome::Busy { retry_after: micros(row.int(3)).ok_or_else(missing)? },
        "mismatch" => ClaimOutcome::Mismatch,
        "interrupted" => ClaimOutcome::Interrupted,
        "retired" => ClaimOutcome::Retired,
        "spent" => ClaimOutcome::Spent,
        other => return Err(unusual(purpose, other)),
    };
    Ok((outcome, row.text(7).map(str::to_owned)))
}

fn granted(claim: &oncekey::store::Claim, row: &impl Row) -> Option<(Grant, u32, Duration)> {
    let grant = Grant { token: token(row.int(1)?)?, attempt: claim.attempt };
    Some((grant, u32::try_from(row.int(2)?).ok()?, micros(row.int(3))?))
}

fn previous(row: &impl Row) -> Option<Replaced> {
    Some(Replaced { cause: cause(row.text(4)?)?, token: token(row.int(5)?)? })
}

/// The answer of a command that names an attempt.
///
/// # Errors
/// [`Corrupt`](oncekey::store::ErrorKind::Corrupt) and [`Misconfigured`](oncekey::store::ErrorKind::Misconfigured).
pub fn fenced(purpose: Purpose, row: &impl Row) -> Result<Fenced, StoreError> {
    refusal(purpose, row.text(0).unwrap_or_default())
}

/// The same by its name, as the message of an error with the SQLSTATE
/// [`REFUSED`](super::fault::REFUSED) has it.
///
/// # Errors
/// As [`fenced`].
pub fn refusal(purpose: Purpose, name: &str) -> Result<Fenced, StoreError> {
    Ok(match name {
        "applied" => Fenced::Applied,
        "lost" => Fenced::Lost,
        "gone" => Fenced::Gone,
        "conflict" => Fenced::Conflict,
        "busy" => Fenced::Busy,
        other => return Err(unusual(purpose, other)),
    })
}

fn unusual(purpose: Purpose, outcome: &str) -> StoreError {
    match outcome {
        "corrupt" => purpose.corrupt(NONSENSE),
        "newer" => purpose.corrupt(NEWER),
        _ => purpose.misconfigured(NO_ANSWER),
    }
}

/// How many rows a purge removed, and how many it looked at.
///
/// # Errors
/// [`Misconfigured`](oncekey::store::ErrorKind::Misconfigured).
pub fn purged(purpose: Purpose, row: &impl Row) -> Result<(usize, usize), StoreError> {
    let count = |index| row.int(index).and_then(|count| usize::try_from(count).ok());
    count(0).zip(count(1)).ok_or_else(|| purpose.misconfigured(NO_ANSWER))
}

/// A record as it was read.
///
/// # Errors
/// [`Corrupt`](oncekey::store::ErrorKind::Corrupt).
pub fn observed(purpose: Purpose, row: &impl Row) -> Result<Observed, StoreError> {
    if row.int(0) != Some(FORMAT) {
        return Err(purpose.corrupt(NEWER));
    }
    record(row)
        .zip(timestamp(row.int(NOW)))
        .map(|(record, now)| Observed::new(record, now))
        .ok_or_else(|| purpose.corrupt(NONSENSE))
}

const PROGRESS: usize = 14;
const VALUE: usize = 15;
const NOW: usize = 16;
const KEY: usize = 17;
/// Null for a row that is no record.
const STATE: usize = 18;

/// One page of a listing, of the rows that a call with as many `looks` was answered by.
pub fn page<R: Row>(purpose: Purpose, query: &Query, looks: usize, rows: &[R]) -> Page {
    let mut page = Page { entries: Vec::new(), undecodable: 0, next: None };
    let mut last = None;
    for row in rows {
        if page.entries.len() >= query.limit {
            page.next = last;
            return page;
        }
        let key = row.bytes(KEY).unwrap_or_default();
        last = Some(Cursor::new(Bytes::copy_from_slice(key)));
        let state = row.text(STATE);
        if query.states.iter().any(|wanted| Some(state_name(*wanted)) == state) {
            match (Key::from_bytes(key), observed(purpose, row)) {
                (Ok(key), Ok(observed)) => page.entries.push((key, observed)),
                _ => page.undecodable += 1,
            }
        } else if state.is_none() {
            page.undecodable += 1;
        }
    }
    if rows.len() >= looks {
        page.next = last.or_else(|| query.after.clone());
    }
    page
}

fn record(row: &impl Row) -> Option<Record> {
    let (fingerprint, attempt) = fixed(row)?;
    let previous = match row.text(10) {
        None => None,
        Some(name) => Some(Replaced { cause: cause(name)?, token: token(row.int(11)?)? }),
    };
    let progress = match row.int(12) {
        None => None,
        Some(sequence) => Some(Box::new(Progress {
            sequence: u64::try_from(sequence).ok()?,
            data: Bytes::copy_from_slice(row.bytes(PROGRESS)?),
        })),
    };
    let status = match row.text(1)? {
        "in_progress" => Status::InProgress { deadline: timestamp(row.int(7))? },
        "gave_up" => Status::GaveUp,
        "released" => Status::Released,
        "completed" => Status::Completed {
            value: match row.bytes(VALUE) {
                Some(value) => StoredValue::Replayable(Bytes::copy_from_slice(value)),
                None => StoredValue::Digest(row.bytes(13)?.try_into().ok()?),
            },
            retained_until: timestamp(row.int(8))?,
        },
        _ => return None,
    };
    Some(Record {
        fingerprint,
        attempt,
        token: token(row.int(5)?)?,
        number: u32::try_from(row.int(6)?).ok()?,
        previous,
        progress,
        status,
        forget_at: timestamp(row.int(9))?,
    })
}

fn fixed(row: &impl Row) -> Option<(Fingerprint, AttemptId)> {
    let algorithm = u8::try_from(row.int(2)?).ok()?;
    let fingerprint = Fingerprint::from_digest(algorithm, row.bytes(3)?.try_into().ok()?);
    Some((fingerprint, AttemptId::from_bytes(row.bytes(4)?.try_into().ok()?)))
}

fn cause(name: &str) -> Option<Cause> {
    match name {
        "lapsed" => Some(Cause::Lapsed),
        "gave_up" => Some(Cause::GaveUp),
        _ => None,
    }
}

fn token(number: i64) -> Option<FencingToken> {
    let number = u64::try_from(number).ok()?;
    (number <= FencingToken::MAX.get()).then(|| FencingToken::new(number))
}

fn timestamp(micros: Option<i64>) -> Option<Timestamp> {
    let micros = u64::try_from(micros?).ok()?;
    (micros <= Timestamp::MAX.as_micros()).then(|| Timestamp::from_micros(micros))
}

fn micros(count: Option<i64>) -> Option<Duration> {
    Some(Duration::from_micros(u64::try_from(count?).ok()?))
}

/// How the functions call a state.
pub(super) const fn state_name(state: State) -> &'static str {
    match state {
        State::Live => "live",
        State::Lapsed => "lapsed",
        State::GaveUp => "gave_up",
        State::Released => "released",
        State::Completed => "completed",
        State::Retired => "retired",
    }
}
