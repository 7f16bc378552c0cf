//! Bodies: read up to a limit, and given on.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use oncekey::runtime::{Sleep, Timer};
use pin_project_lite::pin_project;

pin_project! {
    /// The body of a request as the inner service gets it: read already if the request has a key, and
    /// untouched if not.
    #[project = RequestProj]
    pub struct RequestBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    /// The body of a response: untouched, or read and given on.
    #[project = ResponseProj]
    pub struct ResponseBody<B>
    where
        B: Body,
    {
        #[pin]
        kind: Kind<B>,
        // What was read before it was clear that the rest is not to be.
        rest: Option<Rest<B>>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B> {
        Untouched { #[pin] body: B },
        Read { data: Option<Bytes>, trailers: Option<HeaderMap> },
    }
}

/// What follows the bytes that were read.
enum Rest<B: Body> {
    Body(Pin<Box<B>>),
    Error(B::Error),
}

impl<B> RequestBody<B> {
    pub(crate) const fn untouched(body: B) -> Self {
        Self { kind: Kind::Untouched { body } }
    }

    pub(crate) fn read(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self { kind: Kind::read(data, trailers) }
    }
}

impl<B: Body> ResponseBody<B> {
    pub(crate) const fn untouched(body: B) -> Self {
        Self { kind: Kind::Untouched { body }, rest: None }
    }

    pub(crate) fn read(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self { kind: Kind::read(data, trailers), rest: None }
    }

    pub(crate) fn partly_read(start: Bytes, rest: Pin<Box<B>>) -> Self {
        Self { kind: Kind::read(start, None), rest: Some(Rest::Body(rest)) }
    }

    pub(crate) fn failed(start: Bytes, error: B::Error) -> Self {
        Self { kind: Kind::read(start, None), rest: Some(Rest::Error(error)) }
    }
}

impl<B> Kind<B> {
    fn read(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self::Read { data: (!data.is_empty()).then_some(data), trailers }
    }
}

type Next<E> = Option<Result<Frame<Bytes>, E>>;
type Polled<E> = Poll<Next<E>>;

impl<B: Body<Data = Bytes>> Kind<B> {
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<B::Error> {
        match self.project() {
            KindProj::Untouched { body } => body.poll_frame(cx),
            KindProj::Read { data, trailers } => {
                let data = data.take().map(Frame::data);
                Poll::Ready(data.or_else(|| trailers.take().map(Frame::trailers)).map(Ok))
            }
        }
    }

    fn is_end(&self) -> bool {
        match self {
            Self::Untouched { body } => body.is_end_stream(),
            Self::Read { data, trailers } => data.is_none() && trailers.is_none(),
        }
    }

    fn hint(&self) -> SizeHint {
        match self {
            Self::Untouched { body } => body.size_hint(),
            Self::Read { data, trailers } => {
                let len = data.as_ref().map_or(0, Bytes::len) as u64;
                let mut hint = SizeHint::with_exact(len);
                if trailers.is_some() {
                    // HTTP/1 sends no trailers behind a body whose length it tells.
                    hint = SizeHint::new();
                    hint.set_lower(len);
                }
                hint
            }
        }
    }
}

impl<B: Body<Data = Bytes>> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<B::Error> {
        self.project().kind.poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.kind.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.kind.hint()
    }
}

impl<B: Body<Data = Bytes>> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<B::Error> {
        let this = self.project();
        match this.kind.poll(cx) {
            Poll::Ready(None) => {}
            polled => return polled,
        }
        match this.rest.take() {
            None => Poll::Ready(None),
            Some(Rest::Error(error)) => Poll::Ready(Some(Err(error))),
            Some(Rest::Body(mut body)) => {
                let polled = body.as_mut().poll_frame(cx);
                if !matches!(polled, Poll::Ready(None | Some(Err(_)))) {
                    *this.rest = Some(Rest::Body(body));
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let rest_is_over = match &self.rest {
            None => true,
            Some(Rest::Body(body)) => body.is_end_stream(),
            Some(Rest::Error(_)) => false,
        };
        rest_is_over && self.kind.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        let Some(rest) = &self.rest else {
            return self.kind.hint();
        };
        let read = self.kind.hint().lower();
        let rest = match rest {
            Rest::Body(body) => body.size_hint(),
            Rest::Error(_) => SizeHint::default(),
        };
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(read));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(read)) {
            hint.set_upper(upper);
        }
        hint
    }
}

impl<B> fmt::Debug for RequestBody<B> {
    /// Shows no content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").finish_non_exhaustive()
    }
}

impl<B: Body> fmt::Debug for ResponseBody<B> {
    /// Shows no content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}

/// How much of a body is read, and for how long.
#[derive(Clone, Copy)]
pub(crate) struct Limits<'a> {
    pub(crate) bytes: usize,
    /// From when it is first waited for.
    pub(crate) time: Duration,
    pub(crate) timer: &'a dyn Timer,
}

/// What came of reading a body.
pub(crate) enum Collected<B: Body> {
    Whole {
        data: Bytes,
        trailers: Option<HeaderMap>,
    },
    /// It ended, and was to be longer: so does a body of HTTP/2 whose sender gives it up without an error.
    TooShort {
        start: Bytes,
    },
    TooLarge {
        start: Bytes,
        rest: Pin<Box<B>>,
    },
    TooSlow {
        start: Bytes,
        rest: Pin<Box<B>>,
    },
    Failed {
        start: Bytes,
        error: B::Error,
    },
}

/// Reads `body` to its end, or as far as the limits allow.
pub(crate) async fn collect<B: Body<Data = Bytes>>(body: B, limits: Limits<'_>) -> Collected<B> {
    let mut body = Box::pin(body);
    let mut start = Start::default();
    let promised = match usize::try_from(body.size_hint().lower()) {
        Ok(promised) if promised <= limits.bytes => promised,
        _ => return Collected::TooLarge { start: Bytes::new(), rest: body },
    };
    let (mut alarm, mut trailers) = (None, None);
    // Frames that bring nothing count as well: a body that always has one would be read for ever.
    let mut empty: usize = 0;
    while !body.is_end_stream() {
        let Some(polled) = next_frame(body.as_mut(), &mut alarm, limits).await else {
            return Collected::TooSlow { start: start.into_bytes(), rest: body };
        };
        match polled {
            None => break,
            Some(Err(error)) => return Collected::Failed { start: start.into_bytes(), error },
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    empty += usize::from(data.is_empty());
                    start.push(data);
                    if start.len() > limits.bytes || empty > limits.bytes {
                        return Collected::TooLarge { start: start.into_bytes(), rest: body };
                    }
                }
                Err(frame) => {
                    // Nothing follows trailers, whether or not the body says so. Whatever else there
                    // may come to be is not for us.
                    if let Ok(last) = frame.into_trailers() {
                        trailers = Some(last);
                        break;
                    }
                }
            },
        }
    }
    let data = start.into_bytes();
    if data.len() < promised {
        return Collected::TooShort { start: data };
    }
    Collected::Whole { data, trailers }
}

/// What `body` gives next; `None` if it is late. A body that is there already costs no timer.
async fn next_frame<B: Body<Data = Bytes>>(
    mut body: Pin<&mut B>,
    alarm: &mut Option<Sleep>,
    limits: Limits<'_>,
) -> Option<Next<B::Error>> {
    poll_fn(|cx| {
        if let Poll::Ready(frame) = body.as_mut().poll_frame(cx) {
            return Poll::Ready(Some(frame));
        }
        let alarm = alarm.get_or_insert_with(|| {
            let Limits { time, timer, .. } = limits;
            timer.sleep_until(timer.now().saturating_add(time))
        });
        alarm.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// What was read so far: one chunk as it is, which is what most bodies are, or several copied.
#[derive(Default)]
struct Start {
    first: Bytes,
    all: Option<BytesMut>,
}

impl Start {
    fn push(&mut self, data: Bytes) {
        match &mut self.all {
            Some(all) => all.extend_from_slice(&data),
            None if self.first.is_empty() => self.first = data,
            None => {
                let mut all = BytesMut::with_capacity(2 * (self.first.len() + data.len()));
                all.extend_from_slice(&self.first);
                all.extend_from_slice(&data);
                self.all = Some(all);
            }
        }
    }

    fn len(&self) -> usize {
        self.all.as_ref().map_or(self.first.len(), BytesMut::len)
    }

    fn into_bytes(self) -> Bytes {
        self.all.map_or(self.first, BytesMut::freeze)
    }
}
