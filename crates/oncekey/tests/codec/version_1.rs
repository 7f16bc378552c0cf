//! Records as version 1 of the layout writes them. Every later version must read these bytes.

use bytes::Bytes;
use oncekey::Fingerprint;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    AttemptId, Cause, FencingToken, Progress, Record, Replaced, Status, StoredValue,
};

const NOON: u64 = 1_800_000_000_000_000;

pub(crate) fn granted() -> Record {
    Record {
        fingerprint: Fingerprint::from_digest(Fingerprint::SHA256, [0xab; 32]),
        attempt: AttemptId::from_bytes(*b"attempt number 1"),
        token: FencingToken::new(NOON),
        number: 1,
        previous: None,
        progress: None,
        status: Status::InProgress { deadline: Timestamp::from_micros(NOON + 30_000_000) },
        forget_at: Timestamp::from_micros(NOON + 90_000_000),
    }
}

/// In progress after a takeover, with what the attempt before it saved.
pub(crate) fn takeover() -> Record {
    Record {
        fingerprint: Fingerprint::from_digest(Fingerprint::HMAC_SHA256, [0xcd; 32]),
        token: FencingToken::new(NOON + 1),
        number: 2,
        previous: Some(Replaced { cause: Cause::Lapsed, token: FencingToken::new(NOON) }),
        progress: Some(Box::new(Progress { sequence: 3, data: Bytes::from_static(b"step") })),
        forget_at: Timestamp::MAX,
        ..granted()
    }
}

pub(crate) fn completed(value: Bytes) -> Record {
    let value = StoredValue::Replayable(value);
    let retained_until = Timestamp::from_micros(NOON + 86_400_000_000);
    Record { status: Status::Completed { value, retained_until }, ..granted() }
}

/// One of each kind, with its name.
pub(crate) fn records() -> [(&'static str, Record); 6] {
    let digest = match completed(Bytes::new()).status {
        Status::Completed { retained_until, .. } => {
            let value = StoredValue::new(&Bytes::from_static(b"receipt"), false);
            Status::Completed { value, retained_until }
        }
        status => status,
    };
    let replaced = Replaced { cause: Cause::GaveUp, token: FencingToken::MAX };
    [
        ("granted", granted()),
        ("takeover", takeover()),
        ("gave up", Record { previous: Some(replaced), status: Status::GaveUp, ..takeover() }),
        ("released", Record { number: u32::MAX, status: Status::Released, ..granted() }),
        ("completed", completed(Bytes::from_static(b"receipt"))),
        ("done, not replayable", Record { status: digest, ..granted() }),
    ]
}

const GOLDEN: [(&str, &str); 6] = [
    (
        "granted",
        "010101abababababababababababababababababababababababababababababababab617474656d \
         7074206e756d6265722031000665172898800000000001000665172df5ca80000665172a62438000 \
         00001d9ffbf999c766",
    ),
    (
        "takeover",
        "010102cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd617474656d \
         7074206e756d6265722031000665172898800100000002001fffffffffffff000665172a62438001 \
         0006651728988000010000000000000003000000000000000473746570d20860b465722802",
    ),
    (
        "gave up",
        "010202cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd617474656d \
         7074206e756d6265722031000665172898800100000002001fffffffffffff02001fffffffffffff \
         01000000000000000300000000000000047374657064b3770cf55dba36",
    ),
    (
        "released",
        "010301abababababababababababababababababababababababababababababababab617474656d \
         7074206e756d62657220310006651728988000ffffffff000665172df5ca8000009c23fdcb3e5040 \
         a4",
    ),
    (
        "completed",
        "010401abababababababababababababababababababababababababababababababab617474656d \
         7074206e756d6265722031000665172898800000000001000665172df5ca800006652b466fe00000 \
         000000000000077265636569707400007af9d1a214398f1c",
    ),
    (
        "done, not replayable",
        "010501abababababababababababababababababababababababababababababababab617474656d \
         7074206e756d6265722031000665172898800000000001000665172df5ca800006652b466fe0006f \
         32860910ca0fb2a20c7fda143666b09dbf8db5238195c90a586fb542ff0cad0000602f6c5da2563c \
         26",
    ),
];

fn bytes(hex: &str) -> Bytes {
    let digits: Vec<u8> =
        hex.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn the_bytes_of_version_1_are_read_for_ever() {
    for ((name, record), (golden_name, golden)) in records().into_iter().zip(GOLDEN) {
        assert_eq!(name, golden_name);
        assert_eq!(Record::decode(&bytes(golden)).unwrap(), record, "{name}");
    }
}

/// A layout that changes must change its version.
#[test]
fn the_bytes_of_version_1_are_still_written() {
    for ((name, record), (_, golden)) in records().into_iter().zip(GOLDEN) {
        assert_eq!(record.encode(), bytes(golden), "{name}");
    }
}
