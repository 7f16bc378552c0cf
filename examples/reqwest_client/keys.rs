//! A middleware for reqwest: keys, kept across retries.
//!
//! # When to keep a key, and when to make a new one
//!
//! A key stands for one thing that somebody wants done, not for one request.
//!
//! | what happened | key | send again? |
//! |---|---|---|
//! | no answer: a timeout, a broken connection | the same | yes |
//! | 409 with `Retry-After`: it is being worked on | the same | after that time |
//! | 429, 502, 503, 504, 500, 408, 425 | the same | after `Retry-After`, or a growing pause |
//! | 401, 403, no principal | the same | with valid credentials |
//! | 409 without `Retry-After`: interrupted, outcome unknown | the same, kept | later, when it was found out |
//! | 2xx | used up | no: it is done |
//! | 402 and other refusals | used up | no: that is the answer |
//! | 410: it was answered, the result is gone | used up | no: read the result elsewhere |
//! | 422, key reused | a bug | no: find it |
//! | 400, a problem of the key, or a body that broke off | the same | the same request, sent well |
//! | 400, 413, 415, 422 for what is asked | used up | no: a mended request is another one, with a new key |
//! | the program was restarted | the same: it was kept with the order | yes |
//! | the user changes the order, or wants another one | a new one | |
//! | the user tries another card after a 402 | a new one | |
//! | the key is older than the server keeps results | look up first | never blindly |

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use reqwest::header::{HeaderValue, RETRY_AFTER};
use reqwest::{Method, Request, Response, StatusCode};
use reqwest_middleware::{Error, Middleware, Next, Result};

const HEADER: &str = "idempotency-key";

/// A key, to be kept with what it stands for before the first request is sent. Give it to a request by
/// `with_extension`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct IdempotencyKey(String);

impl IdempotencyKey {
    /// A random one, in the form of a UUID.
    pub(crate) fn mint() -> std::result::Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let groups = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        Ok(Self(groups.join("-")))
    }

    /// As the header wants it: a string in double quotes.
    fn header(&self) -> Result<HeaderValue> {
        HeaderValue::try_from(format!("\"{}\"", self.0)).map_err(Error::middleware)
    }
}

impl fmt::Debug for IdempotencyKey {
    /// Keys stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdempotencyKey")
    }
}

/// Gives each POST and PATCH a key, and sends it again, with that key, until something is known.
#[derive(Clone)]
pub(crate) struct IdempotencyKeys {
    max_tries: u32,
    first_pause: Duration,
    longest_pause: Duration,
    pause: Pause,
}

type Pause = Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>;

impl IdempotencyKeys {
    pub(crate) fn new() -> Self {
        Self {
            max_tries: 8,
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(30),
            pause: Arc::new(|delay| Box::pin(tokio::time::sleep(delay))),
        }
    }

    /// The pause after the first try; it doubles from there.
    pub(crate) const fn first_pause(mut self, pause: Duration) -> Self {
        self.first_pause = pause;
        self
    }

    /// Pauses by `pause`.
    #[cfg(test)]
    pub(crate) fn pause_by(
        mut self,
        pause: impl Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        self.pause = Arc::new(pause);
        self
    }

    /// How long to wait after the try of this number.
    fn pause_after(&self, tries: u32, answer: &Result<Response>) -> Result<Duration> {
        if let Some(seconds) = answer.as_ref().ok().and_then(retry_after) {
            return Ok(Duration::from_secs(seconds).min(self.longest_pause));
        }
        let pause = self.first_pause.saturating_mul(1 << tries.min(16)).min(self.longest_pause);
        // Half of it at random: those who were turned away together do not come back together.
        let mut random = [0; 1];
        getrandom::fill(&mut random).map_err(Error::middleware)?;
        Ok(pause / 2 + pause * u32::from(random[0]) / 512)
    }
}

#[async_trait]
impl Middleware for IdempotencyKeys {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut http::Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        if !matches!(*request.method(), Method::POST | Method::PATCH) {
            return next.run(request, extensions).await;
        }
        if !request.headers().contains_key(HEADER) {
            let key = match extensions.get::<IdempotencyKey>() {
                Some(kept) => kept.clone(),
                // Good for this call and its retries. One that is to outlive the program has to be kept.
                None => IdempotencyKey::mint().map_err(Error::middleware)?,
            };
            request.headers_mut().insert(HEADER, key.header()?);
        }
        let mut tries = 0;
        loop {
            let Some(copy) = request.try_clone() else {
                return Err(Error::middleware(Unrepeatable));
            };
            let answer = next.clone().run(copy, extensions).await;
            tries += 1;
            if !may_retry(&answer) || tries == self.max_tries {
                return answer;
            }
            let pause = self.pause_after(tries, &answer)?;
            (self.pause)(pause).await;
        }
    }
}

/// Whether sending the same again, with the same key, can lead to an answer.
fn may_retry(answer: &Result<Response>) -> bool {
    match answer {
        Ok(response) => match response.status() {
            StatusCode::CONFLICT => response.headers().contains_key(RETRY_AFTER),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                true
            }
            status => status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED,
        },
        // Whether the server got it is not known, and need not be.
        Err(Error::Reqwest(error)) => !error.is_builder() && !error.is_redirect(),
        Err(_) => false,
    }
}

/// In seconds. A date, which is allowed as well, depends on two clocks; the growing pause is as good.
fn retry_after(response: &Response) -> Option<u64> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

/// The body is a stream, of which there is no second copy.
#[derive(Debug)]
struct Unrepeatable;

impl fmt::Display for Unrepeatable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body is a stream and cannot be sent again; send bytes")
    }
}

impl std::error::Error for Unrepeatable {}
