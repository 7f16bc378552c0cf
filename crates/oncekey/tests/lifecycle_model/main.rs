//! The rules of the lifecycle, explored exhaustively: every interleaving of two or three clients,
//! with crashes, with messages that are delayed, duplicated and lost, and with a clock that ticks at
//! any moment. The rules of the core keep every promise in every world; each deliberately wrong
//! variant breaks the promise that it is expected to break.

mod model;
mod promises;
mod rules;
mod setups;
mod stuck;
mod world;
mod wrong;

use model::{KEPT, Lifecycle, Seen};
use promises::Promise;
use rules::Rules;
use stateright::{Checker, HasDiscoveries, Model};
use world::Setup;
use wrong::Wrong;

/// Explores a world under the rules of the core to its end. How many states there are at least, and
/// what it must have met on the way, keep the promises from being kept for want of occasion.
fn keeps_every_promise(setup: Setup, at_least: usize, occasions: &[Seen]) {
    let checker = explore(Lifecycle::new(setup, Rules(None), Promise::ALL));
    let model = checker.model();
    if let Some(path) = checker.discovery(KEPT) {
        let world = path.last_state().clone();
        let broken: Vec<_> = model.broken(&world).map(Promise::text).collect();
        panic!("{broken:?} after {:#?} in {world:#?}", path.into_actions());
    }
    let states = checker.unique_state_count();
    println!("{states} states, up to {} steps deep", checker.max_depth());
    assert!(states >= at_least, "only {states} states");
    let missed: Vec<_> = occasions.iter().filter(|seen| !model.has_seen(**seen)).collect();
    assert!(missed.is_empty(), "never met: {missed:?}");
}

fn are_refuted(wrong: &[(Wrong, Promise, Setup)]) {
    for (wrong, promise, setup) in wrong {
        let only = Promise::ALL.split_at(*promise as usize).1.split_at(1).0;
        let checker = explore(Lifecycle::new(*setup, Rules(Some(*wrong)), only));
        let Some(path) = checker.discovery(KEPT) else {
            panic!("{wrong:?} goes unnoticed; expected of it: not \"{}\"", promise.text());
        };
        println!("{wrong:?}: in {} steps, not \"{}\"", path.into_actions().len(), promise.text());
    }
}

fn explore(model: Lifecycle) -> impl Checker<Lifecycle> {
    model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join()
}

#[test]
fn two_clients_take_over_from_each_other() {
    keeps_every_promise(
        setups::TAKE_OVER,
        30_000,
        &[
            Seen::Granted,
            Seen::GrantedAgain,
            Seen::TakenOver,
            Seen::GrantedAfterRelease,
            Seen::GrantedAfterRetirement,
            Seen::GrantedToNobody,
            Seen::Replay,
            Seen::Busy,
            Seen::Spent,
            Seen::Lost,
            Seen::RenewedLate,
            Seen::CompletedLate,
            Seen::CompletedAgain,
        ],
    );
}

#[test]
fn three_clients_at_once() {
    keeps_every_promise(setups::CROWD, 40_000, &[Seen::TakenOver, Seen::Replay, Seen::Busy]);
}

#[test]
fn renewals_for_longer_than_the_claim() {
    keeps_every_promise(setups::LONG_RENEWALS, 60_000, &[Seen::GrantedAgain, Seen::RenewedLate]);
}

#[test]
fn late_copies_of_an_attempt_that_ended() {
    let occasions = [Seen::TakenOver, Seen::GrantedToNobody, Seen::GrantedAfterRelease, Seen::Lost];
    keeps_every_promise(setups::LATE_COPIES, 100_000, &occasions);
}

#[test]
fn owners_that_contradict_themselves() {
    let occasions = [Seen::TakenOver, Seen::CompletedAgain, Seen::Lost, Seen::Spent];
    keeps_every_promise(setups::CONFUSED, 100_000, &occasions);
}

#[test]
fn saved_progress_is_handed_on() {
    let occasions = [Seen::TakenOver, Seen::ReleasedWithProgress, Seen::RenewedLate];
    keeps_every_promise(setups::PROGRESS, 100_000, &occasions);
}

#[test]
fn two_requests_under_one_key() {
    let occasions = [Seen::Mismatch, Seen::TakenOver, Seen::Replay, Seen::GrantedAfterRetirement];
    keeps_every_promise(setups::REQUESTS, 60_000, &occasions);
}

#[test]
fn at_most_once() {
    let occasions = [
        Seen::EffectBegun,
        Seen::Interrupted,
        Seen::Retired,
        Seen::Settled,
        Seen::Conflict,
        Seen::ReleasedWithProgress,
    ];
    keeps_every_promise(setups::AT_MOST_ONCE, 15_000, &occasions);
}

#[test]
fn at_most_once_within_the_hold() {
    let occasions = [Seen::EffectBegun, Seen::Interrupted, Seen::Settled, Seen::Purged];
    keeps_every_promise(setups::AT_MOST_ONCE_WITHIN_HOLD, 10_000, &occasions);
}

#[test]
fn an_operator_settles_and_evicts() {
    let occasions = [Seen::Settled, Seen::OwnerInTheWay, Seen::Conflict, Seen::Gone, Seen::Lost];
    keeps_every_promise(setups::OPERATOR, 80_000, &occasions);
}

#[test]
fn a_sweeper_at_any_moment() {
    keeps_every_promise(setups::SWEPT, 30_000, &[Seen::Purged, Seen::Gone, Seen::TakenOver]);
}

#[test]
fn a_clock_that_steps_back_and_a_record_that_is_lost() {
    keeps_every_promise(setups::FAULTY, 80_000, &[Seen::Gone, Seen::TakenOver, Seen::Replay]);
}

#[test]
fn wrong_claims_are_refuted() {
    are_refuted(wrong::CLAIM);
}

#[test]
fn wrong_renewals_are_refuted() {
    are_refuted(wrong::RENEW);
}

#[test]
fn wrong_completions_are_refuted() {
    are_refuted(wrong::COMPLETE);
}

#[test]
fn wrong_ends_without_a_result_are_refuted() {
    are_refuted(wrong::ABANDON);
}

#[test]
fn wrong_verbs_of_operators_are_refuted() {
    are_refuted(wrong::OPERATE);
}

#[test]
fn wrong_purges_are_refuted() {
    are_refuted(wrong::PURGE);
}

/// A promise that no wrong variant breaks may be one that nothing can break.
#[test]
fn every_promise_is_broken_by_some_wrong_rule() {
    for promise in Promise::ALL {
        assert!(wrong::all().any(|(_, broken, _)| broken == promise), "{promise:?}");
    }
}
