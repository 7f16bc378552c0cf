//! Keys: nobody can reach somebody else's record by a choice of bytes, and nothing of a key shows.
#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use std::collections::HashSet;

use oncekey::{ChildKey, Key, KeyError, KeyHasher, Scope};
use proptest::collection::vec;
use proptest::prelude::*;

/// Parts that try to be mistaken for each other: short, with lengths, zeros and high bytes in them.
fn part() -> impl Strategy<Value = Vec<u8>> {
    let tricky = prop_oneof![
        Just(0_u8),
        Just(1),
        Just(2),
        Just(3),
        Just(b'a'),
        Just(b':'),
        Just(b'/'),
        Just(0xff),
        any::<u8>(),
    ];
    prop_oneof![4 => vec(tricky, 1..6), 1 => vec(any::<u8>(), 1..=Scope::MAX_PART_LEN)]
}

type Parts = (Vec<u8>, Vec<u8>, Vec<u8>);

fn make((principal, operation, id): &Parts) -> Result<Key, KeyError> {
    Key::new(&Scope::new(principal, operation)?, id)
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn different_parts_are_different_keys(
        one in (part(), part(), part()), other in (part(), part(), part()),
    ) {
        let (key, other_key) = (make(&one).unwrap(), make(&other).unwrap());
        prop_assert_eq!(key == other_key, one == other);
        prop_assert_eq!(key.as_bytes() == other_key.as_bytes(), one == other);
        prop_assert_eq!(key.child("x") == other_key.child("x"), one == other);
    }

    #[test]
    fn a_byte_that_moves_to_the_next_part_makes_another_key(
        (principal, operation, id) in (part(), part(), part()), byte in any::<u8>(),
    ) {
        let behind = |part: &[u8]| [part, &[byte]].concat();
        let before = |part: &[u8]| [&[byte], part].concat();
        let moved = [
            (behind(&principal), operation.clone(), id.clone()),
            (principal.clone(), before(&operation), id.clone()),
            (principal.clone(), behind(&operation), id.clone()),
            (principal.clone(), operation.clone(), before(&id)),
        ];
        for one in &moved {
            for other in &moved {
                if let (Ok(key), Ok(other_key)) = (make(one), make(other)) {
                    prop_assert_eq!(key == other_key, one == other);
                }
            }
        }
    }

    #[test]
    fn a_stored_key_is_read_back(parts in (part(), part(), part())) {
        let key = make(&parts).unwrap();
        prop_assert!(key.as_bytes().len() <= Key::MAX_ENCODED_LEN);
        prop_assert_eq!(Key::from_bytes(key.as_bytes()), Ok(key));
    }

    #[test]
    fn other_bytes_are_no_key_or_exactly_the_one_they_encode(bytes in vec(any::<u8>(), 0..80)) {
        if let Ok(key) = Key::from_bytes(&bytes) {
            prop_assert_eq!(key.as_bytes(), &bytes[..]);
        }
    }

    #[test]
    fn a_key_that_is_cut_off_before_its_id_is_none(parts in (part(), part(), part())) {
        let key = make(&parts).unwrap();
        for len in 0..=key.as_bytes().len() - parts.2.len() {
            prop_assert_eq!(Key::from_bytes(&key.as_bytes()[..len]), Err(KeyError::Malformed));
        }
    }

    #[test]
    fn hashed_keys_are_as_distinct(
        one in (part(), part(), part()), other in (part(), part(), part()),
    ) {
        let hasher = KeyHasher::new("a secret of 16 b").unwrap();
        let (key, other_key) = (make(&one).unwrap(), make(&other).unwrap());
        let hashed = hasher.hash(&key);
        prop_assert_eq!(hashed == hasher.hash(&other_key), one == other);
        prop_assert_ne!(&hashed, &key);
        prop_assert_eq!(hasher.hash(&hashed), hashed.clone());
        prop_assert_eq!(Key::from_bytes(hashed.as_bytes()), Ok(hashed));
    }
}

#[test]
fn parts_have_limits() {
    let long = |len| vec![b'x'; len];
    let scope = Scope::new("tenant", "operation").unwrap();
    for max in [1, Scope::MAX_PART_LEN] {
        assert!(Scope::new(long(max), "operation").is_ok());
        assert!(Scope::new("tenant", long(max)).is_ok());
    }
    for max in [1, Key::MAX_ID_LEN] {
        assert!(Key::new(&scope, long(max)).is_ok());
    }
    let empty = |error| matches!(error, Some(KeyError::Empty { .. }));
    assert!(empty(Scope::new("", "operation").err()));
    assert!(empty(Scope::new("tenant", "").err()));
    assert!(empty(Key::new(&scope, "").err()));
    let too_long = |error, expected| match error {
        Some(KeyError::TooLong { len, max, .. }) => (len, max) == (expected + 1, expected),
        _ => false,
    };
    let part = Scope::MAX_PART_LEN;
    assert!(too_long(Scope::new(long(part + 1), "operation").err(), part));
    assert!(too_long(Scope::new("tenant", long(part + 1)).err(), part));
    let id = Key::MAX_ID_LEN;
    assert!(too_long(Key::new(&scope, long(id + 1)).err(), id));
}

#[test]
fn the_longest_key_is_as_long_as_announced() {
    let part = vec![0xff; Scope::MAX_PART_LEN];
    let id = vec![0; Key::MAX_ID_LEN];
    let key = make(&(part.clone(), part, id)).unwrap();
    assert_eq!(key.as_bytes().len(), Key::MAX_ENCODED_LEN);
    let mut longer = key.as_bytes().to_vec();
    longer.push(0);
    assert_eq!(Key::from_bytes(&longer), Err(KeyError::Malformed));
}

#[test]
fn malformed_bytes_are_refused() {
    let parts = |parts: &[&[u8]]| parts.concat();
    for bytes in [
        parts(&[]),
        parts(&[&[0]]),
        parts(&[&[1]]),
        parts(&[&[3, 0, 1, b'a', 0, 1, b'b', b'c']]),
        // No principal, no operation, no id.
        parts(&[&[1, 0, 0, 0, 1, b'b', b'c']]),
        parts(&[&[1, 0, 1, b'a', 0, 0, b'c']]),
        parts(&[&[1, 0, 1, b'a', 0, 1, b'b']]),
        // Longer than a part may be, and longer than there is.
        parts(&[&[1, 2, 1], &[b'a'; 513], &[0, 1, b'b', b'c']]),
        parts(&[&[1, 0xff, 0xff, b'a', 0, 1, b'b', b'c']]),
        // A digest of another length.
        parts(&[&[2]]),
        parts(&[&[2], &[7; 31]]),
        parts(&[&[2], &[7; 33]]),
    ] {
        assert_eq!(Key::from_bytes(&bytes), Err(KeyError::Malformed), "{bytes:?}");
    }
    assert!(Key::from_bytes(&parts(&[&[1, 0, 1, b'a', 0, 1, b'b', b'c']])).is_ok());
    assert!(Key::from_bytes(&parts(&[&[2], &[7; 32]])).is_ok());
}

fn golden() -> Key {
    make(&(b"tenant-42".into(), b"POST /payments".into(), b"order-17".into())).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Records are found by these bytes, and other systems know these child keys: they never change.
#[test]
fn encodings_are_stable() {
    let key = golden();
    assert_eq!(
        hex(key.as_bytes()),
        "01000974656e616e742d3432000e504f5354202f7061796d656e74736f726465722d3137"
    );
    let hashed = KeyHasher::new("0123456789abcdef").unwrap().hash(&key);
    assert_eq!(
        hex(hashed.as_bytes()),
        "029f26fc035afa28bf6ccaaa360e69c9ff7fe308ad03f41718eb27fe629c645c13"
    );
    let child = |child: ChildKey| child.as_str().to_owned();
    assert_eq!(
        child(key.child("charge")),
        "ba612272aa0a29c74b40ace63a3f79dbef1846601f3e6a109f9c4c06e8ecb8a4"
    );
    assert_eq!(
        child(key.child("charge").child("part 1")),
        "4362856be5365fbaa17b1b0bf6523542437e2aa04d636932846a20f337c93326"
    );
    assert_eq!(
        child(key.child("")),
        "dd67cbc67fc66cd0afaf16d61dbc0a40d0a68e5adaf5339896436eb6dc0addd7"
    );
    assert_eq!(
        child(hashed.child("charge")),
        "a497586121b1d598b5cb9274454af85e082e51017d6b30422f067e0756899a84"
    );
}

#[test]
fn hashing_depends_on_the_secret() {
    let key = golden();
    let hash = |secret: &str| KeyHasher::new(secret).unwrap().hash(&key);
    assert_eq!(hash("a secret of 16 b"), hash("a secret of 16 b"));
    assert_ne!(hash("a secret of 16 b"), hash("a secret of 16 c"));
    assert!(matches!(
        KeyHasher::new("only 15 bytes..").unwrap_err(),
        KeyError::SecretTooShort { len: 15, min: 16 }
    ));
}

#[test]
fn child_keys_are_distinct() {
    let key = golden();
    let (ab, a) = (key.child("ab"), key.child("a"));
    let children = [key.child(""), key.child("b"), a.child("b"), ab.child(""), ab, a];
    assert_eq!(HashSet::from(children.clone()).len(), children.len());
    for child in children {
        assert_eq!(child.as_str().len(), 64);
        assert!(child.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}

/// No form of the content: as text, as a list of bytes, in hexadecimal.
#[track_caller]
fn assert_hides(text: &str, content: &str) {
    let list = format!("{:?}", content.as_bytes());
    let list = list.trim_matches(['[', ']']);
    for form in [content, list, &hex(content.as_bytes())] {
        assert!(!text.contains(form), "{text}");
    }
}

#[test]
fn debug_reveals_nothing() {
    let scope = Scope::new("principal", "operation").unwrap();
    let key = Key::new(&scope, "client's id").unwrap();
    let child = key.child("charge");
    let secret = "secret secret secret";
    let hasher = KeyHasher::new(secret).unwrap();
    let hashed = hasher.hash(&key);
    let text = format!("{scope:?} {key:?} {child:?} {hasher:?} {hashed:?}");
    for content in ["principal", "operation", "client's id", "charge", secret, child.as_str()] {
        assert_hides(&text, content);
    }
    assert!(!text.contains(&hex(&hashed.as_bytes()[1..5])), "{text}");
}

#[test]
fn errors_reveal_nothing() {
    let content = "4111-1111";
    let scope = Scope::new("tenant", "operation").unwrap();
    let errors = [
        Scope::new(content.repeat(100), "operation").unwrap_err(),
        Scope::new("tenant", content.repeat(100)).unwrap_err(),
        Key::new(&scope, content.repeat(200)).unwrap_err(),
        Key::from_bytes(content.as_bytes()).unwrap_err(),
        KeyHasher::new(content).unwrap_err(),
    ];
    for error in errors {
        assert_hides(&format!("{error} {error:?}"), content);
    }
}

#[test]
fn a_key_tells_its_parts_unless_it_is_hashed() {
    let scope = Scope::new(b"tenant\0\xff", "POST /payments").unwrap();
    let key = Key::new(&scope, "order-17").unwrap();
    assert_eq!(key.principal(), Some(b"tenant\0\xff".as_slice()));
    assert_eq!(key.operation(), Some(b"POST /payments".as_slice()));
    assert_eq!(key.id(), Some(b"order-17".as_slice()));

    let hashed = KeyHasher::new([7; 32]).unwrap().hash(&key);
    assert_eq!((hashed.principal(), hashed.operation(), hashed.id()), (None, None, None));
}
