//! Answers that are not the handler's: problems and replays.

use bytes::Bytes;
use http::header::TRAILER;
use http::{HeaderMap, HeaderValue, Response};
use http_body::Body;
use oncekey_http::{Knowledge, Problem, ProblemKind, StoredResponse};

use crate::body::ResponseBody;
use crate::config::Config;

impl Config {
    pub(crate) fn refuse<B: Body>(&self, problem: Problem) -> Response<ResponseBody<B>> {
        if let Some(told) = &self.on_problem {
            told(self.idempotency.name(), &problem);
        }
        let response = if self.grpc {
            problem.into_grpc_response()
        } else {
            problem.into_response(&self.type_base)
        };
        response.map(|body| ResponseBody::read(body, None))
    }

    pub(crate) fn replay<B: Body>(&self, stored: Bytes) -> Response<ResponseBody<B>> {
        let Ok(stored) = StoredResponse::decode(stored) else {
            return self.refuse(Problem::new(ProblemKind::ResultUnreadable));
        };
        let (mut response, trailers) = stored.into_response();
        let replayed = HeaderValue::from_static("true");
        response.headers_mut().insert(self.replay_header.clone(), replayed);
        for name in trailers.iter().filter(|_| !self.grpc).flat_map(HeaderMap::keys) {
            // HTTP/1 sends only those that were announced.
            response.headers_mut().append(TRAILER, HeaderValue::from(name.clone()));
        }
        // For a layer around this one, which may know the status only.
        response.extensions_mut().insert(Knowledge::Done);
        response.map(|body| ResponseBody::read(body, trailers))
    }
}
