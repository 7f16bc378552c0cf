//! Mutated bytes for what reads foreign ones: the key of a client, and what a store gives back.
//!
//! Each seed mutates entries of a corpus, of well-formed ones and of nasty ones, and keeps what was taken for
//! further mutation. `ONCEKEY_SEED` is the first seed and `ONCEKEY_SEEDS` how many follow, as `cargo xtask
//! night` sets them. A failure shows the bytes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod mutation;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use mutation::{Mutator, seeds};
use oncekey_http::{KeyHeader, KeyHeaderError, StoredResponse};
use sfv::{BareItem, Parser};

const ROUNDS: u64 = 1_500;

const FIELDS: &[&[u8]] = &[
    b"\"8e03978e-40d5-43dd-bc93-6894a57f9324\"",
    b"8e03978e-40d5-43dd-bc93-6894a57f9324",
    b"\"a\";v=1",
    b"\"a\"; w=\"x\\\\\\\"\";b;c=?0",
    b"\"a\";d=:aGVsbG8=:;e=:aGVsbG8:",
    b"\"a\";f=-999999999999999;g=123456789012.123",
    b"\"a\";h=@1659578233;i=@-1",
    b"\"a\";j=%\"f%c3%bc%f0%9f%92%a9\"",
    b"\"a\";k=tok*en/a:b;l=*",
    b"\"\\\"\\\\\"",
    b"\"a\", \"b\"",
    b"\"",
    b"\"\"",
    b"\"a\\",
    b"\"a\";",
    b"\"a\";*",
    b"\"a\";v=",
    b"\"a\";v=1.",
    b"\"a\";v=@1.5",
    b"\"a\";v=:=:",
    b"\"a\";v=%\"%C3\"",
    b"\"a\";v=%\"%ff\"",
    b"\"k\xc3\xa9y\"",
    b"?1",
    b"(\"a\" \"b\")",
    b" \t\"a\"",
    b"",
];

const FIELD_TOKENS: &[&[u8]] = &[
    b"\"",
    b"\\\"",
    b"\\\\",
    b"\\",
    b";",
    b"; ",
    b";a=",
    b"=?1",
    b"=?",
    b"=:",
    b":",
    b"=@",
    b"=-",
    b"=%\"",
    b"%c3",
    b"%e2%82",
    b"%00",
    b"*",
    b",",
    b" ",
    b"\t",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"999999999999999",
    b"0",
    b".",
    b"Z",
    b"_",
    b"=",
    b"==",
];

/// What the implementation that we compare with makes of a field.
fn by_sfv(value: &[u8]) -> Option<String> {
    let item: sfv::Item = Parser::new(value).parse().ok()?;
    match item.bare_item {
        BareItem::String(string) => Some(string.to_string()),
        _ => None,
    }
}

fn by_us(header: &KeyHeader, value: &HeaderValue) -> Result<String, KeyHeaderError> {
    let name = HeaderName::from_static("idempotency-key");
    let headers: HeaderMap = [(name, value.clone())].into_iter().collect();
    header.read(&headers).map(|key| key.unwrap().as_str().to_owned())
}

/// How a reader of fields differs from the other implementation, if it does.
fn difference(
    value: &[u8],
    read: impl Fn(&HeaderValue) -> Result<String, KeyHeaderError>,
) -> Option<String> {
    // What is no value of a header never gets here.
    let field = HeaderValue::from_bytes(value).ok()?;
    let (ours, theirs) = (read(&field), by_sfv(value));
    let agree = match &theirs {
        Some(string) if string.is_empty() => ours == Err(KeyHeaderError::Empty),
        Some(string) => ours.as_ref() == Ok(string),
        None => ours.is_err(),
    };
    (!agree).then(|| format!("of {:?}: {ours:?}, and {theirs:?}", value.escape_ascii().to_string()))
}

#[test]
fn a_key_is_read_as_sfv_reads_it() {
    let strict = KeyHeader::new().strict().max_len(1_024);
    let lenient = KeyHeader::new().max_len(1_024);
    let (mut taken, mut refused) = (0, 0);
    for seed in seeds() {
        let mut mutator = Mutator::new(seed, FIELDS, FIELD_TOKENS, 300);
        for _ in 0..ROUNDS {
            let value = mutator.mutate();
            if let Some(difference) = difference(&value, |field| by_us(&strict, field)) {
                panic!("seed {seed}: {difference}");
            }
            let Ok(field) = HeaderValue::from_bytes(&value) else { continue };
            let (strictly, leniently) = (by_us(&strict, &field), by_us(&lenient, &field));
            match &strictly {
                Ok(id) => {
                    assert_eq!(leniently.as_ref(), Ok(id), "{}", value.escape_ascii());
                    assert!((1..=1_024).contains(&id.len()));
                    assert!(id.bytes().all(|byte| matches!(byte, 0x20..=0x7e)));
                    taken += 1;
                    mutator.keep(&value);
                }
                Err(_) => refused += 1,
            }
            // Quoted, an id that was sent bare is the same one.
            if let (Err(_), Ok(id)) = (&strictly, leniently) {
                let quoted = HeaderValue::from_str(&format!("\"{id}\"")).unwrap();
                assert_eq!(by_us(&strict, &quoted), Ok(id));
            }
        }
    }
    assert!(taken > 1_000 && refused > 1_000, "{taken} taken, {refused} refused");
}

/// That differences would be found: three readers that are wrong in one place each.
#[test]
fn a_reader_that_is_wrong_is_found_out() {
    type Wrong = fn(&str) -> Option<String>;
    let wrong: [(&str, Wrong); 3] = [
        ("looks at both ends only", |field| {
            Some(
                field
                    .strip_prefix('"')?
                    .strip_suffix('"')?
                    .replace("\\\"", "\"")
                    .replace("\\\\", "\\"),
            )
        }),
        ("does not look at parameters", |field| {
            let (string, _) = field.strip_prefix('"')?.split_once('"')?;
            (!string.contains('\\')).then(|| string.to_owned())
        }),
        ("takes whatever is escaped", |field| {
            let mut string = String::new();
            let mut rest = field.strip_prefix('"')?.chars();
            loop {
                match rest.next()? {
                    '"' => return rest.as_str().is_empty().then_some(string),
                    '\\' => string.push(rest.next()?),
                    other => string.push(other),
                }
            }
        }),
    ];
    for (fault, reader) in wrong {
        let read = |field: &HeaderValue| {
            let id = field.to_str().ok().map(str::trim).and_then(reader);
            id.filter(|id| !id.is_empty()).ok_or(KeyHeaderError::Empty)
        };
        let mut mutator = Mutator::new(1, FIELDS, FIELD_TOKENS, 300);
        let found = (0..ROUNDS).any(|_| difference(&mutator.mutate(), read).is_some());
        assert!(found, "nothing shows that it {fault}");
    }
}

fn frames() -> Vec<Vec<u8>> {
    let map = |pairs: &[(&'static str, &str)]| -> HeaderMap {
        let pair = |&(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    };
    let long = "v".repeat(300);
    let responses = [
        StoredResponse::new(StatusCode::NO_CONTENT, HeaderMap::new(), Bytes::new()),
        StoredResponse::new(
            StatusCode::CREATED,
            map(&[("content-type", "text/plain"), ("link", "</a>"), ("link", "</b>")]),
            Bytes::from("receipt 1"),
        ),
        StoredResponse::new(StatusCode::OK, map(&[("x-long", &long)]), Bytes::from(vec![0xff; 64]))
            .with_trailers(map(&[("grpc-status", "0"), ("grpc-message", "")])),
    ];
    let whole = responses.iter().map(|response| response.encode().unwrap().to_vec());
    let nasty: [&[u8]; 7] = [
        b"",
        b"\x01",
        b"\x02\x00\xc8\x00\x00\x00",
        // Lengths of what is not there, and as many headers as there can be.
        b"\x01\x00\xc8\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x01\x00\xc8\x00\x01\x00\x01a\xff\xff\xff\xff",
        b"\x01\x00\xc8\x00\x01\x00\x00\x00\x00\x00\x00\x00",
        // A name in capitals, and a value with a line break.
        b"\x01\x00\xc8\x00\x01\x00\x01A\x00\x00\x00\x02\r\n\x00",
    ];
    whole.chain(nasty.into_iter().map(<[u8]>::to_vec)).collect()
}

const FRAME_TOKENS: &[&[u8]] = &[
    b"\x00",
    b"\x01",
    b"\x02",
    b"\x00\x01",
    b"\xff\xff",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"\x03\xe8",
    b"\x00\x63",
    b"\x7f\xff\xff\xff",
    b"a",
    b"A",
    b"\r\n",
    b"\x00\x01\x00\x01a\x00\x00\x00\x01b",
];

/// Whether what was decoded says the same when it is encoded and decoded again.
fn comes_back(response: &StoredResponse) -> bool {
    let Ok(encoded) = response.encode() else { return false };
    StoredResponse::decode(encoded).as_ref() == Ok(response)
}

fn sorted(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.sort_unstable();
    bytes
}

#[test]
fn a_stored_response_is_read_or_refused() {
    let corpus = frames();
    let corpus: Vec<&[u8]> = corpus.iter().map(Vec::as_slice).collect();
    let (mut read, mut refused) = (0, 0);
    for seed in seeds() {
        let mut mutator = Mutator::new(seed, &corpus, FRAME_TOKENS, 2_000);
        for _ in 0..ROUNDS {
            let bytes = mutator.mutate();
            let Ok(response) = StoredResponse::decode(Bytes::from(bytes.clone())) else {
                refused += 1;
                continue;
            };
            read += 1;
            let shown = bytes.escape_ascii();
            assert!(comes_back(&response), "seed {seed}: {shown}");
            assert_eq!(bytes[0], 1, "seed {seed}: {shown}");
            assert!((100..1_000).contains(&response.status().as_u16()), "seed {seed}: {shown}");
            // All that is in the bytes was understood, and spelled as we write it: only the order of
            // headers of different names may be another one.
            let encoded = response.encode().unwrap();
            assert_eq!(sorted(&encoded), sorted(&bytes), "seed {seed}: {shown}");
            mutator.keep(&bytes);
        }
    }
    assert!(read > 1_000 && refused > 1_000, "{read} read, {refused} refused");
}
