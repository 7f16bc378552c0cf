//! A shop that counts what it charges.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::AUTHORIZATION;
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, Error, HttpMessage, HttpResponse, HttpServer, Route, web};
use oncekey::Idempotency;
use oncekey_memory::MemoryStore;

use crate::keep::{Account, keep};

#[derive(Debug, Clone, Default)]
pub(crate) struct Shop {
    charges: Arc<AtomicUsize>,
}

impl Shop {
    /// Charges, and returns the number of the receipt.
    pub(crate) fn charge(&self) -> usize {
        self.charges.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn charges(&self) -> usize {
        self.charges.load(Ordering::SeqCst)
    }
}

async fn pay(shop: web::Data<Shop>, order: String) -> HttpResponse {
    if order.is_empty() {
        return HttpResponse::PaymentRequired().body("nothing to charge");
    }
    // Long enough for others to meet it.
    actix_web::rt::time::sleep(Duration::from_millis(50)).await;
    let receipt = shop.charge();
    HttpResponse::Created()
        .insert_header(("Set-Cookie", "session=secret"))
        .insert_header(("Location", format!("/payments/{receipt}")))
        .body(format!("receipt {receipt} for {order}"))
}

/// Stands for checking a token: what is after `Bearer` is the account.
async fn authenticate(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let token = request.headers().get(AUTHORIZATION).and_then(|it| it.to_str().ok());
    if let Some(account) = token.and_then(|it| it.strip_prefix("Bearer ")) {
        let account = Account(account.to_owned());
        request.extensions_mut().insert(account);
    }
    next.call(request).await
}

/// Serves on a port of its own, for as long as the runtime lives.
pub(crate) fn start(shop: &Shop) -> io::Result<String> {
    serve(shop, || web::post().to(pay))
}

/// The same, of any handler.
pub(crate) fn serve(
    shop: &Shop,
    handler: impl Fn() -> Route + Clone + Send + 'static,
) -> io::Result<String> {
    let engine = Idempotency::at_most_once(MemoryStore::new())
        .wait_for_duplicate(Duration::from_secs(5))
        .named("payments");
    let (engine, shop) = (web::Data::new(engine), web::Data::new(shop.clone()));
    let app = move || {
        // The last `wrap` is the outermost.
        let payments = web::resource("/payments")
            .route(handler())
            .wrap(from_fn(keep))
            .wrap(from_fn(authenticate));
        App::new().app_data(engine.clone()).app_data(shop.clone()).service(payments)
    };
    let server = HttpServer::new(app).workers(2).bind(("127.0.0.1", 0))?;
    let url = format!("http://{}/payments", server.addrs()[0]);
    actix_web::rt::spawn(server.disable_signals().run());
    Ok(url)
}
