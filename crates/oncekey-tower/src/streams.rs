//! Which responses are streams, whose end is not to be waited for.

use http::{HeaderMap, header, response};
use http_body::Body;
use oncekey_http::Knowledge;

/// Types of what goes on until somebody leaves. Other streams are found out by their taking too long.
const TYPES: [&str; 13] = [
    "text/event-stream",
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
    "application/json-seq",
    "application/stream+json",
    "application/connect+json",
    "application/connect+proto",
    "multipart/x-mixed-replace",
    "application/vnd.amazon.eventstream",
];

/// By its type, unless it is of a known length, and so has an end, or its handler wants it kept.
pub(crate) fn is_stream(parts: &response::Parts, body: &impl Body) -> bool {
    let media_type = media_type(&parts.headers);
    let is_to_be_kept = parts.extensions.get() == Some(&Knowledge::Done);
    !is_to_be_kept
        && body.size_hint().exact().is_none()
        && TYPES.iter().any(|it| it.eq_ignore_ascii_case(media_type))
}

/// The type of a body, without its parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    content_type.and_then(|it| it.split(';').next()).unwrap_or_default().trim()
}
