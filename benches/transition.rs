//! The rules themselves: what deciding costs, without any store.
//!
//! `cargo bench -p oncekey-benches --bench transition`

#![allow(missing_docs, reason = "the macros of the harness make public items")]

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use oncekey::Fingerprint;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    AttemptId, Change, Claim, Command, Complete, Completion, FencingToken, Grant, OnInterrupted,
    OnRetired, Record, Renew, transition,
};

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

fn claim(attempt: u8) -> Claim {
    Claim {
        attempt: AttemptId::from_bytes([attempt; 16]),
        fingerprint: Fingerprint::from_digest(1, [3; 32]),
        lease: Duration::from_secs(30),
        hold: Duration::from_secs(3600),
        on_interrupted: OnInterrupted::TakeOver,
        on_retired: OnRetired::Forget,
    }
}

fn after<C: Command>(record: Option<&Record>, command: &C) -> Option<Record> {
    match transition(record, command, NOW).change {
        Change::Put(record) => Some(record),
        Change::Keep | Change::Remove => None,
    }
}

fn rules(criterion: &mut Criterion) {
    let live = after(None, &claim(1));
    let grant = live
        .as_ref()
        .map_or(Grant { token: FencingToken::new(0), attempt: claim(1).attempt }, Record::grant);
    let complete = Complete {
        grant,
        completion: Completion {
            value: Bytes::from_static(&[b'v'; 64]),
            replayable: true,
            retention: Duration::from_secs(86_400),
            hold: Duration::ZERO,
        },
    };
    let renew = Renew { grant, lease: Duration::from_secs(30), progress: None };
    let completed = after(live.as_ref(), &complete);
    let lapsed = Timestamp::from_micros(NOW.as_micros() + 31_000_000);

    let mut group = criterion.benchmark_group("transition");
    group.bench_function("claim an absent key", |bencher| {
        bencher.iter(|| transition(black_box(None), black_box(&claim(1)), NOW));
    });
    group.bench_function("claim a live key", |bencher| {
        bencher.iter(|| transition(black_box(live.as_ref()), black_box(&claim(2)), NOW));
    });
    group.bench_function("take over a lapsed key", |bencher| {
        bencher.iter(|| transition(black_box(live.as_ref()), black_box(&claim(2)), lapsed));
    });
    group.bench_function("replay", |bencher| {
        bencher.iter(|| transition(black_box(completed.as_ref()), black_box(&claim(2)), NOW));
    });
    group.bench_function("renew", |bencher| {
        bencher.iter(|| transition(black_box(live.as_ref()), black_box(&renew), NOW));
    });
    group.bench_function("complete", |bencher| {
        bencher.iter(|| transition(black_box(live.as_ref()), black_box(&complete), NOW));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1));
    targets = rules
}
criterion_main!(benches);
