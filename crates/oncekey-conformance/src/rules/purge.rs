//! Removing what is over.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use oncekey::store::{Claim, ClaimOutcome, Completion, Fenced, State};

use crate::history::{Answer, Operation};
use crate::support::{ANSWER, Call, Race, Trial, broken, call, ensure, expect, purge, replayed};
use crate::{Fixture, Verdict};

/// Live and completed records, and ended ones within their hold, are not purged.
pub async fn spares_what_matters<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let mut records = Vec::new();
    for state in [
        State::Live,
        State::Lapsed,
        State::GaveUp,
        State::Released,
        State::Completed,
        State::Retired,
    ] {
        let key = trial.key_in(state).await?.key;
        let record = trial.seen(&key).await?;
        records.push((key, record));
    }
    trial.purge_all().await?;
    for (key, record) in records {
        let what = &format!("a purge of a {:?} key within its hold", record.state);
        trial.unchanged(what, &key, &record).await?;
    }
    Ok(())
}

/// After a purge, no record is left whose time to forget has come.
pub async fn removes_what_is_over<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let brief = Claim { lease: trial.times.short, hold: trial.times.short, ..trial.claim() };
    let completion = Completion {
        retention: trial.times.short,
        hold: trial.times.short,
        ..trial.completion(ANSWER)
    };
    let mut keys = Vec::new();
    for state in [State::Lapsed, State::GaveUp, State::Released, State::Retired] {
        let attempt = trial.claim().attempt;
        let owner = trial.acquire(&trial.key(), &Claim { attempt, ..brief }).await?;
        let ended = match state {
            State::GaveUp => trial.give_up(&owner).await?,
            State::Released => trial.release_for(&owner, trial.times.short).await?,
            State::Retired => trial.complete_as(&owner, completion.clone()).await?,
            _ => Fenced::Applied,
        };
        expect("the end of an attempt", ended, Fenced::Applied)?;
        keys.push((owner.key, state));
    }
    trial.pass(2 * trial.times.short).await;
    trial.purge_all().await?;
    for (key, state) in keys {
        let what = &format!("the record of a {state:?} key after its hold and a purge");
        expect(what, trial.store.get(&key).await?, None)?;
    }
    Ok(())
}

/// A purge removes at most its limit, and goes on to the end when it is repeated.
pub async fn heeds_its_limit<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    trial.purge_all().await?;
    let mut keys = Vec::new();
    for _ in 0..10 {
        let owner = trial.owner().await?;
        let _ = trial.release_for(&owner, trial.times.short).await?;
        keys.push(owner.key);
    }
    trial.pass(trial.times.short).await;
    for limit in [0, 1, 3] {
        let purged = trial.store.purge(limit).await?;
        ensure(purged.removed <= limit, format_args!("at most {limit} removed"), purged)?;
    }
    for _ in 0..100 {
        if !trial.store.purge(3).await?.more {
            for key in &keys {
                let left = trial.store.get(key).await?;
                expect("a record after the last purge said that no more are left", left, None)?;
            }
            return Ok(());
        }
    }
    broken("repeated purges come to an end", "more: true, 100 times")
}

/// A record whose time to forget moved on is not purged at the earlier time.
pub async fn goes_by_the_latest_time_to_forget<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let brief = |claim| Claim { lease: trial.times.short, hold: Duration::ZERO, ..claim };
    let renewed = trial.acquire(&trial.key(), &brief(trial.claim())).await?;
    let answer = trial.renew(&renewed, trial.times.long).await?;
    expect("a renewal by the owner", answer, Fenced::Applied)?;
    let completed = trial.acquire(&trial.key(), &brief(trial.claim())).await?;
    let answer = trial.complete(&completed, ANSWER).await?;
    expect("a completion by the owner", answer, Fenced::Applied)?;
    trial.pass(2 * trial.times.short).await;
    trial.purge_all().await?;
    trial.is_in("a key that was renewed", &renewed.key, State::Live).await?;
    let outcome = trial.claims(&completed.key, &trial.claim()).await?;
    replayed("a claim on a key that was completed", &outcome, ANSWER)
}

/// A claim that races with a purge of its key gets a true grant, which stays.
pub async fn races_with_claims<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let other = fixture.open().await;
    let mut race = Race::new();
    while race.goes_on() {
        let owner = trial.owner().await?;
        let _ = trial.release_for(&owner, Duration::ZERO).await?;
        let claim = trial.claim();
        let operation = Operation::Claim(claim);
        let calls = vec![purge(&*trial.store), call(&operation, &*other, &owner.key)];
        let answers = race.calls::<F>(calls).await?;
        match answers.as_slice() {
            [Answer::Claim(ClaimOutcome::Acquired { .. })] => {}
            _ => {
                return broken("a claim while its released key is purged: Acquired", answers);
            }
        }
        let seen = trial.store.get(&owner.key).await?;
        expect(
            "the attempt and the state after a purge and a claim",
            seen.map(|seen| (seen.record.attempt, seen.state)),
            Some((claim.attempt, State::Live)),
        )?;
    }
    race.took_place()
}

/// A renewal that races with a purge of its key is in force, or the key is gone.
pub async fn races_with_renewals<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let other = fixture.open().await;
    let mut race = Race::new();
    while race.goes_on() {
        // Several at once, since a purge is over before a single renewal has begun.
        let mut owners = Vec::new();
        for _ in 0..8 {
            let claim = Claim { lease: trial.times.short, hold: Duration::ZERO, ..trial.claim() };
            owners.push(trial.acquire(&trial.key(), &claim).await?);
        }
        trial.pass(trial.times.short).await;
        let told = Mutex::new(Vec::new());
        let renewals: Call<'_> = Box::pin(async {
            for owner in &owners {
                let renewal = Operation::renew(owner.grant, trial.times.long, None);
                let answer = call(&renewal, &*other, &owner.key).await?;
                told.lock().unwrap_or_else(PoisonError::into_inner).extend(answer);
            }
            Ok(None)
        });
        race.calls::<F>(vec![purge(&*trial.store), renewals]).await?;
        let told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (owner, answer) in owners.iter().zip(told) {
            let state = match answer {
                Answer::Fenced(Fenced::Applied) => Some(State::Live),
                Answer::Fenced(Fenced::Gone) => None,
                _ => return broken("a renewal while its key is purged: Applied or Gone", answer),
            };
            let seen = trial.store.get(&owner.key).await?;
            let what = "the state after a purge and a renewal";
            expect(what, seen.map(|seen| seen.state), state)?;
        }
    }
    race.took_place()
}
