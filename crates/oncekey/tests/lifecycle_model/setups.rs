//! The worlds that are explored, each to its end.

use oncekey::store::{OnInterrupted, OnRetired};

use super::world::Setup;

/// Two clients under the policy of *at least once*: what every other world is a variation of.
pub(crate) const TAKE_OVER: Setup = Setup {
    clients: 2,
    attempts: 2,
    grants: 3,
    ticks: 5,
    claim_lease: 2,
    renew_lease: 1,
    retention: 1,
    hold: Some(1),
    on_interrupted: OnInterrupted::TakeOver,
    on_retired: OnRetired::Forget,
    requests: 1,
    renews: true,
    saves: 0,
    verdicts: 0,
    evicts: false,
    purges: false,
    confused: false,
    steps_back: 0,
    losses: 0,
};

/// Owners that contradict themselves, as a dropped future and a late answer can make them.
pub(crate) const CONFUSED: Setup = Setup { ticks: 4, renews: false, confused: true, ..TAKE_OVER };

/// Three clients at once, one of whom comes back after a crash.
pub(crate) const CROWD: Setup =
    Setup { clients: 3, attempts: 3, ticks: 4, renews: false, ..TAKE_OVER };

/// Copies of an attempt's claim and of its last command, that come when others have come and gone.
pub(crate) const LATE_COPIES: Setup = Setup { attempts: 3, grants: 4, ticks: 3, ..TAKE_OVER };

/// The policy of *at most once*, for ever, with progress and an operator.
pub(crate) const AT_MOST_ONCE: Setup = Setup {
    attempts: 3,
    ticks: 4,
    hold: None,
    on_interrupted: OnInterrupted::Refuse,
    on_retired: OnRetired::Tell,
    renews: false,
    saves: 1,
    verdicts: 1,
    ..TAKE_OVER
};

/// *At most once* while the key is remembered, and no longer.
pub(crate) const AT_MOST_ONCE_WITHIN_HOLD: Setup =
    Setup { hold: Some(1), saves: 0, on_retired: OnRetired::Forget, purges: true, ..AT_MOST_ONCE };

/// Two requests under one key.
pub(crate) const REQUESTS: Setup =
    Setup { requests: 2, attempts: 3, ticks: 3, claim_lease: 1, renews: false, ..TAKE_OVER };

/// Attempts that save progress twice.
pub(crate) const PROGRESS: Setup = Setup { saves: 2, ticks: 3, claim_lease: 1, ..TAKE_OVER };

/// An operator who settles and evicts, by messages that may come late and twice.
pub(crate) const OPERATOR: Setup =
    Setup { ticks: 4, retention: 2, renews: false, verdicts: 1, evicts: true, ..TAKE_OVER };

/// A sweeper at any moment.
pub(crate) const SWEPT: Setup = Setup { purges: true, retention: 2, ..TAKE_OVER };

/// Renewals for longer than the claim.
pub(crate) const LONG_RENEWALS: Setup = Setup { claim_lease: 1, renew_lease: 2, ..TAKE_OVER };

/// A store whose clock steps back and that loses a record.
pub(crate) const FAULTY: Setup =
    Setup { ticks: 4, renews: false, purges: true, steps_back: 1, losses: 1, ..TAKE_OVER };
