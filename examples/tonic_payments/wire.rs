//! What a compiler of Protocol Buffers would generate, by hand and with JSON for messages, so that this
//! example needs no compiler. Nothing here knows of oncekey.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, StdError};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

const CHARGE: &str = "/payments.Payments/Charge";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) order: String,
    pub(crate) amount: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Receipt {
    pub(crate) receipt: u64,
    pub(crate) amount: u64,
}

/// The service, as its implementation sees it.
#[tonic::async_trait]
pub(crate) trait Charge: Send + Sync + 'static {
    async fn charge(&self, request: Request<Order>) -> Result<Response<Receipt>, Status>;
}

/// The service, as the server sees it.
#[derive(Debug)]
pub(crate) struct PaymentsServer<T> {
    inner: Arc<T>,
}

impl<T> PaymentsServer<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner: Arc::new(inner) }
    }
}

impl<T> Clone for PaymentsServer<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T> NamedService for PaymentsServer<T> {
    const NAME: &'static str = "payments.Payments";
}

impl<T: Charge> UnaryService<Order> for PaymentsServer<T> {
    type Response = Receipt;
    type Future = BoxFuture<Response<Receipt>, Status>;

    fn call(&mut self, request: Request<Order>) -> Self::Future {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { inner.charge(request).await })
    }
}

impl<T, B> Service<http::Request<B>> for PaymentsServer<T>
where
    T: Charge,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != CHARGE {
            let unknown: Ready<_> = ready(Ok(Status::unimplemented("no such method").into_http()));
            return Box::pin(unknown);
        }
        let service = self.clone();
        Box::pin(async move {
            let codec = Json::<Receipt, Order>(PhantomData);
            Ok(tonic::server::Grpc::new(codec).unary(service, request).await)
        })
    }
}

/// A client of one account.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    channel: Channel,
    account: &'static str,
}

impl Client {
    pub(crate) async fn connect(
        server: SocketAddr,
        account: &'static str,
    ) -> Result<Self, tonic::transport::Error> {
        let channel = Endpoint::from_shared(format!("http://{server}"))?.connect().await?;
        Ok(Self { channel, account })
    }

    /// The receipt, and whether it is a replay.
    pub(crate) async fn charge(
        &mut self,
        key: &str,
        order: Order,
    ) -> Result<(Receipt, bool), Status> {
        let mut request = Request::new(order);
        let metadata = request.metadata_mut();
        let invalid = |_| Status::invalid_argument("no metadata");
        metadata
            .insert("authorization", format!("Bearer {}", self.account).parse().map_err(invalid)?);
        metadata.insert("idempotency-key", format!("\"{key}\"").parse().map_err(invalid)?);
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        let ready = grpc.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = Json::<Order, Receipt>(PhantomData);
        let response = grpc.unary(request, PathAndQuery::from_static(CHARGE), codec).await?;
        let replayed = response.metadata().contains_key("idempotent-replayed");
        Ok((response.into_inner(), replayed))
    }
}

/// Messages as JSON.
#[derive(Debug)]
struct Json<E, D>(PhantomData<fn() -> (E, D)>);

impl<E, D> Codec for Json<E, D>
where
    E: Serialize + Send + 'static,
    D: DeserializeOwned + Send + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self(PhantomData)
    }

    fn decoder(&mut self) -> Self {
        Self(PhantomData)
    }
}

impl<E: Serialize, D> Encoder for Json<E, D> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, item: E, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let internal = |error: serde_json::Error| Status::internal(error.to_string());
        serde_json::to_writer(into.writer(), &item).map_err(internal)
    }
}

impl<E, D: DeserializeOwned> Decoder for Json<E, D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        let invalid = |error: serde_json::Error| Status::invalid_argument(error.to_string());
        serde_json::from_reader(from.reader()).map(Some).map_err(invalid)
    }
}
