//! A shop that counts what it charges.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use oncekey::Idempotency;
use oncekey_memory::MemoryStore;
use oncekey_tower::{IdempotencyLayer, Principal};
use tokio::net::TcpListener;

pub(crate) struct Shop {
    pub(crate) address: SocketAddr,
    charges: Arc<AtomicUsize>,
}

impl Shop {
    pub(crate) async fn open() -> Result<Self, Box<dyn Error>> {
        let idempotency = Idempotency::at_most_once(MemoryStore::new())
            .wait_for_duplicate(Duration::from_secs(5));
        let layer =
            IdempotencyLayer::new(idempotency, Principal::single_tenant()).with_required_key(true);
        let charges = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&charges);
        let pay = async move |order: String| {
            let receipt = counted.fetch_add(1, Ordering::SeqCst) + 1;
            (StatusCode::CREATED, format!("receipt {receipt} for {order}"))
        };
        let router = Router::new().route("/payments", post(pay)).layer(layer);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, charges })
    }

    pub(crate) fn charges(&self) -> usize {
        self.charges.load(Ordering::SeqCst)
    }
}
