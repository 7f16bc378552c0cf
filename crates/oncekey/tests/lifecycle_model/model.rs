//! The steps of the world, as a model for stateright.

use std::sync::atomic::{AtomicU64, Ordering};

use oncekey::runtime::Timestamp;
use oncekey::store::{
    Abandon, Change, ClaimOutcome, Complete, Evict, Expected, Fenced, Known, OnInterrupted,
    OnRetired, Renew, Settle, Settlement, State, Transition,
};
use stateright::{Model, Property};

use super::promises::{Promise, check_command, check_purge, holds};
use super::rules::Rules;
use super::stuck::is_stuck;
use super::world::{
    Answer, Attempt, Kept, Phase, Setup, Verb, World, attempt_id, fingerprint, progress, ticks,
    time,
};

/// The property that is checked.
pub(crate) const KEPT: &str = "every promise is kept";

/// One key under `rules`, in a world as `setup` says.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    pub(crate) setup: Setup,
    pub(crate) rules: Rules,
    promises: &'static [Promise],
    /// What was ever answered and reached: not part of any state, so that it adds none.
    seen: AtomicU64,
}

/// What a check must have met to mean anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    Granted,
    GrantedAgain,
    TakenOver,
    GrantedAfterRelease,
    GrantedAfterRetirement,
    GrantedToNobody,
    Replay,
    Busy,
    Mismatch,
    Interrupted,
    Retired,
    Spent,
    Lost,
    Gone,
    Conflict,
    OwnerInTheWay,
    RenewedLate,
    CompletedLate,
    CompletedAgain,
    ReleasedWithProgress,
    Settled,
    Purged,
    EffectBegun,
}

impl Lifecycle {
    pub(crate) const fn new(setup: Setup, rules: Rules, promises: &'static [Promise]) -> Self {
        Self { setup, rules, promises, seen: AtomicU64::new(0) }
    }

    /// The promises that do not hold in `world`.
    pub(crate) fn broken<'a>(&'a self, world: &'a World) -> impl Iterator<Item = Promise> + 'a {
        let holds = |promise| match promise {
            Promise::NotStuck => !is_stuck(&self.setup, self.rules, world),
            _ => holds(&self.setup, world, promise),
        };
        self.promises.iter().copied().filter(move |promise| !holds(*promise))
    }

    pub(crate) fn has_seen(&self, what: Seen) -> bool {
        self.seen.load(Ordering::Relaxed) & (1 << what as u64) != 0
    }

    fn see(&self, what: Seen) {
        self.seen.fetch_or(1 << what as u64, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Tick,
    StepBack,
    LoseRecord,
    Purge,
    /// A new attempt, by a client that is new or was restarted.
    Start {
        request: u8,
    },
    Send {
        attempt: usize,
        verb: Verb,
    },
    Deliver {
        attempt: usize,
        verb: Verb,
        heard: bool,
    },
    BeginEffect {
        attempt: usize,
    },
    Crash {
        attempt: usize,
    },
}

impl Model for Lifecycle {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let setup = &self.setup;
        if world.now < setup.ticks {
            actions.push(Action::Tick);
        }
        if world.steps_back < setup.steps_back && world.now > 1 {
            actions.push(Action::StepBack);
        }
        if world.losses < setup.losses && world.store.is_some() {
            actions.push(Action::LoseRecord);
        }
        if setup.purges && world.store.is_some() {
            actions.push(Action::Purge);
        }
        let alive = world.attempts.iter().filter(|attempt| attempt.is_alive());
        if world.attempts.len() < setup.attempts && alive.count() < setup.clients {
            actions.extend((0..setup.requests).map(|request| Action::Start { request }));
        }
        for (index, attempt) in world.attempts.iter().enumerate() {
            self.attempt_actions(world, index, attempt, actions);
        }
        if let Some(attempt) = world.last_attempt() {
            self.operator_actions(world, attempt, actions);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        match action {
            Action::Tick => next.now += 1,
            Action::StepBack => {
                next.now -= 1;
                next.steps_back += 1;
            }
            Action::LoseRecord => {
                next.store = None;
                next.losses += 1;
                self.forgotten(&mut next);
            }
            Action::Purge => {
                let purged = self.rules.purge(world.record(), time(world.now));
                if store(&mut next, purged) {
                    self.see(Seen::Purged);
                    next.ghost.doubt = false;
                    self.pardon(&mut next);
                }
                check_purge(&mut next, world.record());
            }
            Action::Start { request } => next.attempts.push(Attempt::new(request)),
            Action::Send { attempt, verb } => {
                let sender = &mut next.attempts[attempt];
                sender.send(verb);
                match (verb, &mut sender.phase) {
                    (
                        Verb::Complete | Verb::Release | Verb::GiveUp,
                        Phase::Owning { until, .. },
                    ) if self.setup.confused => {
                        *until = 0;
                    }
                    (Verb::Complete | Verb::Release | Verb::GiveUp, phase) => *phase = Phase::Over,
                    _ => {}
                }
            }
            Action::Deliver { attempt, verb, heard } => {
                self.deliver(&mut next, attempt, verb, heard)
            }
            Action::BeginEffect { attempt } => {
                self.see(Seen::EffectBegun);
                next.ghost.doubt |= next.attempts[attempt].believes(next.now);
                if let Phase::Owning { begun, .. } = &mut next.attempts[attempt].phase {
                    *begun = true;
                }
                if self.setup.on_interrupted == OnInterrupted::Refuse {
                    next.ghost.effects += 1;
                }
            }
            Action::Crash { attempt } => next.attempts[attempt].phase = Phase::Over,
        }
        next.normalize();
        (next != *world).then_some(next)
    }

    /// Old claims and old releases, delivered over and over, would go on for ever.
    fn within_boundary(&self, world: &World) -> bool {
        world.record().is_none_or(|record| record.number <= self.setup.grants)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        // One for all: the checker pays for each property in each state.
        vec![Property::always(KEPT, |model: &Self, world| model.broken(world).next().is_none())]
    }
}

impl Lifecycle {
    fn attempt_actions(
        &self,
        world: &World,
        index: usize,
        attempt: &Attempt,
        actions: &mut Vec<Action>,
    ) {
        for verb in Verb::ALL {
            if attempt.has_sent(verb) {
                let awaited = matches!(
                    (attempt.phase, verb),
                    (Phase::Claiming, Verb::Claim)
                        | (Phase::Owning { .. }, Verb::Renew | Verb::Save(_))
                );
                for heard in [false, true].into_iter().filter(|heard| awaited || !heard) {
                    actions.push(Action::Deliver { attempt: index, verb, heard });
                }
            }
        }
        if attempt.is_alive() {
            actions.push(Action::Crash { attempt: index });
        }
        let Phase::Owning { begun, saved, .. } = attempt.phase else {
            return;
        };
        let setup = &self.setup;
        let saving = attempt.has_sent(Verb::Save(saved + 1));
        let mut send = |verb| {
            if !attempt.has_sent(verb) {
                actions.push(Action::Send { attempt: index, verb });
            }
        };
        if setup.renews {
            send(Verb::Renew);
        }
        if begun {
            send(Verb::Complete);
            send(Verb::GiveUp);
            if saved < setup.saves {
                send(Verb::Save(saved + 1));
            }
        }
        // An owner that saved a step may fail before the next and say that it did nothing. It must
        // know that the step is saved: while that is unknown it may only give up.
        if !begun || (saved > 0 && !saving) || setup.confused {
            send(Verb::Release);
        }
        // The engine starts nothing once its own count of the lease is over, unless nobody can take
        // over: then it makes no difference.
        if !begun && (attempt.believes(world.now) || setup.on_interrupted == OnInterrupted::Refuse)
        {
            actions.push(Action::BeginEffect { attempt: index });
        }
    }

    fn operator_actions(&self, world: &World, attempt: usize, actions: &mut Vec<Action>) {
        let is_new = |verb| !world.attempts[attempt].has_sent(verb);
        let interrupted = world.state().is_some_and(State::is_interrupted);
        if interrupted && world.verdicts() < self.setup.verdicts {
            let verdicts = [Verb::SettleDone, Verb::SettleNotDone].into_iter();
            actions.extend(
                verdicts.filter(|verb| is_new(*verb)).map(|verb| Action::Send { attempt, verb }),
            );
        }
        if self.setup.evicts && world.state() != Some(State::Live) && is_new(Verb::Evict) {
            actions.push(Action::Send { attempt, verb: Verb::Evict });
        }
    }

    fn deliver(&self, world: &mut World, attempt: usize, verb: Verb, heard: bool) {
        let before = world.record().cloned();
        let before = before.as_ref();
        let state = world.state();
        let own = before.is_some_and(|record| record.attempt == attempt_id(attempt));
        let answer = self.decide(world, attempt, verb);
        check_command(&self.setup, world, before, (attempt, verb), &answer);

        let now = world.now;
        match &answer {
            Answer::Claim(outcome) => {
                self.see_claim(world, outcome, state, own, (attempt, heard));
                match outcome {
                    ClaimOutcome::Acquired { grant, lease_left, .. } => {
                        let until = tick_of(time(now).saturating_add(*lease_left));
                        let claimant = &mut world.attempts[attempt];
                        claimant.leased_until = claimant.leased_until.max(until);
                        if heard {
                            claimant.phase = Phase::Owning { until, begun: false, saved: 0 };
                            claimant.token = grant.token.get();
                        }
                        world.ghost.token = world.ghost.token.max(grant.token.get());
                        world.ghost.result = None;
                        if state == Some(State::Retired)
                            && self.setup.on_retired == OnRetired::Forget
                        {
                            self.pardon(world);
                        }
                    }
                    ClaimOutcome::Busy { .. } => {}
                    _ if heard => world.attempts[attempt].phase = Phase::Over,
                    _ => {}
                }
            }
            Answer::Fenced(Fenced::Applied) => {
                let knows = before.is_some_and(|record| record.grant() == world.grant(attempt));
                self.applied(world, attempt, verb, (heard, knows), state);
            }
            Answer::Fenced(outcome) => {
                self.see(match outcome {
                    Fenced::Conflict => Seen::Conflict,
                    Fenced::Busy => Seen::OwnerInTheWay,
                    Fenced::Gone => Seen::Gone,
                    _ => Seen::Lost,
                });
                // A renewal that is refused tells the owner that its lease is over.
                if heard {
                    world.attempts[attempt].phase = Phase::Over;
                }
            }
        }
    }

    fn applied(
        &self,
        world: &mut World,
        attempt: usize,
        verb: Verb,
        (heard, knows): (bool, bool),
        before: Option<State>,
    ) {
        let now = world.now;
        let lease = now + self.setup.lease(verb);
        let until = &mut world.attempts[attempt].leased_until;
        match verb {
            Verb::Renew | Verb::Save(_) => {
                *until = lease.max(*until);
                if let Phase::Owning { until, saved, .. } = &mut world.attempts[attempt].phase
                    && heard
                {
                    *until = lease.max(*until);
                    if let Verb::Save(number) = verb {
                        *saved = number.max(*saved);
                    }
                }
                if before == Some(State::Lapsed) {
                    self.see(Seen::RenewedLate);
                }
            }
            Verb::Complete | Verb::SettleDone => {
                *until = 0;
                world.ghost.doubt = false;
                let value = Setup::value(verb, attempt);
                let result = (value, now + self.setup.retention);
                match before {
                    Some(State::Completed | State::Retired) => {
                        self.see(Seen::CompletedAgain);
                        // What was acknowledged, by whichever answer, is what must be stored.
                        if let Some((promised, _)) = &mut world.ghost.result {
                            *promised = value;
                        }
                    }
                    _ => world.ghost.result = Some(result),
                }
                match (verb, before) {
                    (Verb::SettleDone, _) => self.see(Seen::Settled),
                    (_, Some(State::Lapsed)) => self.see(Seen::CompletedLate),
                    _ => {}
                }
            }
            Verb::Release => {
                *until = 0;
                // Whoever sends it under its own grant knows what there is to know; a copy of an older
                // one knows nothing.
                if knows && world.record().is_none_or(|record| record.progress.is_none()) {
                    world.ghost.doubt = false;
                }
                if world.record().is_some_and(|record| record.progress.is_some()) {
                    self.see(Seen::ReleasedWithProgress);
                }
            }
            Verb::GiveUp => *until = 0,
            Verb::SettleNotDone => {
                if before != Some(State::Released) {
                    world.ghost.doubt = false;
                    self.see(Seen::Settled);
                    self.pardon(world);
                }
            }
            Verb::Evict => self.forgotten(world),
            Verb::Claim => {}
        }
    }

    fn see_claim(
        &self,
        world: &World,
        outcome: &ClaimOutcome,
        state: Option<State>,
        own: bool,
        (attempt, heard): (usize, bool),
    ) {
        self.see(match (outcome, state) {
            (ClaimOutcome::Acquired { .. }, _) if own => Seen::GrantedAgain,
            (ClaimOutcome::Acquired { .. }, Some(State::Lapsed | State::GaveUp)) => Seen::TakenOver,
            (ClaimOutcome::Acquired { .. }, Some(State::Released)) => Seen::GrantedAfterRelease,
            (ClaimOutcome::Acquired { .. }, Some(State::Retired)) => Seen::GrantedAfterRetirement,
            (ClaimOutcome::Acquired { .. }, _) => Seen::Granted,
            (ClaimOutcome::Replay(_), _) => Seen::Replay,
            (ClaimOutcome::Busy { .. }, _) => Seen::Busy,
            (ClaimOutcome::Mismatch, _) => Seen::Mismatch,
            (ClaimOutcome::Interrupted, _) => Seen::Interrupted,
            (ClaimOutcome::Retired, _) => Seen::Retired,
            (ClaimOutcome::Spent, _) => Seen::Spent,
        });
        let acquired = matches!(outcome, ClaimOutcome::Acquired { .. });
        if acquired && !heard && !world.attempts[attempt].is_alive() {
            self.see(Seen::GrantedToNobody);
        }
    }

    /// The key is as good as new: whoever comes next may run, whatever was done before.
    fn forgotten(&self, world: &mut World) {
        world.ghost.result = None;
        world.ghost.doubt = false;
        self.pardon(world);
    }

    fn pardon(&self, world: &mut World) {
        if self.setup.on_interrupted == OnInterrupted::Refuse {
            let most = self.setup.attempts as u8;
            world.ghost.pardons = (world.ghost.pardons + 1).min(most);
        }
    }

    /// Lets the store decide and keep what it decided.
    fn decide(&self, world: &mut World, attempt: usize, verb: Verb) -> Answer {
        let setup = &self.setup;
        let grant = world.grant(attempt);
        let now = time(world.now);
        let record = world.record();
        let rules = self.rules;
        let expected = Expected::Attempt(attempt_id(attempt));
        let renew = |progress| {
            let renew = Renew { grant, lease: ticks(setup.renew_lease), progress };
            rules.renew(record, &renew, now)
        };
        let abandon = |known| rules.abandon(record, &Abandon { grant, known }, now);
        let settle = |settlement| {
            let settle = Settle { expected, settlement };
            rules.settle(record, &settle, now)
        };
        let fenced = match verb {
            Verb::Claim => {
                let request = fingerprint(world.attempts[attempt].request);
                let claim = setup.claim(attempt_id(attempt), request);
                let decided = rules.claim(record, &claim, now);
                return Answer::Claim(store(world, decided));
            }
            Verb::Renew => renew(None),
            Verb::Save(number) => renew(Some(progress(attempt, number))),
            Verb::Complete => {
                let completion = setup.completion(Setup::value(verb, attempt));
                rules.complete(record, &Complete { grant, completion }, now)
            }
            Verb::Release => abandon(Known::NotStarted { hold: setup.hold() }),
            Verb::GiveUp => abandon(Known::Unknown),
            Verb::SettleDone => {
                settle(Settlement::Done(setup.completion(Setup::value(verb, attempt))))
            }
            Verb::SettleNotDone => settle(Settlement::NotDone { hold: setup.hold() }),
            Verb::Evict => {
                let evict = Evict { expected, force: false };
                rules.evict(record, &evict, now)
            }
        };
        Answer::Fenced(store(world, fenced))
    }
}

/// Does what was decided, and returns the answer.
fn store<O>(world: &mut World, decided: Transition<O>) -> O {
    match decided.change {
        Change::Keep => {}
        Change::Put(record) => world.store = Some(Kept(record)),
        Change::Remove => world.store = None,
    }
    decided.outcome
}

fn tick_of(time: Timestamp) -> u8 {
    let tick = time.as_micros() / ticks(1).as_micros() as u64;
    u8::try_from(tick).unwrap_or(u8::MAX)
}
