//! The layer, and how it is set up: [`IdempotencyLayer`].

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, request, response};
use oncekey::store::StoreError;
use oncekey::{FingerprintBuilder, Idempotency};
use oncekey_http::{
    DEFAULT_TYPE_BASE, IDEMPOTENT_REPLAYED, KeptHeaders, KeyHeader, Knowledge, Problem,
    RequestFingerprint,
};
use tower_layer::Layer;

use crate::config::Config;
use crate::executor::{Executor, on_tokio};
use crate::in_flight::InFlight;
use crate::principal::Principal;
use crate::service::IdempotencyService;

/// Makes the requests of a service safe to retry, by their idempotency keys.
///
/// | method | default | |
/// |---|---|---|
/// | [`with_operation`](Self::with_operation) | `http` | a namespace of keys, and the label of metrics unless the engine has a [name](Idempotency::named) |
/// | [`with_methods`](Self::with_methods) | POST, PATCH | which requests may have a key |
/// | [`with_required_key`](Self::with_required_key) | optional | whether one without a key is refused |
/// | [`with_key_header`](Self::with_key_header) | `Idempotency-Key`, lenient, 255 bytes | where the key is |
/// | [`with_max_request_body`](Self::with_max_request_body) | 1 MiB | more is refused with 413 |
/// | [`with_max_response_body`](Self::with_max_response_body) | 1 MiB | more is passed on and not kept |
/// | [`with_request_body_timeout`](Self::with_request_body_timeout) | 60 s | a slower one is refused with 408 |
/// | [`with_response_body_timeout`](Self::with_response_body_timeout) | 10 s | a slower one is passed on and not kept |
/// | [`with_max_in_flight`](Self::with_max_in_flight) | 4,096 | more are refused with 503 |
/// | [`with_max_in_flight_per_principal`](Self::with_max_in_flight_per_principal) | no limit | more are refused with 429 |
/// | [`with_kept_headers`](Self::with_kept_headers) | see [`KeptHeaders`] | what a replay has |
/// | [`with_classifier`](Self::with_classifier) | [`Knowledge::by_head`] | what a response means |
/// | [`with_replay_header`](Self::with_replay_header) | `Idempotent-Replayed` | what marks a replay |
/// | [`with_fingerprint`](Self::with_fingerprint) | SHA-256 | how requests are digested |
/// | [`with_grpc`](Self::with_grpc) | HTTP | unary calls of gRPC |
///
/// How long results are kept, what a retry may do after a crash and how long duplicates wait are settings
/// of the [`Idempotency`].
///
/// What would have every request refused is found out by [`validate`](Self::validate), at start.
///
/// Cheap to clone; clones share the requests in flight.
///
/// ```
/// use std::time::Duration;
///
/// use axum::{Extension, Router, routing::post};
/// use oncekey::{Attempt, Idempotency};
/// use oncekey_memory::MemoryStore;
/// use oncekey_tower::{IdempotencyLayer, Principal};
///
/// async fn pay(Extension(attempt): Extension<Attempt>, amount: String) -> String {
///     format!("paid {amount}, and {} is what the processor recognises a retry by",
///         attempt.key().child("charge").as_str())
/// }
///
/// let idempotency = Idempotency::at_least_once(MemoryStore::new())
///     .wait_for_duplicate(Duration::from_secs(5));
/// let layer = IdempotencyLayer::new(idempotency, Principal::single_tenant())
///     .with_operation("payments")
///     .with_required_key(true);
/// layer.validate()?;
/// let router: Router = Router::new().route("/payments", post(pay)).layer(layer);
/// # let _ = router;
/// # Ok::<(), oncekey::store::StoreError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a layer does nothing unless it is put around a service"]
pub struct IdempotencyLayer {
    config: Arc<Config>,
}

impl IdempotencyLayer {
    /// The default of both limits on bodies.
    pub const DEFAULT_MAX_BODY: usize = 1 << 20;
    /// The default of [`with_request_body_timeout`](Self::with_request_body_timeout).
    pub const DEFAULT_REQUEST_BODY_TIMEOUT: Duration = Duration::from_secs(60);
    /// The default of [`with_response_body_timeout`](Self::with_response_body_timeout).
    pub const DEFAULT_RESPONSE_BODY_TIMEOUT: Duration = Duration::from_secs(10);
    /// The default of [`with_max_in_flight`](Self::with_max_in_flight).
    pub const DEFAULT_MAX_IN_FLIGHT: usize = 4_096;

    /// A layer that keeps what `idempotency` runs under keys of whoever `principal` says has sent them.
    ///
    /// The operation is `http`, and so is the label in metrics, unless the engine has a
    /// [name](Idempotency::named) already.
    pub fn new(idempotency: Idempotency, principal: Principal) -> Self {
        let operation: Arc<str> = Arc::from("http");
        let idempotency = match idempotency.name() {
            "" => idempotency.named(Arc::clone(&operation)),
            _ => idempotency,
        };
        let config = Config {
            idempotency,
            principal,
            operation,
            methods: vec![Method::POST, Method::PATCH],
            key_header: KeyHeader::new(),
            key_required: false,
            max_request_body: Self::DEFAULT_MAX_BODY,
            max_response_body: Self::DEFAULT_MAX_BODY,
            request_body_timeout: Self::DEFAULT_REQUEST_BODY_TIMEOUT,
            response_body_timeout: Self::DEFAULT_RESPONSE_BODY_TIMEOUT,
            max_in_flight: Self::DEFAULT_MAX_IN_FLIGHT,
            max_in_flight_each: None,
            in_flight: InFlight::default(),
            kept_headers: KeptHeaders::new(),
            kept_trailers: KeptHeaders::new(),
            replay_header: IDEMPOTENT_REPLAYED,
            fingerprint: RequestFingerprint::new(),
            fingerprint_parts: None,
            classifier: None,
            type_base: Cow::Borrowed(DEFAULT_TYPE_BASE),
            on_problem: None,
            executor: Arc::new(on_tokio),
            grpc: false,
        };
        Self { config: Arc::new(config) }
    }

    /// Names the operation: keys of different operations never meet, and observers of the engine get
    /// the name as their label. 1 to 512 bytes: with another name, [`validate`](Self::validate) fails, and every
    /// request with a key is refused with 500.
    ///
    /// Within one operation, a key that is used for two paths is refused as reused. Give a name to each
    /// route, with a layer for each, where clients may use one key for several.
    pub fn with_operation(self, operation: impl Into<Arc<str>>) -> Self {
        let operation = operation.into();
        self.set(|config| {
            config.idempotency = config.idempotency.clone().named(Arc::clone(&operation));
            config.operation = operation;
        })
    }

    /// Requests of these methods may have a key; all others pass through, whatever they have.
    pub fn with_methods(self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.set(|config| config.methods = methods.into_iter().collect())
    }

    /// Whether a request of these methods that has no key is refused with 400.
    pub fn with_required_key(self, required: bool) -> Self {
        self.set(|config| config.key_required = required)
    }

    /// Reads keys by `header`.
    pub fn with_key_header(self, header: KeyHeader) -> Self {
        self.set(|config| config.key_header = header)
    }

    /// The most bytes that the body of a request with a key may have. It is read before anything runs.
    pub fn with_max_request_body(self, bytes: usize) -> Self {
        self.set(|config| config.max_request_body = bytes)
    }

    /// The most bytes of a response body that are kept. A larger one is passed on as it comes, and
    /// recorded as done; duplicates are told with 410 that it is.
    ///
    /// The [`max_value_len`](Idempotency::max_value_len) of the engine holds besides, for headers and
    /// body together.
    pub fn with_max_response_body(self, bytes: usize) -> Self {
        self.set(|config| config.max_response_body = bytes)
    }

    /// The longest that the whole body of a request with a key may take to arrive, from when it is first
    /// waited for. Nothing has run by then: it is refused with 408.
    ///
    /// Meanwhile it has one of the places of [`with_max_in_flight`](Self::with_max_in_flight), and a
    /// [drain](InFlight::drain) waits for it. Time is that of the [`timer`](Idempotency::timer) of the engine.
    pub fn with_request_body_timeout(self, timeout: Duration) -> Self {
        self.set(|config| config.request_body_timeout = timeout)
    }

    /// The longest that a response body is read before it is given on, from when it is first waited for: all
    /// of it, not the time between two frames.
    ///
    /// One that takes longer, as a stream does that nothing else shows to be one, is passed on: what was
    /// read, and the rest as it comes. It is recorded as done, and duplicates are told with 410 that it
    /// is; in gRPC, where its trailers were to say what it means, its outcome is unknown. Until then,
    /// its client gets nothing of it, the lease is renewed, duplicates meet a request in progress, and a
    /// [drain](InFlight::drain) waits for it.
    ///
    /// Streams of well-known types (`text/event-stream`, `application/x-ndjson`,
    /// `multipart/x-mixed-replace` and their likes) whose length is not known are passed on at once. A handler
    /// that answers with another one spares its client the wait by
    /// [`DoneNotKept`](Knowledge::DoneNotKept), and has one kept that ends by [`Done`](Knowledge::Done).
    pub fn with_response_body_timeout(self, timeout: Duration) -> Self {
        self.set(|config| config.response_body_timeout = timeout)
    }

    /// The most requests with a key that are worked on at once, those that wait for a duplicate and those
    /// whose body is being read included. One more is refused with 503.
    ///
    /// Times the limit of request bodies, it bounds the memory that clients can take up. How many of them
    /// may wait is [`max_waiters`](Idempotency::max_waiters), by default half as many; let it be less here, too,
    /// so that duplicates leave room for others.
    pub fn with_max_in_flight(self, requests: usize) -> Self {
        self.set(|config| config.max_in_flight = requests)
    }

    /// The most of them that one principal may have at once. One more is refused with 429, so that nobody
    /// takes the places of all others.
    pub fn with_max_in_flight_per_principal(self, requests: usize) -> Self {
        self.set(|config| config.max_in_flight_each = Some(requests))
    }

    /// Stores, and replays, these headers.
    pub fn with_kept_headers(self, headers: KeptHeaders) -> Self {
        self.set(|config| config.kept_headers = headers)
    }

    /// Stores, and replays, these trailers. By default those of [`KeptHeaders::new`]; in gRPC, all that are
    /// not forbidden.
    pub fn with_kept_trailers(self, trailers: KeptHeaders) -> Self {
        self.set(|config| config.kept_trailers = trailers)
    }

    /// Marks replays with `name: true`.
    pub fn with_replay_header(self, name: HeaderName) -> Self {
        self.set(|config| config.replay_header = name)
    }

    /// Digests requests by `fingerprint`, for example a [keyed](RequestFingerprint::keyed) one.
    pub fn with_fingerprint(self, fingerprint: RequestFingerprint) -> Self {
        self.set(|config| config.fingerprint = fingerprint)
    }

    /// Adds parts to the fingerprint: what the operation depends on and method, path, query, content type
    /// and body do not show.
    ///
    /// A router that is nested in another one, as by `Router::nest` of axum, sees paths without the part
    /// that was matched outside. Put the layer outside, or add what is missing here.
    /// ```
    /// # use oncekey_tower::IdempotencyLayer;
    /// # fn example(layer: IdempotencyLayer) {
    /// let layer = layer.with_fingerprint_parts(|request, fingerprint| {
    ///     match request.extensions.get::<axum::extract::OriginalUri>() {
    ///         Some(original) => fingerprint.part("original path", original.path()),
    ///         None => fingerprint,
    ///     }
    /// });
    /// # let _ = layer;
    /// # }
    /// ```
    pub fn with_fingerprint_parts(
        self,
        parts: impl Fn(&request::Parts, FingerprintBuilder) -> FingerprintBuilder
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.set(|config| config.fingerprint_parts = Some(Arc::new(parts)))
    }

    /// Says what responses mean that carry no [`Knowledge`] of their own, by their heads. `None` is for the
    /// defaults, which see more: the [documents](oncekey_http::ProblemKind::of_document) of problems that
    /// are passed on, and the trailers of gRPC.
    /// ```
    /// # use oncekey_tower::{IdempotencyLayer, oncekey_http::Knowledge};
    /// # fn example(layer: IdempotencyLayer) {
    /// let layer = layer.with_classifier(|response| match response.status.as_u16() {
    ///     // What the handlers of this service answer before they touch anything, and pass on of nobody.
    ///     401 | 503 => Some(Knowledge::NotStarted),
    ///     _ => None,
    /// });
    /// # let _ = layer;
    /// # }
    /// ```
    pub fn with_classifier(
        self,
        classifier: impl Fn(&response::Parts) -> Option<Knowledge> + Send + Sync + 'static,
    ) -> Self {
        self.set(|config| config.classifier = Some(Arc::new(classifier)))
    }

    /// Begins the `type` of problems with `base`, where the service documents them itself.
    pub fn with_problem_type_base(self, base: impl Into<Cow<'static, str>>) -> Self {
        self.set(|config| config.type_base = base.into())
    }

    /// Tells `observer` of every problem that a client is given, with the label that observers of the engine
    /// get: for metrics by [slug](oncekey_http::ProblemKind::slug).
    pub fn on_problem(self, observer: impl Fn(&str, &Problem) + Send + Sync + 'static) -> Self {
        self.set(|config| config.on_problem = Some(Arc::new(observer)))
    }

    /// Runs what does not answer at once on `executor`, instead of by `tokio::spawn`.
    pub fn with_executor(self, executor: impl Executor + 'static) -> Self {
        self.set(|config| config.executor = Arc::new(executor))
    }

    /// For unary calls of gRPC: problems are status codes, what a response means is in its
    /// `grpc-status`, and its trailers are kept.
    ///
    /// It chooses the [headers](Self::with_kept_headers) and [trailers](Self::with_kept_trailers) that are
    /// kept: call it before you add to them.
    ///
    /// The key is metadata, `idempotency-key`. A call that streams must not have one: the messages of its client
    /// are read to their end before it starts, and those of its server are held back until their end, or until
    /// [`with_response_body_timeout`](Self::with_response_body_timeout) is over and the outcome unknown.
    pub fn with_grpc(self) -> Self {
        self.set(|config| {
            config.grpc = true;
            config.kept_headers = KeptHeaders::grpc();
            config.kept_trailers = KeptHeaders::all_allowed();
        })
    }

    /// Checks the layer and its engine, so that a service can refuse to start instead of refusing, or not
    /// keeping, every request. Call it when all is set.
    ///
    /// # Errors
    /// [`Misconfigured`](oncekey::store::ErrorKind::Misconfigured), saying what is set, what it would do to
    /// requests, and what to set it to: the name of the operation, the methods, a limit of requests in flight, or
    /// what the [engine](Idempotency::validate) refuses.
    /// ```
    /// use oncekey::Idempotency;
    /// use oncekey_memory::MemoryStore;
    /// use oncekey_tower::{IdempotencyLayer, Principal};
    ///
    /// let idempotency = Idempotency::at_least_once(MemoryStore::new());
    /// let layer = IdempotencyLayer::new(idempotency, Principal::single_tenant()).with_operation("");
    /// let error = layer.validate().unwrap_err();
    /// assert!(error.to_string().contains("the name of the operation is empty"));
    /// ```
    pub fn validate(&self) -> Result<(), StoreError> {
        self.config.check()
    }

    /// The requests that this layer and its clones work on, to drain them at shutdown.
    #[must_use]
    pub fn in_flight(&self) -> InFlight {
        self.config.in_flight.clone()
    }

    fn set(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }
}

impl<S> Layer<S> for IdempotencyLayer {
    type Service = IdempotencyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        IdempotencyService::new(inner, Arc::clone(&self.config))
    }
}
