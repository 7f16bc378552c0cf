//! Answers of scripts.

use bytes::Bytes;
use oncekey::runtime::Timestamp;
use oncekey::store::{ClaimOutcome, Fenced, Observed, Previous, Record, Status, StoreError};
use redis::Value;

use crate::fault::Purpose;
use crate::layout::{Stored, Unreadable};
use crate::script::code;

/// What a script said, and when by the server's clock.
pub(crate) struct Answer {
    pub(crate) code: i64,
    /// Microseconds since 1970; `None` where the script had no need to read the time.
    pub(crate) micros: Option<u64>,
    rest: Vec<Value>,
}

impl Answer {
    pub(crate) fn read(purpose: Purpose, value: Value) -> Result<Self, StoreError> {
        Self::parse(value).ok_or_else(|| purpose.no_answer())
    }

    fn parse(value: Value) -> Option<Self> {
        match value {
            Value::Int(code) => Some(Self { code, micros: None, rest: Vec::new() }),
            Value::Array(mut values) => {
                if values.len() < 2 {
                    return None;
                }
                let rest = values.split_off(2);
                let [Value::Int(code), Value::Int(micros)] = values[..] else { return None };
                Some(Self { code, micros: u64::try_from(micros).ok(), rest })
            }
            _ => None,
        }
    }

    /// The store's now. It goes by milliseconds, as the expiry of keys does.
    fn now(&self) -> Option<Timestamp> {
        Some(Timestamp::from_micros(self.micros? / 1000 * 1000))
    }

    /// The record that the script read or wrote, as it is stored, and the key's expiry.
    fn stored(&mut self, purpose: Purpose) -> Result<(Bytes, Stored, u64), StoreError> {
        let mut rest = std::mem::take(&mut self.rest).into_iter();
        let (Some(Value::BulkString(raw)), Some(Value::Int(expiry))) = (rest.next(), rest.next())
        else {
            return Err(purpose.no_answer());
        };
        let raw = Bytes::from(raw);
        let stored = Stored::decode(&raw).map_err(|why| purpose.unreadable(why))?;
        let expiry = u64::try_from(expiry).map_err(|_| purpose.no_answer())?;
        Ok((raw, stored, expiry))
    }

    fn record(&mut self, purpose: Purpose) -> Result<Record, StoreError> {
        let (_, stored, expiry) = self.stored(purpose)?;
        stored.record(expiry).ok_or_else(|| purpose.unreadable(Unreadable::Damaged))
    }

    /// The check of what a claim has to look at before it is decided.
    pub(crate) fn look(&mut self, purpose: Purpose) -> Result<Option<[u8; 8]>, StoreError> {
        if self.code != code::claim::LOOK {
            return Ok(None);
        }
        let (_, found, _) = self.stored(purpose)?;
        Ok(Some(found.check()))
    }

    /// A claim's answer, and the record of the grant if it is one.
    pub(crate) fn claim(
        mut self,
        purpose: Purpose,
    ) -> Result<(ClaimOutcome, Option<(Bytes, Stored)>), StoreError> {
        let outcome = match self.code {
            code::claim::ACQUIRED => {
                let (raw, stored, expiry) = self.stored(purpose)?;
                let record = stored.record(expiry);
                let granted = record.and_then(|record| self.granted(&record));
                let outcome = granted.ok_or_else(|| purpose.unreadable(Unreadable::Damaged))?;
                return Ok((outcome, Some((raw, stored))));
            }
            code::claim::REPLAY => {
                let (_, stored, _) = self.stored(purpose)?;
                ClaimOutcome::Replay(stored.replay())
            }
            code::claim::BUSY => {
                let until = match self.rest.first() {
                    Some(Value::Int(millis)) => u64::try_from(*millis).ok(),
                    _ => None,
                };
                let until = until.ok_or_else(|| purpose.no_answer())?.saturating_mul(1000);
                let now = self.now().ok_or_else(|| purpose.no_answer())?;
                let retry_after = Timestamp::from_micros(until).saturating_since(now);
                ClaimOutcome::Busy { retry_after }
            }
            code::claim::MISMATCH => ClaimOutcome::Mismatch,
            code::claim::INTERRUPTED => ClaimOutcome::Interrupted,
            code::claim::RETIRED => ClaimOutcome::Retired,
            code::claim::SPENT => ClaimOutcome::Spent,
            code::claim::FULL => return Err(purpose.no_room()),
            other => return Err(unusual(purpose, other)),
        };
        Ok((outcome, None))
    }

    fn granted(&self, record: &Record) -> Option<ClaimOutcome> {
        let Status::InProgress { deadline } = record.status else { return None };
        let previous = record.previous.map(|replaced| Previous {
            cause: replaced.cause,
            token: replaced.token,
            progress: record.progress.as_ref().map(|progress| progress.data.clone()),
        });
        Some(ClaimOutcome::Acquired {
            grant: record.grant(),
            number: record.number,
            lease_left: deadline.saturating_since(self.now()?),
            previous,
        })
    }

    /// The answer of a command that names an attempt. `value` is what it would have recorded.
    pub(crate) fn fenced(
        mut self,
        purpose: Purpose,
        value: Option<&[u8]>,
    ) -> Result<Fenced, StoreError> {
        Ok(match self.code {
            code::OK => Fenced::Applied,
            code::LOST => Fenced::Lost,
            code::GONE => Fenced::Gone,
            code::BUSY => Fenced::Busy,
            // It was completed before, and a result does not change any more.
            code::COMPARE => match (self.record(purpose)?.status, value) {
                (Status::Completed { value: kept, .. }, Some(value)) if kept.is_of(value) => {
                    Fenced::Applied
                }
                _ => Fenced::Conflict,
            },
            code::TOO_LARGE => return Err(purpose.no_room()),
            other => return Err(unusual(purpose, other)),
        })
    }

    pub(crate) fn observed(mut self, purpose: Purpose) -> Result<Option<Observed>, StoreError> {
        match self.code {
            code::OK => {
                let record = self.record(purpose)?;
                let now = self.now().ok_or_else(|| purpose.no_answer())?;
                Ok(Some(Observed::new(record, now)))
            }
            code::GONE => Ok(None),
            other => Err(unusual(purpose, other)),
        }
    }
}

fn unusual(purpose: Purpose, answer: i64) -> StoreError {
    match answer {
        code::CORRUPT => purpose.unreadable(Unreadable::Damaged),
        code::NEWER => purpose.unreadable(Unreadable::Newer),
        _ => purpose.no_answer(),
    }
}
