//! What must hold whatever happens, said without the rules: each step and each state is checked
//! against what is promised to callers, never against what `transition` would have done.

use std::fmt;

use oncekey::runtime::Timestamp;
use oncekey::store::{ClaimOutcome, Fenced, OnInterrupted, Record, State, Status, StoredValue};

use super::world::{
    Answer, Setup, Verb, World, attempt_id, fingerprint, progress, ticks, time, value_of,
};

macro_rules! promises {
    ($($name:ident = $text:literal,)*) => {
        /// The promises. Each is one property of the model.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum Promise { $($name,)* }

        impl Promise {
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            pub(crate) const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

promises! {
    OneOwner = "the leases of two attempts never overlap",
    OneBeliever = "no two attempts take themselves for the owner at once",
    TokensGrow = "tokens grow with every grant",
    GrantIsKept = "a grant is on record, with all of its lease",
    RepeatedClaim = "a claim that is sent again gets the same grant",
    EndedIsSpent = "an attempt that ended is never granted again",
    EndedStaysEnded = "an attempt that ended is never in progress again",
    Mismatch = "another request is refused in every state but absent and retired",
    FingerprintStays = "the fingerprint stays while the key is remembered",
    RefusalIsInert = "a refusal changes nothing",
    Fenced = "an attempt that was replaced changes nothing",
    OwnerIsHeard = "an owner that nobody replaced can renew and complete",
    WriteOnce = "a result never changes, and its retention is never extended",
    AcknowledgedIsStored = "what was acknowledged is what is stored while it is retained",
    Replayed = "duplicates get the acknowledged result, and nothing else, while it is retained",
    DeadlineGrows = "the deadline never moves back",
    RememberedLongEnough = "a key is remembered for its hold after the deadline and the retention",
    DoubtIsTold = "whoever is granted the key is told of an effect that nobody has looked into",
    TakeoverIsTold = "a takeover is told whom it replaces and what was saved",
    ProgressStays = "saved progress is never lost, nor replaced by an older one",
    SavedIsNotReleased = "an attempt that saved progress is never taken for one that did nothing",
    OwnerIsSpared = "an operator never overrules a live owner",
    RemovedInTime = "only an eviction, and a purge at the time to forget, remove a record",
    AtMostOnce = "under the refuse policy there is one effect, unless an operator allows another",
    NotStuck = "no key is stuck",
}

/// A set of promises that a step has broken.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Broken(u32);

impl Broken {
    pub(crate) const NOTHING: Self = Self(0);

    pub(crate) const fn contains(self, promise: Promise) -> bool {
        self.0 & (1 << promise as u32) != 0
    }

    fn check(&mut self, promise: Promise, holds: bool) {
        if !holds {
            self.0 |= 1 << promise as u32;
        }
    }
}

impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(Promise::ALL.iter().filter(|promise| self.contains(**promise)))
            .finish()
    }
}

/// Checks one command: what was on record, what was sent, the answer, and what is on record now.
pub(crate) fn check_command(
    setup: &Setup,
    world: &mut World,
    before: Option<&Record>,
    (attempt, verb): (usize, Verb),
    answer: &Answer,
) {
    let now = world.now;
    let after = world.record().cloned();
    let after = after.as_ref();
    let state = before.map(|record| record.state(time(now)));
    let own = before.is_some_and(|record| match verb {
        Verb::Claim | Verb::SettleDone | Verb::SettleNotDone | Verb::Evict => {
            record.attempt == attempt_id(attempt)
        }
        _ => record.grant() == world.grant(attempt),
    });
    let mut broken = world.ghost.broken;

    check_memory(&mut broken, before, after, verb == Verb::Evict);
    if let (Some(before), Some(after)) = (before, after)
        && after.status == Status::Released
        && before.status != Status::Released
    {
        let held = after.forget_at >= time(now).saturating_add(setup.hold());
        broken.check(Promise::RememberedLongEnough, held);
    }
    match answer {
        Answer::Claim(outcome) => {
            check_claim(setup, world, &mut broken, before, attempt, outcome);
        }
        Answer::Fenced(outcome) => {
            let applied = *outcome == Fenced::Applied;
            broken.check(Promise::RefusalIsInert, applied || after == before);
            broken.check(
                Promise::Fenced,
                own || (after == before
                    && *outcome == before.map_or(Fenced::Gone, |_| Fenced::Lost)),
            );
            let owner = own && before.is_some_and(|record| !is_completed(record));
            match verb {
                Verb::Renew | Verb::Save(_) => {
                    let in_progress = matches!(state, Some(State::Live | State::Lapsed));
                    broken.check(Promise::OwnerIsHeard, applied || !(own && in_progress));
                    if applied {
                        let held = after.and_then(deadline).is_some_and(|deadline| {
                            deadline >= time(now).saturating_add(ticks(setup.renew_lease))
                        });
                        broken.check(Promise::GrantIsKept, held);
                    }
                    if let Verb::Save(number) = verb
                        && applied
                        && sequence(before) < number.into()
                    {
                        let saved = after.and_then(|record| record.progress.as_deref());
                        let sent = progress(attempt, number);
                        broken.check(Promise::ProgressStays, saved == Some(&sent));
                    }
                }
                Verb::Complete => broken.check(Promise::OwnerIsHeard, applied || !owner),
                Verb::SettleDone | Verb::SettleNotDone | Verb::Evict => {
                    let spared = *outcome == Fenced::Busy && after == before;
                    broken.check(
                        Promise::OwnerIsSpared,
                        !own || state != Some(State::Live) || spared,
                    );
                }
                Verb::Release => {
                    let saved = before.is_some_and(|record| record.progress.is_some());
                    let released = after.is_some_and(|record| record.status == Status::Released);
                    broken.check(Promise::SavedIsNotReleased, !(saved && released));
                }
                Verb::Claim | Verb::GiveUp => {}
            }
        }
    }
    world.ghost.broken = broken;
}

/// What holds between any two records of a key, whichever command came between them.
fn check_memory(
    broken: &mut Broken,
    before: Option<&Record>,
    after: Option<&Record>,
    removing: bool,
) {
    let Some(before) = before else { return };
    let Some(after) = after else {
        broken.check(Promise::RemovedInTime, removing);
        return;
    };
    if after.token != before.token {
        return;
    }
    // One grant's life.
    broken.check(
        Promise::FingerprintStays,
        after.fingerprint == before.fingerprint && after.attempt == before.attempt,
    );
    if is_completed(before) {
        broken.check(Promise::WriteOnce, after == before);
    }
    match (deadline(before), deadline(after)) {
        (Some(was), Some(is)) => {
            broken.check(Promise::DeadlineGrows, is >= was);
            broken.check(
                Promise::ProgressStays,
                sequence(Some(after)) >= sequence(Some(before))
                    && after.progress.is_some() >= before.progress.is_some(),
            );
        }
        (None, Some(_)) => broken.check(Promise::EndedStaysEnded, false),
        (_, None) => {}
    }
}

fn check_claim(
    setup: &Setup,
    world: &World,
    broken: &mut Broken,
    before: Option<&Record>,
    attempt: usize,
    outcome: &ClaimOutcome,
) {
    let now = time(world.now);
    let after = world.record();
    let state = before.map(|record| record.state(now));
    let own = before.is_some_and(|record| record.attempt == attempt_id(attempt));
    let same = before
        .is_some_and(|record| record.fingerprint == fingerprint(world.attempts[attempt].request));
    let acquired = matches!(outcome, ClaimOutcome::Acquired { .. });
    broken.check(Promise::RefusalIsInert, acquired || after == before);

    let compared = !matches!(state, None | Some(State::Retired));
    broken.check(Promise::Mismatch, (compared && !same) == (*outcome == ClaimOutcome::Mismatch));
    if state == Some(State::Completed) && same {
        let replayed = matches!(outcome, ClaimOutcome::Replay(_));
        broken.check(Promise::Replayed, replayed);
    }
    if let ClaimOutcome::Replay(value) = outcome {
        let promised = world.ghost.result.filter(|(_, until)| world.now < *until);
        broken.check(
            Promise::Replayed,
            promised.is_some_and(|(promised, _)| *value == Some(value_of(promised))),
        );
    }
    let again = own && same && matches!(state, Some(State::Live | State::Lapsed));
    broken.check(Promise::RepeatedClaim, acquired || !again);

    let ClaimOutcome::Acquired { grant, number, lease_left, previous } = outcome else {
        return;
    };
    broken.check(Promise::EndedIsSpent, !own || again);
    let kept = after.is_some_and(|record| {
        record.grant() == *grant
            && grant.attempt == attempt_id(attempt)
            && record.number == *number
            && deadline(record) == Some(now.saturating_add(*lease_left))
            && *lease_left >= ticks(setup.claim_lease)
    });
    broken.check(Promise::GrantIsKept, kept);
    match before {
        Some(before) if again => {
            broken.check(
                Promise::RepeatedClaim,
                grant.token == before.token && *number == before.number,
            );
        }
        Some(before) => broken.check(Promise::TokensGrow, grant.token > before.token),
        // The token of a key that is not remembered comes from the clock alone.
        None => broken.check(
            Promise::TokensGrow,
            now.as_micros() <= world.ghost.token || grant.token.get() > world.ghost.token,
        ),
    }
    let told_of_doubt = again || previous.is_some() || !setup.is_faultless();
    broken.check(Promise::DoubtIsTold, told_of_doubt || !world.ghost.doubt);
    let told = previous.as_ref().map(|told| told.token);
    let told_progress = previous.as_ref().and_then(|told| told.progress.as_ref());
    let fresh = *number == 1 && previous.is_none();
    match (before, state) {
        (Some(before), Some(State::Live | State::Lapsed | State::GaveUp)) if !own => {
            let saved = before.progress.as_ref().map(|progress| &progress.data);
            broken.check(
                Promise::TakeoverIsTold,
                told == Some(before.token)
                    && told_progress == saved
                    && *number == before.number + 1,
            );
        }
        (Some(before), Some(State::Released)) => broken
            .check(Promise::TakeoverIsTold, previous.is_none() && *number == before.number + 1),
        (Some(before), _) if own => broken
            .check(Promise::TakeoverIsTold, told == before.previous.map(|replaced| replaced.token)),
        _ => broken.check(Promise::TakeoverIsTold, fresh),
    }
}

/// Checks one purge: a record goes only when its time to forget has come and nobody needs it.
pub(crate) fn check_purge(world: &mut World, before: Option<&Record>) {
    let after = world.record();
    let removed = before.is_some() && after.is_none();
    let allowed = before.is_some_and(|record| {
        record.forget_at <= time(world.now)
            && !matches!(record.state(time(world.now)), State::Live | State::Completed)
    });
    let inert = removed || after == before;
    world.ghost.broken.check(Promise::RemovedInTime, (allowed || !removed) && inert);
}

/// Checks a state as it is, whatever led to it.
pub(crate) fn holds(setup: &Setup, world: &World, promise: Promise) -> bool {
    if !world.keeps(promise) {
        return false;
    }
    let faultless = setup.is_faultless();
    match promise {
        Promise::OneOwner => {
            !faultless
                || 1 >= (world.attempts.iter())
                    .filter(|attempt| world.now < attempt.leased_until)
                    .count()
        }
        Promise::OneBeliever => {
            !faultless
                || 1 >= (world.attempts.iter())
                    .filter(|attempt| attempt.believes(world.now))
                    .count()
        }
        Promise::AcknowledgedIsStored => world.ghost.result.is_none_or(|(value, until)| {
            world.now >= until
                || world.record().is_some_and(|record| match &record.status {
                    Status::Completed { value: kept, .. } => {
                        *kept == StoredValue::Replayable(value_of(value))
                            && record.state(time(world.now)) == State::Completed
                    }
                    _ => false,
                })
        }),
        Promise::RememberedLongEnough => world.record().is_none_or(|record| {
            let end = match &record.status {
                Status::InProgress { deadline } => *deadline,
                Status::Completed { retained_until, .. } => *retained_until,
                Status::GaveUp | Status::Released => return true,
            };
            record.forget_at >= end.saturating_add(setup.hold())
        }),
        Promise::AtMostOnce => {
            setup.on_interrupted != OnInterrupted::Refuse
                || world.ghost.effects <= 1 + world.ghost.pardons
        }
        _ => true,
    }
}

pub(crate) fn deadline(record: &Record) -> Option<Timestamp> {
    match record.status {
        Status::InProgress { deadline } => Some(deadline),
        _ => None,
    }
}

fn is_completed(record: &Record) -> bool {
    matches!(record.status, Status::Completed { .. })
}

fn sequence(record: Option<&Record>) -> u64 {
    record.and_then(|record| record.progress.as_ref()).map_or(0, |progress| progress.sequence)
}
