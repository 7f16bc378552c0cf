//! Records that cannot be understood.

use std::time::Duration;

use oncekey::store::{Expected, Fenced, Settlement, State};

use crate::history::Operation;
use crate::support::{ANSWER, Owner, Trial, corrupt, expect};
use crate::{Damage, Fixture, Verdict};

const STATES: [State; 4] = [State::Live, State::GaveUp, State::Released, State::Completed];

/// On a record that was damaged, every command fails as `Corrupt`; it is never taken for absent.
pub async fn every_command_fails<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for damage in [Damage::FlipBit, Damage::Truncate] {
        for state in STATES {
            let owner = trial.key_in(state).await?;
            fixture.damage(&owner.key, damage).await;
            fails_closed(&trial, &owner, &format!("a {state:?} record after {damage:?}")).await?;
        }
    }
    Ok(())
}

/// On a record of a newer format version, every command fails as `Corrupt`.
pub async fn a_newer_version_fails_too<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for state in STATES {
        let owner = trial.key_in(state).await?;
        fixture.damage(&owner.key, Damage::NewerVersion).await;
        fails_closed(&trial, &owner, &format!("a {state:?} record of a newer version")).await?;
    }
    Ok(())
}

async fn fails_closed<F: Fixture>(trial: &Trial<'_, F>, owner: &Owner, on: &str) -> Verdict {
    let (grant, long) = (owner.grant, trial.times.long);
    let calls = [
        Operation::Claim(trial.claim()),
        Operation::Claim(trial.other_claim()),
        Operation::Claim(owner.claim),
        Operation::renew(grant, long, None),
        Operation::complete(grant, trial.completion(ANSWER)),
        Operation::release(grant, long),
        Operation::give_up(grant),
        Operation::settle(Expected::Any, Settlement::Done(trial.completion(ANSWER))),
        Operation::settle(owner.expected(), Settlement::NotDone { hold: long }),
        Operation::evict(owner.expected(), true),
        Operation::evict(Expected::Token(grant.token), true),
    ];
    for call in calls {
        let answer = call.send(&*trial.store, &owner.key).await;
        corrupt(format_args!("{call:?} on {on}"), answer)?;
    }
    let read = trial.store.get(&owner.key).await;
    corrupt(format_args!("get on {on}"), read)
}

/// A damaged record is removed by an eviction of whatever is there, and the key is as new.
pub async fn evict_any_removes_it<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for damage in [Damage::FlipBit, Damage::Truncate, Damage::NewerVersion] {
        let owner = trial.key_in(State::Completed).await?;
        fixture.damage(&owner.key, damage).await;
        let answer = trial.evict(&owner.key, Expected::Any, false).await?;
        let what = &format!("an eviction of whatever is there after {damage:?}");
        expect(what, answer, Fenced::Applied)?;
        expect("an evicted record", trial.store.get(&owner.key).await?, None)?;
        let next = trial.acquire(&owner.key, &trial.other_claim()).await?;
        expect("the number after an eviction", next.number, 1)?;
    }
    Ok(())
}

/// A damaged record disturbs no other key, and no purge.
pub async fn spares_other_keys<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let mut over = Vec::new();
    for damage in
        [None, Some(Damage::FlipBit), Some(Damage::Truncate), Some(Damage::NewerVersion), None]
    {
        let owner = trial.owner().await?;
        let _ = trial.release_for(&owner, Duration::ZERO).await?;
        match damage {
            Some(damage) => fixture.damage(&owner.key, damage).await,
            None => over.push(owner.key),
        }
    }
    trial.pass(trial.times.short).await;
    trial.purge_all().await?;
    for key in over {
        let what = "a record that is over, after a purge that met damaged ones";
        expect(what, trial.store.get(&key).await?, None)?;
    }
    let owner = trial.owner().await?;
    let answer = trial.complete(&owner, ANSWER).await?;
    expect("a completion beside damaged records", answer, Fenced::Applied)
}
