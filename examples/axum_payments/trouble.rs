//! What goes wrong in this pretend world. Clients say in a header what fate the log has for a request;
//! nothing here is needed in a service.

use std::panic::resume_unwind;

use axum::http::{HeaderMap, HeaderName};

use crate::books::Order;
use crate::log::Fate;
use crate::pace::Pace;

/// Carries the fate of a request. Not part of what is asked for: a retry may have another one.
pub(crate) const FATE: HeaderName = HeaderName::from_static("x-fate");

/// What a slow request takes, in milliseconds of the log: longer than a duplicate waits.
const SLOW: u64 = 45_000;

pub(crate) fn fate(headers: &HeaderMap) -> Fate {
    let fate = headers.get(FATE).and_then(|value| value.to_str().ok());
    fate.and_then(|it| serde_json::from_str(it).ok()).unwrap_or_default()
}

/// What happens before the money is moved: it takes its time, or the worker dies.
pub(crate) async fn before(fate: Fate, pace: Pace, order: &Order) {
    let latency = match fate {
        Fate::Slow => SLOW,
        _ => 400 + order.amount % 1_600,
    };
    pace.pass(latency).await;
    if fate == Fate::CrashBefore {
        die();
    }
}

/// What happens when the money was moved.
pub(crate) fn after(fate: Fate) {
    if matches!(fate, Fate::CrashAfter | Fate::CrashBetween | Fate::CrashOnTheWay) {
        die();
    }
}

/// A panic, without the words on the terminal.
fn die() {
    resume_unwind(Box::new("the worker dies here"));
}
