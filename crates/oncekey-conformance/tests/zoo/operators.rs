//! Operators: stores that overrule the living, or do something else than they were told.

use oncekey::store::{Evict, Expected, Fenced, Settle, Settlement, State, Status};

use crate::base::lock;
use crate::defect::{Defect, SOUND, Seen, edit, keep, refuse};

/// The operator's verdict wins over an owner that is running.
pub(crate) fn settle_overrules_the_living() -> Defect {
    Defect {
        fault: "operator::settle_spares_a_live_owner",
        settle: |seen, settle| match seen.is(State::Live) {
            true => seen.decide_as(settle, |record| record.status = Status::GaveUp),
            false => seen.decide(settle),
        },
        ..SOUND
    }
}

/// The operator looked at one attempt and settles the next.
pub(crate) fn settles_whoever_is_there() -> Defect {
    Defect {
        fault: "operator::settle_names_its_attempt",
        settle: |seen, settle| seen.decide(&Settle { expected: Expected::Any, ..settle.clone() }),
        ..SOUND
    }
}

/// A token that is not older will do: a verdict about a later attempt settles this one.
pub(crate) fn settles_an_earlier_attempt() -> Defect {
    Defect {
        fault: "operator::settle_names_its_attempt",
        settle: |seen, settle| {
            let expected = or_later(seen, settle.expected);
            seen.decide(&Settle { expected, ..settle.clone() })
        },
        ..SOUND
    }
}

/// `WHERE token <= ?`: an eviction of a later attempt removes this one.
pub(crate) fn evicts_an_earlier_attempt() -> Defect {
    Defect {
        fault: "operator::evict_names_its_attempt",
        evict: |seen, evict| {
            let expected = or_later(seen, evict.expected);
            seen.decide(&Evict { expected, ..*evict })
        },
        ..SOUND
    }
}

fn or_later(seen: Seen<'_>, expected: Expected) -> Expected {
    match (expected, seen.record) {
        (Expected::Token(token), Some(record)) => Expected::Token(token.min(record.token)),
        _ => expected,
    }
}

/// A released key cannot be settled as done: what an operator found out cannot be recorded.
pub(crate) fn settles_the_interrupted_only() -> Defect {
    Defect {
        fault: "operator::settle_as_done_records_the_result",
        settle: |seen, settle| match settle.settlement {
            Settlement::Done(_) => refuse(seen.decide(settle), |outcome| {
                (seen.is(State::Released) && *outcome == Fenced::Applied).then_some(Fenced::Lost)
            }),
            Settlement::NotDone { .. } => seen.decide(settle),
        },
        ..SOUND
    }
}

/// "Not done" only ends the attempt: the key stays interrupted.
pub(crate) fn not_done_stays_interrupted() -> Defect {
    Defect {
        fault: "operator::settle_as_not_done_frees_the_key",
        settle: |seen, settle| match settle.settlement {
            Settlement::NotDone { .. } if seen.is_interrupted() => {
                edit(seen.decide(settle), |record| record.status = Status::GaveUp)
            }
            _ => seen.decide(settle),
        },
        ..SOUND
    }
}

/// "Not done" frees the key, and hands the saved steps to the next attempt, which skips them.
pub(crate) fn not_done_keeps_the_steps() -> Defect {
    Defect {
        fault: "operator::settle_as_not_done_frees_the_key",
        settle: |seen, settle| match settle.settlement {
            Settlement::NotDone { .. } => edit(seen.decide(settle), |next| {
                if let Some(record) = seen.record {
                    next.progress.clone_from(&record.progress);
                }
            }),
            Settlement::Done(_) => seen.decide(settle),
        },
        claim: |seen, claim| {
            edit(seen.decide(claim), |next| {
                if let Some(record) = seen.record.filter(|_| seen.is(State::Released)) {
                    next.progress.clone_from(&record.progress);
                }
            })
        },
        ..SOUND
    }
}

/// The second press of the button is an error.
pub(crate) fn second_verdict_is_lost() -> Defect {
    Defect {
        fault: "operator::settle_as_not_done_again_changes_nothing",
        settle: |seen, settle| match settle.settlement {
            Settlement::NotDone { .. } => refuse(seen.decide(settle), |outcome| {
                (seen.is(State::Released) && *outcome == Fenced::Applied).then_some(Fenced::Lost)
            }),
            Settlement::Done(_) => seen.decide(settle),
        },
        ..SOUND
    }
}

/// An operator who believes that nothing was done frees a key that has a result.
pub(crate) fn settle_erases_the_result() -> Defect {
    Defect {
        fault: "operator::settle_never_overrules_a_result",
        settle: |seen, settle| match settle.settlement {
            Settlement::NotDone { .. } => seen.decide_as(settle, |record| {
                if matches!(record.status, Status::Completed { .. }) {
                    record.status = Status::GaveUp;
                }
            }),
            Settlement::Done(_) => seen.decide(settle),
        },
        ..SOUND
    }
}

/// Deletes the row from under a live owner, though nobody said to force it. As with the reapers of
/// sidekiq-unique-jobs.
pub(crate) fn evicts_the_living() -> Defect {
    Defect {
        fault: "operator::evict_spares_a_live_owner",
        evict: |seen, evict| seen.decide(&Evict { force: true, ..*evict }),
        ..SOUND
    }
}

/// Force does not reach a live owner: a stuck key cannot be helped.
pub(crate) fn force_is_no_force() -> Defect {
    Defect {
        fault: "operator::evict_by_force_removes_a_live_owner",
        evict: |seen, evict| seen.decide(&Evict { force: false, ..*evict }),
        ..SOUND
    }
}

/// Force is for whoever knows the attempt: what is known by its token, from a log, cannot be helped.
pub(crate) fn force_needs_the_attempt() -> Defect {
    Defect {
        fault: "operator::evict_by_force_removes_a_live_owner",
        evict: |seen, evict| {
            let force = evict.force && !matches!(evict.expected, Expected::Token(_));
            seen.decide(&Evict { force, ..*evict })
        },
        ..SOUND
    }
}

/// Evicts by key alone: the attempt that the operator named is not compared.
pub(crate) fn evicts_whoever_is_there() -> Defect {
    Defect {
        fault: "operator::evict_names_its_attempt",
        evict: |seen, evict| seen.decide(&Evict { expected: Expected::Any, ..*evict }),
        ..SOUND
    }
}

/// Eviction is for what is stuck: a result cannot be evicted, and a wrong one stays for a day.
pub(crate) fn results_stay() -> Defect {
    Defect {
        fault: "operator::an_evicted_key_is_as_new",
        evict: |seen, evict| match seen.is(State::Completed) {
            true => refuse(seen.decide(evict), |outcome| {
                (*outcome == Fenced::Applied).then_some(Fenced::Lost)
            }),
            false => seen.decide(evict),
        },
        ..SOUND
    }
}

/// What is retired goes by itself one day: an eviction does not find it.
pub(crate) fn retired_stays() -> Defect {
    Defect {
        fault: "operator::an_evicted_key_is_as_new",
        evict: |seen, evict| {
            refuse(seen.decide(evict), |outcome| {
                (*outcome == Fenced::Applied && seen.is(State::Retired)).then_some(Fenced::Lost)
            })
        },
        ..SOUND
    }
}

/// Expires lazily: a read marks a record that it finds over, and once a second read has found the
/// mark, the next claim is told nothing of it.
pub(crate) fn looking_erases() -> Defect {
    Defect {
        fault: "inspect::get_changes_nothing",
        get: |seen| {
            if let Some(record) = seen.record.filter(|_| seen.is(State::Retired)) {
                let mut times = lock(&seen.notes.times);
                if times.insert(seen.key.to_vec(), seen.now).is_some() {
                    lock(&seen.notes.attempts).insert(record.attempt);
                }
            }
            (SOUND.get)(seen)
        },
        claim: |seen, claim| match seen.record {
            Some(record) if lock(&seen.notes.attempts).contains(&record.attempt) => {
                seen.decide_absent(claim)
            }
            _ => seen.decide(claim),
        },
        ..SOUND
    }
}

/// Shows what was inherited as if this attempt had saved it.
pub(crate) fn shows_inherited_as_saved() -> Defect {
    Defect {
        fault: "inspect::get_shows_every_state",
        get: |seen| {
            let mut found = (SOUND.get)(seen);
            let record = found.outcome.as_mut().map(|observed| &mut observed.record);
            if let Some(progress) = record.and_then(|record| record.progress.as_mut()) {
                progress.sequence = progress.sequence.max(1);
            }
            found
        },
        ..SOUND
    }
}

/// Shows what is stored, not what it means: a crashed attempt is shown as running.
pub(crate) fn shows_the_stored_status() -> Defect {
    Defect {
        fault: "inspect::get_shows_every_state",
        get: |seen| {
            let mut found = (SOUND.get)(seen);
            if let Some(observed) = &mut found.outcome {
                observed.state = stored_state(&observed.record.status);
            }
            found
        },
        ..SOUND
    }
}

/// A record that has ended is not shown, so nobody finds out why a key is refused.
pub(crate) fn shows_no_ended_records() -> Defect {
    Defect {
        fault: "inspect::get_shows_every_state",
        get: |seen| match seen.is(State::Released) || seen.is(State::Retired) {
            true => keep(None),
            false => (SOUND.get)(seen),
        },
        ..SOUND
    }
}

/// Lists by the stored status: what lapsed is listed as running.
pub(crate) fn lists_the_stored_status() -> Defect {
    Defect {
        fault: "inspect::lists_only_the_wanted_states",
        listed_state: |observed| stored_state(&observed.record.status),
        ..SOUND
    }
}

fn stored_state(status: &Status) -> State {
    match status {
        Status::InProgress { .. } => State::Live,
        Status::GaveUp => State::GaveUp,
        Status::Released => State::Released,
        Status::Completed { .. } => State::Completed,
    }
}

/// A page goes on after the first row of the next: that one is never listed.
pub(crate) fn loses_a_row_between_pages() -> Defect {
    Defect {
        fault: "inspect::lists_every_record",
        page: |page, _| {
            if page.next.is_some() {
                page.entries.pop();
            }
        },
        ..SOUND
    }
}

/// Pages by `OFFSET`: for every record that goes away between two pages, one is passed over.
pub(crate) fn pages_by_offset() -> Defect {
    Defect { fault: "inspect::lists_what_stays_while_others_go", pages_by_offset: true, ..SOUND }
}

/// Lists keys as text, and leaves out those that are none.
pub(crate) fn lists_readable_keys() -> Defect {
    Defect {
        fault: "inspect::lists_every_record",
        page: |page, _| {
            page.entries.retain(|(key, _)| std::str::from_utf8(key.as_bytes()).is_ok());
        },
        ..SOUND
    }
}

/// Passes over what it cannot decode without a word.
pub(crate) fn damage_is_not_counted() -> Defect {
    Defect {
        fault: "inspect::counts_what_it_cannot_decode",
        page: |page, _| page.undecodable = 0,
        ..SOUND
    }
}
