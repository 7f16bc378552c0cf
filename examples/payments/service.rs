//! The service: what a user of oncekey writes. The rest of this example is the world around it.

use std::sync::Arc;
use std::time::Duration;

use oncekey::observe::Observer;
use oncekey::operate::Completions;
use oncekey::store::{Status, Store, StoreError};
use oncekey::{
    Attempt, Encoded, Failure, Fingerprint, Idempotency, Interruption, Key, Outcome, RunError,
    Verdict, Verify,
};

use crate::ledger::Ledger;
use crate::log::{Fate, Operation, Request};
use crate::pace::Pace;
use crate::processor::{Answer, Processor, Reference, Trouble};
use crate::worker::Worker;

/// In milliseconds of the log. A lease says how soon a crash is noticed; it is renewed while an
/// operation runs, so slow ones may take longer.
const LEASE: u64 = 20_000;
/// How long a duplicate waits for the first request before it is told to come back.
const WAIT: u64 = 15_000;

/// Handles payments. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) processor: Arc<Processor>,
    pub(crate) ledger: Arc<Ledger>,
    /// `None`: every request is taken at face value, to show what then happens.
    idempotency: Option<Idempotency>,
}

/// What a client hears.
#[derive(Debug)]
pub(crate) enum Reply {
    Answer(Answer),
    /// Refused for good: the key belongs to another request.
    Mismatch,
    /// No answer now; try again, after the time given if there is one.
    TryAgain(Option<Duration>),
}

impl Service {
    pub(crate) fn with_oncekey(
        store: Arc<dyn Store>,
        processor: Arc<Processor>,
        ledger: Arc<Ledger>,
        pace: Pace,
        observers: (impl Observer + 'static, impl Observer + 'static),
    ) -> Self {
        // A charge must not be repeated, and the processor can be asked what it did: `verified`.
        let hook = hook(Arc::clone(&processor), Arc::clone(&ledger));
        let idempotency = Idempotency::verified(store, hook)
            .lease(pace.real(LEASE))
            .wait_for_duplicate(pace.real(WAIT))
            .observer(observers.0)
            .observer(observers.1)
            .named("payments");
        Self { processor, ledger, idempotency: Some(idempotency) }
    }

    pub(crate) fn without_oncekey(processor: Arc<Processor>, ledger: Arc<Ledger>) -> Self {
        Self { processor, ledger, idempotency: None }
    }

    /// Answers one request, on `worker`.
    ///
    /// Dropping the future is as good as a crash. A server whose clients hang up spawns the run, so
    /// that it ends in its own time; here it is to be dropped, and nothing may go wrong.
    pub(crate) async fn handle(&self, request: &Arc<Request>, worker: &Worker) -> Reply {
        let Some(idempotency) = &self.idempotency else {
            return self.handle_plainly(request, worker).await;
        };
        let Ok(key) = request.key() else {
            // Checked when the log was read.
            return Reply::Mismatch;
        };
        // Everything that changes what is done, and nothing that changes between honest retries.
        let fingerprint = Fingerprint::builder()
            .part("amount", request.amount.to_be_bytes())
            .part("currency", &request.currency)
            .finish();
        let outcome = idempotency
            .run_classified(&key, &fingerprint, async |attempt: Attempt| match request.operation {
                Operation::Charge => charge(request, worker, &attempt).await,
                Operation::Refund => refund(request, worker, &attempt, &self.ledger).await,
            })
            .await;
        reply(outcome)
    }

    /// Finds out what became of requests whose clients never came back.
    pub(crate) async fn finish_interrupted(&self) -> Result<Completions, StoreError> {
        let Some(idempotency) = &self.idempotency else {
            return Ok(Completions::default());
        };
        let hook = hook(Arc::clone(&self.processor), Arc::clone(&self.ledger));
        // This hook knows both operations.
        let ours = |key: &Key| matches!(key.operation(), Some(b"charge" | b"refund"));
        idempotency.completer("charge", hook).only(ours).complete().await
    }

    /// What is on record for a request whose client never came back, as an operator would look it up.
    pub(crate) async fn recorded(&self, request: &Request) -> Result<Option<Answer>, StoreError> {
        let (Some(idempotency), Ok(key)) = (&self.idempotency, request.key()) else {
            return Ok(None);
        };
        let Some(observed) = idempotency.operator().inspect(&key).await? else {
            return Ok(None);
        };
        let Status::Completed { value, .. } = observed.record.status else { return Ok(None) };
        Ok(value.replay().and_then(|bytes| Encoded::from_bytes(bytes).decode().ok()))
    }

    /// The same two effects, and nothing that remembers them.
    async fn handle_plainly(&self, request: &Arc<Request>, worker: &Worker) -> Reply {
        let Ok(answer) = worker.execute(request, None).await else {
            return Reply::TryAgain(None);
        };
        worker.may_die(Fate::CrashBetween).await;
        if let (Operation::Refund, Ok(receipt), Ok(key)) =
            (request.operation, &answer, request.key())
        {
            self.ledger.enter(key.child("ledger").as_str().to_owned(), receipt);
        }
        Reply::Answer(answer)
    }
}

/// One effect, and it is the processor's: whether it happened, the hook can ask.
async fn charge(
    request: &Arc<Request>,
    worker: &Worker,
    attempt: &Attempt,
) -> Result<Answer, Failure<Trouble>> {
    let reference = reference("charge", attempt);
    // A declined card is an answer too: duplicates get the same refusal, and the card is not tried
    // again.
    worker.execute(request, Some(reference)).await.map_err(classify)
}

/// Two effects: money back, and an entry in the ledger. What the first step returned is saved, so that
/// whoever takes over goes on with the second.
async fn refund(
    request: &Arc<Request>,
    worker: &Worker,
    attempt: &Attempt,
    ledger: &Ledger,
) -> Result<Answer, Failure<Trouble>> {
    let reference = reference("refund", attempt);
    let answer: Answer = attempt
        .step_classified("refund", async || {
            // A worker may have died after the call and before its result was saved. So look first:
            // a step makes repetition rare, its work must make it harmless.
            match worker.find(&reference).await {
                Some(receipt) => Ok(Ok(receipt)),
                None => worker.execute(request, Some(reference.clone())).await.map_err(classify),
            }
        })
        .await?;
    worker.may_die(Fate::CrashBetween).await;
    if let Ok(receipt) = &answer {
        attempt
            .step("ledger", async || {
                ledger.enter(attempt.key().child("ledger").as_str().to_owned(), receipt);
                Ok::<_, Failure<Trouble>>(())
            })
            .await?;
    }
    Ok(answer)
}

/// Under which name the processor is asked now, and by whoever has to find out later.
fn reference(purpose: &str, attempt: &Attempt) -> Reference {
    let name = attempt.key().child(purpose).as_str().to_owned();
    Reference { name, token: attempt.token().get() }
}

/// What is known of the effect decides, not how bad the error looks.
fn classify(trouble: Trouble) -> Failure<Trouble> {
    match trouble {
        Trouble::Refused => Failure::NotStarted(trouble),
        Trouble::TimedOut | Trouble::Outdated => Failure::Unknown(trouble),
    }
}

/// Finds out what an interrupted attempt did, before anything runs again.
fn hook(processor: Arc<Processor>, ledger: Arc<Ledger>) -> impl Verify {
    move |interruption: Interruption| {
        let (processor, ledger) = (Arc::clone(&processor), Arc::clone(&ledger));
        async move {
            let key = interruption.key();
            // The last step of a refund. With it missing, the operation may run: it goes on after the
            // steps that were saved.
            let mut receipt = ledger.find(key.child("ledger").as_str());
            if receipt.is_none() {
                let charge = reference("charge", interruption.attempt());
                receipt = processor.find(&charge).await;
            }
            let Some(receipt) = receipt else {
                return Verdict::NotDone;
            };
            // What the operation would have returned, which is an `Answer`.
            match Encoded::json(&Answer::Ok(receipt)) {
                Ok(answer) => Verdict::Done(answer),
                Err(_) => Verdict::Unknown,
            }
        }
    }
}

fn reply(outcome: Result<Outcome<Answer>, RunError<Trouble>>) -> Reply {
    match outcome {
        Ok(outcome) => Reply::Answer(outcome.into_value()),
        Err(RunError::Mismatch) => Reply::Mismatch,
        // Whatever else it is, a retry with the same key is safe.
        Err(error) => Reply::TryAgain(error.retry_after()),
    }
}
