//! The service: what a user of oncekey writes.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::AUTHORIZATION;
use oncekey::{Attempt, Idempotency};
use oncekey_memory::MemoryStore;
use oncekey_tower::{IdempotencyLayer, Principal};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::wire::{Charge, Order, PaymentsServer, Receipt};

/// Counts what it charges.
#[derive(Debug, Clone, Default)]
pub(crate) struct Payments {
    charges: Arc<AtomicU64>,
}

impl Payments {
    pub(crate) fn charges(&self) -> u64 {
        self.charges.load(Ordering::SeqCst)
    }
}

#[tonic::async_trait]
impl Charge for Payments {
    async fn charge(&self, request: Request<Order>) -> Result<Response<Receipt>, Status> {
        let attempt = request.extensions().get::<Attempt>();
        let number = attempt.map_or(0, Attempt::number);
        let order = request.into_inner();
        if order.amount == 0 {
            // An answer, and final.
            return Err(Status::failed_precondition("there is nothing to charge"));
        }
        // Long enough for others to meet it.
        tokio::time::sleep(Duration::from_millis(50)).await;
        if order.order == "closed" && number == 1 {
            // Unknown: a retry is what the constructor of the engine says.
            return Err(Status::unavailable("the processor is closed"));
        }
        let receipt = self.charges.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Response::new(Receipt { receipt, amount: order.amount }))
    }
}

/// Serves on a port of its own, for as long as the runtime lives.
pub(crate) async fn start(payments: &Payments) -> Result<SocketAddr, Box<dyn Error>> {
    let idempotency =
        Idempotency::at_least_once(MemoryStore::new()).wait_for_duplicate(Duration::from_secs(5));
    // Stands for what authenticates: in a service, a layer outside puts the account into the extensions.
    let principal = Principal::from_fn(|request| {
        let token = request.headers.get(AUTHORIZATION)?.as_bytes();
        token.strip_prefix(b"Bearer ").map(<[u8]>::to_vec)
    });
    let layer = IdempotencyLayer::new(idempotency, principal)
        .with_grpc()
        .with_operation("payments")
        .with_required_key(true);
    // A service that is set up wrongly does not start.
    layer.validate()?;

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let server = Server::builder()
        .layer(layer)
        .add_service(PaymentsServer::new(payments.clone()))
        .serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(server);
    Ok(address)
}
