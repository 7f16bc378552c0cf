//! Fingerprints: what a request asks for, told apart to the last bit, and never shown.
#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use oncekey::{Fingerprint, FingerprintBuilder, KeyError};
use proptest::collection::vec;
use proptest::prelude::*;

const SECRET: &str = "0123456789abcdef";

type Part = (String, Vec<u8>);

fn part() -> impl Strategy<Value = Part> {
    let name = prop_oneof![Just("a"), Just("b"), Just("ab"), Just(""), Just("\0")];
    let byte = prop_oneof![Just(0_u8), Just(1), Just(b'a'), Just(b'b'), any::<u8>()];
    (name.prop_map(str::to_owned), vec(byte, 0..4))
}

fn digest(builder: FingerprintBuilder, parts: &[Part]) -> Fingerprint {
    parts.iter().fold(builder, |builder, (name, value)| builder.part(name, value)).finish()
}

fn plain(parts: &[Part]) -> Fingerprint {
    digest(Fingerprint::builder(), parts)
}

fn keyed(secret: &str, parts: &[Part]) -> Fingerprint {
    digest(Fingerprint::keyed(secret).unwrap(), parts)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn different_requests_have_different_fingerprints(
        one in vec(part(), 0..4), other in vec(part(), 0..4),
    ) {
        prop_assert_eq!(plain(&one) == plain(&other), one == other);
        prop_assert_eq!(keyed(SECRET, &one) == keyed(SECRET, &other), one == other);
        prop_assert_ne!(keyed(SECRET, &one), plain(&one));
        prop_assert_ne!(keyed(SECRET, &one), keyed("0123456789abcdeg", &one));
    }

    #[test]
    fn one_flipped_bit_is_another_request(
        mut parts in vec(part(), 1..4), bit in any::<prop::sample::Index>(),
    ) {
        let before = plain(&parts);
        let value = &mut parts[0].1;
        value.push(0);
        let bit = bit.index(value.len() * 8);
        let longer = plain(&parts);
        parts[0].1[bit / 8] ^= 1 << (bit % 8);
        prop_assert_ne!(plain(&parts), longer);
        prop_assert_ne!(longer, before);
    }
}

#[test]
fn parts_do_not_run_into_each_other() {
    let of = |parts: &[(&str, &str)]| {
        let parts: Vec<Part> =
            parts.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        plain(&parts)
    };
    let alike = [
        of(&[("ab", "c")]),
        of(&[("a", "bc")]),
        of(&[("a", "b"), ("c", "")]),
        of(&[("a", "b"), ("", "c")]),
        of(&[("", ""), ("ab", "c")]),
        of(&[("ab", "c"), ("", "")]),
        of(&[("abc", "")]),
        of(&[]),
        of(&[("", "")]),
    ];
    for (index, one) in alike.iter().enumerate() {
        for other in &alike[index + 1..] {
            assert_ne!(one.digest(), other.digest());
        }
    }
    // The order of parts matters.
    assert_ne!(of(&[("a", "1"), ("b", "2")]), of(&[("b", "2"), ("a", "1")]));
}

#[test]
fn a_builder_can_be_cloned_half_way() {
    let common = Fingerprint::builder().part("method", "POST");
    let one = common.clone().part("path", "/a").finish();
    let other = common.part("path", "/b").finish();
    assert_ne!(one, other);
    assert_eq!(one, Fingerprint::builder().part("method", "POST").part("path", "/a").finish());
}

#[test]
fn the_algorithm_is_part_of_the_fingerprint() {
    let made = Fingerprint::of("body");
    assert_eq!(made.algorithm(), Fingerprint::SHA256);
    assert_eq!(keyed(SECRET, &[]).algorithm(), Fingerprint::HMAC_SHA256);
    assert_eq!(Fingerprint::from_digest(made.algorithm(), *made.digest()), made);
    let custom = Fingerprint::from_digest(Fingerprint::FIRST_CUSTOM, *made.digest());
    assert_ne!(custom, made);
}

#[test]
fn a_secret_must_not_be_guessable() {
    assert!(Fingerprint::keyed("0123456789abcdef").is_ok());
    let refused = Fingerprint::keyed("0123456789abcde").unwrap_err();
    assert_eq!(refused, KeyError::SecretTooShort { len: 15, min: 16 });
    assert!(Fingerprint::keyed([7; 1000]).is_ok());
}

/// Records of running systems hold these digests: they never change.
#[test]
fn digests_are_stable() {
    let parts: Vec<Part> = vec![
        ("method".into(), b"POST".into()),
        ("path".into(), b"/payments".into()),
        ("body".into(), br#"{"amount":100}"#.into()),
    ];
    let hex = |fingerprint: Fingerprint| {
        fingerprint.digest().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    assert_eq!(
        hex(plain(&parts)),
        "1ace4ef25ddadc8a5a49e578bac475c295b4defdddafe98ccfab003d13cb0591"
    );
    assert_eq!(
        hex(keyed(SECRET, &parts)),
        "f445b9d7df3bb4e752b2403b7ae02a534f674c8610094f24619d2e9803114756"
    );
    assert_eq!(
        hex(Fingerprint::of("")),
        "55f5913fe98d589243fba50b366d162a0263dc4685d7645da35825bae2bd0b46"
    );
    assert_eq!(hex(plain(&[])), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

#[test]
fn debug_reveals_nothing() {
    let fingerprint = Fingerprint::from_digest(Fingerprint::SHA256, [0xab; 32]);
    let text = format!("{fingerprint:?}");
    assert!(!text.contains("171") && !text.contains("ab") && !text.contains("AB"), "{text}");

    let builder = Fingerprint::keyed(SECRET).unwrap().part("body", "4111-1111");
    let text = format!("{builder:?}");
    for content in ["4111", "body", SECRET, "49, 49"] {
        assert!(!text.contains(content), "{text}");
    }
}
