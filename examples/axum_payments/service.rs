//! The service: what a user of oncekey writes.
//!
//! Its effect is a row in the SQLite file that also holds the keys, so it can be made exactly once: the
//! handler books in one transaction with a key of its own, made of the key of the request. Whatever dies
//! after the commit, the next attempt finds what was booked, and books nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use metrics::counter;
use oncekey::{Attempt, Fingerprint, Idempotency, Key, KeyError, RunError, Scope};
use oncekey_sqlite::{SqliteStore, rusqlite};
use oncekey_tower::oncekey_http::Knowledge;
use oncekey_tower::{IdempotencyLayer, Principal};
use serde_json::json;

use crate::books::{self, Order, Receipt};
use crate::log::Fate;
use crate::pace::Pace;
use crate::prometheus::Prometheus;
use crate::trouble;

pub(crate) struct Service {
    pub(crate) store: SqliteStore,
    /// For the transactions. What it records commits with them or not at all, so it may run again.
    pub(crate) transactions: Idempotency,
    pub(crate) pace: Pace,
}

/// Who asks; put into the request by [`authenticate`].
#[derive(Clone)]
struct Account(String);

/// The layer, which goes inside of the one that authenticates.
pub(crate) fn idempotency_layer(idempotency: Idempotency) -> IdempotencyLayer {
    // By account, never by token: tokens rotate.
    let principal = Principal::from_extension(|account: &Account| account.0.clone());
    IdempotencyLayer::new(idempotency, principal)
        .with_operation("payments")
        .with_required_key(true)
        .with_max_request_body(64 << 10)
        .on_problem(|operation, problem| {
            let (operation, kind) = (operation.to_owned(), problem.kind().slug());
            counter!("idempotency_problems_total", "operation" => operation, "kind" => kind)
                .increment(1);
        })
}

pub(crate) fn router(
    service: Arc<Service>,
    layer: Option<IdempotencyLayer>,
    metrics: Prometheus,
) -> Router {
    let mut payments = Router::new().route("/payments", post(pay));
    if let Some(layer) = layer {
        payments = payments.layer(layer);
    }
    let metrics = async move || metrics.render();
    payments
        .layer(middleware::from_fn(authenticate))
        .route("/metrics", get(metrics))
        .with_state(service)
}

/// Stands for checking a token: what is after `Bearer` is the account.
async fn authenticate(mut request: Request, next: Next) -> Response {
    let token = request.headers().get(header::AUTHORIZATION).and_then(|it| it.to_str().ok());
    let Some(account) = token.and_then(|it| it.strip_prefix("Bearer ")) else {
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")]).into_response();
    };
    let account = Account(account.to_owned());
    request.extensions_mut().insert(account);
    next.run(request).await
}

async fn pay(
    State(service): State<Arc<Service>>,
    Extension(Account(account)): Extension<Account>,
    attempt: Option<Extension<Attempt>>,
    headers: HeaderMap,
    Json(order): Json<Order>,
) -> Response {
    // Only here to make trouble. A service has nothing like it.
    let fate = trouble::fate(&headers);
    trouble::before(fate, service.pace, &order).await;
    match fate {
        Fate::Declined => {
            // An answer, and final: duplicates get the same, and the card is not tried again.
            let declined = Json(json!({ "declined": "insufficient funds" }));
            return (StatusCode::PAYMENT_REQUIRED, declined).into_response();
        }
        Fate::Refused => {
            // It is known that nothing was done, so the key is free for the next try.
            let closed = (StatusCode::SERVICE_UNAVAILABLE, "closed for a moment");
            return (Extension(Knowledge::NotStarted), closed).into_response();
        }
        // Whoever does not say what it knows, knows nothing: unknown.
        Fate::CallLost => return StatusCode::GATEWAY_TIMEOUT.into_response(),
        _ => {}
    }
    let booked = service.book(account, order, attempt.map(|Extension(attempt)| attempt)).await;
    trouble::after(fate);
    match (booked, fate) {
        (Ok(_), Fate::ReplyLost) => StatusCode::GATEWAY_TIMEOUT.into_response(),
        (Ok(receipt), _) => (StatusCode::CREATED, Json(receipt)).into_response(),
        (Err(_), _) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl Service {
    async fn book(
        &self,
        account: String,
        order: Order,
        attempt: Option<Attempt>,
    ) -> Result<Receipt, RunError<rusqlite::Error>> {
        let book = move |transaction: &rusqlite::Transaction<'_>| {
            books::book(transaction, &account, &order)
        };
        let (key, fingerprint) =
            transaction_key(attempt.as_ref()).map_err(|_| RunError::Mismatch)?;
        // The movement and the record of it commit together, or not at all.
        let run = self.store.run_in_transaction(&self.transactions, &key, &fingerprint, book);
        run.await.map(oncekey::Outcome::into_value)
    }
}

/// The key of the transaction within a request: the same in every attempt at it.
fn transaction_key(attempt: Option<&Attempt>) -> Result<(Key, Fingerprint), KeyError> {
    let scope = Scope::new("this service", "payment transactions")?;
    let key = match attempt {
        Some(attempt) => Key::new(&scope, attempt.key().child("transaction").as_str())?,
        // `--without`: no key, and so nothing by which a second request would be recognised.
        None => Key::new(&scope, UNKEYED.fetch_add(1, Ordering::Relaxed).to_string())?,
    };
    // The layer has compared the content already.
    Ok((key, Fingerprint::of("")))
}

static UNKEYED: AtomicU64 = AtomicU64::new(0);
