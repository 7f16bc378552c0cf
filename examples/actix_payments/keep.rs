//! The middleware. It reads the request, asks the engine, and keeps the response; what each of these means
//! in HTTP is in `oncekey-http`.
//!
//! actix-web has types of an older `http`, so headers are handed over as bytes.

use std::str::FromStr;

use actix_web::body::{BoxBody, MessageBody, to_bytes};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{
    HeaderMap as ActixHeaders, HeaderName as ActixName, HeaderValue as ActixValue,
};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpResponse, error, web};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use oncekey::{Attempt, Failure, Fingerprint, Idempotency, Key, Outcome, RunError, Scope};
use oncekey_http::{
    DEFAULT_TYPE_BASE, IDEMPOTENT_REPLAYED, KeptHeaders, KeyHeader, Knowledge, Problem,
    ProblemKind, RequestFingerprint, StoredResponse,
};

/// Who asks; put into the request by what authenticates, outside.
#[derive(Clone)]
pub(crate) struct Account(pub(crate) String);

/// A response and its body, or the error that stands for one.
type Answer = Result<ServiceResponse, Error>;

pub(crate) async fn keep(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Answer {
    // Read while the client waits: what has not arrived has not been asked for.
    let body = request.extract::<web::Bytes>().await?;
    request.set_payload(Payload::from(body.clone()));
    let (key, fingerprint) = match question(&request, &body) {
        Ok(question) => question,
        Err(problem) => return Ok(request.into_response(refuse(problem))),
    };
    let engine = request.app_data::<web::Data<Idempotency>>().cloned();
    let engine = engine.ok_or_else(|| error::ErrorInternalServerError("no engine"))?;
    // In a task of its own, so that a client that hangs up stops nothing.
    let run =
        actix_web::rt::spawn(async move { run(&engine, &key, &fingerprint, request, next).await });
    // A panic of the handler has been recorded by the engine as an unknown outcome.
    run.await.unwrap_or_else(|_| Err(told(refuse(Problem::new(ProblemKind::OutcomeUnknown)))))
}

/// What the client asks for, under which key.
fn question(request: &ServiceRequest, body: &[u8]) -> Result<(Key, Fingerprint), Problem> {
    let headers = modern(request.headers());
    let missing = || Problem::new(ProblemKind::KeyMissing);
    let id = KeyHeader::new().read(&headers)?.ok_or_else(missing)?;
    let nobody = || Problem::new(ProblemKind::NoPrincipal);
    let account = request.extensions().get::<Account>().cloned().ok_or_else(nobody)?;
    let scope = Scope::new(account.0, "payments").map_err(|_| nobody())?;
    let key = id.under(&scope).map_err(|_| Problem::new(ProblemKind::KeyMalformed))?;

    let unusual = |_| Problem::new(ProblemKind::BodyIncomplete);
    let method = Method::from_str(request.method().as_str()).map_err(|_| missing())?;
    let uri = Uri::from_str(&request.uri().to_string()).map_err(unusual)?;
    Ok((key, RequestFingerprint::new().of(&method, &uri, &headers, body)))
}

async fn run(
    engine: &Idempotency,
    key: &Key,
    fingerprint: &Fingerprint,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Answer {
    // Taken by the handler, if it runs at all.
    let mut request = Some(request);
    let mut original = None;
    let (taken, slot) = (&mut request, &mut original);
    let handle = async move |attempt: Attempt| {
        let Some(request) = taken.take() else {
            return Err(Failure::NotStarted(Err(error::ErrorInternalServerError("no request"))));
        };
        request.extensions_mut().insert(attempt);
        let response = next.call(request).await.map_err(|error| Failure::Unknown(Err(error)))?;
        let (answer, known, stored) = read(response).await;
        match known {
            Knowledge::Done | Knowledge::DoneNotKept => {
                *slot = Some(answer);
                Ok(stored.filter(|_| known == Knowledge::Done))
            }
            Knowledge::NotStarted => Err(Failure::NotStarted(answer)),
            _ => Err(Failure::Unknown(answer)),
        }
    };
    let outcome = engine.run_kept_bytes(key, fingerprint, handle).await;
    let answer = match (outcome, original) {
        (Ok(_), Some(original)) => return original,
        // Done, and not recorded: whoever asked may know.
        (Err(RunError::Unrecorded { error, .. }), Some(original))
            if Problem::is_answered(&error) =>
        {
            return original;
        }
        (Ok(outcome), None) => replay(outcome),
        (Err(RunError::NotStarted(answer) | RunError::Unknown(answer)), _) => return answer,
        (Err(error), _) => {
            refuse(Problem::of_run(&error).unwrap_or(Problem::new(ProblemKind::OutcomeUnknown)))
        }
    };
    match request {
        Some(request) => Ok(request.into_response(answer)),
        // The handler has it, and was stopped: at a step that could not be saved, for example.
        None => Err(told(answer)),
    }
}

/// The response with its body in memory, what is known by it, and what can be stored of it.
async fn read(
    response: ServiceResponse<impl MessageBody + 'static>,
) -> (Answer, Knowledge, Option<Bytes>) {
    // What the handler says decides, as it does in a tower layer.
    let told = response.response().extensions().get::<Knowledge>().copied();
    let (request, response) = response.into_parts();
    let (head, body) = response.into_parts();
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = StatusCode::from_u16(head.status().as_u16()).unwrap_or_default();
    parts.headers = modern(head.headers());
    let known = told.unwrap_or_else(|| Knowledge::by_head(&parts));
    let Ok(body) = to_bytes(body).await else {
        // What is done stays done, and there is nothing to replay.
        return (Err(error::ErrorInternalServerError("the body broke off")), known, None);
    };
    // Perhaps a problem of somebody whom the handler has asked.
    let passed_on = || ProblemKind::of_document(&parts.headers, &body, DEFAULT_TYPE_BASE);
    let known = match told {
        None if parts.status.is_client_error() => passed_on().map_or(known, ProblemKind::knowledge),
        _ => known,
    };
    let kept = KeptHeaders::new();
    let stored = StoredResponse::encode_kept(&parts, &body, None, &kept, &kept).ok();
    (Ok(ServiceResponse::new(request, head.set_body(BoxBody::new(body)))), known, stored)
}

fn replay(outcome: Outcome<Option<Bytes>>) -> HttpResponse {
    let Some(stored) = outcome.into_value() else {
        return refuse(Problem::new(ProblemKind::ResultNotKept));
    };
    let Ok(stored) = StoredResponse::decode(stored) else {
        return refuse(Problem::new(ProblemKind::ResultUnreadable));
    };
    let (mut response, _) = stored.into_response();
    response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    old(response)
}

fn refuse(problem: Problem) -> HttpResponse {
    old(problem.into_response(DEFAULT_TYPE_BASE))
}

/// For where there is no request any more that actix-web could put beside the response.
fn told(response: HttpResponse) -> Error {
    InternalError::from_response("refused", response).into()
}

fn modern(headers: &ActixHeaders) -> HeaderMap {
    let pairs = headers.iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(value.as_bytes()).ok()?))
    });
    pairs.collect()
}

fn old(response: http::Response<Bytes>) -> HttpResponse {
    let (parts, body) = response.into_parts();
    let status = actix_web::http::StatusCode::from_u16(parts.status.as_u16()).unwrap_or_default();
    let mut old = HttpResponse::new(status);
    for (name, value) in &parts.headers {
        let name = ActixName::from_bytes(name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, ActixValue::from_bytes(value.as_bytes())) {
            old.headers_mut().append(name, value);
        }
    }
    old.set_body(BoxBody::new(body))
}
