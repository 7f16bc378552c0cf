//! Renewals: deadlines only move forward, and progress only by its number.

use bytes::Bytes;
use oncekey::runtime::Timestamp;
use oncekey::store::{Change, Fenced, Grant, Progress, Record, Renew, State, Status, transition};

use super::records::{HOLD, LEASE, OWNER, at, progress, record, seconds};

fn renew(before: &Record, lease: u64, progress: Option<Progress>) -> Record {
    let grant = Grant { token: before.token, attempt: OWNER };
    let renew = Renew { grant, lease: seconds(lease), progress };
    let decided = transition(Some(before), &renew, at(0));
    assert_eq!(decided.outcome, Fenced::Applied);
    let Change::Put(next) = decided.change else { panic!("a renewal is recorded") };
    next
}

#[test]
fn a_shorter_lease_moves_nothing_back() {
    let before = record(State::Live);
    assert_eq!(renew(&before, 1, None), before);
}

#[test]
fn what_is_remembered_moves_with_the_deadline() {
    for (state, deadline) in [(State::Live, 4), (State::Lapsed, 0)] {
        let before = Record { forget_at: at(deadline + 33), ..record(state) };
        let next = renew(&before, 20, None);
        assert_eq!(next.status, Status::InProgress { deadline: at(20) });
        assert_eq!(next.forget_at, at(20 + 33));
    }
    let before = Record { forget_at: Timestamp::MAX, ..record(State::Live) };
    assert_eq!(renew(&before, 20, None).forget_at, Timestamp::MAX);
}

#[test]
fn progress_is_saved_only_if_its_number_is_greater() {
    let sent = |sequence| Progress { sequence, data: Bytes::from_static(b"new") };
    let saved = |sequence| Some(Box::new(sent(sequence)));
    for (before, number, after) in [
        (None, 1, saved(1)),
        (None, 0, None),
        (progress(0), 1, saved(1)),
        (progress(0), 0, progress(0)),
        (progress(4), 5, saved(5)),
        (progress(4), 9, saved(9)),
        (progress(4), 4, progress(4)),
        (progress(4), 3, progress(4)),
    ] {
        for state in [State::Live, State::Lapsed] {
            let before = Record { progress: before.clone(), ..record(state) };
            let next = renew(&before, LEASE, Some(sent(number)));
            let status = Status::InProgress { deadline: at(LEASE as i64) };
            let forget_at = at((LEASE + HOLD) as i64);
            assert_eq!(next, Record { progress: after.clone(), status, forget_at, ..before });
        }
    }
}

#[test]
fn a_renewal_without_progress_leaves_it_alone() {
    let before = Record { progress: progress(4), ..record(State::Live) };
    assert_eq!(renew(&before, LEASE, None).progress, progress(4));
}
