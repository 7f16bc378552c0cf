//! Limits, sweeping and waking: stores that drop or keep the wrong records, or say nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use oncekey::runtime::Timestamp;
use oncekey::store::{Change, Record, State, Status};

use crate::base::lock;
use crate::defect::{Defect, Mend, Op, SOUND};

/// A record without a deadline is taken for an orphan, and taken over while its owner runs. As in
/// Powertools for TypeScript.
pub(crate) fn no_deadline_is_an_orphan() -> Defect {
    Defect {
        fault: "limits::huge_durations_saturate",
        claim: |seen, claim| match seen.deadline() {
            Some(Timestamp::MAX) if !seen.is_of(claim.attempt) => seen.decide_absent(claim),
            _ => seen.decide(claim),
        },
        ..SOUND
    }
}

/// Drops a record when it is full. As in stregsystemet: a cache of 256 keys that forgets.
pub(crate) fn drops_when_full() -> Defect {
    Defect {
        fault: "limits::a_full_store_refuses_new_keys",
        make_room: |table| table.pop_first().is_some(),
        ..SOUND
    }
}

/// Takes every write for a new key: once full, it refuses to change those that it has.
pub(crate) fn full_for_everybody() -> Defect {
    Defect {
        fault: "limits::a_full_store_refuses_new_keys",
        is_full: |_, table, _, capacity| table.len() >= capacity,
        ..SOUND
    }
}

/// Has no room for results once it is full: whoever runs cannot say that it is done. As with Redis
/// out of memory.
pub(crate) fn full_for_results() -> Defect {
    Defect {
        fault: "limits::a_full_store_refuses_new_keys",
        is_full: |notes, table, (op, key), capacity| match op {
            Op::Complete => table.len() >= capacity,
            _ => (SOUND.is_full)(notes, table, (op, key), capacity),
        },
        ..SOUND
    }
}

/// Counts the keys that come, and not those that go.
pub(crate) fn full_for_ever() -> Defect {
    Defect {
        fault: "limits::a_full_store_has_room_again",
        is_full: |notes, table, (_, key), capacity| {
            !table.contains_key(key)
                && notes.counter.fetch_add(1, Ordering::SeqCst) >= capacity as u64
        },
        ..SOUND
    }
}

/// Sweeps whatever is not live: the results go, too.
pub(crate) fn sweeps_results() -> Defect {
    Defect { fault: "purge::spares_what_matters", is_due: |seen| !seen.is(State::Live), ..SOUND }
}

/// Sweeps at the deadline: fingerprint and token go before their hold is over.
pub(crate) fn sweeps_the_interrupted() -> Defect {
    Defect {
        fault: "purge::spares_what_matters",
        is_due: |seen| seen.is_interrupted() || (SOUND.is_due)(seen),
        ..SOUND
    }
}

/// What was given up has no owner and no result, so nobody misses it.
pub(crate) fn sweeps_the_given_up() -> Defect {
    Defect {
        fault: "purge::spares_what_matters",
        is_due: |seen| seen.is(State::GaveUp) || (SOUND.is_due)(seen),
        ..SOUND
    }
}

/// A reaper that goes by age: it deletes the lock of whoever takes long. As in years of
/// sidekiq-unique-jobs.
pub(crate) fn reaps_the_slow() -> Defect {
    Defect {
        fault: "purge::spares_what_matters",
        is_due: |seen| {
            let old = |record: &Record| {
                let granted = Timestamp::from_micros(record.token.get());
                seen.now.saturating_since(granted) > Duration::from_secs(45)
            };
            seen.deadline().is_some() && seen.record.is_some_and(old) || (SOUND.is_due)(seen)
        },
        ..SOUND
    }
}

/// What was released is never removed.
pub(crate) fn keeps_the_released() -> Defect {
    Defect {
        fault: "purge::removes_what_is_over",
        is_due: |seen| !seen.is(State::Released) && (SOUND.is_due)(seen),
        ..SOUND
    }
}

/// What was given up is never removed: it might be of interest one day.
pub(crate) fn keeps_the_given_up() -> Defect {
    Defect {
        fault: "purge::removes_what_is_over",
        is_due: |seen| !seen.is(State::GaveUp) && (SOUND.is_due)(seen),
        ..SOUND
    }
}

/// Nothing is ever removed.
pub(crate) fn never_sweeps() -> Defect {
    Defect { fault: "purge::removes_what_is_over", is_due: |_| false, ..SOUND }
}

/// Sweeps all at once, whatever the limit says: a pause of minutes.
pub(crate) fn sweeps_without_limit() -> Defect {
    Defect { fault: "purge::heeds_its_limit", sweep_limit: |_| usize::MAX, ..SOUND }
}

/// Says that it is done when it is not: the backlog grows.
pub(crate) fn says_that_it_is_done() -> Defect {
    Defect { fault: "purge::heeds_its_limit", sweep_admits_more: false, ..SOUND }
}

/// The index of the sweep is written once, with the claim.
pub(crate) fn sweep_index_is_stale() -> Defect {
    Defect {
        fault: "purge::goes_by_the_latest_time_to_forget",
        stored: |notes, key, record| {
            let mut times = lock(&notes.times);
            times.entry(key.to_vec()).or_insert(record.forget_at);
        },
        is_due: |seen| {
            let indexed = lock(&seen.notes.times).get(seen.key).copied();
            (seen.is(State::Completed) && indexed.is_some_and(|at| at <= seen.now))
                || (SOUND.is_due)(seen)
        },
        ..SOUND
    }
}

/// Deletes by key what it saw a moment ago: a key that was claimed again meanwhile. As in margince,
/// where the claim that raced was told the wrong thing.
pub(crate) fn sweeps_what_it_saw() -> Defect {
    Defect {
        fault: "purge::races_with_claims",
        tears: |op, _| (op == Op::Purge).then_some(Change::Keep),
        mends: |seen, found, _| {
            let deadline = |record: &Record| match record.status {
                Status::InProgress { deadline } => Some(deadline),
                _ => None,
            };
            let same =
                found.map(|record| record.attempt) == seen.record.map(|record| record.attempt);
            match same && found.and_then(deadline) != seen.deadline() {
                true => Mend::Again,
                false => Mend::Write,
            }
        },
        ..SOUND
    }
}

/// Compares the owner before it deletes, and not whether it renewed.
pub(crate) fn sweeps_the_renewed() -> Defect {
    Defect {
        fault: "purge::races_with_renewals",
        tears: |op, _| (op == Op::Purge).then_some(Change::Keep),
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

/// Has a channel, and sends nothing on completion.
pub(crate) fn completes_in_silence() -> Defect {
    Defect { fault: "watch::wakes_on_completion", notifies: |op, _| op != Op::Complete, ..SOUND }
}

/// Has a channel, and sends nothing when a key gets free.
pub(crate) fn releases_in_silence() -> Defect {
    Defect {
        fault: "watch::wakes_on_release",
        notifies: |op, change| op != Op::Abandon || !wrote(change, &Status::Released),
        ..SOUND
    }
}

/// Has a channel, and sends nothing when an owner gives up.
pub(crate) fn gives_up_in_silence() -> Defect {
    Defect {
        fault: "watch::wakes_on_giving_up",
        notifies: |op, change| op != Op::Abandon || !wrote(change, &Status::GaveUp),
        ..SOUND
    }
}

fn wrote(change: &Change, status: &Status) -> bool {
    matches!(change, Change::Put(record) if record.status == *status)
}

/// Has a channel, and sends nothing of an operator's verdict.
pub(crate) fn settles_in_silence() -> Defect {
    Defect { fault: "watch::wakes_on_settlement", notifies: |op, _| op != Op::Settle, ..SOUND }
}

/// Has a channel, and sends nothing when a key is evicted.
pub(crate) fn evicts_in_silence() -> Defect {
    Defect { fault: "watch::wakes_on_eviction", notifies: |op, _| op != Op::Evict, ..SOUND }
}

/// One slot a key for a waiter: the second takes the place of the first.
pub(crate) fn wakes_the_last_only() -> Defect {
    Defect { fault: "watch::wakes_every_subscriber", one_subscriber_a_key: true, ..SOUND }
}

/// The subscription begins when somebody first waits: what happens before is missed.
pub(crate) fn subscribes_late() -> Defect {
    Defect { fault: "watch::is_in_force_at_once", subscribes_late: true, ..SOUND }
}

/// Lists, and has a fixture that says it does not, so that no rule ever tries it.
pub(crate) fn hides_its_listing() -> Defect {
    Defect { fault: "fixture::is_what_it_says", says_it_lists: false, ..SOUND }
}
