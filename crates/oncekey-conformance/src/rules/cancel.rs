//! Futures that are dropped.

use std::time::Duration;

use futures::future::BoxFuture;
use oncekey::Key;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    Abandon, ClaimOutcome, Fenced, Known, Observed, Record, Settle, Settlement, State, Status,
    StoreError,
};

use crate::history::{Answer, Operation};
use crate::support::{ANSWER, Stepped, Trial, broken, ensure, expect, soon, step};
use crate::{Fixture, Verdict, Violation};

/// Awaits of one call at which it is dropped.
const MOST_POLLS: usize = 32;
/// More than the connections or permits of a pool, all verbs together.
const TIMES: usize = 8;
/// No call waits this long behind one that was dropped.
const PATIENCE: Duration = Duration::from_secs(10);

/// Calls dropped at any await leave no lock, connection or transaction behind.
pub async fn a_dropped_call_leaves_nothing_behind<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let mut dropped = Vec::new();
    for verb in VERBS {
        for drop_at in drops() {
            let mut finished = false;
            for _ in 0..TIMES {
                let case = Case::new(&trial, verb).await?;
                finished = case.is_dropped(&trial, drop_at).await?;
                dropped.push(case);
            }
            if finished {
                break;
            }
        }
    }
    for case in &dropped {
        let next = async {
            case.send(&trial).await?;
            let owner = trial.owner().await?;
            trial.complete(&owner, ANSWER).await
        };
        let Ok(answer) = soon(PATIENCE, Box::pin(next)).await else {
            let required = format_args!("after {:?} was dropped, its handle answers", case.call);
            return broken(required, format_args!("no answer within {PATIENCE:?}"));
        };
        expect("a completion after calls were dropped", answer?, Fenced::Applied)?;
    }
    Ok(())
}

/// A call dropped at any await took place as a whole or not at all, and can be sent again.
pub async fn a_dropped_call_happened_or_did_not<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let other = Trial::new(fixture).await;
    for verb in VERBS {
        for drop_at in drops() {
            let case = Case::new(&trial, verb).await?;
            let finished = case.is_dropped(&trial, drop_at).await?;
            let seen = other.store.get(&case.key).await?;
            case.is_whole(seen.as_ref())?;
            let again = case.send(&other).await?;
            ensure(
                case.is_answered_by(&again),
                format_args!("{:?}, dropped and sent again, is in force", case.call),
                again,
            )?;
            if finished {
                break;
            }
        }
    }
    Ok(())
}

/// A call dropped at any await takes no other call of its handle down with it.
pub async fn a_dropped_call_disturbs_no_other<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for (verb, beside) in VERBS.into_iter().zip(VERBS.into_iter().cycle().skip(1)) {
        for (polls, woken) in drops() {
            let case = Case::new(&trial, verb).await?;
            let other = Case::new(&trial, beside).await?;
            let behind = Case::new(&trial, beside).await?;
            // One that was there before, and one that comes after.
            let before = step(other.send(&trial), 1).await;
            let dropped = step(case.send(&trial), polls).await;
            let after = step(behind.send(&trial), 1).await;
            let finished = match dropped {
                Stepped::Done(answer) => answer.map(|_| true)?,
                Stepped::Paused(mut paused) => {
                    if woken {
                        paused.woken().await;
                    }
                    false
                }
            };
            for (call, case) in [(before, &other), (after, &behind)] {
                let answer = match call {
                    Stepped::Done(answer) => answer,
                    Stepped::Paused(paused) => match soon(PATIENCE, paused.resume()).await {
                        Ok(answer) => answer,
                        Err(_) => {
                            let required = "a call beside one that was dropped is answered";
                            return broken(required, format_args!("not within {PATIENCE:?}"));
                        }
                    },
                };
                let answer = answer?;
                ensure(
                    case.is_answered_by(&answer),
                    format_args!("{:?}, beside a call that was dropped, is in force", case.call),
                    answer,
                )?;
            }
            if finished {
                break;
            }
        }
    }
    Ok(())
}

/// When a call is dropped: after how many polls, and whether it had been woken for the next.
fn drops() -> impl Iterator<Item = (usize, bool)> + Send {
    (1..=MOST_POLLS).flat_map(|polls| [(polls, false), (polls, true)])
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    Claim,
    TakeOver,
    Renew,
    Complete,
    Release,
    GiveUp,
    Settle,
    Evict,
}

const VERBS: [Verb; 8] = [
    Verb::Claim,
    Verb::TakeOver,
    Verb::Renew,
    Verb::Complete,
    Verb::Release,
    Verb::GiveUp,
    Verb::Settle,
    Verb::Evict,
];

/// A call that the rules allow, on a key of its own.
struct Case {
    key: Key,
    call: Operation,
    before: Option<Observed>,
}

impl Case {
    async fn new<F: Fixture>(trial: &Trial<'_, F>, verb: Verb) -> Result<Self, Violation> {
        if let Verb::Claim = verb {
            return Ok(Self {
                key: trial.key(),
                call: Operation::Claim(trial.claim()),
                before: None,
            });
        }
        let long = trial.times.long;
        let owner = match verb {
            Verb::TakeOver | Verb::Settle => trial.key_in(State::GaveUp).await?,
            _ => trial.owner().await?,
        };
        let grant = owner.grant;
        let call = match verb {
            Verb::Claim | Verb::TakeOver => Operation::Claim(trial.claim()),
            Verb::Renew => Operation::renew(grant, 3 * long, Some((1, "half"))),
            Verb::Complete => Operation::complete(grant, trial.completion(ANSWER)),
            Verb::Release => Operation::release(grant, 3 * long),
            Verb::GiveUp => Operation::give_up(grant),
            Verb::Settle => {
                Operation::settle(owner.expected(), Settlement::Done(trial.completion(ANSWER)))
            }
            Verb::Evict => Operation::evict(owner.expected(), true),
        };
        Ok(Self { before: Some(trial.seen(&owner.key).await?), key: owner.key, call })
    }

    fn send<'a, F: Fixture>(
        &'a self,
        trial: &'a Trial<'_, F>,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        Box::pin(self.call.send(&*trial.store, &self.key))
    }

    /// Sends the call and drops it at the given await. Whether it was finished before that.
    async fn is_dropped<F: Fixture>(
        &self,
        trial: &Trial<'_, F>,
        (polls, woken): (usize, bool),
    ) -> Result<bool, Violation> {
        match step(self.send(trial), polls).await {
            Stepped::Done(answer) => Ok(answer.map(|_| true)?),
            Stepped::Paused(mut paused) => {
                if woken {
                    paused.woken().await;
                }
                Ok(false)
            }
        }
    }

    /// The record is as it was, or as the rules make it at some time.
    fn is_whole(&self, seen: Option<&Observed>) -> Verdict {
        let before = self.before.as_ref().map(|observed| &observed.record);
        let after = seen.map(|observed| &observed.record);
        if before == after {
            return Ok(());
        }
        let now = after.map_or_else(Timestamp::default, |record| self.decided_at(record));
        let (_, expected) = self.call.apply(before, now);
        let expected = match (expected, after) {
            // Tokens may come from an earlier estimate of the time.
            (Some(expected), Some(after)) => Some(Record { token: after.token, ..expected }),
            (expected, _) => expected,
        };
        ensure(
            expected.as_ref() == after,
            format_args!(
                "{:?}, dropped, leaves {before:?} or the whole of what it does",
                self.call
            ),
            after,
        )
    }

    /// When the call was decided, if `record` is what came of it.
    fn decided_at(&self, record: &Record) -> Timestamp {
        let ago = |then: Timestamp, duration: Duration| {
            Timestamp::default().saturating_add(
                then.saturating_since(Timestamp::default()).saturating_sub(duration),
            )
        };
        match (&self.call, &record.status) {
            (Operation::Claim(claim), Status::InProgress { deadline }) => {
                ago(*deadline, claim.lease)
            }
            (Operation::Renew(renew), Status::InProgress { deadline }) => {
                ago(*deadline, renew.lease)
            }
            (Operation::Complete(complete), Status::Completed { retained_until, .. }) => {
                ago(*retained_until, complete.completion.retention)
            }
            (
                Operation::Settle(Settle { settlement: Settlement::Done(completion), .. }),
                Status::Completed { retained_until, .. },
            ) => ago(*retained_until, completion.retention),
            (
                Operation::Abandon(Abandon { known: Known::NotStarted { hold }, .. }),
                Status::Released,
            ) => ago(record.forget_at, *hold),
            _ => Timestamp::default(),
        }
    }

    /// The call is in force, by this answer or before it.
    fn is_answered_by(&self, answer: &Answer) -> bool {
        match (&self.call, answer) {
            (Operation::Claim(claim), Answer::Claim(ClaimOutcome::Acquired { grant, .. })) => {
                grant.attempt == claim.attempt
            }
            (Operation::Evict(_), Answer::Fenced(fenced)) => {
                matches!(fenced, Fenced::Applied | Fenced::Gone)
            }
            (_, answer) => *answer == Answer::Fenced(Fenced::Applied),
        }
    }
}
