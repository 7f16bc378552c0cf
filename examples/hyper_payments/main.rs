//! No framework: connections of hyper, one function, and the layer between them.
//!
//! Started, it serves on a port of its own, to a client that hangs up in the middle of its charge and one that
//! asks again, stops when all that was begun has ended, and checks that the order was charged once.

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use oncekey::Idempotency;
use oncekey_memory::MemoryStore;
use oncekey_tower::{IdempotencyLayer, Principal, RequestBody};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tower::{Layer, service_fn};

/// Tells when it begins to charge, and counts what it has charged.
#[derive(Debug, Clone, Default)]
struct Till {
    begun: Arc<Notify>,
    charges: Arc<AtomicU64>,
}

/// The handler. The body was read before it is called.
async fn pay(
    till: Till,
    request: Request<RequestBody<Incoming>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let amount = request.into_body().collect().await?.to_bytes();
    till.begun.notify_one();
    // Long enough for others to meet it, and for clients to hang up.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let charge = till.charges.fetch_add(1, Ordering::SeqCst) + 1;
    let receipt = format!("receipt {charge} for {}", String::from_utf8_lossy(&amount));
    Ok(Response::new(Full::from(receipt)))
}

struct Server {
    url: String,
    /// Dropped to stop it.
    stop: oneshot::Sender<Infallible>,
    serving: JoinHandle<()>,
}

async fn start(till: Till) -> Result<Server, Box<dyn Error>> {
    let idempotency =
        Idempotency::at_most_once(MemoryStore::new()).wait_for_duplicate(Duration::from_secs(5));
    // Of a gateway in front, which authenticates and lets no such header through from outside.
    let principal = Principal::from_header(HeaderName::from_static("x-account"));
    let layer = IdempotencyLayer::new(idempotency, principal).with_required_key(true);
    // A service that is set up wrongly does not start.
    layer.validate()?;

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("http://{}/payments", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel();
    Ok(Server { url, stop, serving: tokio::spawn(serve(listener, layer, till, stopped)) })
}

async fn serve(
    listener: TcpListener,
    layer: IdempotencyLayer,
    till: Till,
    mut stopped: oneshot::Receiver<Infallible>,
) {
    let in_flight = layer.in_flight();
    let payments = layer.layer(service_fn(move |request| pay(till.clone(), request)));
    let payments = TowerToHyperService::new(payments);
    let connections = GracefulShutdown::new();
    while let Some(accepted) = tokio::select! {
        accepted = listener.accept() => Some(accepted),
        _ = &mut stopped => None,
    } {
        // One that is gone again is no reason to stop.
        let Ok((stream, _)) = accepted else { continue };
        let connection =
            http1::Builder::new().serve_connection(TokioIo::new(stream), payments.clone());
        tokio::spawn(connections.watch(connection));
    }
    // First those whose clients are there, and then those whose clients have hung up.
    connections.shutdown().await;
    in_flight.drain().await;
}

async fn ask(url: String) -> Result<String, reqwest::Error> {
    let request = reqwest::Client::new().post(url).header("x-account", "oak");
    let response = request.header("idempotency-key", "order-17").body("100 EUR").send().await?;
    let how =
        if response.headers().contains_key("idempotent-replayed") { ", replayed" } else { "" };
    Ok(response.text().await? + how)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let till = Till::default();
    let server = start(till.clone()).await?;
    let hasty = tokio::spawn(ask(server.url.clone()));
    till.begun.notified().await;
    hasty.abort();
    println!("a client hung up in the middle of its charge");
    println!("another asks: {}", ask(server.url.clone()).await?);
    drop(server.stop);
    server.serving.await?;
    let charges = till.charges.load(Ordering::SeqCst);
    println!("1 order, {charges} charge(s)");
    if charges == 1 { Ok(()) } else { Err("somebody was charged twice, or not at all".into()) }
}
