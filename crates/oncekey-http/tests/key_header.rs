//! Which keys are read, and which are refused.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use http::{HeaderMap, HeaderName, HeaderValue};
use oncekey::Scope;
use oncekey_http::{KeyHeader, KeyHeaderError, Problem};
use proptest::prelude::*;
use sfv::{BareItem, Parser};

fn headers(values: &[&[u8]]) -> HeaderMap {
    let name = HeaderName::from_static("idempotency-key");
    values.iter().map(|it| (name.clone(), HeaderValue::from_bytes(it).unwrap())).collect()
}

fn read_by(header: &KeyHeader, value: &[u8]) -> Result<String, KeyHeaderError> {
    let headers = headers(&[value]);
    header.read(&headers).map(|key| key.expect("there is one").as_str().to_owned())
}

fn read(value: &str) -> Result<String, KeyHeaderError> {
    read_by(&KeyHeader::new(), value.as_bytes())
}

/// What the implementation that we compare with makes of a field.
fn oracle(value: &[u8]) -> Option<String> {
    let item: sfv::Item = Parser::new(value).parse().ok()?;
    match item.bare_item {
        BareItem::String(string) => Some(string.to_string()),
        _ => None,
    }
}

#[test]
fn quoted_and_bare_are_the_same_key() {
    let scope = Scope::new("tenant", "pay").unwrap();
    let (quoted, bare) = (headers(&[b"\"8e03978e-40d5\""]), headers(&[b"8e03978e-40d5"]));
    let header = KeyHeader::new();
    let key = |headers| header.read(headers).unwrap().unwrap().under(&scope).unwrap();

    assert!(key(&quoted) == key(&bare));
    assert_eq!(read("\"a\";v=1; w=\"x\"").unwrap(), "a", "parameters are ignored");
    assert_eq!(read("\"a\";v=:0+=:").unwrap(), "a", "half of the padding of Base64");
    assert_eq!(read("  \"a\"  ").unwrap(), "a");
    assert_eq!(read("  a  ").unwrap(), "a");
}

#[test]
fn escapes_are_undone() {
    assert_eq!(read(r#""a\"b\\c""#).unwrap(), r#"a"b\c"#);
    assert_eq!(read(r#""a, b; c""#).unwrap(), "a, b; c");
}

#[test]
fn no_header_is_no_key() {
    assert!(KeyHeader::new().read(&HeaderMap::new()).unwrap().is_none());
}

#[test]
fn more_than_one_key_is_refused() {
    let twice = headers(&[b"\"a\"", b"\"a\""]);
    assert_eq!(KeyHeader::new().read(&twice), Err(KeyHeaderError::Repeated));
    // As a proxy joins them.
    for joined in ["\"a\", \"b\"", "\"a\",\"a\"", "a, b", "a,b"] {
        assert_eq!(read(joined), Err(KeyHeaderError::Malformed), "{joined}");
    }
}

#[test]
fn what_is_empty_is_refused() {
    for empty in ["", "   ", "\"\""] {
        assert_eq!(read(empty), Err(KeyHeaderError::Empty), "{empty:?}");
    }
}

#[test]
fn what_is_too_long_is_refused() {
    let header = KeyHeader::new();
    let longest = "k".repeat(KeyHeader::DEFAULT_MAX_LEN);
    assert_eq!(read(&longest).unwrap(), longest);
    assert_eq!(read(&format!("\"{longest}\"")).unwrap(), longest);
    for longer in [format!("{longest}k"), format!("\"{longest}k\"")] {
        assert_eq!(read(&longer), Err(KeyHeaderError::TooLong { max: 255 }));
    }
    // Never more than a key can have, whatever is asked for.
    let header = header.max_len(usize::MAX);
    assert!(read_by(&header, "k".repeat(1024).as_bytes()).is_ok());
    let error = read_by(&header, "k".repeat(1025).as_bytes());
    assert_eq!(error, Err(KeyHeaderError::TooLong { max: 1024 }));
}

#[test]
fn what_is_malformed_is_refused() {
    for malformed in [
        "\"a",
        "a\"",
        "\"a\" b",
        "\"a\\n\"",
        "\"a\tb\"",
        "a b",
        "a\\b",
        "a;v=1",
        "\"a\";",
        "\"a\";V=1",
        "\"a\";v=",
        "\"a\";v=1.",
        "\"a\";v=:a*:",
        "\"a\";v=?2",
    ] {
        assert_eq!(read(malformed), Err(KeyHeaderError::Malformed), "{malformed}");
    }
    let header = KeyHeader::new();
    for bytes in [b"\"k\xc3\xa9y\"".as_slice(), b"k\xc3\xa9y", b"\"\xff\"", b"a\tb"] {
        assert_eq!(read_by(&header, bytes), Err(KeyHeaderError::Malformed));
    }
}

#[test]
fn strict_takes_no_bare_key() {
    let strict = KeyHeader::new().strict();
    assert_eq!(read_by(&strict, b"abc"), Err(KeyHeaderError::NotQuoted));
    assert_eq!(read_by(&strict, b"?1"), Err(KeyHeaderError::NotQuoted));
    assert_eq!(read_by(&strict, b"\"abc\"").unwrap(), "abc");
}

#[test]
fn another_header_can_carry_the_key() {
    let header = KeyHeader::new().named(HeaderName::from_static("x-request-key"));
    let mut headers = headers(&[b"ignored"]);
    assert!(header.read(&headers).unwrap().is_none());
    headers.insert("x-request-key", HeaderValue::from_static("taken"));
    assert_eq!(header.read(&headers).unwrap().unwrap().as_str(), "taken");
}

#[test]
fn nothing_of_a_refused_key_is_told() {
    let error = read("secret-key, secret-key").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"));
    let problem = Problem::from(error);
    assert!(!format!("{problem:?}").contains("secret"));
    let headers = headers(&[b"secret-key"]);
    let key = KeyHeader::new().read(&headers).unwrap().unwrap();
    assert!(!format!("{key:?}").contains("secret"));
}

/// Close to what is well-formed, so that both sides are met often.
fn nearly_an_item() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        "[ -~]{0,6}".prop_map(String::into_bytes),
        Just(b"\"".to_vec()),
        Just(b"\\\"".to_vec()),
        Just(b"\\\\".to_vec()),
        Just(b";a".to_vec()),
        Just(b"; *b-c=".to_vec()),
        Just(b"=?1".to_vec()),
        Just(b"=:aGk=:".to_vec()),
        "=:[a-zA-Z0-9+/]{0,5}={0,3}:".prop_map(String::into_bytes),
        "=-?[0-9]{0,16}(\\.[0-9]{0,4})?".prop_map(String::into_bytes),
        "=@-?[0-9]{0,4}(\\.[0-9])?".prop_map(String::into_bytes),
        "=%\"(%[0-9a-fA-F]{2}|[a-z ]){0,4}\"".prop_map(String::into_bytes),
        "=[A-Za-z*][A-Za-z:/%*]{0,4}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..3),
        Just(b" ".to_vec()),
        Just(b"\t".to_vec()),
    ];
    let tail = proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat());
    let start = prop_oneof![
        3 => "\"[ -~]{0,8}\"".prop_map(String::into_bytes),
        1 => Just(Vec::new()),
    ];
    (start, tail).prop_map(|(mut start, tail)| {
        start.extend(tail);
        start
    })
}

fn agrees_with_the_oracle(value: &[u8]) -> Result<(), TestCaseError> {
    let Ok(field) = HeaderValue::from_bytes(value) else {
        return Ok(());
    };
    let strict = KeyHeader::new().strict().max_len(1024);
    let ours = read_by(&strict, field.as_bytes());
    match oracle(value) {
        Some(string) if string.is_empty() => prop_assert_eq!(ours, Err(KeyHeaderError::Empty)),
        Some(string) => {
            prop_assert_eq!(ours.as_ref(), Ok(&string));
            // What is strictly right is read the same in the lenient mode.
            let lenient = read_by(&KeyHeader::new().max_len(1024), field.as_bytes());
            prop_assert_eq!(lenient, Ok(string));
        }
        None => prop_assert!(ours.is_err(), "taken, and {:?} is no string", value),
    }
    Ok(())
}

/// How many cases: more with `ONCEKEY_SEEDS`.
fn cases() -> ProptestConfig {
    let seeds = std::env::var("ONCEKEY_SEEDS").map_or(1, |seeds| seeds.parse().unwrap());
    ProptestConfig::with_cases(4_000_u32.saturating_mul(seeds))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn strictly_what_sfv_takes_is_taken(value in nearly_an_item()) {
        agrees_with_the_oracle(&value)?;
    }

    #[test]
    fn any_bytes_are_taken_or_refused(value in proptest::collection::vec(any::<u8>(), 0..40)) {
        agrees_with_the_oracle(&value)?;
    }

    #[test]
    fn every_printable_id_can_be_sent(id in "[ -~]{1,64}") {
        let escaped = id.replace('\\', "\\\\").replace('"', "\\\"");
        prop_assert_eq!(read(&format!("\"{escaped}\"")), Ok(id));
    }

    #[test]
    fn a_bare_id_is_itself_or_nothing(id in "[!-~]{1,64}") {
        match read(&id) {
            Ok(read) if !id.starts_with('"') => prop_assert_eq!(read, id),
            _ => {}
        }
    }
}
