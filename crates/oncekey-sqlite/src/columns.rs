//! A record as typed columns, and back.
//!
//! Every row has a checksum over its key and its record. A bit that flipped, a value that was cut off
//! or an edit by hand is therefore found, and reported, instead of being replayed.

use bytes::Bytes;
use oncekey::Fingerprint;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    AttemptId, Cause, FencingToken, Progress, Record, Replaced, Status, StoredValue,
};
use rusqlite::types::ValueRef;
use rusqlite::{Row, Statement, params};
use sha2::{Digest, Sha256};

/// The version of the meaning of a row that this build writes, and the only one so far.
pub(crate) const FORMAT: i64 = 1;

/// The columns of a record, in the order in which this module reads and binds them.
pub(crate) const NAMES: [&str; 17] = [
    "format",
    "status",
    "fingerprint_algorithm",
    "fingerprint",
    "attempt",
    "token",
    "number",
    "deadline",
    "retained_until",
    "forget_at",
    "previous_cause",
    "previous_token",
    "progress_sequence",
    "progress",
    "digest",
    "checksum",
    "value",
];

const IN_PROGRESS: &str = "in_progress";
const GAVE_UP: &str = "gave_up";
const RELEASED: &str = "released";
const COMPLETED: &str = "completed";
const LAPSED: &str = "lapsed";

/// Why a row is no record.
pub(crate) type Problem = &'static str;

const NEWER: Problem = "the row has a format that this build does not know; upgrade oncekey here \
                        before the service that wrote it";
const CHANGED: Problem = "the row does not match its checksum: it was damaged, or edited by hand; \
                          find out what the operation did, then evict the key";
const NONSENSE: Problem = "the row has a column that makes no sense: it was damaged, or edited by \
                           hand; find out what the operation did, then evict the key";

/// Runs `statement` with the key as its first parameter and the record's columns after it.
pub(crate) fn write(
    statement: &mut Statement<'_>,
    key: &[u8],
    record: &Record,
) -> rusqlite::Result<usize> {
    let (status, deadline, retained_until, value) = match &record.status {
        Status::InProgress { deadline } => (IN_PROGRESS, Some(*deadline), None, None),
        Status::GaveUp => (GAVE_UP, None, None, None),
        Status::Released => (RELEASED, None, None, None),
        Status::Completed { value, retained_until } => {
            (COMPLETED, None, Some(*retained_until), Some(value))
        }
    };
    let (value, digest) = match value {
        None => (None, None),
        Some(StoredValue::Replayable(value)) => (Some(&value[..]), None),
        Some(StoredValue::Digest(digest)) => (None, Some(&digest[..])),
    };
    let previous = record.previous;
    let progress = record.progress.as_deref();
    statement.execute(params![
        key,
        FORMAT,
        status,
        i64::from(record.fingerprint.algorithm()),
        &record.fingerprint.digest()[..],
        &record.attempt.as_bytes()[..],
        record.token.get().cast_signed(),
        i64::from(record.number),
        deadline.map(micros),
        retained_until.map(micros),
        micros(record.forget_at),
        previous.map(|previous| cause_name(previous.cause)),
        previous.map(|previous| previous.token.get().cast_signed()),
        progress.map(|progress| progress.sequence.cast_signed()),
        progress.map(|progress| &progress.data[..]),
        digest,
        &checksum(key, record)[..],
        value,
    ])
}

/// The record in the columns of `row` from `first` on, which must be the row of `key`.
pub(crate) fn read(row: &Row<'_>, first: usize, key: &[u8]) -> Result<Record, Problem> {
    let columns = Columns { row, first };
    if columns.integer("format") != Some(FORMAT) {
        return Err(NEWER);
    }
    let record = columns.record().ok_or(NONSENSE)?;
    let stored = columns.bytes("checksum").ok_or(NONSENSE)?;
    if stored == checksum(key, &record) { Ok(record) } else { Err(CHANGED) }
}

/// The columns of one row by name. `None` for what is NULL or of another type.
struct Columns<'a> {
    row: &'a Row<'a>,
    first: usize,
}

impl<'a> Columns<'a> {
    fn record(&self) -> Option<Record> {
        let algorithm = u8::try_from(self.integer("fingerprint_algorithm")?).ok()?;
        let fingerprint = Fingerprint::from_digest(algorithm, self.array("fingerprint")?);
        let previous = match self.text("previous_cause") {
            None => None,
            Some(cause) => {
                Some(Replaced { cause: cause_of(cause)?, token: self.token("previous_token")? })
            }
        };
        let progress = match self.integer("progress_sequence") {
            None => None,
            Some(sequence) => Some(Box::new(Progress {
                sequence: sequence.cast_unsigned(),
                data: Bytes::copy_from_slice(self.bytes("progress")?),
            })),
        };
        Some(Record {
            fingerprint,
            attempt: AttemptId::from_bytes(self.array("attempt")?),
            token: self.token("token")?,
            number: u32::try_from(self.integer("number")?).ok()?,
            previous,
            progress,
            status: self.status()?,
            forget_at: self.timestamp("forget_at")?,
        })
    }

    fn status(&self) -> Option<Status> {
        Some(match self.text("status")? {
            IN_PROGRESS => Status::InProgress { deadline: self.timestamp("deadline")? },
            GAVE_UP => Status::GaveUp,
            RELEASED => Status::Released,
            COMPLETED => Status::Completed {
                value: match self.bytes("value") {
                    Some(value) => StoredValue::Replayable(Bytes::copy_from_slice(value)),
                    None => StoredValue::Digest(self.array("digest")?),
                },
                retained_until: self.timestamp("retained_until")?,
            },
            _ => return None,
        })
    }

    fn get(&self, name: &str) -> Option<ValueRef<'a>> {
        let index = NAMES.iter().position(|known| *known == name)?;
        self.row.get_ref(self.first + index).ok()
    }

    fn integer(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            ValueRef::Integer(number) => Some(number),
            _ => None,
        }
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        match self.get(name)? {
            ValueRef::Text(text) => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }

    fn bytes(&self, name: &str) -> Option<&'a [u8]> {
        match self.get(name)? {
            ValueRef::Blob(bytes) => Some(bytes),
            _ => None,
        }
    }

    fn array<const N: usize>(&self, name: &str) -> Option<[u8; N]> {
        self.bytes(name)?.try_into().ok()
    }

    fn timestamp(&self, name: &str) -> Option<Timestamp> {
        let micros = u64::try_from(self.integer(name)?).ok()?;
        (micros <= Timestamp::MAX.as_micros()).then(|| Timestamp::from_micros(micros))
    }

    fn token(&self, name: &str) -> Option<FencingToken> {
        let number = u64::try_from(self.integer(name)?).ok()?;
        (number <= FencingToken::MAX.get()).then(|| FencingToken::new(number))
    }
}

pub(crate) const fn micros(time: Timestamp) -> i64 {
    time.as_micros().cast_signed()
}

const fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::Lapsed => LAPSED,
        Cause::GaveUp => GAVE_UP,
    }
}

fn cause_of(name: &str) -> Option<Cause> {
    match name {
        LAPSED => Some(Cause::Lapsed),
        GAVE_UP => Some(Cause::GaveUp),
        _ => None,
    }
}

/// The first 8 bytes of the SHA-256 over the format, the key and every field.
fn checksum(key: &[u8], record: &Record) -> [u8; 8] {
    let mut sum = Sum(Sha256::new());
    sum.number(FORMAT.cast_unsigned());
    sum.bytes(key);
    sum.number(record.fingerprint.algorithm().into());
    sum.bytes(record.fingerprint.digest());
    sum.bytes(record.attempt.as_bytes());
    sum.number(record.token.get());
    sum.number(record.number.into());
    sum.number(record.forget_at.as_micros());
    match &record.status {
        Status::InProgress { deadline } => {
            sum.bytes(IN_PROGRESS.as_bytes());
            sum.number(deadline.as_micros());
        }
        Status::GaveUp => sum.bytes(GAVE_UP.as_bytes()),
        Status::Released => sum.bytes(RELEASED.as_bytes()),
        Status::Completed { value, retained_until } => {
            sum.bytes(COMPLETED.as_bytes());
            sum.number(retained_until.as_micros());
            match value {
                StoredValue::Replayable(value) => {
                    sum.bytes(b"value");
                    sum.bytes(value);
                }
                StoredValue::Digest(digest) => {
                    sum.bytes(b"digest");
                    sum.bytes(digest);
                }
            }
        }
    }
    if let Some(Replaced { cause, token }) = record.previous {
        sum.bytes(b"previous");
        sum.bytes(cause_name(cause).as_bytes());
        sum.number(token.get());
    }
    if let Some(progress) = &record.progress {
        sum.bytes(b"progress");
        sum.number(progress.sequence);
        sum.bytes(&progress.data);
    }
    let digest = sum.0.finalize();
    std::array::from_fn(|index| digest[index])
}

/// Digests fields so that none can be taken for a part of its neighbour.
struct Sum(Sha256);

impl Sum {
    fn number(&mut self, number: u64) {
        self.0.update(number.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }
}
