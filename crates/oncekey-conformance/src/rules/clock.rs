//! What a clock that steps back may change: leases get longer, and nothing else.

use std::time::Duration;

use oncekey::store::{ClaimOutcome, Expected, Fenced, Settlement, State};

use crate::history::Operation;
use crate::support::{ANSWER, Trial, broken, busy, ensure, expect, replayed};
use crate::{Fixture, Verdict};

/// Every grant has a higher token than the one before, although the clock stepped back between them.
pub async fn tokens_increase_when_it_steps_back<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for state in [State::Released, State::GaveUp] {
        let mut last = trial.key_in(state).await?;
        for _ in 0..3 {
            fixture.step_back(back(&trial)).await;
            let next = trial.acquire(&last.key, &trial.claim()).await?;
            ensure(
                next.grant.token > last.grant.token,
                format_args!("a {state:?} key is granted with a token above {}", last.grant.token),
                next.grant.token,
            )?;
            let again = trial.acquire(&next.key, &next.claim).await?;
            expect("the grant of the same claim again", again.grant, next.grant)?;
            let ended = match state {
                State::Released => trial.release(&next).await?,
                _ => trial.give_up(&next).await?,
            };
            expect("the owner ends its attempt", ended, Fenced::Applied)?;
            last = next;
        }
        restore(fixture, &trial, 3).await;
    }
    Ok(())
}

/// A live lease stays its owner's when the clock steps back: nobody else gets it, and the owner renews and
/// completes.
pub async fn a_live_lease_outlasts_a_step_back<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let control = trial.owner().await?;
    let outcome = trial.claims(&control.key, &trial.claim()).await?;
    if !matches!(outcome, ClaimOutcome::Busy { .. }) {
        // Nothing to do with the clock: other rules say so.
        return Ok(());
    }
    let owner = trial.owner().await?;
    let before = trial.seen(&owner.key).await?;
    fixture.step_back(back(&trial)).await;
    let other = fixture.open().await;
    trial.purge_all().await?;
    trial.unchanged("a step of the clock and a purge", &owner.key, &before).await?;
    trial.is_in("a live key after a step back", &owner.key, State::Live).await?;
    let outcome = other.claim(&owner.key, &trial.claim()).await?;
    busy("a claim on a live key after a step back", &outcome)?;
    let answer = trial.renew(&owner, owner.claim.lease).await?;
    expect("a renewal after a step back", answer, Fenced::Applied)?;
    let answer = trial.complete(&owner, ANSWER).await?;
    expect("a completion after a step back", answer, Fenced::Applied)?;
    trial.is_in("a key that was completed after a step back", &owner.key, State::Completed).await?;
    restore(fixture, &trial, 1).await;
    Ok(())
}

/// A completed result is replayed and kept when the clock steps back to before it was recorded.
pub async fn a_result_outlasts_a_step_back<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.key_in(State::Completed).await?;
    let before = trial.seen(&owner.key).await?;
    fixture.step_back(back(&trial)).await;
    let other = fixture.open().await;
    trial.purge_all().await?;
    for claim in [trial.claim(), trial.strict_claim()] {
        let outcome = other.claim(&owner.key, &claim).await?;
        replayed("a claim on a completed key after a step back", &outcome, ANSWER)?;
    }
    trial.unchanged("a step of the clock", &owner.key, &before).await?;
    restore(fixture, &trial, 1).await;
    Ok(())
}

/// Every command on a key in any state is answered after the clock stepped back, and not by an error or a
/// panic.
pub async fn every_command_is_answered_after_a_step_back<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let long = trial.times.long;
    for state in [
        State::Live,
        State::Lapsed,
        State::GaveUp,
        State::Released,
        State::Completed,
        State::Retired,
    ] {
        for number in 0.. {
            let owner = trial.key_in(state).await?;
            let (grant, expected) = (owner.grant, owner.expected());
            let commands = [
                Operation::Claim(trial.claim()),
                Operation::Claim(owner.claim),
                Operation::renew(grant, long, None),
                Operation::renew(grant, long, Some((1, "half"))),
                Operation::complete(grant, trial.completion(ANSWER)),
                Operation::release(grant, long),
                Operation::give_up(grant),
                Operation::settle(expected, Settlement::Done(trial.completion(ANSWER))),
                Operation::settle(expected, Settlement::NotDone { hold: long }),
                Operation::evict(Expected::Token(grant.token), false),
                Operation::Get,
            ];
            let Some(command) = commands.get(number) else {
                break;
            };
            fixture.step_back(back(&trial)).await;
            if let Err(error) = command.send(&*trial.store, &owner.key).await {
                let required = format_args!("{command:?} on a {state:?} key is answered");
                return broken(required, error);
            }
            trial.purge_all().await?;
            restore(fixture, &trial, 1).await;
        }
    }
    Ok(())
}

/// Lets the clock catch up after so many steps: rules that come later on the same database count on tokens
/// that are not ahead of it.
async fn restore<F: Fixture>(fixture: &F, trial: &Trial<'_, F>, steps: u32) {
    fixture.advance(steps * back(trial)).await;
}

/// How far the clock steps: further than any time passed since the rule began, and less than a long lease.
fn back<F: Fixture>(trial: &Trial<'_, F>) -> Duration {
    trial.times.long / 8
}
