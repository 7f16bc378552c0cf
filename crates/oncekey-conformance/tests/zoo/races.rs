//! Two callers at once: stores that read, think, and write what is no longer so.

use oncekey::store::{Change, ErrorKind, Record, State, Status};

use crate::defect::{Defect, Mend, Op, SOUND};

/// Checks for the key, then writes: simultaneous copies all find it free. As in the many middlewares
/// that `GET`, run and `SET` (NServiceBus and DBOS, once scaled out).
pub(crate) fn checks_then_acts() -> Defect {
    Defect {
        fault: "contention::one_claim_wins",
        tears: |op, seen| (op == Op::Claim && seen.record.is_none()).then_some(Change::Keep),
        ..SOUND
    }
}

/// Whoever comes second in a race gets an error that no retry helps, although nothing broke: the unique
/// index that it ran into reads as damage. As in idempot-js: a 503 for the loser. In Postgres,
/// `INSERT .. ON CONFLICT DO NOTHING` and a `SELECT` in one statement.
pub(crate) fn loser_gets_an_error() -> Defect {
    Defect {
        fault: "contention::one_claim_wins",
        tears: |op, seen| (op == Op::Claim && seen.record.is_none()).then_some(Change::Keep),
        mends: |seen, found, _| match found {
            None => Mend::Write,
            Some(_) if seen.record.is_some() => Mend::Again,
            Some(_) => Mend::Fail(ErrorKind::Corrupt),
        },
        ..SOUND
    }
}

/// Recovers an orphan by what it read before: a result that was recorded meanwhile is overwritten.
/// As in Powertools for TypeScript, found there with a model checker.
pub(crate) fn orphan_recovery_overwrites() -> Defect {
    Defect {
        fault: "contention::completion_or_takeover",
        tears: |op, seen| (op == Op::Claim && seen.is(State::Lapsed)).then_some(Change::Keep),
        ..SOUND
    }
}

/// Deletes the orphan, then inserts its own claim: another caller comes in between.
pub(crate) fn takeover_is_two_steps() -> Defect {
    Defect {
        fault: "contention::one_takeover_wins",
        tears: |op, seen| {
            let takeover = op == Op::Claim && seen.is(State::Lapsed);
            takeover.then_some(Change::Remove)
        },
        ..SOUND
    }
}

/// Sees to it that its predecessor has not come back, and not that nobody else was faster.
pub(crate) fn two_take_over() -> Defect {
    Defect {
        fault: "contention::one_takeover_wins",
        tears: |op, seen| (op == Op::Claim && seen.is(State::Lapsed)).then_some(Change::Keep),
        mends: |seen, found, _| match (found, seen.record) {
            (Some(found), Some(record)) if found.attempt == record.attempt && found != record => {
                Mend::Again
            }
            _ => Mend::Write,
        },
        ..SOUND
    }
}

/// Two copies of one claim race, and the one that comes second is told that something broke.
pub(crate) fn copies_collide() -> Defect {
    Defect {
        fault: "contention::copies_of_a_claim_agree",
        tears: |op, seen| (op == Op::Claim && seen.record.is_none()).then_some(Change::Keep),
        mends: |_, found, change| match (found, change) {
            (None, _) => Mend::Write,
            (Some(found), Change::Put(record)) if found.attempt == record.attempt => {
                Mend::Fail(ErrorKind::Corrupt)
            }
            _ => Mend::Again,
        },
        ..SOUND
    }
}

/// First removes the mark that the operation runs, then stores the result: whoever comes in between
/// runs it again.
pub(crate) fn removes_then_stores() -> Defect {
    Defect {
        fault: "contention::a_completion_never_frees_the_key",
        tears: |op, _| (op == Op::Complete).then_some(Change::Remove),
        ..SOUND
    }
}

/// Waits for the lock and takes it, without reading again what its last owner left. As in Truxify.
pub(crate) fn relocks_without_reading() -> Defect {
    Defect {
        fault: "contention::a_completion_never_frees_the_key",
        looks_twice: true,
        claim: |seen, claim| {
            let waited = seen.before.is_some_and(|record| record.state(seen.now) == State::Live);
            match waited && seen.is(State::Completed) && !seen.is_of(claim.attempt) {
                true => seen.decide_as(claim, |record| record.status = Status::Released),
                false => seen.decide(claim),
            }
        },
        ..SOUND
    }
}

/// Checks that a key is released, then writes: two claims both find it free.
pub(crate) fn release_is_taken_twice() -> Defect {
    Defect {
        fault: "contention::a_release_is_taken_once",
        tears: |op, seen| (op == Op::Claim && seen.is(State::Released)).then_some(Change::Keep),
        ..SOUND
    }
}

/// A lapsed owner's completion writes over whoever took over meanwhile.
pub(crate) fn completes_over_a_takeover() -> Defect {
    Defect {
        fault: "contention::completion_or_takeover",
        tears: |op, seen| (op == Op::Complete && seen.is(State::Lapsed)).then_some(Change::Keep),
        ..SOUND
    }
}

/// A lapsed owner's renewal writes over whoever took over meanwhile.
pub(crate) fn renews_over_a_takeover() -> Defect {
    Defect {
        fault: "contention::renewal_or_takeover",
        tears: |op, seen| (op == Op::Renew && seen.is(State::Lapsed)).then_some(Change::Keep),
        ..SOUND
    }
}

/// Compares the owner when it writes, and not whether there is a result: two answers are both
/// acknowledged.
pub(crate) fn two_results_are_recorded() -> Defect {
    Defect {
        fault: "contention::one_result_is_recorded",
        tears: |op, seen| (op == Op::Complete && seen.is(State::Live)).then_some(Change::Keep),
        mends: |seen, found, _| {
            let owner = |record: &Record| record.attempt;
            match found.map(owner) == seen.record.map(owner) {
                true => Mend::Write,
                false => Mend::Again,
            }
        },
        ..SOUND
    }
}

/// An operator's verdict is reached on what was read before, and overrules whoever took over meanwhile.
pub(crate) fn settles_over_a_takeover() -> Defect {
    Defect {
        fault: "history::is_linearizable",
        tears: |op, seen| (op == Op::Settle && seen.is(State::Lapsed)).then_some(Change::Keep),
        ..SOUND
    }
}
