//! What is kept of a response, and that it comes back as it was.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use oncekey_http::{FrameError, KeptHeaders, StoredResponse};
use proptest::prelude::*;

/// Version 1, as written by the first release. Never change it: it is what stores hold.
const GOLDEN: &[u8] = b"\x01\x00\xc9\
    \x00\x02\
    \x00\x0ccontent-type\x00\x00\x00\x0atext/plain\
    \x00\x08location\x00\x00\x00\x02/1\
    \x01\x00\x01\x00\x0bgrpc-status\x00\x00\x00\x010\
    receipt 1";

fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    pairs.iter().map(pair).collect()
}

fn golden() -> StoredResponse {
    let headers = map(&[("content-type", "text/plain"), ("location", "/1")]);
    StoredResponse::new(StatusCode::CREATED, headers, Bytes::from("receipt 1"))
        .with_trailers(map(&[("grpc-status", "0")]))
}

#[test]
fn the_first_version_is_still_written_and_read() {
    assert_eq!(golden().encode().unwrap(), GOLDEN);
    assert_eq!(StoredResponse::decode(Bytes::from_static(GOLDEN)).unwrap(), golden());
}

#[test]
fn another_version_is_refused_and_not_guessed_at() {
    let mut newer = GOLDEN.to_vec();
    newer[0] = 2;
    assert_eq!(StoredResponse::decode(newer.into()), Err(FrameError::UnknownVersion));
}

#[test]
fn what_is_cut_short_is_corrupt() {
    // The body has no length of its own: the store keeps values whole.
    let head = GOLDEN.len() - "receipt 1".len();
    for len in 0..head {
        let cut = Bytes::from_static(&GOLDEN[..len]);
        assert_eq!(StoredResponse::decode(cut), Err(FrameError::Corrupt), "{len} bytes");
    }
}

#[test]
fn lengths_that_lie_are_corrupt() {
    for (at, byte) in [(2, 0x10), (3, 0xff), (5, 0xff), (19, 0xff), (22, 0x01)] {
        let mut lying = GOLDEN.to_vec();
        lying[at] = byte;
        let decoded = StoredResponse::decode(lying.into());
        assert_ne!(decoded, Ok(golden()), "byte {at}");
    }
    let endless = Bytes::from_static(b"\x01\x00\xc8\xff\xff\x00\x01a\xff\xff\xff\xff");
    assert_eq!(StoredResponse::decode(endless), Err(FrameError::Corrupt));
    let spelled = Bytes::from_static(b"\x01\x00\xc8\x00\x01\x00\x01A\x00\x00\x00\x00\x00");
    assert_eq!(StoredResponse::decode(spelled), Err(FrameError::Corrupt));
}

#[test]
fn no_secret_and_no_moment_is_kept() {
    let response = Response::builder()
        .status(201)
        .header("set-cookie", "session=1")
        .header("Content-Type", "text/plain")
        .header("date", "Tue, 24 Nov 2026 00:00:00 GMT")
        .header("link", "</a>; rel=a")
        .header("authorization", "Bearer 1")
        .header("www-authenticate", "Basic")
        .header("link", "</b>; rel=b")
        .header("x-unlisted", "1")
        .header("etag", "\"1\"")
        .header("transfer-encoding", "chunked")
        .header("content-length", "9")
        .header("connection", "close, ETag")
        .header("idempotent-replayed", "true")
        .body(())
        .unwrap();
    let (parts, ()) = response.into_parts();
    let bytes = StoredResponse::encode_kept(
        &parts,
        b"receipt 1",
        Some(&map(&[("x-checksum", "1"), ("set-cookie", "a=b")])),
        &KeptHeaders::new(),
        &KeptHeaders::all_allowed(),
    )
    .unwrap();

    let stored = StoredResponse::decode(bytes).unwrap();
    let kept: Vec<_> = stored
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    assert_eq!(
        kept,
        [("content-type", "text/plain"), ("link", "</a>; rel=a"), ("link", "</b>; rel=b")]
    );
    assert_eq!(stored.trailers(), Some(&map(&[("x-checksum", "1")])));
    assert_eq!((stored.status(), stored.body().as_ref()), (StatusCode::CREATED, &b"receipt 1"[..]));
}

#[test]
fn what_is_never_kept_cannot_be_asked_for() {
    for name in [
        "set-cookie",
        "cookie",
        "authorization",
        "www-authenticate",
        "proxy-authenticate",
        "authentication-info",
        "date",
        "age",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
        "idempotent-replayed",
    ] {
        let name = HeaderName::from_static(name);
        let error = KeptHeaders::new().and(name.clone()).unwrap_err();
        assert!(error.to_string().contains(name.as_str()));
        for kept in [KeptHeaders::new(), KeptHeaders::grpc(), KeptHeaders::all_allowed()] {
            assert!(!kept.contains(&name), "{name}");
        }
    }
    let name = HeaderName::from_static("x-receipt");
    assert!(!KeptHeaders::none().contains(&http::header::CONTENT_TYPE));
    assert!(KeptHeaders::none().and(name.clone()).unwrap().contains(&name));
}

#[test]
fn nothing_of_a_response_is_shown() {
    assert!(!format!("{:?}", golden()).contains("receipt"));
    let error = StoredResponse::decode(Bytes::from_static(b"\x01secret")).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"));
}

fn headers() -> impl Strategy<Value = HeaderMap> {
    let pair = ("[a-d]{1,2}", proptest::collection::vec(0x20_u8..0x7f, 0..9));
    proptest::collection::vec(pair, 0..8).prop_map(|pairs| {
        let pair = |(name, value): (String, Vec<u8>)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(&value).unwrap())
        };
        pairs.into_iter().map(pair).collect()
    })
}

proptest! {
    #[test]
    fn a_response_comes_back_as_it_was(
        status in 100_u16..1000,
        headers in headers(),
        trailers in proptest::option::of(headers()),
        body in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut response =
            StoredResponse::new(StatusCode::from_u16(status).unwrap(), headers, body.into());
        if let Some(trailers) = trailers {
            response = response.with_trailers(trailers);
        }
        let bytes = response.encode().unwrap();
        let back = StoredResponse::decode(bytes.clone()).unwrap();
        // In their order, too, which comparing maps does not see.
        let in_order = |map: &HeaderMap| -> Vec<_> {
            map.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
        };
        prop_assert_eq!(in_order(back.headers()), in_order(response.headers()));
        prop_assert_eq!(&back, &response);
        prop_assert_eq!(back.encode().unwrap(), bytes);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = 1;
        }
        if let Ok(response) = StoredResponse::decode(bytes.clone().into()) {
            prop_assert!(response.encode().unwrap().len() <= bytes.len());
        }
    }
}
