//! What makes two requests the same.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::collections::HashSet;

use http::{HeaderMap, HeaderValue, Method, Uri, header};
use oncekey::{Fingerprint, KeyError};
use oncekey_http::RequestFingerprint;

fn of(method: Method, uri: &'static str, content_type: &[&'static str], body: &str) -> Fingerprint {
    let mut headers = HeaderMap::new();
    for value in content_type {
        headers.append(header::CONTENT_TYPE, HeaderValue::from_static(value));
    }
    RequestFingerprint::new().of(&method, &Uri::from_static(uri), &headers, body)
}

#[test]
fn everything_that_is_asked_for_counts() {
    let json = ["application/json"];
    let all = [
        of(Method::POST, "/a", &[], ""),
        of(Method::PATCH, "/a", &[], ""),
        of(Method::POST, "/b", &[], ""),
        of(Method::POST, "/a/", &[], ""),
        of(Method::POST, "/A", &[], ""),
        of(Method::POST, "/%61", &[], ""),
        of(Method::POST, "/a?", &[], ""),
        of(Method::POST, "/a?b", &[], ""),
        of(Method::POST, "/a?b=", &[], ""),
        of(Method::POST, "/a", &json, ""),
        of(Method::POST, "/a", &["application/json", "application/json"], ""),
        of(Method::POST, "/a", &[], "application/json"),
        of(Method::POST, "/a", &[], "{}"),
        of(Method::POST, "/a", &json, "{}"),
        of(Method::POST, "/a", &json, "{} "),
    ];
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
}

#[test]
fn nothing_else_counts() {
    let requests = RequestFingerprint::new();
    let (mut headers, body) = (HeaderMap::new(), "100 EUR");
    let first = requests.of(&Method::POST, &Uri::from_static("/a"), &headers, body);
    for (name, value) in [("user-agent", "x"), ("authorization", "y"), ("traceparent", "z")] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let uri = Uri::from_static("https://example.com/a");
    assert_eq!(first, requests.of(&Method::POST, &uri, &headers, body));
}

#[test]
fn a_keyed_fingerprint_is_of_its_secret() {
    let of = |secret: &str| {
        let requests = RequestFingerprint::keyed(secret).unwrap();
        requests.of(&Method::POST, &Uri::from_static("/a"), &HeaderMap::new(), "100 EUR")
    };
    assert_eq!(of("a secret of 16 bytes"), of("a secret of 16 bytes"));
    assert_ne!(of("a secret of 16 bytes"), of("another secret of it"));
    let short = RequestFingerprint::keyed("short").unwrap_err();
    assert!(matches!(short, KeyError::SecretTooShort { .. }));
}

/// Records outlive the process: the digest of a request must not change between versions.
#[test]
fn a_fingerprint_stays_what_it_is() {
    let fingerprint = of(Method::POST, "/payments?a=1", &["application/json"], "{}");
    let hex: String = fingerprint.digest().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "ebef1fa2e4acf1f4c3e61a4629c8028c5110ade329c6b57738013115a775b76d");
}
