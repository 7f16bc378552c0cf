//! The service: which requests are kept, which pass through, which are refused at the door.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, request};
use http_body::Body;
use oncekey::{Key, Scope};
use oncekey_http::{Problem, ProblemKind};
use tower_service::Service;

use crate::body::{RequestBody, ResponseBody};
use crate::config::Config;
use crate::future::ResponseFuture;
use crate::in_flight::{NoPlace, Place, Quota};
use crate::run;

/// The service that [`IdempotencyLayer`](crate::IdempotencyLayer) makes.
///
/// The inner service is cloned for each request with a key, and the clone that was polled ready is the
/// one that is called. A replay does not call it at all.
#[derive(Debug, Clone)]
pub struct IdempotencyService<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S> IdempotencyService<S> {
    pub(crate) const fn new(inner: S, config: Arc<Config>) -> Self {
        Self { inner, config }
    }
}

impl<S, R, B> Service<Request<R>> for IdempotencyService<S>
where
    S: Service<Request<RequestBody<R>>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Send,
{
    type Response = Response<ResponseBody<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, B, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        if !self.config.methods.contains(request.method()) {
            return self.pass_through(request);
        }
        if !request.headers().contains_key(self.config.key_header.name()) {
            if self.config.key_required {
                let missing = Problem::new(ProblemKind::KeyMissing);
                return ResponseFuture::refused(self.config.refuse(missing));
            }
            return self.pass_through(request);
        }
        let (parts, body) = request.into_parts();
        match self.config.admit(&parts) {
            Ok((key, place)) => {
                // The one that is ready, not its clone, which may not be.
                let clone = self.inner.clone();
                let inner = mem::replace(&mut self.inner, clone);
                let config = Arc::clone(&self.config);
                let run = run::run(config, place, key, (parts, body), inner);
                ResponseFuture::kept(Box::pin(run))
            }
            Err(problem) => ResponseFuture::refused(self.config.refuse(problem)),
        }
    }
}

impl<S> IdempotencyService<S> {
    fn pass_through<R, B>(&mut self, request: Request<R>) -> ResponseFuture<S::Future, B, S::Error>
    where
        S: Service<Request<RequestBody<R>>, Response = Response<B>>,
        B: Body,
    {
        ResponseFuture::passed_through(self.inner.call(request.map(RequestBody::untouched)))
    }
}

/// Which is told as a fault of the service: no client can mend it.
const fn misconfigured() -> Problem {
    Problem::new(ProblemKind::StoreFailed)
}

impl Config {
    /// The key of a request, and a place for it.
    fn admit(&self, parts: &request::Parts) -> Result<(Key, Place), Problem> {
        let missing = || Problem::new(ProblemKind::KeyMissing);
        let id = self.key_header.read(&parts.headers)?.ok_or_else(missing)?;
        let nobody = || Problem::new(ProblemKind::NoPrincipal);
        let principal = self.principal.of(parts).ok_or_else(nobody)?;
        let scope = Scope::new(&principal, self.operation.as_bytes())
            .map_err(|_| if self.is_named() { nobody() } else { misconfigured() })?;
        let malformed = |_| Problem::new(ProblemKind::KeyMalformed);
        let key = id.under(&scope).map_err(malformed)?;
        let quota = self.max_in_flight_each.map(|max| Quota { principal: &principal, max });
        let place = self.in_flight.enter(self.max_in_flight, quota).map_err(|none| {
            Problem::new(match none {
                NoPlace::Full => ProblemKind::Overloaded,
                NoPlace::UsedUp => ProblemKind::TooManyRequests,
                NoPlace::Closed => ProblemKind::ShuttingDown,
            })
        })?;
        Ok((key, place))
    }
}
