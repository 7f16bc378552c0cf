//! The course of a request with a key.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response, request};
use http_body::Body;
use oncekey::{Attempt, Failure, Key, Outcome, RunError};
use oncekey_http::{Knowledge, Problem, ProblemKind, StoredResponse};
use tokio::sync::oneshot;
use tower_service::Service;

use crate::body::{Collected, RequestBody, ResponseBody, collect};
use crate::config::{Config, Known, is_problem};
use crate::executor::Executor;
use crate::in_flight::Place;
use crate::streams::is_stream;

/// What the client gets: the response of the handler, a replay, or a problem.
type Answer<B, E> = Result<Response<ResponseBody<B>>, E>;

/// Reads the body in the future of the client, and does all the rest in a task of its own: a client that
/// hangs up early has asked for nothing, and one that hangs up later stops nothing.
pub(crate) async fn run<S, R, B>(
    config: Arc<Config>,
    place: Place,
    key: Key,
    request: (request::Parts, R),
    service: S,
) -> Answer<B, S::Error>
where
    S: Service<Request<RequestBody<R>>, Response = Response<B>> + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Send,
{
    let (parts, body) = request;
    let (data, trailers) = match collect(body, config.request_limits()).await {
        Collected::Whole { data, trailers } => (data, trailers),
        Collected::TooLarge { .. } => {
            return Ok(config.refuse(Problem::new(ProblemKind::BodyTooLarge)));
        }
        Collected::TooSlow { .. } => {
            return Ok(config.refuse(Problem::new(ProblemKind::BodyTooSlow)));
        }
        Collected::TooShort { .. } | Collected::Failed { .. } => {
            return Ok(config.refuse(Problem::new(ProblemKind::BodyIncomplete)));
        }
    };
    let fingerprint = config.fingerprint(&parts, &data);
    let request = Request::from_parts(parts, RequestBody::read(data, trailers));
    let kept = {
        let config = Arc::clone(&config);
        async move {
            let answer = keep(&config, &key, &fingerprint, request, service).await;
            drop(place);
            answer
        }
    };
    // A panic of the handler has been recorded by the engine as an unknown outcome.
    let kept = Box::pin(AssertUnwindSafe(kept).catch_unwind());
    match detached(&*config.executor, kept).await {
        Some(Ok(answer)) => answer,
        Some(Err(_)) | None => Ok(config.refuse(Problem::new(ProblemKind::OutcomeUnknown))),
    }
}

/// Runs `task` to its end, whoever drops this. `None` if the executor has dropped it.
///
/// It is polled once in place: what is answered at once, as a replay from memory is, needs no task.
async fn detached<T: Send + 'static>(
    executor: &dyn Executor,
    mut task: Pin<Box<impl Future<Output = Result<T, Box<dyn Any + Send>>> + Send + 'static>>,
) -> Option<Result<T, Box<dyn Any + Send>>> {
    if let Some(done) = poll_fn(|cx| {
        Poll::Ready(match task.as_mut().poll(cx) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        })
    })
    .await
    {
        return Some(done);
    }
    let (sender, receiver) = oneshot::channel();
    let task = async move {
        // Nobody is there to be told if the client has hung up.
        let _ = sender.send(task.await);
    };
    #[cfg(feature = "tracing")]
    let task = tracing::Instrument::in_current_span(task);
    executor.spawn(Box::pin(task));
    receiver.await.ok()
}

async fn keep<S, R, B>(
    config: &Config,
    key: &Key,
    fingerprint: &oncekey::Fingerprint,
    mut request: Request<RequestBody<R>>,
    mut service: S,
) -> Answer<B, S::Error>
where
    S: Service<Request<RequestBody<R>>, Response = Response<B>>,
    B: Body<Data = Bytes>,
{
    // What the first caller gets: also what is not stored.
    let mut original = None;
    let slot = &mut original;
    let handled = async move |attempt: Attempt| {
        request.extensions_mut().insert(key.clone());
        request.extensions_mut().insert(attempt);
        let response = match service.call(request).await {
            Ok(response) => response,
            Err(error) => return Err(Failure::Unknown(Err(error))),
        };
        match judge(config, response).await {
            Judged::Done { stored, response } => {
                *slot = Some(response);
                Ok(stored)
            }
            Judged::NotStarted(response) => Err(Failure::NotStarted(Ok(response))),
            Judged::Unknown(response) => Err(Failure::Unknown(Ok(response))),
        }
    };
    let run = config.idempotency.run_kept_bytes(key, fingerprint, handled).await;
    answer(config, run, original)
}

/// What the engine returned, as the answer to the client.
fn answer<B: Body, E>(
    config: &Config,
    run: Result<Outcome<Option<Bytes>>, RunError<Answer<B, E>>>,
    original: Option<Response<ResponseBody<B>>>,
) -> Answer<B, E> {
    let error = match run {
        Ok(outcome) => {
            return Ok(match (original, outcome.into_value()) {
                (Some(original), _) => original,
                (None, Some(stored)) => config.replay(stored),
                (None, None) => config.refuse(Problem::new(ProblemKind::ResultNotKept)),
            });
        }
        Err(error) => error,
    };
    // The problem first, which looks at the error; what it has in it is then given away.
    let problem = Problem::of_run(&error);
    match error {
        RunError::NotStarted(answer) => return answer,
        RunError::Unknown(answer) => {
            return answer.map(|mut response| {
                // A handler that says that nothing was done does not speak for an attempt before it. A
                // layer around this one has to know.
                response.extensions_mut().insert(Knowledge::Unknown);
                response
            });
        }
        RunError::Unrecorded { value, error } if Problem::is_answered(&error) => {
            if let Some(original) = original {
                return Ok(original);
            }
            // What a hook has found out.
            if let Some(Ok(stored)) = value.map(|value| value.decode_raw()) {
                return Ok(config.replay(stored));
            }
        }
        _ => {}
    }
    Ok(config.refuse(problem.unwrap_or(Problem::new(ProblemKind::OutcomeUnknown))))
}

/// A response, and what is known of the effect behind it.
enum Judged<B: Body> {
    Done { stored: Option<Bytes>, response: Response<ResponseBody<B>> },
    NotStarted(Response<ResponseBody<B>>),
    Unknown(Response<ResponseBody<B>>),
}

async fn judge<B: Body<Data = Bytes>>(config: &Config, response: Response<B>) -> Judged<B> {
    let (parts, body) = response.into_parts();
    let known = config.known_by_head(&parts);
    let untouched = |body| ResponseBody::untouched(body);
    match known {
        Known::ByTrailers => {}
        Known::Told(Knowledge::NotStarted) | Known::Guessed(Knowledge::NotStarted) => {
            return Judged::NotStarted(Response::from_parts(parts, untouched(body)));
        }
        Known::Told(Knowledge::Unknown) | Known::Guessed(Knowledge::Unknown) => {
            return Judged::Unknown(Response::from_parts(parts, untouched(body)));
        }
        Known::Told(Knowledge::Done) | Known::Guessed(Knowledge::Done)
            if !is_stream(&parts, &body) => {}
        Known::Told(_) | Known::Guessed(_) => {
            let response = Response::from_parts(parts, untouched(body));
            return Judged::Done { stored: None, response };
        }
    }
    match collect(body, config.response_limits()).await {
        Collected::Whole { data, trailers } => {
            let known = config.known_by_all(known, &parts, &data, trailers.as_ref());
            let stored = || {
                let (headers, trailing) = (&config.kept_headers, &config.kept_trailers);
                let trailers = trailers.as_ref();
                StoredResponse::encode_kept(&parts, &data, trailers, headers, trailing).ok()
            };
            let stored = if known == Knowledge::Done { stored() } else { None };
            let response = Response::from_parts(parts, ResponseBody::read(data, trailers));
            match known {
                Knowledge::NotStarted => Judged::NotStarted(response),
                Knowledge::Unknown => Judged::Unknown(response),
                _ => Judged::Done { stored, response },
            }
        }
        Collected::TooLarge { start, rest } => {
            let body = ResponseBody::partly_read(start, rest);
            let response = Response::from_parts(parts, body);
            match known {
                // A unary call that failed has no message.
                Known::ByTrailers => Judged::Done { stored: None, response },
                known => without_its_end(known, response),
            }
        }
        Collected::TooShort { start } => {
            let body = ResponseBody::read(start, None);
            without_its_end(known, Response::from_parts(parts, body))
        }
        Collected::TooSlow { start, rest } => {
            let body = ResponseBody::partly_read(start, rest);
            without_its_end(known, Response::from_parts(parts, body))
        }
        Collected::Failed { start, error } => {
            let body = ResponseBody::failed(start, error);
            without_its_end(known, Response::from_parts(parts, body))
        }
    }
}

/// Where the head has said that it is done, it is, and only the telling takes long, or failed.
fn without_its_end<B: Body>(known: Known, response: Response<ResponseBody<B>>) -> Judged<B> {
    match known {
        // It may be a problem that is not final.
        Known::Guessed(_) if is_problem(response.status(), response.headers()) => {
            Judged::Unknown(response)
        }
        Known::Told(_) | Known::Guessed(_) => Judged::Done { stored: None, response },
        Known::ByTrailers => Judged::Unknown(response),
    }
}
