//! Renewals: stores that extend too much, too little, or at the cost of something else.

use bytes::Bytes;
use oncekey::store::{Change, Fenced, Progress, Renew, State, Status};

use crate::defect::{Defect, SOUND, edit, refuse};

/// Judges a claim by its age, and takes a renewed lease for an abandoned one. As in langwatch: a
/// slow owner that is alive is replaced.
pub(crate) fn renewal_is_ignored() -> Defect {
    Defect {
        fault: "renew::extends_the_lease",
        renew: |seen, renew| {
            edit(seen.decide(renew), |next| {
                if let Some(record) = seen.record.filter(|_| seen.is(State::Live)) {
                    next.status.clone_from(&record.status);
                    next.forget_at = record.forget_at;
                }
            })
        },
        ..SOUND
    }
}

/// Adds the lease to the old deadline: every heartbeat lends more, and a crash blocks the key for
/// the sum.
pub(crate) fn renewals_add_up() -> Defect {
    Defect {
        fault: "renew::extends_the_lease",
        renew: |seen, renew| {
            edit(seen.decide(renew), |next| {
                let longer = seen.now.saturating_add(renew.lease);
                if let (Some(old), Some(record)) = (seen.deadline(), seen.record)
                    && longer > old
                    && renew.progress.is_none()
                {
                    let deadline = old.saturating_add(renew.lease);
                    let hold = record.forget_at.saturating_since(old);
                    next.status = Status::InProgress { deadline };
                    next.forget_at = deadline.saturating_add(hold);
                }
            })
        },
        ..SOUND
    }
}

/// A renewal with a shorter lease takes away what the owner was promised.
pub(crate) fn renewal_shortens() -> Defect {
    Defect {
        fault: "renew::never_shortens_the_lease",
        renew: |seen, renew| {
            edit(seen.decide(renew), |next| {
                let deadline = seen.now.saturating_add(renew.lease);
                next.status = Status::InProgress { deadline };
            })
        },
        ..SOUND
    }
}

/// One heartbeat that comes late, and the lease is surrendered, although nobody wants it. As in
/// Akka.Management.
pub(crate) fn lapsed_is_lost() -> Defect {
    Defect {
        fault: "renew::a_lapsed_lease_lives_again",
        renew: |seen, renew| {
            // What may be swept at any moment is left to the sweep.
            let heartbeat = renew.progress.is_none();
            let lapsed = heartbeat && seen.is(State::Lapsed) && !(SOUND.is_due)(seen);
            let lapsed = lapsed && renew.progress.is_none();
            refuse(seen.decide(renew), |_| {
                (lapsed && seen.is_of(renew.grant.attempt)).then_some(Fenced::Lost)
            })
        },
        ..SOUND
    }
}

/// A plain heartbeat leaves the time to live as the claim set it: a long operation outlives its own
/// record.
pub(crate) fn ttl_stays_behind() -> Defect {
    Defect {
        fault: "renew::forgetting_moves_with_the_deadline",
        renew: |seen, renew| {
            edit(seen.decide(renew), |next| {
                if let (Some(record), None) = (seen.record, &renew.progress) {
                    next.forget_at = record.forget_at;
                }
            })
        },
        ..SOUND
    }
}

/// A heartbeat carries no payload: steps are acknowledged and not kept.
pub(crate) fn saves_nothing() -> Defect {
    Defect {
        fault: "renew::saves_progress",
        renew: |seen, renew| {
            let mut renew = renew.clone();
            renew.progress = None;
            seen.decide(&renew)
        },
        ..SOUND
    }
}

/// Saving is one statement and extending another: whoever saves does not extend.
pub(crate) fn saves_or_extends() -> Defect {
    Defect {
        fault: "renew::saves_progress",
        renew: |seen, renew| {
            let mut decided = seen.decide(renew);
            if let (Change::Put(next), Some(record)) = (&mut decided.change, seen.record)
                && next.progress != record.progress
            {
                next.status.clone_from(&record.status);
                next.forget_at = record.forget_at;
            }
            decided
        },
        ..SOUND
    }
}

/// A text column for progress: bytes that are no UTF-8 come back as replacement characters.
pub(crate) fn progress_is_text() -> Defect {
    Defect {
        fault: "renew::progress_is_byte_for_byte",
        renew: |seen, renew| {
            let text = |data: &[u8]| Some(String::from_utf8_lossy(data).into_owned().into());
            seen.decide(&with_progress(renew, text))
        },
        ..SOUND
    }
}

/// Empty progress is no progress: a step whose result is empty is run again.
pub(crate) fn empty_progress_is_none() -> Defect {
    Defect {
        fault: "renew::progress_is_byte_for_byte",
        renew: |seen, renew| {
            let kept = |data: &[u8]| (!data.is_empty()).then(|| Bytes::copy_from_slice(data));
            seen.decide(&with_progress(renew, kept))
        },
        ..SOUND
    }
}

/// A column of 1,024 bytes for progress, and a database that cuts without a word.
pub(crate) fn cuts_large_progress() -> Defect {
    Defect {
        fault: "limits::large_progress_fits_or_is_refused",
        renew: |seen, renew| {
            let cut = |data: &[u8]| Some(Bytes::copy_from_slice(&data[..data.len().min(1024)]));
            seen.decide(&with_progress(renew, cut))
        },
        ..SOUND
    }
}

/// The renewal, with what `change` makes of its progress.
fn with_progress(renew: &Renew, change: impl FnOnce(&[u8]) -> Option<Bytes>) -> Renew {
    let progress = renew.progress.clone().and_then(|progress| {
        let data = change(&progress.data)?;
        Some(Progress { data, ..progress })
    });
    Renew { progress, ..renew.clone() }
}

/// A plain heartbeat writes the whole row, with no progress in it.
pub(crate) fn heartbeat_wipes_progress() -> Defect {
    Defect {
        fault: "renew::without_progress_keeps_what_was_saved",
        renew: |seen, renew| {
            edit(seen.decide(renew), |next| {
                if renew.progress.is_none() {
                    next.progress = None;
                }
            })
        },
        ..SOUND
    }
}
