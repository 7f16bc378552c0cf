//! What can happen to bytes in a store, and what a hostile writer can put there.

use bytes::Bytes;
use oncekey::runtime::Timestamp;
use oncekey::store::{ErrorKind, FencingToken, Record, StoredValue};

use super::assert_corrupt;
use super::layout::{body, seal};
use super::version_1::{self, records};

#[test]
fn a_record_that_is_cut_off_anywhere_is_corrupt() {
    for (_, record) in records() {
        let bytes = record.encode();
        for len in 0..bytes.len() {
            assert_corrupt(bytes.slice(..len));
            assert_corrupt(bytes.slice(len + 1..));
        }
    }
}

#[test]
fn a_record_with_any_bit_flipped_is_corrupt() {
    for (_, record) in records() {
        let bytes = record.encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_corrupt(damaged);
        }
    }
}

#[test]
fn a_record_with_more_behind_it_is_corrupt() {
    for (_, record) in records() {
        for more in [&b"\0"[..], &[0; 8], &record.encode()] {
            let mut longer = record.encode().to_vec();
            longer.extend_from_slice(more);
            assert_corrupt(longer);

            let mut longer = body(&record);
            longer.extend_from_slice(more);
            assert_corrupt(seal(longer));
        }
    }
}

#[test]
fn two_halves_of_two_records_are_corrupt() {
    let records = records();
    for (_, one) in &records {
        for (_, other) in &records {
            let (one, other) = (one.encode(), other.encode());
            if one != other {
                let mut torn = one[..one.len() / 2].to_vec();
                torn.extend_from_slice(&other[other.len() / 2..]);
                assert_corrupt(torn);
            }
        }
    }
}

#[test]
fn another_version_is_corrupt_and_says_what_to_do() {
    for version in (0..=u8::MAX).filter(|version| *version != 1) {
        let mut newer = body(&version_1::granted());
        newer[0] = version;
        let bytes = seal(newer);
        assert_corrupt(bytes.clone());
        let error = Record::decode(&bytes).unwrap_err();
        assert!(error.to_string().contains("upgrade oncekey"), "{error}");
    }
}

/// Where the fields of a record with a value are: after the version, the tag, the fingerprint, the
/// attempt, the token, the number and the two times.
const VALUE_LEN: usize = 2 + 33 + 16 + 8 + 4 + 8 + 8;
const TOKEN: usize = 2 + 33 + 16;
const FORGET_AT: usize = TOKEN + 8 + 4;

fn with_u64(record: &Record, offset: usize, number: u64) -> Bytes {
    let mut body = body(record);
    body[offset..offset + 8].copy_from_slice(&number.to_be_bytes());
    seal(body)
}

#[test]
fn an_absurd_length_is_corrupt_and_allocates_nothing() {
    let completed = version_1::completed(Bytes::from_static(b"receipt"));
    assert!(Record::decode(&with_u64(&completed, VALUE_LEN, 7)).is_ok());
    let left = (body(&completed).len() - VALUE_LEN - 8) as u64;
    // None of these could be allocated, were it tried.
    for len in [left, left + 1, 1 << 40, 1 << 62, u64::MAX / 2, u64::MAX] {
        assert_corrupt(with_u64(&completed, VALUE_LEN, len));
    }
    let saved = version_1::takeover();
    let progress_len = body(&saved).len() - 4 - 8;
    assert!(Record::decode(&with_u64(&saved, progress_len, 4)).is_ok());
    for len in [0, 3, 5, 1 << 40, u64::MAX] {
        assert_corrupt(with_u64(&saved, progress_len, len));
    }
}

#[test]
fn numbers_beyond_what_is_exact_are_corrupt() {
    let record = version_1::granted();
    for (offset, max) in [(TOKEN, FencingToken::MAX.get()), (FORGET_AT, Timestamp::MAX.as_micros())]
    {
        assert!(Record::decode(&with_u64(&record, offset, max)).is_ok());
        assert_corrupt(with_u64(&record, offset, max + 1));
        assert_corrupt(with_u64(&record, offset, u64::MAX));
    }
}

#[test]
fn tags_that_no_encoder_writes_are_corrupt() {
    let record = version_1::granted();
    let len = body(&record).len();
    // The status, whether there was a takeover, whether there is progress.
    for (offset, known) in [(1, 1), (len - 2, 0), (len - 1, 0)] {
        for tag in 0..=u8::MAX {
            let mut body = body(&record);
            body[offset] = tag;
            // A known tag of another shape leaves bytes over or too few.
            if tag == known {
                assert!(Record::decode(&seal(body)).is_ok());
            } else {
                assert_corrupt(seal(body));
            }
        }
    }
}

#[test]
fn an_error_reveals_nothing_of_the_record() {
    let secret = Bytes::from_static(b"card 4111 1111 1111 1111");
    let record = version_1::completed(secret.clone());
    let mut bytes = record.encode().to_vec();
    bytes[60] ^= 1;
    let error = Record::decode(&Bytes::from(bytes)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(!text.contains("4111"), "{text}");
    }
    let text = format!("{record:?} {:?}", StoredValue::new(&secret, false));
    assert!(!text.contains("4111") && !text.contains("52, 49, 49"), "{text}");
}
