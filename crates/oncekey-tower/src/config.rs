//! How a layer is set up.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode, request, response};
use oncekey::store::{ErrorKind, StoreError};
use oncekey::{Fingerprint, FingerprintBuilder, Idempotency, Scope};
use oncekey_http::{KeptHeaders, KeyHeader, Knowledge, Problem, ProblemKind, RequestFingerprint};

use crate::body::Limits;
use crate::executor::Executor;
use crate::in_flight::InFlight;
use crate::principal::Principal;
use crate::streams::media_type;

#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) idempotency: Idempotency,
    pub(crate) principal: Principal,
    pub(crate) operation: Arc<str>,
    pub(crate) methods: Vec<Method>,
    pub(crate) key_header: KeyHeader,
    pub(crate) key_required: bool,
    pub(crate) max_request_body: usize,
    pub(crate) max_response_body: usize,
    pub(crate) request_body_timeout: Duration,
    pub(crate) response_body_timeout: Duration,
    pub(crate) max_in_flight: usize,
    pub(crate) max_in_flight_each: Option<usize>,
    pub(crate) in_flight: InFlight,
    pub(crate) kept_headers: KeptHeaders,
    pub(crate) kept_trailers: KeptHeaders,
    pub(crate) replay_header: HeaderName,
    pub(crate) fingerprint: RequestFingerprint,
    pub(crate) fingerprint_parts: Option<Arc<FingerprintParts>>,
    pub(crate) classifier: Option<Arc<Classifier>>,
    pub(crate) type_base: Cow<'static, str>,
    pub(crate) on_problem: Option<Arc<OnProblem>>,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) grpc: bool,
}

pub(crate) type FingerprintParts =
    dyn Fn(&request::Parts, FingerprintBuilder) -> FingerprintBuilder + Send + Sync;
pub(crate) type Classifier = dyn Fn(&response::Parts) -> Option<Knowledge> + Send + Sync;
pub(crate) type OnProblem = dyn Fn(&str, &Problem) + Send + Sync;

impl Config {
    /// Refuses what would have every request refused, or run each time.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.idempotency.validate()?;
        let problem = if self.operation.is_empty() {
            "the name of the operation is empty, so that every request with a key would be refused; give it \
             one, for example the route"
        } else if !self.is_named() {
            "the name of the operation is longer than 512 bytes, so that every request with a key would be \
             refused; give it a shorter one"
        } else if self.methods.is_empty() {
            "no method may have a key, so that nothing would be kept and every duplicate would run; name \
             one, for example POST"
        } else if self.max_in_flight == 0 || self.max_in_flight_each == Some(0) {
            "no request may be in flight, so that every one with a key would be refused; let there be as \
             many as memory allows"
        } else {
            return Ok(());
        };
        Err(StoreError::new(ErrorKind::Misconfigured, "set up the layer").with_message(problem))
    }

    /// Whether the operation has a name that keys can have.
    pub(crate) fn is_named(&self) -> bool {
        Scope::new("anybody", self.operation.as_bytes()).is_ok()
    }

    pub(crate) fn request_limits(&self) -> Limits<'_> {
        let timer = &**self.idempotency.time();
        Limits { bytes: self.max_request_body, time: self.request_body_timeout, timer }
    }

    pub(crate) fn response_limits(&self) -> Limits<'_> {
        let timer = &**self.idempotency.time();
        Limits { bytes: self.max_response_body, time: self.response_body_timeout, timer }
    }

    pub(crate) fn fingerprint(&self, parts: &request::Parts, body: &[u8]) -> Fingerprint {
        let mut builder = self.fingerprint.head(&parts.method, &parts.uri, &parts.headers);
        if let Some(add) = &self.fingerprint_parts {
            builder = add(parts, builder);
        }
        builder.part("body", body).finish()
    }

    /// What the head of a response says of the effect.
    pub(crate) fn known_by_head(&self, parts: &response::Parts) -> Known {
        if let Some(known) = parts.extensions.get() {
            return Known::Told(*known);
        }
        if let Some(known) = self.classifier.as_ref().and_then(|classify| classify(parts)) {
            return Known::Told(known);
        }
        if self.grpc && parts.status == StatusCode::OK {
            return Knowledge::by_grpc_status(&parts.headers)
                .map_or(Known::ByTrailers, Known::Guessed);
        }
        Known::Guessed(Knowledge::by_head(parts))
    }

    /// What the whole of a response says, whose head said `known`.
    pub(crate) fn known_by_all(
        &self,
        known: Known,
        head: &response::Parts,
        body: &[u8],
        trailers: Option<&HeaderMap>,
    ) -> Knowledge {
        match known {
            Known::Told(known) => known,
            // Perhaps a problem of somebody whom the handler has asked.
            Known::Guessed(known) if is_problem(head.status, &head.headers) => {
                ProblemKind::of_document(&head.headers, body, &self.type_base)
                    .map_or(known, ProblemKind::knowledge)
            }
            Known::Guessed(known) => known,
            // A call without any status was broken off.
            Known::ByTrailers => {
                trailers.and_then(Knowledge::by_grpc_status).unwrap_or(Knowledge::Unknown)
            }
        }
    }
}

/// Whether it refuses by a problem document. One in a success is a part of what was done.
pub(crate) fn is_problem(status: StatusCode, headers: &HeaderMap) -> bool {
    status.is_client_error() && media_type(headers).eq_ignore_ascii_case("application/problem+json")
}

/// What is known of an effect before the body behind it was read.
#[derive(Clone, Copy)]
pub(crate) enum Known {
    /// Somebody said so.
    Told(Knowledge),
    /// By the head alone.
    Guessed(Knowledge),
    /// The trailers will say.
    ByTrailers,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("operation", &self.operation)
            .field("methods", &self.methods)
            .field("key_header", &self.key_header)
            .field("key_required", &self.key_required)
            .field("max_request_body", &self.max_request_body)
            .field("max_response_body", &self.max_response_body)
            .field("request_body_timeout", &self.request_body_timeout)
            .field("response_body_timeout", &self.response_body_timeout)
            .field("max_in_flight", &self.max_in_flight)
            .field("kept_headers", &self.kept_headers)
            .field("grpc", &self.grpc)
            .finish_non_exhaustive()
    }
}
