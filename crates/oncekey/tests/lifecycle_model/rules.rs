//! The rules that a model runs under: those of the core, or those of the core with one cell broken.

use std::time::Duration;

use oncekey::Fingerprint;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    Abandon, AttemptId, Change, Claim, ClaimOutcome, Complete, Evict, Expected, Fenced,
    FencingToken, Known, OnInterrupted, OnRetired, Purge, Record, Renew, Settle, Settlement, State,
    Status, StoredValue, Transition, transition,
};

use super::world::ticks;
use super::wrong::Wrong;

/// The rules of the core, or with one cell broken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules(pub(crate) Option<Wrong>);

impl Rules {
    pub(crate) fn claim(
        self,
        record: Option<&Record>,
        claim: &Claim,
        now: Timestamp,
    ) -> Transition<ClaimOutcome> {
        let right = transition(record, claim, now);
        let (Some(wrong), Some(record)) = (self.0, record) else {
            return right;
        };
        let state = record.state(now);
        let own = record.attempt == claim.attempt;
        let in_progress = matches!(state, State::Live | State::Lapsed);
        if record.fingerprint != claim.fingerprint && state != State::Retired {
            return mismatched(wrong, record, claim, now, right);
        }
        match wrong {
            Wrong::ClaimTakesLive if state == State::Live && !own => {
                transition(Some(&lapsed(record)), claim, now)
            }
            Wrong::ClaimAgainIsBusy if in_progress && own => {
                keep(ClaimOutcome::Busy { retry_after: ticks(1) })
            }
            Wrong::ClaimAgainMintsToken if in_progress && own => {
                transition(Some(&lapsed(&of_another(record))), claim, now)
            }
            Wrong::ClaimAgainWritesNothing if in_progress && own => keep(right.outcome),
            Wrong::ClaimAgainShortens if in_progress && own => edit(right, |next| {
                next.status = Status::InProgress { deadline: now.saturating_add(claim.lease) };
            }),
            Wrong::ReleasedIsNotSpent if state == State::Released && own => {
                transition(Some(&of_another(record)), claim, now)
            }
            Wrong::GaveUpIsNotSpent if state == State::GaveUp && own => {
                transition(Some(&of_another(record)), claim, now)
            }
            Wrong::RetiredIsNotSpent if state == State::Retired && own => {
                transition(Some(&of_another(record)), claim, now)
            }
            Wrong::TakeoverKeepsToken if state == State::Lapsed && !own => {
                with_token(right, record.token)
            }
            Wrong::TakeoverTakesTokenFromClock if state == State::GaveUp && !own => {
                with_token(right, FencingToken::new(now.as_micros()))
            }
            Wrong::ReleasedTakesTokenFromClock if state == State::Released && !own => {
                with_token(right, FencingToken::new(now.as_micros()))
            }
            Wrong::TakeoverStartsCounting if state.is_interrupted() && !own => {
                transition(Some(&Record { number: 0, ..record.clone() }), claim, now)
            }
            Wrong::TakeoverIsNotTold if state.is_interrupted() && !own => {
                transition(Some(&released(record)), claim, now)
            }
            Wrong::TakeoverLosesProgress if state.is_interrupted() && !own => {
                let progress = None;
                transition(Some(&Record { progress, ..record.clone() }), claim, now)
            }
            Wrong::TakeoverIsForgottenEarly if state == State::Lapsed && !own => {
                edit(right, |next| next.forget_at = record.forget_at)
            }
            Wrong::TakeoverIgnoresRefuse => {
                let on_interrupted = OnInterrupted::TakeOver;
                transition(Some(record), &Claim { on_interrupted, ..*claim }, now)
            }
            Wrong::GaveUpIsFree if state == State::GaveUp && !own => {
                transition(Some(&released(record)), claim, now)
            }
            Wrong::ReleasedIsInterrupted if state == State::Released && !own => {
                keep(ClaimOutcome::Interrupted)
            }
            Wrong::LapsedIsBusy if state == State::Lapsed && !own => {
                keep(ClaimOutcome::Busy { retry_after: ticks(1) })
            }
            Wrong::BusyNamesNoTime if state == State::Live && !own => {
                keep(ClaimOutcome::Busy { retry_after: Duration::ZERO })
            }
            Wrong::BusyExtendsTheLease if state == State::Live && !own => {
                let mut next = record.clone();
                next.status = Status::InProgress { deadline: now.saturating_add(claim.lease) };
                put(next, right.outcome)
            }
            Wrong::LeaseLeftIsTooMuch => {
                let mut right = right;
                if let ClaimOutcome::Acquired { lease_left, .. } = &mut right.outcome {
                    *lease_left += ticks(1);
                }
                right
            }
            Wrong::CompletedIsGranted if state == State::Completed => {
                transition(Some(&of_another(&released(record))), claim, now)
            }
            Wrong::RetiredIsReplayed if state == State::Retired => match &record.status {
                Status::Completed { value, .. } => keep(ClaimOutcome::Replay(value.replay())),
                _ => right,
            },
            Wrong::RetiredIsNotTold if state == State::Retired && !own => {
                let on_retired = OnRetired::Forget;
                transition(Some(record), &Claim { on_retired, ..*claim }, now)
            }
            _ => right,
        }
    }

    pub(crate) fn renew(
        self,
        record: Option<&Record>,
        renew: &Renew,
        now: Timestamp,
    ) -> Transition<Fenced> {
        let right = transition(record, renew, now);
        let (Some(wrong), Some(record)) = (self.0, record) else {
            return right;
        };
        let state = record.state(now);
        let own = record.attempt == renew.grant.attempt;
        let revived = || {
            let deadline = now.saturating_add(renew.lease);
            let status = Status::InProgress { deadline };
            put(Record { status, ..record.clone() }, Fenced::Applied)
        };
        match wrong {
            Wrong::RenewByReplaced if !own => {
                let mut renew = renew.clone();
                renew.grant = record.grant();
                transition(Some(record), &renew, now)
            }
            Wrong::RenewByOlderGrant if own => {
                let grant = record.grant();
                transition(Some(record), &Renew { grant, ..renew.clone() }, now)
            }
            Wrong::RenewAfterLapseIsLost if own && state == State::Lapsed => keep(Fenced::Lost),
            Wrong::RenewShortens if own && state == State::Live => edit(right, |next| {
                next.status = Status::InProgress { deadline: now.saturating_add(renew.lease) };
            }),
            Wrong::RenewIsForgottenEarly => edit(right, |next| next.forget_at = record.forget_at),
            Wrong::RenewWritesNothing => keep(right.outcome),
            Wrong::RenewRevivesGaveUp if own && state == State::GaveUp => revived(),
            Wrong::RenewRevivesReleased if own && state == State::Released => revived(),
            Wrong::RenewRevivesCompleted if own && state == State::Completed => revived(),
            Wrong::OlderProgressReplaces => edit(right, |next| {
                if let Some(progress) = &renew.progress {
                    next.progress = Some(Box::new(progress.clone()));
                }
            }),
            Wrong::OlderProgressIsLost => match (&renew.progress, &record.progress) {
                (Some(new), Some(old)) if own && new.sequence <= old.sequence => keep(Fenced::Lost),
                _ => right,
            },
            Wrong::PlainRenewErasesProgress if renew.progress.is_none() => {
                edit(right, |next| next.progress = None)
            }
            _ => right,
        }
    }

    pub(crate) fn complete(
        self,
        record: Option<&Record>,
        complete: &Complete,
        now: Timestamp,
    ) -> Transition<Fenced> {
        let right = transition(record, complete, now);
        let (Some(wrong), Some(record)) = (self.0, record) else {
            return right;
        };
        let state = record.state(now);
        let own = record.attempt == complete.grant.attempt;
        let done = matches!(state, State::Completed | State::Retired);
        let anew = || transition(Some(&lapsed(record)), complete, now);
        match wrong {
            Wrong::CompleteByReplaced if !own => {
                let mut complete = complete.clone();
                complete.grant = record.grant();
                transition(Some(record), &complete, now)
            }
            Wrong::CompleteByOlderGrant if own => {
                let grant = record.grant();
                transition(Some(record), &Complete { grant, ..complete.clone() }, now)
            }
            Wrong::CompleteAfterLapseIsLost if own && state == State::Lapsed => keep(Fenced::Lost),
            Wrong::CompleteAfterGivingUpIsLost if own && state == State::GaveUp => {
                keep(Fenced::Lost)
            }
            Wrong::CompleteAfterReleaseIsLost if own && state == State::Released => {
                keep(Fenced::Lost)
            }
            Wrong::CompleteOverwrites if right.outcome == Fenced::Conflict => anew(),
            Wrong::CompleteAgainExtends if right.outcome == Fenced::Applied && done => anew(),
            Wrong::ConflictIsApplied if right.outcome == Fenced::Conflict => keep(Fenced::Applied),
            Wrong::CompleteWritesNothing => keep(right.outcome),
            Wrong::CompleteIsForgottenEarly => {
                edit(right, |next| next.forget_at = record.forget_at)
            }
            Wrong::CompleteKeepsNoBytes => edit(right, |next| {
                if let Status::Completed { value, .. } = &mut next.status {
                    *value = StoredValue::new(&complete.completion.value, false);
                }
            }),
            _ => right,
        }
    }

    pub(crate) fn abandon(
        self,
        record: Option<&Record>,
        abandon: &Abandon,
        now: Timestamp,
    ) -> Transition<Fenced> {
        let right = transition(record, abandon, now);
        let (Some(wrong), Some(record)) = (self.0, record) else {
            return right;
        };
        let own = record.attempt == abandon.grant.attempt;
        let done = record.state(now) == State::Completed;
        let gives_up = abandon.known == Known::Unknown;
        let as_owner = || {
            let grant = record.grant();
            transition(Some(record), &Abandon { grant, ..*abandon }, now)
        };
        let on_lapsed = || transition(Some(&lapsed(record)), abandon, now);
        match wrong {
            Wrong::ReleaseByReplaced if !own && !gives_up => as_owner(),
            Wrong::GiveUpByReplaced if !own && gives_up => as_owner(),
            Wrong::ReleaseByOlderGrant if own && !gives_up => as_owner(),
            Wrong::GiveUpByOlderGrant if own && gives_up => as_owner(),
            Wrong::ReleaseErasesResult if own && done && !gives_up => on_lapsed(),
            Wrong::GiveUpErasesResult if own && done && gives_up => on_lapsed(),
            Wrong::ReleaseForgetsProgress if own && !gives_up => {
                let progress = None;
                transition(Some(&Record { progress, ..record.clone() }), abandon, now)
            }
            Wrong::ReleaseRemoves if right.outcome == Fenced::Applied && !gives_up => {
                Transition { change: Change::Remove, outcome: Fenced::Applied }
            }
            Wrong::ReleaseHasNoHold if !gives_up => edit(right, |next| next.forget_at = now),
            Wrong::GiveUpReleases if own && gives_up => {
                let known = Known::NotStarted { hold: Duration::MAX };
                transition(Some(record), &Abandon { known, ..*abandon }, now)
            }
            Wrong::GiveUpForgetsFingerprint if gives_up => edit(right, |next| {
                next.fingerprint = Fingerprint::from_digest(0, [0; 32]);
            }),
            _ => right,
        }
    }

    pub(crate) fn settle(
        self,
        record: Option<&Record>,
        settle: &Settle,
        now: Timestamp,
    ) -> Transition<Fenced> {
        let right = transition(record, settle, now);
        let (Some(wrong), Some(record)) = (self.0, record) else {
            return right;
        };
        let state = record.state(now);
        let not_done = matches!(settle.settlement, Settlement::NotDone { .. });
        match wrong {
            Wrong::SettleOverrulesOwner if right.outcome == Fenced::Busy => {
                transition(Some(&lapsed(record)), settle, now)
            }
            Wrong::SettleIgnoresAttempt => {
                let expected = Expected::Any;
                transition(Some(record), &Settle { expected, ..settle.clone() }, now)
            }
            Wrong::SettleErasesResult
                if right.outcome == Fenced::Lost && not_done && state == State::Completed =>
            {
                transition(Some(&lapsed(record)), settle, now)
            }
            Wrong::SettleChangesResult if right.outcome == Fenced::Conflict => {
                transition(Some(&lapsed(record)), settle, now)
            }
            _ => right,
        }
    }

    pub(crate) fn evict(
        self,
        record: Option<&Record>,
        evict: &Evict,
        now: Timestamp,
    ) -> Transition<Fenced> {
        match self.0 {
            Some(Wrong::EvictTakesLive) => {
                transition(record, &Evict { force: true, ..*evict }, now)
            }
            Some(Wrong::EvictIgnoresAttempt) => {
                let expected = Expected::Any;
                transition(record, &Evict { expected, ..*evict }, now)
            }
            _ => transition(record, evict, now),
        }
    }

    pub(crate) fn purge(self, record: Option<&Record>, now: Timestamp) -> Transition<bool> {
        let right = transition(record, &Purge, now);
        let (Some(wrong), Some(record)) = (self.0, record) else {
            return right;
        };
        let remove = match (wrong, record.state(now)) {
            (Wrong::PurgeTakesLive, State::Live)
            | (Wrong::PurgeTakesCompleted, State::Completed)
            | (Wrong::PurgeIgnoresHold, State::Lapsed | State::Retired) => true,
            (Wrong::PurgeSparesInterrupted, State::Lapsed) => return keep(false),
            _ => return right,
        };
        Transition { change: Change::Remove, outcome: remove }
    }
}

/// What the cells for another request do wrong.
fn mismatched(
    wrong: Wrong,
    record: &Record,
    claim: &Claim,
    now: Timestamp,
    right: Transition<ClaimOutcome>,
) -> Transition<ClaimOutcome> {
    let uncompared = match (wrong, record.state(now)) {
        (Wrong::MismatchRefreshes, _) => {
            let forget_at = record.forget_at.saturating_add(ticks(1));
            return put(Record { forget_at, ..record.clone() }, right.outcome);
        }
        (Wrong::LiveComparesNothing, State::Live)
        | (Wrong::LapsedComparesNothing, State::Lapsed)
        | (Wrong::GaveUpComparesNothing, State::GaveUp)
        | (Wrong::ReleasedComparesNothing, State::Released)
        | (Wrong::CompletedComparesNothing, State::Completed) => true,
        _ => false,
    };
    if uncompared {
        let fingerprint = record.fingerprint;
        transition(Some(record), &Claim { fingerprint, ..*claim }, now)
    } else {
        right
    }
}

/// The record as if its owner had lapsed just now, whatever became of it.
fn lapsed(record: &Record) -> Record {
    let deadline = Timestamp::default();
    Record { status: Status::InProgress { deadline }, ..record.clone() }
}

/// The record as if its owner had done nothing.
fn released(record: &Record) -> Record {
    Record { status: Status::Released, ..record.clone() }
}

/// The record as if somebody unknown had been granted last.
fn of_another(record: &Record) -> Record {
    Record { attempt: AttemptId::from_bytes([0xff; 16]), ..record.clone() }
}

fn with_token(
    mut decided: Transition<ClaimOutcome>,
    token: FencingToken,
) -> Transition<ClaimOutcome> {
    if let ClaimOutcome::Acquired { grant, .. } = &mut decided.outcome {
        grant.token = token;
    }
    edit(decided, |next| next.token = token)
}

fn edit<O>(mut decided: Transition<O>, edit: impl FnOnce(&mut Record)) -> Transition<O> {
    if let Change::Put(next) = &mut decided.change {
        edit(next);
    }
    decided
}

const fn keep<O>(outcome: O) -> Transition<O> {
    Transition { change: Change::Keep, outcome }
}

const fn put<O>(record: Record, outcome: O) -> Transition<O> {
    Transition { change: Change::Put(record), outcome }
}
