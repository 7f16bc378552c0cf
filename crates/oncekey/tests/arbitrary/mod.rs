//! Arbitrary records and commands, with few distinct attempts, requests and values, so that they meet.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::time::Duration;

use bytes::Bytes;
use oncekey::Fingerprint;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    Abandon, AttemptId, Cause, Claim, Complete, Completion, Evict, Expected, FencingToken, Grant,
    Known, OnInterrupted, OnRetired, Progress, Record, Renew, Replaced, Settle, Settlement, Status,
    StoredValue,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Times around which everything happens.
pub(crate) const NOON: u64 = 1_800_000_000_000_000;

pub(crate) fn timestamp() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        8 => (NOON..NOON + 20).prop_map(Timestamp::from_micros),
        1 => Just(Timestamp::default()),
        1 => Just(Timestamp::MAX),
        1 => any::<u64>().prop_map(Timestamp::from_micros),
    ]
}

pub(crate) fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        8 => (1..20_u64).prop_map(Duration::from_micros),
        1 => Just(Duration::MAX),
        1 => Just(Duration::from_secs(1 << 40)),
        1 => any::<u64>().prop_map(Duration::from_nanos),
    ]
}

pub(crate) fn attempt() -> impl Strategy<Value = AttemptId> {
    (1..3_u8).prop_map(|byte| AttemptId::from_bytes([byte; 16]))
}

pub(crate) fn token() -> impl Strategy<Value = FencingToken> {
    prop_oneof![
        (NOON - 2..NOON + 2).prop_map(FencingToken::new),
        any::<u64>().prop_map(FencingToken::new),
        Just(FencingToken::MAX),
    ]
}

pub(crate) fn fingerprint() -> impl Strategy<Value = Fingerprint> {
    (1..3_u8, 1..3_u8).prop_map(|(algorithm, byte)| Fingerprint::from_digest(algorithm, [byte; 32]))
}

pub(crate) fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        Just(Bytes::from_static(b"a")),
        Just(Bytes::from_static(b"b")),
        vec(any::<u8>(), 0..200).prop_map(Bytes::from),
    ]
}

pub(crate) fn progress() -> impl Strategy<Value = Progress> {
    (prop_oneof![0..4_u64, any::<u64>()], bytes())
        .prop_map(|(sequence, data)| Progress { sequence, data })
}

fn stored_value() -> impl Strategy<Value = StoredValue> {
    (bytes(), any::<bool>()).prop_map(|(value, replayable)| StoredValue::new(&value, replayable))
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![
        2 => timestamp().prop_map(|deadline| Status::InProgress { deadline }),
        1 => Just(Status::GaveUp),
        1 => Just(Status::Released),
        2 => (stored_value(), timestamp())
            .prop_map(|(value, retained_until)| Status::Completed { value, retained_until }),
    ]
}

fn replaced() -> impl Strategy<Value = Replaced> {
    let cause = prop_oneof![Just(Cause::Lapsed), Just(Cause::GaveUp)];
    (cause, token()).prop_map(|(cause, token)| Replaced { cause, token })
}

pub(crate) fn record() -> impl Strategy<Value = Record> {
    let number = prop_oneof![0..5_u32, any::<u32>(), Just(u32::MAX)];
    let progress = option::of(progress().prop_map(Box::new));
    let granted = (fingerprint(), attempt(), token(), number);
    (granted, option::of(replaced()), progress, status(), timestamp()).prop_map(
        |((fingerprint, attempt, token, number), previous, progress, status, forget_at)| Record {
            fingerprint,
            attempt,
            token,
            number,
            previous,
            progress,
            status,
            forget_at,
        },
    )
}

pub(crate) fn claim() -> impl Strategy<Value = Claim> {
    let policies = (
        prop_oneof![Just(OnInterrupted::TakeOver), Just(OnInterrupted::Refuse)],
        prop_oneof![Just(OnRetired::Forget), Just(OnRetired::Tell)],
    );
    (attempt(), fingerprint(), duration(), duration(), policies).prop_map(
        |(attempt, fingerprint, lease, hold, (on_interrupted, on_retired))| Claim {
            attempt,
            fingerprint,
            lease,
            hold,
            on_interrupted,
            on_retired,
        },
    )
}

fn grant() -> impl Strategy<Value = Grant> {
    (token(), attempt()).prop_map(|(token, attempt)| Grant { token, attempt })
}

fn expected() -> impl Strategy<Value = Expected> {
    prop_oneof![
        attempt().prop_map(Expected::Attempt),
        token().prop_map(Expected::Token),
        Just(Expected::Any),
    ]
}

fn completion() -> impl Strategy<Value = Completion> {
    (bytes(), any::<bool>(), duration(), duration()).prop_map(
        |(value, replayable, retention, hold)| Completion { value, replayable, retention, hold },
    )
}

pub(crate) fn renew() -> impl Strategy<Value = Renew> {
    (grant(), duration(), option::of(progress())).prop_map(|(grant, lease, progress)| Renew {
        grant,
        lease,
        progress,
    })
}

pub(crate) fn complete() -> impl Strategy<Value = Complete> {
    (grant(), completion()).prop_map(|(grant, completion)| Complete { grant, completion })
}

pub(crate) fn abandon() -> impl Strategy<Value = Abandon> {
    let known =
        prop_oneof![duration().prop_map(|hold| Known::NotStarted { hold }), Just(Known::Unknown)];
    (grant(), known).prop_map(|(grant, known)| Abandon { grant, known })
}

pub(crate) fn settle() -> impl Strategy<Value = Settle> {
    let settlement = prop_oneof![
        completion().prop_map(Settlement::Done),
        duration().prop_map(|hold| Settlement::NotDone { hold }),
    ];
    (expected(), settlement).prop_map(|(expected, settlement)| Settle { expected, settlement })
}

pub(crate) fn evict() -> impl Strategy<Value = Evict> {
    (expected(), any::<bool>()).prop_map(|(expected, force)| Evict { expected, force })
}

/// Numbers from the environment, and nothing written beside the sources.
pub(crate) fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}
