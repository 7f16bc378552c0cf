//! Whether a key can be stuck: what somebody who keeps trying gets, once all faults have stopped.

use oncekey::runtime::Timestamp;
use oncekey::store::{
    Change, ClaimOutcome, Expected, Fenced, Record, Settle, Settlement, Status, Transition,
};

use super::rules::Rules;
use super::world::{Setup, World, attempt_id, fingerprint, time};

/// The attempt of somebody who has not been seen before.
const NEWCOMER: usize = 200;

/// Whether a newcomer can be kept from the key for ever. Faults are over and everybody else is gone:
/// the newcomer waits as it is told to, and an operator settles what is interrupted.
pub(crate) fn is_stuck(setup: &Setup, rules: Rules, world: &World) -> bool {
    let now = time(world.now);
    let Some(record) = world.record() else {
        return !gets_an_answer(setup, rules, None, now);
    };
    !gets_an_answer(setup, rules, Some(record), now) || !is_forgotten(setup, rules, record, now)
}

/// Whether the same request is granted the key or handed a result, within one wait and one verdict.
fn gets_an_answer(
    setup: &Setup,
    rules: Rules,
    record: Option<&Record>,
    mut now: Timestamp,
) -> bool {
    let mut record = record.cloned();
    let request = record.as_ref().map_or(fingerprint(0), |record| record.fingerprint);
    let claim = setup.claim(attempt_id(NEWCOMER), request);
    let (mut waited, mut settled) = (false, false);
    loop {
        let claimed = rules.claim(record.as_ref(), &claim, now);
        match claimed.outcome {
            ClaimOutcome::Acquired { .. } | ClaimOutcome::Replay(_) | ClaimOutcome::Retired => {
                return true;
            }
            ClaimOutcome::Busy { retry_after } if !waited => {
                waited = true;
                now = now.saturating_add(retry_after);
            }
            ClaimOutcome::Interrupted if !settled => {
                settled = true;
                let Some(attempt) = record.as_ref().map(|record| record.attempt) else {
                    return false;
                };
                let verdict = Settle {
                    expected: Expected::Attempt(attempt),
                    settlement: Settlement::NotDone { hold: setup.hold() },
                };
                let verdict = rules.settle(record.as_ref(), &verdict, now);
                if verdict.outcome != Fenced::Applied {
                    return false;
                }
                record = after(verdict, record);
            }
            _ => return false,
        }
    }
}

/// Whether the key is as good as new, for any request, once its time to be forgotten has come.
fn is_forgotten(setup: &Setup, rules: Rules, record: &Record, now: Timestamp) -> bool {
    if record.forget_at == Timestamp::MAX {
        // Whoever asked for that has an operator for it.
        return setup.hold.is_none();
    }
    let end = match &record.status {
        Status::InProgress { deadline } => *deadline,
        Status::Completed { retained_until, .. } => *retained_until,
        Status::GaveUp | Status::Released => now,
    };
    let now = now.max(end).max(record.forget_at);
    rules.purge(Some(record), now).change == Change::Remove
}

fn after<O>(decided: Transition<O>, record: Option<Record>) -> Option<Record> {
    match decided.change {
        Change::Keep => record,
        Change::Put(record) => Some(record),
        Change::Remove => None,
    }
}
