//! [`Defect`]: the points at which stores go wrong. Each inhabitant of the zoo replaces one or two of
//! them; [`SOUND`] is right at all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use oncekey::runtime::Timestamp;
use oncekey::store::{
    Abandon, AttemptId, Change, Claim, ClaimOutcome, Command, Complete, ErrorKind, Evict, Fenced,
    Observed, Page, Query, Record, Renew, Settle, State, Status, StoreError, Transition,
    transition,
};

use crate::base::Table;

/// One way to be wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defect {
    /// The rule of the suite that names the fault.
    pub(crate) fault: &'static str,

    // The rules of the lifecycle.
    pub(crate) claim: fn(Seen<'_>, &Claim) -> Transition<ClaimOutcome>,
    pub(crate) renew: fn(Seen<'_>, &Renew) -> Transition<Fenced>,
    pub(crate) complete: fn(Seen<'_>, &Complete) -> Transition<Fenced>,
    pub(crate) abandon: fn(Seen<'_>, &Abandon) -> Transition<Fenced>,
    pub(crate) settle: fn(Seen<'_>, &Settle) -> Transition<Fenced>,
    pub(crate) evict: fn(Seen<'_>, &Evict) -> Transition<Fenced>,
    pub(crate) get: fn(Seen<'_>) -> Transition<Option<Observed>>,

    // Storage.
    /// The key under which a record is kept.
    pub(crate) key: fn(&[u8]) -> Vec<u8>,
    /// What happens to a record on its way into the table.
    pub(crate) stored: fn(&Notes, &[u8], &mut Record),
    /// What a command makes of a record that cannot be decoded.
    pub(crate) undecodable: fn(Op, &[u8], StoreError) -> Found,
    pub(crate) evicts_what_it_cannot_read: bool,
    /// Where a command reads from.
    pub(crate) source: fn(Op) -> Source,
    /// Whether a write to a key does not fit in the table with this capacity.
    pub(crate) is_full: fn(&Notes, &Table, Target<'_>, usize) -> bool,
    /// Makes room in a full table, if it dares.
    pub(crate) make_room: fn(&mut Table) -> bool,

    // Atomicity, time, crashes.
    /// `Some` when the command lets go of the lock between reading and writing; with what it writes
    /// before it lets go.
    pub(crate) tears: fn(Op, Seen<'_>) -> Option<Change>,
    /// What a torn command does when it holds the lock again: what it read, and what is there.
    pub(crate) mends: fn(Seen<'_>, Option<&Record>, &Change) -> Mend,
    /// Whether a command looks at the record once more, before the look by which it decides.
    pub(crate) looks_twice: bool,
    pub(crate) leaks: Leak,
    /// Whether what the command wrote is on disk before it is acknowledged.
    pub(crate) is_durable: fn(Op) -> bool,
    /// What a restart does to the records, and to what is in memory.
    pub(crate) boot: fn(&Notes, &mut Table),

    // Sweeping, waking, listing.
    /// Whether a sweep removes this record.
    pub(crate) is_due: fn(Seen<'_>) -> bool,
    pub(crate) sweep_limit: fn(usize) -> usize,
    pub(crate) sweep_admits_more: bool,
    pub(crate) sweep_stops_at_damage: bool,
    /// Whether subscribers hear of a change by this command, given what it wrote.
    pub(crate) notifies: fn(Op, &Change) -> bool,
    pub(crate) subscribes_late: bool,
    pub(crate) one_subscriber_a_key: bool,
    pub(crate) says_it_lists: bool,
    pub(crate) listed_state: fn(&Observed) -> State,
    pub(crate) page: fn(&mut Page, &Query),
    /// Whether a page begins after so many records, and not after the last one of the page before.
    pub(crate) pages_by_offset: bool,
}

/// No defect at all.
pub(crate) const SOUND: Defect = Defect {
    fault: "none",
    claim: |seen, claim| seen.decide(claim),
    renew: |seen, renew| seen.decide(renew),
    complete: |seen, complete| seen.decide(complete),
    abandon: |seen, abandon| seen.decide(abandon),
    settle: |seen, settle| seen.decide(settle),
    evict: |seen, evict| seen.decide(evict),
    get: |seen| keep(seen.record.map(|record| Observed::new(record.clone(), seen.now))),
    key: <[u8]>::to_vec,
    stored: |_, _, _| {},
    undecodable: |_, _, error| Err(error),
    evicts_what_it_cannot_read: true,
    source: |_| Source::Primary,
    is_full: |_, table, (_, key), capacity| !table.contains_key(key) && table.len() >= capacity,
    make_room: |_| false,
    tears: |_, _| None,
    mends: |_, _, _| Mend::Write,
    looks_twice: false,
    leaks: Leak::Nothing,
    is_durable: |_| true,
    boot: |_, _| {},
    is_due: |seen| seen.record.is_some_and(|record| record.is_purgeable(seen.now)),
    sweep_limit: |limit| limit,
    sweep_admits_more: true,
    sweep_stops_at_damage: false,
    notifies: |_, _| true,
    subscribes_late: false,
    one_subscriber_a_key: false,
    says_it_lists: true,
    listed_state: |observed| observed.state,
    page: |_, _| {},
    pages_by_offset: false,
};

/// What a handle is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Claim,
    Renew,
    Complete,
    Abandon,
    Settle,
    Evict,
    Get,
    Purge,
}

impl Op {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Renew => "renew",
            Self::Complete => "complete",
            Self::Abandon => "abandon",
            Self::Settle => "settle",
            Self::Evict => "evict",
            Self::Get => "get",
            Self::Purge => "purge",
        }
    }

    pub(crate) const fn ends_an_attempt(self) -> bool {
        matches!(self, Self::Complete | Self::Abandon | Self::Settle | Self::Evict)
    }
}

/// Where a command reads from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The one place that all handles share.
    Primary,
    /// A copy that lags one write behind. Writes go to the primary.
    Replica,
    /// A table of this handle alone; writes go there, too.
    Handle,
    /// What this handle wrote last, else the primary.
    Cache,
}

/// What a call takes, and does not give back when its future is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leak {
    Nothing,
    KeyLock,
    /// One of this many connections.
    Connection(u16),
    /// The connection that all calls of the handle share: those under way fail.
    SharedConnection,
}

/// What a torn command does when it holds the lock again.
#[derive(Debug)]
pub(crate) enum Mend {
    /// Writes what it decided.
    Write,
    /// Notices that somebody was faster, and decides again.
    Again,
    /// Notices, and reports that something broke.
    Fail(ErrorKind),
}

/// What is done to which key.
pub(crate) type Target<'a> = (Op, &'a [u8]);

/// What is found for a key, if it can be decoded.
pub(crate) type Found = Result<Option<Record>, StoreError>;

/// What a command reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) record: Option<&'a Record>,
    pub(crate) now: Timestamp,
    /// What a store that looks twice saw first.
    pub(crate) before: Option<&'a Record>,
    /// What this handle wrote last.
    pub(crate) private: Option<&'a Record>,
    pub(crate) notes: &'a Notes,
}

/// What some defects keep beside the records.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) counter: AtomicU64,
    pub(crate) attempts: Mutex<BTreeSet<AttemptId>>,
    pub(crate) times: Mutex<BTreeMap<Vec<u8>, Timestamp>>,
}

impl<'a> Seen<'a> {
    /// The right decision.
    pub(crate) fn decide<C: Command>(self, command: &C) -> Transition<C::Outcome> {
        transition(self.record, command, self.now)
    }

    pub(crate) fn is(self, state: State) -> bool {
        self.record.is_some_and(|record| record.state(self.now) == state)
    }

    pub(crate) fn is_interrupted(self) -> bool {
        self.is(State::Lapsed) || self.is(State::GaveUp)
    }

    pub(crate) fn is_of(self, attempt: AttemptId) -> bool {
        self.record.is_some_and(|record| record.attempt == attempt)
    }

    pub(crate) fn deadline(self) -> Option<Timestamp> {
        match self.record?.status {
            Status::InProgress { deadline } => Some(deadline),
            _ => None,
        }
    }

    /// What is right if there were no record.
    pub(crate) fn decide_absent<C: Command>(self, command: &C) -> Transition<C::Outcome> {
        transition(None, command, self.now)
    }

    /// What is right if the record were another one.
    pub(crate) fn decide_as<C: Command>(
        self,
        command: &C,
        change: impl FnOnce(&mut Record),
    ) -> Transition<C::Outcome> {
        let mut record = self.record.cloned();
        record.as_mut().map(change);
        transition(record.as_ref(), command, self.now)
    }
}

pub(crate) const fn keep<O>(outcome: O) -> Transition<O> {
    Transition { change: Change::Keep, outcome }
}

pub(crate) const fn remove<O>(outcome: O) -> Transition<O> {
    Transition { change: Change::Remove, outcome }
}

/// The decision, with what it writes changed.
pub(crate) fn edit<O>(
    mut decided: Transition<O>,
    change: impl FnOnce(&mut Record),
) -> Transition<O> {
    if let Change::Put(record) = &mut decided.change {
        change(record);
    }
    decided
}

/// The decision, with another answer where `refusal` gives one; then nothing is written.
pub(crate) fn refuse<O>(
    decided: Transition<O>,
    refusal: impl FnOnce(&O) -> Option<O>,
) -> Transition<O> {
    match refusal(&decided.outcome) {
        Some(outcome) => keep(outcome),
        None => decided,
    }
}
