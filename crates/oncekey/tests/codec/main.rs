//! Records as bytes: what is written is read back, today's layout stays readable, and whatever else
//! is found in a store is corrupt, never a record and never a panic.

#[path = "../arbitrary/mod.rs"]
mod arbitrary;
mod damage;
mod layout;
mod version_1;

use bytes::Bytes;
use oncekey::store::{ErrorKind, Record};
use proptest::prelude::*;

#[track_caller]
fn assert_corrupt(bytes: impl Into<Bytes>) {
    let Err(error) = Record::decode(&bytes.into()) else { panic!("it is no record") };
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(!error.is_retryable());
}

proptest! {
    #![proptest_config(arbitrary::config())]

    #[test]
    fn what_is_written_is_read_back(record in arbitrary::record()) {
        let read = Record::decode(&record.encode());
        prop_assert_eq!(read.ok(), Some(record));
    }

    #[test]
    fn the_layout_is_as_documented(record in arbitrary::record()) {
        prop_assert_eq!(record.encode(), layout::write(&record));
    }

    #[test]
    fn other_bytes_are_corrupt(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        assert_corrupt(bytes);
    }

    #[test]
    fn other_bytes_with_a_right_checksum_are_corrupt_or_read_as_they_are(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut body = vec![1];
        body.extend(bytes);
        let bytes = layout::seal(body);
        match Record::decode(&bytes) {
            Ok(record) => prop_assert_eq!(record.encode(), bytes),
            Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Corrupt),
        }
    }
}

#[test]
fn a_large_value_is_kept_byte_for_byte() {
    for len in [0, 1, 65_535, 65_536, 1_000_000] {
        let value: Bytes = (0..len).map(|index| (index % 251) as u8).collect();
        let record = version_1::completed(value);
        let bytes = record.encode();
        assert!(bytes.len() < len + 150);
        assert_eq!(Record::decode(&bytes).unwrap(), record);
    }
}
