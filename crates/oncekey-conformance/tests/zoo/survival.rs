//! What outlives a call, a handle or a crash: stores that answer before it is true.

use oncekey::runtime::Timestamp;
use oncekey::store::{Change, ErrorKind, Record, Status, StoreError, StoredValue};

use crate::base::Slot;
use crate::defect::{Defect, Leak, Op, SOUND, Source};

/// A set in the memory of each process. As in Lemmy: the second machine knows nothing.
pub(crate) fn every_process_for_itself() -> Defect {
    Defect { fault: "reopen::a_second_handle_agrees", source: |_| Source::Handle, ..SOUND }
}

/// A cache in each process, which nobody invalidates.
pub(crate) fn nobody_invalidates() -> Defect {
    Defect { fault: "reopen::a_second_handle_agrees", source: |_| Source::Cache, ..SOUND }
}

/// Reads go to a replica that lags.
pub(crate) fn reads_a_replica() -> Defect {
    Defect {
        fault: "reopen::a_second_handle_agrees",
        source: |op| match op {
            Op::Get => Source::Replica,
            _ => Source::Primary,
        },
        ..SOUND
    }
}

/// Progress is kept in each process, beside the record: a takeover elsewhere is shown, its progress
/// is not.
pub(crate) fn progress_stays_at_home() -> Defect {
    Defect {
        fault: "reopen::a_second_handle_agrees",
        get: |seen| {
            let mut found = (SOUND.get)(seen);
            if let (Some(observed), Some(private)) = (&mut found.outcome, seen.private)
                && observed.record.attempt == private.attempt
            {
                observed.record.progress.clone_from(&private.progress);
            }
            found
        },
        ..SOUND
    }
}

/// Acknowledges a result before it is on disk, as with `synchronous_commit = off`.
pub(crate) fn results_are_lost_in_a_crash() -> Defect {
    Defect { fault: "reopen::an_answer_survives", is_durable: |op| op != Op::Complete, ..SOUND }
}

/// Claims are kept in memory only: after a restart everybody runs again.
pub(crate) fn claims_are_lost_in_a_crash() -> Defect {
    Defect { fault: "reopen::an_answer_survives", is_durable: |op| op != Op::Claim, ..SOUND }
}

/// Heartbeats, and the progress that they carry, reach the disk some time later.
pub(crate) fn progress_is_lost_in_a_crash() -> Defect {
    Defect { fault: "reopen::an_answer_survives", is_durable: |op| op != Op::Renew, ..SOUND }
}

/// Cleans up at start: what was in progress is taken for abandoned, although its owner, on another
/// machine, is alive.
pub(crate) fn cleans_up_at_start() -> Defect {
    Defect {
        fault: "reopen::an_answer_survives",
        boot: |_, table| {
            table.retain(|_, slot| match slot {
                Slot::Intact(record) => !matches!(record.status, Status::InProgress { .. }),
                Slot::Damaged(_) => true,
            });
        },
        ..SOUND
    }
}

/// A dropped call leaves its lock behind, and the key is blocked for ever.
pub(crate) fn dropped_call_keeps_the_lock() -> Defect {
    Defect { fault: "cancel::a_dropped_call_leaves_nothing_behind", leaks: Leak::KeyLock, ..SOUND }
}

/// A dropped call never returns its connection, and one day the pool is empty. As in sqlx: a cancelled
/// `begin` poisons the pool.
pub(crate) fn dropped_call_keeps_the_connection() -> Defect {
    Defect {
        fault: "cancel::a_dropped_call_leaves_nothing_behind",
        leaks: Leak::Connection(40),
        ..SOUND
    }
}

/// The result is written in two steps, and the caller hangs up between them. As in the dotnet
/// starter kit of fullstackhero: the handler runs again.
pub(crate) fn dropped_call_writes_half() -> Defect {
    Defect {
        fault: "cancel::a_dropped_call_happened_or_did_not",
        tears: |op, seen| {
            let mut half = seen.record.filter(|_| op == Op::Complete)?.clone();
            half.status = Status::Completed {
                value: StoredValue::Digest([0; 32]),
                retained_until: Timestamp::MAX,
            };
            Some(Change::Put(half))
        },
        ..SOUND
    }
}

/// An operator's verdict is written in two steps: a command line that is interrupted leaves half of it.
pub(crate) fn dropped_verdict_is_half() -> Defect {
    Defect {
        fault: "cancel::a_dropped_call_happened_or_did_not",
        tears: |op, seen| {
            let half = seen.record.filter(|_| op == Op::Settle)?.clone();
            Some(Change::Put(Record { status: Status::Released, ..half }))
        },
        ..SOUND
    }
}

/// All calls share one connection, and the drop of one closes it under the others.
pub(crate) fn dropped_call_fails_the_others() -> Defect {
    Defect {
        fault: "cancel::a_dropped_call_disturbs_no_other",
        leaks: Leak::SharedConnection,
        ..SOUND
    }
}

/// What cannot be read is not there.
pub(crate) fn undecodable_is_absent() -> Defect {
    Defect {
        fault: "corrupt::every_command_fails",
        undecodable: |_, bytes, error| match is_newer(bytes) {
            true => Err(error),
            false => Ok(None),
        },
        ..SOUND
    }
}

/// What cannot be read is not there, says a heartbeat: its owner stops, and nobody looks.
pub(crate) fn undecodable_is_gone() -> Defect {
    Defect {
        fault: "corrupt::every_command_fails",
        undecodable: |op, bytes, error| match op == Op::Renew && !is_newer(bytes) {
            true => Ok(None),
            false => Err(error),
        },
        ..SOUND
    }
}

/// Damage is reported as an outage: callers retry until the end of days.
pub(crate) fn damage_is_an_outage() -> Defect {
    Defect {
        fault: "corrupt::every_command_fails",
        undecodable: |op, bytes, error| match is_newer(bytes) {
            true => Err(error),
            false => Err(StoreError::new(ErrorKind::Unavailable, op.name())),
        },
        ..SOUND
    }
}

/// What a newer build wrote is not there: during an upgrade everything runs twice.
pub(crate) fn newer_is_absent() -> Defect {
    Defect {
        fault: "corrupt::a_newer_version_fails_too",
        undecodable: |_, bytes, error| match is_newer(bytes) {
            true => Ok(None),
            false => Err(error),
        },
        ..SOUND
    }
}

/// Reads what a newer build wrote as if it were its own.
pub(crate) fn ignores_the_version() -> Defect {
    Defect {
        fault: "corrupt::a_newer_version_fails_too",
        undecodable: |_, bytes, error| match is_newer(bytes) {
            true => Record::decode(&[&[1], &bytes[1..]].concat().into()).map(Some),
            false => Err(error),
        },
        ..SOUND
    }
}

fn is_newer(bytes: &[u8]) -> bool {
    bytes.first() != Some(&1)
}

/// A damaged record cannot be removed by anybody.
pub(crate) fn damage_is_for_ever() -> Defect {
    Defect { fault: "corrupt::evict_any_removes_it", evicts_what_it_cannot_read: false, ..SOUND }
}

/// One damaged record stops the sweep of all others.
pub(crate) fn sweep_stops_at_damage() -> Defect {
    Defect { fault: "corrupt::spares_other_keys", sweep_stops_at_damage: true, ..SOUND }
}
