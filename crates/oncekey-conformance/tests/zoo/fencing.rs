//! Tokens, and owners whose time is over: stores that let the past write over the present.

use std::sync::atomic::Ordering;

use oncekey::store::{
    Change, Claim, ClaimOutcome, Command, Fenced, FencingToken, Grant, Known, Record, State,
    Status, Transition,
};

use crate::base::lock;
use crate::defect::{Defect, Mend, Op, SOUND, Seen, edit, refuse, remove};

/// A takeover keeps the token of the owner that it replaces.
pub(crate) fn takeover_keeps_the_token() -> Defect {
    Defect {
        fault: "fencing::tokens_increase",
        claim: |seen, claim| match seen.record {
            Some(record) => with_token(seen.decide(claim), record.token.get()),
            None => seen.decide(claim),
        },
        ..SOUND
    }
}

/// The token is the clock and nothing else: two grants in one microsecond share it.
pub(crate) fn token_is_the_clock() -> Defect {
    Defect {
        fault: "fencing::tokens_increase",
        claim: |seen, claim| match seen.is_of(claim.attempt) {
            true => seen.decide(claim),
            false => with_token(seen.decide(claim), seen.now.as_micros()),
        },
        ..SOUND
    }
}

/// A retired key is granted with the token that its result was made under.
pub(crate) fn retired_keeps_its_token() -> Defect {
    Defect {
        fault: "fencing::tokens_increase",
        claim: |seen, claim| match seen.record {
            Some(record) if seen.is(State::Retired) => {
                with_token(seen.decide(claim), record.token.get())
            }
            _ => seen.decide(claim),
        },
        ..SOUND
    }
}

/// The token is a counter in a Redis hash, which expires with the record: it starts again at 1, and
/// the world refuses the new owner, or accepts the old one.
pub(crate) fn token_expires_with_the_record() -> Defect {
    Defect {
        fault: "fencing::tokens_increase_across_eviction",
        claim: |seen, claim| match seen.is_of(claim.attempt) {
            true => seen.decide(claim),
            false => {
                let last = seen.record.map_or(0, |record| record.token.get());
                with_token(seen.decide(claim), last + 1)
            }
        },
        ..SOUND
    }
}

/// The counter for tokens lives in memory: after a restart it starts again.
pub(crate) fn token_counter_is_in_memory() -> Defect {
    Defect {
        fault: "reopen::tokens_increase_across_a_restart",
        claim: |seen, claim| match seen.is_of(claim.attempt) {
            true => seen.decide(claim),
            false => {
                let count = seen.notes.counter.fetch_add(1, Ordering::SeqCst);
                with_token(seen.decide(claim), count + 1)
            }
        },
        boot: |notes, _| notes.counter.store(0, Ordering::SeqCst),
        ..SOUND
    }
}

fn with_token(mut decided: Transition<ClaimOutcome>, token: u64) -> Transition<ClaimOutcome> {
    if let (ClaimOutcome::Acquired { grant, .. }, Change::Put(record)) =
        (&mut decided.outcome, &mut decided.change)
    {
        grant.token = FencingToken::new(token);
        record.token = grant.token;
    }
    decided
}

/// Completes by key alone: a caller that was replaced settles the new owner's claim. As in
/// margince.
pub(crate) fn replaced_owner_completes() -> Defect {
    Defect {
        fault: "fencing::a_replaced_owner_changes_nothing",
        complete: |seen, complete| match seen.is(State::Live) && is_a_takeover(seen) {
            true => as_owner(seen, complete, complete.grant),
            false => seen.decide(complete),
        },
        ..SOUND
    }
}

/// Gives up by key alone: a replaced owner that crashes interrupts the one that replaced it.
pub(crate) fn replaced_owner_interrupts() -> Defect {
    Defect {
        fault: "fencing::a_replaced_owner_changes_nothing",
        abandon: |seen, abandon| match abandon.known {
            Known::Unknown if seen.is(State::Live) && is_a_takeover(seen) => {
                as_owner(seen, abandon, abandon.grant)
            }
            _ => seen.decide(abandon),
        },
        ..SOUND
    }
}

/// `DEL` without a look at whose lock it is. As in Truxify: the first to finish frees the second's.
pub(crate) fn deletes_any_lock() -> Defect {
    Defect {
        fault: "fencing::a_replaced_owner_changes_nothing",
        abandon: |seen, abandon| match seen.decide(abandon).outcome {
            Fenced::Lost if seen.is(State::Live) && !seen.is_of(abandon.grant.attempt) => {
                remove(Fenced::Applied)
            }
            _ => seen.decide(abandon),
        },
        ..SOUND
    }
}

/// A heartbeat that only names the key: the replaced owner keeps the new owner's lease alive, and
/// believes that it has one.
pub(crate) fn anybody_renews() -> Defect {
    Defect {
        fault: "fencing::a_replaced_owner_changes_nothing",
        renew: |seen, renew| match seen.is(State::Live) {
            true => {
                let mut decided = as_owner(seen, renew, renew.grant);
                if let (Change::Put(next), Some(record)) = (&mut decided.change, seen.record) {
                    next.attempt = record.attempt;
                }
                decided
            }
            false => seen.decide(renew),
        },
        ..SOUND
    }
}

/// Ownership matters only while there is an owner: once the new one is done, the old one writes its
/// own result over it.
pub(crate) fn rewrites_history() -> Defect {
    Defect {
        fault: "fencing::a_replaced_owner_changes_nothing_after_completion",
        complete: |seen, complete| {
            let replaced = !seen.is_of(complete.grant.attempt);
            match replaced && (seen.is(State::Completed) || seen.is(State::Retired)) {
                true => seen.decide_as(complete, |record| {
                    record.attempt = complete.grant.attempt;
                    record.token = complete.grant.token;
                    record.status = Status::GaveUp;
                }),
                false => seen.decide(complete),
            }
        },
        ..SOUND
    }
}

/// The same bytes are the same result, whoever sends them: an owner that was replaced believes that
/// its own run counted.
pub(crate) fn same_bytes_are_enough() -> Defect {
    Defect {
        fault: "fencing::a_replaced_owner_changes_nothing_after_completion",
        complete: |seen, complete| match seen.record.map(|record| &record.status) {
            Some(Status::Completed { value, .. }) if value.is_of(&complete.completion.value) => {
                as_owner(seen, complete, complete.grant)
            }
            _ => seen.decide(complete),
        },
        ..SOUND
    }
}

/// A key without an owner takes a result from anybody.
pub(crate) fn free_for_all() -> Defect {
    Defect {
        fault: "fencing::a_replaced_owner_changes_nothing_after_release",
        complete: |seen, complete| match seen.is(State::Released) || seen.is(State::GaveUp) {
            true => as_owner(seen, complete, complete.grant),
            false => seen.decide(complete),
        },
        ..SOUND
    }
}

/// Eviction leaves the old owner's session: its heartbeats keep the new owner's lease alive, and it
/// believes that it still has one.
pub(crate) fn eviction_leaves_the_owner() -> Defect {
    Defect {
        fault: "fencing::an_evicted_owner_changes_nothing",
        evict: |seen, evict| {
            let decided = seen.decide(evict);
            if let (Fenced::Applied, Some(record)) = (decided.outcome, seen.record) {
                lock(&seen.notes.attempts).insert(record.attempt);
            }
            decided
        },
        renew: |seen, renew| owned_before(seen, renew, renew.grant),
        ..SOUND
    }
}

/// A sweep moves the row to an archive, from which its old owner fetches it back.
pub(crate) fn sweep_leaves_the_owner() -> Defect {
    Defect {
        fault: "fencing::a_purged_owner_changes_nothing",
        is_due: |seen| {
            let due = (SOUND.is_due)(seen);
            if let (true, Some(record)) = (due, seen.record) {
                lock(&seen.notes.attempts).insert(record.attempt);
            }
            due
        },
        complete: |seen, complete| owned_before(seen, complete, complete.grant),
        ..SOUND
    }
}

fn owned_before<C: Command>(seen: Seen<'_>, command: &C, grant: Grant) -> Transition<C::Outcome> {
    match lock(&seen.notes.attempts).contains(&grant.attempt) {
        true => as_owner(seen, command, grant),
        false => seen.decide(command),
    }
}

/// What is right if `grant` were the last one; the token stays what it is.
fn as_owner<C: Command>(seen: Seen<'_>, command: &C, grant: Grant) -> Transition<C::Outcome> {
    let decided = seen.decide_as(command, |record| {
        record.attempt = grant.attempt;
        record.token = grant.token;
    });
    edit(decided, |next| next.token = seen.record.map_or(next.token, |record| record.token))
}

fn is_a_takeover(seen: Seen<'_>) -> bool {
    seen.record.is_some_and(|record| record.previous.is_some())
}

/// Compares the token in place of the attempt: after an eviction, two owners can have the same one.
pub(crate) fn compares_the_token() -> Defect {
    Defect {
        fault: "fencing::the_whole_grant_decides",
        complete: |seen, complete| match seen.record {
            Some(record) if record.token == complete.grant.token => {
                as_owner(seen, complete, complete.grant)
            }
            _ => seen.decide(complete),
        },
        ..SOUND
    }
}

/// Compares the attempt alone: late copies of an ended attempt act under what a late copy of its claim
/// was granted.
pub(crate) fn compares_the_attempt() -> Defect {
    Defect {
        fault: "fencing::the_whole_grant_decides",
        complete: |seen, complete| match seen.is_of(complete.grant.attempt) {
            true => as_owner(seen, complete, complete.grant),
            false => seen.decide(complete),
        },
        ..SOUND
    }
}

/// `INSERT OR REPLACE`: a completion makes the record that it does not find.
pub(crate) fn completes_the_absent() -> Defect {
    Defect {
        fault: "fencing::nothing_is_known_of_an_absent_key",
        complete: |seen, complete| match seen.record {
            Some(_) => seen.decide(complete),
            None => {
                let claim = Claim {
                    attempt: complete.grant.attempt,
                    fingerprint: oncekey::Fingerprint::of("whatever it was"),
                    lease: std::time::Duration::from_secs(1),
                    hold: std::time::Duration::ZERO,
                    on_interrupted: oncekey::store::OnInterrupted::TakeOver,
                    on_retired: oncekey::store::OnRetired::Forget,
                };
                match seen.decide(&claim).change {
                    Change::Put(record) => {
                        oncekey::store::transition(Some(&record), complete, seen.now)
                    }
                    _ => seen.decide(complete),
                }
            }
        },
        ..SOUND
    }
}

/// `DEL` of nothing is fine: a release is applied to a record that is not there.
pub(crate) fn releases_the_absent() -> Defect {
    Defect {
        fault: "fencing::nothing_is_known_of_an_absent_key",
        abandon: |seen, abandon| {
            refuse(seen.decide(abandon), |outcome| {
                (*outcome == Fenced::Gone).then_some(Fenced::Applied)
            })
        },
        ..SOUND
    }
}

/// "No row" is "not yours": nobody can tell a lost record from a lost race.
pub(crate) fn gone_is_lost() -> Defect {
    Defect {
        fault: "fencing::nothing_is_known_of_an_absent_key",
        renew: |seen, renew| {
            refuse(seen.decide(renew), |outcome| (*outcome == Fenced::Gone).then_some(Fenced::Lost))
        },
        ..SOUND
    }
}

/// The version of a row is a count that starts with the row: a row that was evicted and made anew
/// has the version that a completion under way has read.
pub(crate) fn version_starts_again() -> Defect {
    Defect {
        fault: "fencing::a_version_never_comes_back",
        tears: |op, _| (op == Op::Complete).then_some(Change::Keep),
        mends: |seen, found, _| {
            let version = |record: &Record| (record.number, record.status.clone());
            match found.map(version) == seen.record.map(version) {
                true => Mend::Write,
                false => Mend::Again,
            }
        },
        ..SOUND
    }
}
