//! The future of a response: [`ResponseFuture`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use crate::body::ResponseBody;

pin_project! {
    /// The future of [`IdempotencyService`](crate::IdempotencyService). A request without a key is the
    /// future of the inner service and nothing else.
    ///
    /// # Cancel safety
    /// Dropped while the body of the request is being read: nothing ran. Dropped later: the request runs
    /// to its end all the same, and a retry gets its result.
    pub struct ResponseFuture<F, B, E>
    where
        B: Body,
    {
        #[pin]
        state: State<F, B, E>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B, E>
    where
        B: Body,
    {
        PassedThrough { #[pin] inner: F },
        Refused { response: Option<Response<ResponseBody<B>>> },
        Kept { run: Kept<B, E> },
    }
}

pub(crate) type Kept<B, E> =
    Pin<Box<dyn Future<Output = Result<Response<ResponseBody<B>>, E>> + Send>>;

impl<F, B: Body, E> ResponseFuture<F, B, E> {
    pub(crate) const fn passed_through(inner: F) -> Self {
        Self { state: State::PassedThrough { inner } }
    }

    pub(crate) const fn refused(response: Response<ResponseBody<B>>) -> Self {
        Self { state: State::Refused { response: Some(response) } }
    }

    pub(crate) const fn kept(run: Kept<B, E>) -> Self {
        Self { state: State::Kept { run } }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes>,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::PassedThrough { inner } => {
                let response = ready!(inner.poll(cx));
                Poll::Ready(response.map(|response| response.map(ResponseBody::untouched)))
            }
            // A future that is polled after its end may do anything but be unsound; this one pends.
            StateProj::Refused { response } => {
                response.take().map_or(Poll::Pending, |it| Poll::Ready(Ok(it)))
            }
            StateProj::Kept { run } => run.as_mut().poll(cx),
        }
    }
}

impl<F, B: Body, E> fmt::Debug for ResponseFuture<F, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
