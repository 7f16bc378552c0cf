//! The clients: one task a request, each asking over a real socket until it is answered, or giving up.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Client, Response, StatusCode, header};
use tokio::task::JoinSet;

use crate::books::{self, Order, Receipt};
use crate::log::{Fate, Request};
use crate::pace::Pace;
use crate::trouble::FATE;

/// How long a client waits before it asks again, in milliseconds of the log.
const RETRY: u64 = 5_000;
/// When an impatient client hangs up: in the middle of most charges.
const HANG_UP: u64 = 700;
/// A client that has asked this often has found a fault, and reports it.
const MAX_TRIES: u32 = 100;

/// What came of one request of the log.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) request: Arc<Request>,
    pub(crate) end: End,
    pub(crate) replayed: bool,
    pub(crate) tries: u64,
    pub(crate) hang_ups: u64,
    /// Connections that broke, and answers that say to try again.
    pub(crate) refusals: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Receipt(Receipt),
    Declined,
    Mismatch,
    /// The client left, and does not know.
    Left,
    /// It asked, and asked, and was never answered.
    NoAnswer,
}

/// Plays all `requests` at their times.
pub(crate) async fn play(
    server: SocketAddr,
    requests: &[Arc<Request>],
    pace: Pace,
) -> Result<Vec<Ending>, Box<dyn Error>> {
    let client = Client::builder().build()?;
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for request in requests {
        let due = start + pace.real(request.at);
        let (client, request) = (client.clone(), Arc::clone(request));
        clients.spawn(async move {
            tokio::time::sleep_until(due.into()).await;
            ask_until_answered(&client, server, request, pace).await
        });
    }
    Ok(clients.join_all().await)
}

async fn ask_until_answered(
    client: &Client,
    server: SocketAddr,
    request: Arc<Request>,
    pace: Pace,
) -> Ending {
    let mut fate = request.fate;
    let mut ending =
        Ending { request, end: End::NoAnswer, replayed: false, tries: 0, hang_ups: 0, refusals: 0 };
    for _ in 0..MAX_TRIES {
        ending.tries += 1;
        let asking = ask(client, server, &ending.request, fate);
        let patience = if matches!(fate, Fate::HangUp | Fate::Gone) {
            pace.real(HANG_UP)
        } else {
            Duration::MAX
        };
        // Dropping a request closes its connection.
        let mut pause = pace.real(RETRY);
        match tokio::time::timeout(patience, asking).await {
            Ok(Reply::End(end, replayed)) => {
                ending.end = end;
                ending.replayed = replayed;
                return ending;
            }
            Ok(Reply::TryAgain(after)) => {
                ending.refusals += 1;
                pause = after.unwrap_or(pause);
            }
            Err(_) => {
                ending.hang_ups += 1;
                if fate == Fate::Gone {
                    ending.end = End::Left;
                    return ending;
                }
            }
        }
        fate = fate.next_try();
        tokio::time::sleep(pause).await;
    }
    ending
}

enum Reply {
    End(End, bool),
    TryAgain(Option<Duration>),
}

/// One try. The key is the same in all of them: the order, and what is to be done about it.
async fn ask(client: &Client, server: SocketAddr, request: &Request, fate: Fate) -> Reply {
    let order = Order {
        order: request.order.clone(),
        operation: request.operation,
        amount: request.amount,
        currency: request.currency.clone(),
    };
    let key = format!("\"{} {}\"", books::name(request.operation), request.order);
    let sent = client
        .post(format!("http://{server}/payments"))
        .bearer_auth(&request.account)
        .header("Idempotency-Key", key)
        .header(FATE, serde_json::to_string(&fate).unwrap_or_default())
        .json(&order)
        .send()
        .await;
    match sent {
        Ok(response) => understand(response).await,
        Err(_) => Reply::TryAgain(None),
    }
}

async fn understand(response: Response) -> Reply {
    let replayed = response.headers().contains_key("idempotent-replayed");
    match response.status() {
        StatusCode::CREATED => match response.json().await {
            Ok(receipt) => Reply::End(End::Receipt(receipt), replayed),
            Err(_) => Reply::TryAgain(None),
        },
        StatusCode::PAYMENT_REQUIRED => Reply::End(End::Declined, replayed),
        StatusCode::UNPROCESSABLE_ENTITY => Reply::End(End::Mismatch, replayed),
        _ => {
            let after = response.headers().get(header::RETRY_AFTER);
            let seconds = after.and_then(|it| it.to_str().ok()?.parse().ok());
            Reply::TryAgain(seconds.map(Duration::from_secs))
        }
    }
}
