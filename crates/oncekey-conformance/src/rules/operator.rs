//! Verdicts and evictions.

use oncekey::store::{Completion, Expected, Fenced, FencingToken, Settlement, State};

use crate::support::{ANSWER, Owner, Trial, expect, replayed};
use crate::{Fixture, Verdict};

/// A verdict about a live attempt is refused as `Busy`.
pub async fn settle_spares_a_live_owner<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.owner().await?;
    let before = trial.seen(&owner.key).await?;
    for expected in all_names(&owner) {
        for verdict in verdicts(&trial) {
            let answer = trial.settle(&owner.key, expected, verdict).await?;
            expect("a verdict about a live attempt", answer, Fenced::Busy)?;
            trial.unchanged("a refused verdict", &owner.key, &before).await?;
        }
    }
    Ok(())
}

/// A verdict applies only to the attempt or token it names.
pub async fn settle_names_its_attempt<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.key_in(State::GaveUp).await?;
    let before = trial.seen(&owner.key).await?;
    for wrong in wrong_names(&trial, &owner) {
        for verdict in verdicts(&trial) {
            let answer = trial.settle(&owner.key, wrong, verdict).await?;
            expect("a verdict about another attempt", answer, Fenced::Lost)?;
            trial.unchanged("a lost verdict", &owner.key, &before).await?;
        }
    }
    for index in 0..3 {
        let owner = trial.key_in(State::GaveUp).await?;
        let [verdict, _] = verdicts(&trial);
        let name = all_names(&owner)[index];
        let answer = trial.settle(&owner.key, name, verdict).await?;
        expect(format_args!("a verdict about {name:?}"), answer, Fenced::Applied)?;
    }
    Ok(())
}

/// A verdict of done records the result on lapsed, given-up and released keys, for its own durations.
pub async fn settle_as_done_records_the_result<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for state in [State::Lapsed, State::GaveUp, State::Released] {
        let owner = trial.key_in(state).await?;
        let before = trial.seen(&owner.key).await?;
        let completion = Completion {
            retention: 2 * trial.times.long,
            hold: 3 * trial.times.long,
            ..trial.completion(ANSWER)
        };
        let done = Settlement::Done(completion);
        let answer = trial.settle(&owner.key, owner.expected(), done).await?;
        let what = &format!("a verdict of done on a {state:?} key");
        expect(what, answer, Fenced::Applied)?;
        let outcome = trial.claims(&owner.key, &trial.claim()).await?;
        replayed("a claim on a key that was settled as done", &outcome, ANSWER)?;
        trial.is_forgotten_after(&owner.key, before.now, 5 * trial.times.long).await?;
    }
    Ok(())
}

/// A verdict of not done releases lapsed and given-up keys, with their progress.
pub async fn settle_as_not_done_frees_the_key<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let gave_up = trial.owner().await?;
    let _ = trial.save(&gave_up, 1, "half").await?;
    let _ = trial.give_up(&gave_up).await?;
    let lapsed = trial.key_in(State::Lapsed).await?;
    for owner in [gave_up, lapsed] {
        let hold = 3 * trial.times.long;
        let before = trial.seen(&owner.key).await?;
        let not_done = Settlement::NotDone { hold };
        let answer = trial.settle(&owner.key, owner.expected(), not_done).await?;
        let what = &format!("a verdict of not done on a {:?} key", before.state);
        expect(what, answer, Fenced::Applied)?;
        trial.is_in("a key settled as not done", &owner.key, State::Released).await?;
        trial.is_forgotten_after(&owner.key, before.now, hold).await?;
        let next = trial.acquire(&owner.key, &trial.strict_claim()).await?;
        expect("the predecessor after a verdict of not done", next.previous, None)?;
        let progress = trial.seen(&owner.key).await?.record.progress;
        expect("the progress after a verdict of not done", progress, None)?;
    }
    Ok(())
}

/// A repeated verdict of not done is applied and changes nothing.
pub async fn settle_as_not_done_again_changes_nothing<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.key_in(State::GaveUp).await?;
    let [_, not_done] = verdicts(&trial);
    let _ = trial.settle(&owner.key, owner.expected(), not_done).await?;
    let before = trial.seen(&owner.key).await?;
    let again = Settlement::NotDone { hold: 3 * trial.times.long };
    let answer = trial.settle(&owner.key, owner.expected(), again).await?;
    expect("a repeated verdict of not done", answer, Fenced::Applied)?;
    trial.unchanged("a repeated verdict", &owner.key, &before).await
}

/// No verdict changes a result, not after its retention either.
pub async fn settle_never_overrules_a_result<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for state in [State::Completed, State::Retired] {
        let owner = trial.key_in(state).await?;
        let before = trial.seen(&owner.key).await?;
        let [done, not_done] = verdicts(&trial);
        let other = Settlement::Done(trial.completion("another answer"));
        for (verdict, required) in
            [(not_done, Fenced::Lost), (other, Fenced::Conflict), (done, Fenced::Applied)]
        {
            let what = &format!("{verdict:?} on a {state:?} key").to_string();
            let answer = trial.settle(&owner.key, owner.expected(), verdict).await?;
            expect(what, answer, required)?;
            trial.unchanged(what, &owner.key, &before).await?;
        }
    }
    Ok(())
}

/// Evicting a live owner without force is refused as `Busy`.
pub async fn evict_spares_a_live_owner<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.owner().await?;
    let before = trial.seen(&owner.key).await?;
    for expected in all_names(&owner) {
        let answer = trial.evict(&owner.key, expected, false).await?;
        expect("an eviction of a live owner", answer, Fenced::Busy)?;
        trial.unchanged("a refused eviction", &owner.key, &before).await?;
    }
    Ok(())
}

/// Evicting with force removes a live owner.
pub async fn evict_by_force_removes_a_live_owner<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for index in 0..3 {
        let owner = trial.owner().await?;
        let name = all_names(&owner)[index];
        let answer = trial.evict(&owner.key, name, true).await?;
        expect(format_args!("a forced eviction of {name:?}"), answer, Fenced::Applied)?;
        expect("an evicted record", trial.store.get(&owner.key).await?, None)?;
    }
    Ok(())
}

/// An eviction removes only the attempt or token it names, with and without force.
pub async fn evict_names_its_attempt<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for state in [State::Live, State::Lapsed] {
        let owner = trial.key_in(state).await?;
        let before = trial.seen(&owner.key).await?;
        for (wrong, force) in
            wrong_names(&trial, &owner).into_iter().flat_map(|it| [(it, false), (it, true)])
        {
            let answer = trial.evict(&owner.key, wrong, force).await?;
            let what = &format!("an eviction of another attempt on a {state:?} key");
            expect(what, answer, Fenced::Lost)?;
            trial.unchanged("a lost eviction", &owner.key, &before).await?;
        }
    }
    Ok(())
}

/// A key that nobody owns is evicted in any state, and is as good as new.
pub async fn an_evicted_key_is_as_new<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for state in [State::Lapsed, State::GaveUp, State::Released, State::Completed, State::Retired] {
        for (index, force) in [(0, false), (1, false), (2, false), (2, true)] {
            let owner = trial.key_in(state).await?;
            let name = all_names(&owner)[index];
            let what = &format!("an eviction of {name:?} on a {state:?} key");
            let answer = trial.evict(&owner.key, name, force).await?;
            expect(what, answer, Fenced::Applied)?;
            expect("an evicted record", trial.store.get(&owner.key).await?, None)?;
            let next = trial.acquire(&owner.key, &trial.other_claim()).await?;
            let first = (next.number, next.previous);
            expect("the number and predecessor after an eviction", first, (1, None))?;
        }
    }
    Ok(())
}

/// Every way to name the attempt of `owner`.
fn all_names(owner: &Owner) -> [Expected; 3] {
    [owner.expected(), Expected::Token(owner.grant.token), Expected::Any]
}

/// Names of other attempts.
fn wrong_names<F: Fixture>(trial: &Trial<'_, F>, owner: &Owner) -> [Expected; 3] {
    let token = owner.grant.token.get();
    [
        Expected::Attempt(trial.claim().attempt),
        Expected::Token(FencingToken::new(token + 1)),
        Expected::Token(FencingToken::new(token - 1)),
    ]
}

/// Done, and not done.
fn verdicts<F: Fixture>(trial: &Trial<'_, F>) -> [Settlement; 2] {
    [Settlement::Done(trial.completion(ANSWER)), Settlement::NotDone { hold: trial.times.long }]
}
