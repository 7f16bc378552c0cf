//! Plays the log: one task a request, each a client that asks until it is answered.

use std::collections::HashMap;
use std::sync::Arc;

use oncekey::operate::Completions;
use oncekey::store::StoreError;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::journal::{Entry, Journal};
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
    /// The numbers of receipts that are on record for clients who left.
    pub(crate) unclaimed: Vec<u64>,
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

/// What came of the request with this place in the log, as it is written in the journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ended {
    place: usize,
    end: End,
    tries: u64,
    crashes: u64,
    hang_ups: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    Answer(Answer),
    Mismatch,
    /// The client left, and does not know.
    Left,
    /// It asked, and asked, and was never answered.
    NoAnswer,
}

/// Plays all `requests` at their times, then lets the dust settle: late calls arrive, leases of those
/// who never came back lapse, and what they left is finished. Clients who were answered in an earlier
/// life of the service are content; those whose requests died with it ask again.
pub(crate) async fn play(
    service: &Service,
    requests: &[Arc<Request>],
    pace: Pace,
    progress: &Arc<Progress>,
    journal: &Arc<Journal>,
) -> Result<Played, StoreError> {
    let mut ended = ended_before(journal);
    let mut endings = Vec::with_capacity(requests.len());
    let mut clients = JoinSet::new();
    for (place, request) in requests.iter().enumerate() {
        let request = Arc::clone(request);
        if let Some(Ended { end, tries, crashes, hang_ups, .. }) = ended.remove(&place) {
            endings.push(Ending { request, end, tries, crashes, hang_ups });
            continue;
        }
        let due = journal.due(request.at);
        let was_killed = journal.kills() > 0 && request.at <= journal.resumed_at();
        let (service, progress) = (service.clone(), Arc::clone(progress));
        let journal = Arc::clone(journal);
        clients.spawn(async move {
            tokio::time::sleep_until(due.into()).await;
            let ending = ask_until_answered(&service, request, pace, was_killed).await;
            let Ending { tries, crashes, hang_ups, .. } = ending;
            let end = ending.end.clone();
            journal.write(Entry::Ended(Ended { place, end, tries, crashes, hang_ups }));
            progress.one_more();
            ending
        });
    }
    endings.extend(clients.join_all().await);
    pace.pass(LATE + RETRY).await;
    let completions = service.finish_interrupted().await?;
    let mut unclaimed = Vec::new();
    for ending in endings.iter().filter(|it| it.end == End::Left) {
        if let Some(Ok(receipt)) = service.recorded(&ending.request).await? {
            unclaimed.push(receipt.number);
        }
    }
    Ok(Played { endings, completions, unclaimed })
}

fn ended_before(journal: &Journal) -> HashMap<usize, Ended> {
    let ended = journal.past().iter().filter_map(|entry| match entry {
        Entry::Ended(ended) => Some((ended.place, ended.clone())),
        _ => None,
    });
    ended.collect()
}

async fn ask_until_answered(
    service: &Service,
    request: Arc<Request>,
    pace: Pace,
    was_killed: bool,
) -> Ending {
    let mut fate = request.fate;
    let mut ending = Ending { end: End::NoAnswer, tries: 0, crashes: 0, hang_ups: 0, request };
    if was_killed {
        (ending.tries, ending.crashes) = (1, 1);
        fate = fate.next_try();
    }
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
