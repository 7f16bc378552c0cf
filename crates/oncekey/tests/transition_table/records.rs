//! A record in each state at one point in time, and the durations that move it.

use std::time::Duration;

use bytes::Bytes;
use oncekey::Fingerprint;
use oncekey::runtime::Timestamp;
use oncekey::store::{AttemptId, FencingToken, Progress, Record, State, Status, StoredValue};

pub(crate) const NOW: u64 = 1_800_000_000_000_000;
pub(crate) const SECOND: u64 = 1_000_000;
pub(crate) const LEASE: u64 = 10;
pub(crate) const HOLD: u64 = 60;
pub(crate) const RETENTION: u64 = 100;
pub(crate) const NEW_HOLD: u64 = 5;
/// The token of the record: ahead of the clock, as after many grants in one microsecond.
pub(crate) const TOKEN: u64 = NOW + 7;
pub(crate) const NUMBER: u32 = 3;

pub(crate) const ALL: [State; 6] =
    [State::Live, State::Lapsed, State::GaveUp, State::Released, State::Completed, State::Retired];

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(NOW.wrapping_add_signed(seconds * SECOND as i64))
}

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const OWNER: AttemptId = AttemptId::from_bytes([1; 16]);
pub(crate) const OTHER: AttemptId = AttemptId::from_bytes([2; 16]);
pub(crate) const REQUEST: Fingerprint = Fingerprint::from_digest(Fingerprint::SHA256, [1; 32]);
pub(crate) const OTHER_REQUEST: Fingerprint =
    Fingerprint::from_digest(Fingerprint::SHA256, [2; 32]);

pub(crate) fn result() -> Bytes {
    Bytes::from_static(b"receipt")
}

/// A takeover's record in `state` at [`NOW`]; a deadline of exactly now has passed.
pub(crate) fn record(state: State) -> Record {
    let (status, forget_at) = match state {
        State::Live => (Status::InProgress { deadline: at(4) }, at(4 + HOLD as i64)),
        State::Lapsed => (Status::InProgress { deadline: at(0) }, at(HOLD as i64)),
        State::GaveUp => (Status::GaveUp, at(30)),
        State::Released => (Status::Released, at(30)),
        State::Completed => (completed(50), at(50 + HOLD as i64)),
        State::Retired => (completed(0), at(HOLD as i64)),
    };
    let record = Record {
        fingerprint: REQUEST,
        attempt: OWNER,
        token: FencingToken::new(TOKEN),
        number: NUMBER,
        previous: None,
        progress: None,
        status,
        forget_at,
    };
    assert_eq!(record.state(at(0)), state);
    record
}

pub(crate) fn completed(retained: i64) -> Status {
    let value = StoredValue::Replayable(result());
    Status::Completed { value, retained_until: at(retained) }
}

pub(crate) fn progress(sequence: u64) -> Option<Box<Progress>> {
    Some(Box::new(Progress { sequence, data: Bytes::from_static(b"step") }))
}
