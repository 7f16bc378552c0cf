//! What can happen to a worker between two lines of its code: [`Worker`] dies where the log says so.
//!
//! Nothing here is needed in a service; it stands for machines that fail.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::log::{Fate, Request};
use crate::pace::Pace;
use crate::processor::{Answer, Processor, Receipt, Reference, Trouble};

/// How long a call that was on the way when its worker died stays there, in milliseconds of the log:
/// longer than a lease, so that somebody else has taken over when it arrives.
pub(crate) const LATE: u64 = 30_000;

/// The worker that handles one request, with its connection to the processor.
#[derive(Clone)]
pub(crate) struct Worker {
    processor: Arc<Processor>,
    pace: Pace,
    fate: Fate,
    death: Arc<Notify>,
}

impl Worker {
    pub(crate) fn new(processor: &Arc<Processor>, pace: Pace, fate: Fate) -> Self {
        Self { processor: Arc::clone(processor), pace, fate, death: Arc::default() }
    }

    /// Returns when the worker has died: whoever waits for it drops all that it was doing.
    pub(crate) async fn dead(&self) {
        self.death.notified().await;
    }

    /// The end of the worker, if it is to die at `moment`.
    pub(crate) async fn may_die(&self, moment: Fate) {
        if self.fate == moment {
            self.death.notify_one();
            pending().await
        }
    }

    /// Calls the processor, which then moves the money, whether or not it did so before.
    pub(crate) async fn execute(
        &self,
        request: &Arc<Request>,
        reference: Option<Reference>,
    ) -> Result<Answer, Trouble> {
        self.may_die(Fate::CrashBefore).await;
        if self.fate == Fate::CrashOnTheWay {
            let (late, request) = (self.clone(), Arc::clone(request));
            // Out of reach of the worker: its death does not stop what is on the wire.
            tokio::spawn(async move {
                late.pace.pass(LATE).await;
                let call = late.processor.execute(&request, reference.as_ref(), Fate::Normal);
                // Nobody is there to hear the answer.
                let _ = call.await;
            });
            self.may_die(Fate::CrashOnTheWay).await;
            return Err(Trouble::TimedOut);
        }
        let answer = self.processor.execute(request, reference.as_ref(), self.fate).await;
        self.may_die(Fate::CrashAfter).await;
        answer
    }

    /// Asks the processor what it did under `reference`.
    pub(crate) async fn find(&self, reference: &Reference) -> Option<Receipt> {
        self.processor.find(reference).await
    }
}
