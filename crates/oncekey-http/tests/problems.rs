//! What clients are told, and that everything that can be told is documented.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::collections::HashSet;
use std::time::Duration;

use futures::executor::block_on;
use http::StatusCode;
use oncekey::store::{ErrorKind, StoreError};
use oncekey::{CodecError, Encoded, RecordError, RunError, StepError};
use oncekey_http::{DEFAULT_TYPE_BASE, Knowledge, Problem, ProblemKind};
use serde_json::Value;

const DOCUMENTED: &str = include_str!("../src/problems.md");

fn of(error: &RunError<()>) -> Problem {
    Problem::of_run(error).expect("this one is for the client")
}

fn store_error(kind: ErrorKind) -> RunError<()> {
    RunError::Store(StoreError::new(kind, "claim"))
}

#[test]
fn every_error_of_a_run_has_its_answer() {
    let step = || StepError::Codec(CodecError::Encode);
    let unrecorded = || RunError::Unrecorded { value: None, error: RecordError::Lost };
    let in_doubt = || RunError::InDoubt(StoreError::new(ErrorKind::OutcomeUnknown, "commit"));
    let table = [
        (RunError::Busy { retry_after: Duration::ZERO }, "in-progress", 409, Some(1)),
        (RunError::Mismatch, "key-reused", 422, None),
        (RunError::Interrupted, "interrupted", 409, None),
        (RunError::Retired, "result-retired", 410, None),
        (RunError::NotReplayable, "result-not-kept", 410, None),
        (RunError::LeaseLost, "lease-lost", 503, Some(1)),
        (RunError::StepUnsaved(step()), "step-unsaved", 503, Some(1)),
        (RunError::StepUnreadable(CodecError::UnknownVersion), "step-unreadable", 500, None),
        (unrecorded(), "unrecorded", 500, None),
        (RunError::Codec(CodecError::UnknownVersion), "result-unreadable", 500, None),
        (store_error(ErrorKind::Unavailable), "store-unavailable", 503, Some(1)),
        (store_error(ErrorKind::Timeout), "store-unavailable", 503, Some(1)),
        (store_error(ErrorKind::OutcomeUnknown), "store-unavailable", 503, Some(1)),
        (in_doubt(), "outcome-unknown", 500, None),
        (store_error(ErrorKind::Full), "store-full", 503, Some(1)),
        (store_error(ErrorKind::Corrupt), "store-failed", 500, None),
        (store_error(ErrorKind::Misconfigured), "store-failed", 500, None),
        (store_error(ErrorKind::TooLarge), "store-failed", 500, None),
    ];
    for (error, slug, status, retry_after) in table {
        let problem = of(&error);
        assert_eq!(problem.kind().slug(), slug, "{error}");
        assert_eq!(problem.kind().status(), status, "{error}");
        assert_eq!(problem.retry_after().map(|it| it.as_secs()), retry_after, "{error}");
    }
    assert_eq!(Problem::of_run(&RunError::NotStarted(())), None);
    assert_eq!(Problem::of_run(&RunError::Unknown(())), None);
}

#[test]
fn a_problem_is_json_by_rfc_9457() {
    let problem = of(&RunError::Busy { retry_after: Duration::from_millis(1_200) });
    let response = problem.clone().into_response(DEFAULT_TYPE_BASE);

    assert_eq!(response.status(), StatusCode::CONFLICT);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.headers()["content-language"], "en");
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(response.headers()["retry-after"], "2", "rounded up");
    assert_eq!(response.extensions().get(), Some(&ProblemKind::InProgress));
    let json: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(json["type"], format!("{DEFAULT_TYPE_BASE}in-progress"));
    assert_eq!(json["title"], problem.kind().title());
    assert_eq!(json["status"], 409);
    assert_eq!(json["detail"], problem.detail());

    // A base with what JSON escapes.
    let response = problem.into_response("https://example.com/\"errors\"/");
    let json: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(json["type"], "https://example.com/\"errors\"/in-progress");
}

#[test]
fn nobody_is_asked_to_wait_for_a_whole_lease() {
    let problem = of(&RunError::Busy { retry_after: Duration::from_secs(30) });
    assert_eq!(problem.retry_after(), Some(Duration::from_secs(5)));
}

#[test]
fn grpc_gets_a_status_without_a_message() {
    let problem = of(&RunError::Busy { retry_after: Duration::from_millis(1_200) });
    let response = problem.with_detail("100 % in use").into_grpc_response();

    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert_eq!(response.headers()["grpc-status"], "10");
    assert_eq!(response.headers()["grpc-message"], "100 %25 in use");
    assert_eq!(response.headers()["grpc-retry-pushback-ms"], "1200");
    assert!(response.body().is_empty());
    assert_eq!(of(&RunError::Mismatch).kind().grpc_code(), 3);
}

#[test]
fn every_kind_is_documented() {
    let names = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let mut slugs = HashSet::new();
    for &kind in ProblemKind::ALL {
        let (slug, status) = (kind.slug(), kind.status().as_u16());
        assert!(slugs.insert(slug), "{slug} is there twice");
        assert!(DOCUMENTED.contains(&format!("\n## {slug}\n")), "{slug} has no heading");
        let code = names[usize::from(kind.grpc_code())];
        let row = format!("| [`{slug}`](#{slug}) | {status} | `{code}` |");
        assert!(DOCUMENTED.contains(&row), "missing: {row}");
    }
    let headings = DOCUMENTED.lines().filter(|line| line.starts_with("## ")).count();
    assert_eq!(headings, slugs.len());
}

/// Clients compare these as they are: none ever changes, whatever becomes of the page that it leads to.
#[test]
fn the_type_of_a_problem_is_for_ever() {
    let frozen = [
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#key-missing",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#key-malformed",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#no-principal",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#body-incomplete",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#body-too-slow",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#body-too-large",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#in-progress",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#key-reused",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#interrupted",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#outcome-unknown",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#result-retired",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#result-not-kept",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#result-unreadable",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#unrecorded",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#lease-lost",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#step-unsaved",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#step-unreadable",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#store-unavailable",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#store-full",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#store-failed",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#overloaded",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#too-many-requests",
        "https://docs.rs/oncekey-http/latest/oncekey_http/problems/index.html#shutting-down",
    ];
    let types = ProblemKind::ALL.iter().map(|&kind| {
        let body = Problem::new(kind).into_response(DEFAULT_TYPE_BASE).into_body();
        let json: Value = serde_json::from_slice(&body).unwrap();
        json["type"].as_str().unwrap().to_owned()
    });
    assert_eq!(types.collect::<Vec<_>>(), frozen);
}

#[test]
fn only_a_failed_store_lets_an_unrecorded_answer_out() {
    let store = StoreError::new(ErrorKind::Unavailable, "complete");
    assert!(Problem::is_answered(&RecordError::Store(store)));
    for error in [RecordError::Lost, RecordError::Conflict, RecordError::Gone] {
        assert!(!Problem::is_answered(&error), "{error}");
    }
}

#[test]
fn nothing_stored_gets_into_a_problem() {
    let value = Encoded::json("4111 1111 1111 1111").unwrap();
    let error: RunError<()> =
        RunError::Unrecorded { value: Some(value), error: RecordError::Conflict };
    let problem = of(&error);
    let body = problem.clone().into_response(DEFAULT_TYPE_BASE).into_body();
    assert!(!String::from_utf8(body.to_vec()).unwrap().contains("4111"));
    assert!(!format!("{problem:?}").contains("4111"));
}

#[test]
fn a_status_says_what_its_definition_says() {
    let of = |status| Knowledge::by_status(StatusCode::from_u16(status).unwrap());
    for status in [200, 201, 202, 204, 303, 307, 400, 402, 403, 404, 409, 410, 415, 418, 422] {
        assert_eq!(of(status), Knowledge::Done, "{status}");
    }
    for status in [100, 103, 401, 407, 408, 421, 425, 429, 499, 500, 501, 502, 503, 504, 599, 999] {
        assert_eq!(of(status), Knowledge::Unknown, "{status}");
    }
    assert_eq!(of(101), Knowledge::DoneNotKept);
}

/// Every status can be passed on of somebody who was asked after something was done.
#[test]
fn no_status_alone_says_that_nothing_was_done() {
    for status in 100..1000 {
        let known = Knowledge::by_status(StatusCode::from_u16(status).unwrap());
        assert_ne!(known, Knowledge::NotStarted, "{status}");
    }
    for code in 0..100 {
        assert_ne!(Knowledge::by_grpc_code(code), Knowledge::NotStarted, "{code}");
    }
}

#[test]
fn a_refusal_that_asks_to_come_back_is_not_final() {
    let of = |status: u16, retry_after: bool| {
        let mut response = http::Response::builder().status(status);
        if retry_after {
            response = response.header("retry-after", "1");
        }
        Knowledge::by_head(&response.body(()).unwrap().into_parts().0)
    };
    for status in [400, 403, 404, 409, 413, 423, 429] {
        assert_eq!(of(status, true), Knowledge::Unknown, "{status}");
    }
    // It is accepted, made, or elsewhere; come back for more.
    for status in [200, 201, 202, 301, 303] {
        assert_eq!(of(status, true), Knowledge::Done, "{status}");
    }
    assert_eq!(of(409, false), Knowledge::Done);
    assert_eq!(of(101, true), Knowledge::DoneNotKept);
    assert_eq!(of(503, true), Knowledge::Unknown);
}

#[test]
fn a_problem_that_is_passed_on_says_what_it_means() {
    for &kind in ProblemKind::ALL {
        let known = match kind.slug() {
            "key-missing" | "key-malformed" | "key-reused" | "body-too-large"
            | "result-retired" | "result-not-kept" => Knowledge::Done,
            _ => Knowledge::Unknown,
        };
        assert_eq!(kind.knowledge(), known, "{kind:?}");
        let response = Problem::new(kind).into_response(DEFAULT_TYPE_BASE);
        assert_eq!(response.extensions().get(), Some(&known), "{kind:?}");
        let response = Problem::new(kind).into_grpc_response();
        assert_eq!(response.extensions().get(), Some(&known), "{kind:?}");
        // Temporary ones are never final.
        let temporary = Problem::new(kind).retry_after().is_some();
        assert!(!(temporary && known == Knowledge::Done), "{kind:?}");
    }
}

/// A client of gRPC gets a status and metadata, and a handler that passes the status on passes both on.
#[test]
fn a_problem_that_came_by_grpc_is_recognised() {
    for &kind in ProblemKind::ALL {
        let response = Problem::new(kind).into_grpc_response();
        assert_eq!(response.headers()["idempotency-problem"], kind.slug());
        assert_eq!(Knowledge::by_grpc_status(response.headers()), Some(kind.knowledge()));
    }
    let of = |slug: &'static str, status: &'static str| {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("idempotency-problem", slug.parse().unwrap());
        trailers.insert("grpc-status", status.parse().unwrap());
        Knowledge::by_grpc_status(&trailers)
    };
    // Of another kind than this build knows, or of somebody else.
    assert_eq!(of("something-else", "9"), Some(Knowledge::Done));
    assert_eq!(of("interrupted", "0"), Some(Knowledge::Done), "no problem at all");
    // Under another status than its own, it makes nothing final that the status does not.
    assert_eq!(of("key-reused", "14"), Some(Knowledge::Unknown));
    assert_eq!(of("result-not-kept", "13"), Some(Knowledge::Unknown));
    assert_eq!(of("key-reused", "9"), Some(Knowledge::Done));
    assert_eq!(of("in-progress", "9"), Some(Knowledge::Unknown));
}

#[test]
fn a_problem_that_came_over_a_network_is_recognised() {
    let base = "https://example.com/problems/";
    for &kind in ProblemKind::ALL {
        let (parts, body) = Problem::new(kind).into_response(base).into_parts();
        assert_eq!(ProblemKind::of_document(&parts.headers, &body, base), Some(kind));
        // Of the one that documents them here, and of one that leaves that to us.
        let (parts, body) = Problem::new(kind).into_response(DEFAULT_TYPE_BASE).into_parts();
        assert_eq!(ProblemKind::of_document(&parts.headers, &body, base), Some(kind));
    }
    let of = |content_type: &'static str, body: &str| {
        let mut headers = http::HeaderMap::new();
        headers.insert("content-type", content_type.parse().unwrap());
        ProblemKind::of_document(&headers, body.as_bytes(), base)
    };
    let document = r#"{"title":"x","type":"https://example.com/problems/interrupted"}"#;
    let kind = Some(ProblemKind::Interrupted);
    assert_eq!(of("application/problem+json", document), kind);
    assert_eq!(of("Application/Problem+JSON; charset=utf-8", document), kind);
    for other in [
        "",
        "{",
        "[]",
        "null",
        r#"{"type":1}"#,
        r#"{"type":"about:blank"}"#,
        r#"{"type":"https://example.com/problems/"}"#,
        r#"{"type":"https://example.com/problems/interrupted/"}"#,
        r#"{"type":"https://elsewhere.example.com/problems/interrupted"}"#,
    ] {
        assert_eq!(of("application/problem+json", other), None, "{other}");
    }
    assert_eq!(of("application/json", document), None);
    assert_eq!(ProblemKind::of_document(&http::HeaderMap::new(), document.as_bytes(), base), None);
}

#[test]
fn a_grpc_status_says_what_its_code_says() {
    let of = |status: &'static str| {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", status.parse().unwrap());
        Knowledge::by_grpc_status(&trailers)
    };
    for code in ["0", "3", "5", "6", "7", "9", "11", "12"] {
        assert_eq!(of(code), Some(Knowledge::Done), "{code}");
    }
    for code in ["1", "2", "4", "8", "10", "13", "14", "15", "16", "17", "999"] {
        assert_eq!(of(code), Some(Knowledge::Unknown), "{code}");
    }
    assert_eq!(of("none"), None);
    assert_eq!(Knowledge::by_grpc_status(&http::HeaderMap::new()), None);
}

/// The whole way: a run that is refused, as the client sees it.
#[test]
fn a_mismatch_is_refused_with_422() {
    let idempotency = oncekey::Idempotency::at_least_once(oncekey_memory::MemoryStore::new());
    let scope = oncekey::Scope::new("tenant", "pay").unwrap();
    let key = oncekey::Key::new(&scope, "order-17").unwrap();
    let mut answers = Vec::new();
    for body in ["100 EUR", "200 EUR"] {
        let fingerprint = oncekey::Fingerprint::of(body);
        let run = idempotency.run(&key, &fingerprint, |_| async { Ok::<_, ()>(1) });
        answers.push(block_on(run).map_err(|error| of(&error).kind().status().as_u16()));
    }
    assert!(answers[0].is_ok());
    assert_eq!(answers[1].as_ref().unwrap_err(), &422);
}

/// A client may have sent the request before: that nothing was done is true of this sending only.
#[test]
fn no_problem_says_of_a_request_that_nothing_was_done() {
    for &kind in ProblemKind::ALL {
        let problem = Problem::new(kind);
        let heading = format!("\n## {}\n", kind.slug());
        let section = DOCUMENTED.split(&heading).nth(1).unwrap().split("\n## ").next().unwrap();
        for text in [problem.detail(), section] {
            let text = text.to_lowercase();
            for undone in ["was not started", "nothing was done", "nothing was started"] {
                for (at, _) in text.match_indices(undone) {
                    let rest = &text[at + undone.len()..];
                    assert!(rest.starts_with(" this time"), "{kind:?}: {text}");
                }
            }
        }
    }
}

/// What is final may be a refusal: nobody is told that what was refused is done.
#[test]
fn an_answer_that_is_gone_is_not_said_to_be_a_success() {
    for kind in
        [ProblemKind::ResultRetired, ProblemKind::ResultNotKept, ProblemKind::ResultUnreadable]
    {
        let problem = Problem::new(kind);
        assert!(problem.detail().contains("was answered"), "{}", problem.detail());
    }
}
