//! Plays the log: one task a request, each a client that asks until it is answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use oncekey::operate::Completions;
use oncekey::store::StoreError;
use tokio::task::JoinSet;

use crate::log::{Fate, Request};
use crate::pace::Pace;
use crate::processor::Answer;
use crate::progress::Progress;
use crate::service::{Reply, Service};
use crate::worker::{LATE, Worker};

/// How long a client waits before it asks again, in milliseconds of the log.
const RETRY: u64 = 5_000;
/// When an impatient client hangs up: in the middle of most charges.
const HANG_UP: u64 = 700;
/// A client that has asked this often has found a fault, and reports it.
const MAX_TRIES: u32 = 100;

/// What came of a play.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) endings: Vec<Ending>,
    pub(crate) completions: Completions,
    pub(crate) took: Duration,
}

/// What came of one request of the log.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) request: Arc<Request>,
    pub(crate) end: End,
    pub(crate) tries: u64,
    pub(crate) crashes: u64,
    pub(crate) hang_ups: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Answer(Answer),
    Mismatch,
    /// The client left, and does not know.
    Left,
    /// It asked, and asked, and was never answered.
    NoAnswer,
}

/// Plays all `requests` at their times, then lets the dust settle: late calls arrive, leases of those
/// who never came back lapse, and what they left is finished.
pub(crate) async fn play(
    service: &Service,
    requests: &[Arc<Request>],
    pace: Pace,
    progress: &Arc<Progress>,
) -> Result<Played, StoreError> {
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for request in requests {
        let due = start + pace.real(request.at);
        let (service, request) = (service.clone(), Arc::clone(request));
        let progress = Arc::clone(progress);
        clients.spawn(async move {
            tokio::time::sleep_until(due.into()).await;
            let ending = ask_until_answered(&service, request, pace).await;
            progress.one_more();
            ending
        });
    }
    let endings = clients.join_all().await;
    pace.pass(LATE + RETRY).await;
    let completions = service.finish_interrupted().await?;
    Ok(Played { endings, completions, took: start.elapsed() })
}

async fn ask_until_answered(service: &Service, request: Arc<Request>, pace: Pace) -> Ending {
    let mut ending = Ending { end: End::NoAnswer, tries: 0, crashes: 0, hang_ups: 0, request };
    let mut fate = ending.request.fate;
    for _ in 0..MAX_TRIES {
        ending.tries += 1;
        let worker = Worker::new(&service.processor, pace, fate);
        let hangs_up = matches!(fate, Fate::HangUp | Fate::Gone);
        // Whichever comes first drops the others: the request stops where it is.
        let reply = tokio::select! {
            reply = service.handle(&ending.request, &worker) => Some(reply),
            () = worker.dead() => {
                ending.crashes += 1;
                None
            }
            () = pace.pass(HANG_UP), if hangs_up => {
                ending.hang_ups += 1;
                None
            }
        };
        let mut pause = pace.real(RETRY);
        match reply {
            Some(Reply::Answer(answer)) => {
                ending.end = End::Answer(answer);
                break;
            }
            Some(Reply::Mismatch) => {
                ending.end = End::Mismatch;
                break;
            }
            Some(Reply::TryAgain(after)) => pause = after.unwrap_or(pause),
            None if fate == Fate::Gone => {
                ending.end = End::Left;
                break;
            }
            None => {}
        }
        fate = fate.next_try();
        tokio::time::sleep(pause).await;
    }
    ending
}
