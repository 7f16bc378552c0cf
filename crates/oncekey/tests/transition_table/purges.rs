//! Purges: what goes, and when.

use oncekey::store::{Change, Purge, Record, State, transition};

use super::records::{ALL, at, record};

#[test]
fn a_record_goes_when_its_time_to_forget_has_come() {
    for state in ALL {
        let needed = matches!(state, State::Live | State::Completed);
        for (forget_at, due) in [(at(-9), true), (at(0), true), (at(1), false)] {
            let before = Record { forget_at, ..record(state) };
            let decided = transition(Some(&before), &Purge, at(0));
            let removed = due && !needed;
            assert_eq!(decided.outcome, removed, "{state:?} {forget_at:?}");
            let change = if removed { Change::Remove } else { Change::Keep };
            assert_eq!(decided.change, change);
        }
    }
    assert!(!transition(None, &Purge, at(0)).outcome);
}
