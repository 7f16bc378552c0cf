//! Who lost its lease can change nothing.

use oncekey::store::{Claim, Completion, Expected, Fenced, FencingToken, Grant, Settlement, State};

use crate::history::Operation;
use crate::support::{ANSWER, Call, Owner, Race, Trial, call, ensure, expect};
use crate::{Fixture, Verdict, Violation};

/// Every grant has a higher token than the one before, however that one ended.
pub async fn tokens_increase<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for state in [State::Released, State::GaveUp, State::Lapsed, State::Retired] {
        let first = trial.key_in(state).await?;
        let second = trial.acquire(&first.key, &trial.claim()).await?;
        let _ = trial.release(&second).await?;
        let third = trial.acquire(&first.key, &trial.claim()).await?;
        let tokens = [&first, &second, &third].map(|owner| owner.grant.token);
        ensure(
            tokens.is_sorted_by(|a, b| a < b),
            format_args!("each token is higher than the one before, from a {state:?} key on"),
            tokens,
        )?;
    }
    Ok(())
}

/// A key that was evicted or purged, and claimed again, has a higher token, once the clock went on.
pub async fn tokens_increase_across_eviction<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let evicted = trial.owner().await?;
    let _ = trial.evict(&evicted.key, Expected::Any, true).await?;
    let purged = purged(&trial).await?;
    trial.pass(trial.times.short).await;
    for last in [evicted, purged] {
        let next = trial.acquire(&last.key, &trial.claim()).await?;
        ensure(
            next.grant.token > last.grant.token,
            format_args!("a token above {}", last.grant.token),
            next.grant.token,
        )?;
    }
    Ok(())
}

/// An attempt that was replaced can change nothing while its successor runs.
pub async fn a_replaced_owner_changes_nothing<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for state in [State::Lapsed, State::GaveUp, State::Released] {
        let old = trial.key_in(state).await?;
        let new = trial.acquire(&old.key, &trial.claim()).await?;
        is_powerless(&trial, &old, "a live key").await?;
        let _ = trial.save(&new, 1, "half").await?;
        is_powerless(&trial, &old, "a live key with progress").await?;
    }
    Ok(())
}

/// An attempt that was replaced can change nothing after its successor completed, not even with the
/// same bytes.
pub async fn a_replaced_owner_changes_nothing_after_completion<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let old = trial.key_in(State::GaveUp).await?;
    let new = trial.acquire(&old.key, &trial.claim()).await?;
    let completion = Completion { retention: trial.times.long, ..trial.completion(ANSWER) };
    let _ = trial.complete_as(&new, completion).await?;
    is_powerless(&trial, &old, "a completed key").await?;

    let old = trial.key_in(State::GaveUp).await?;
    let new = trial.acquire(&old.key, &trial.claim()).await?;
    let completion = Completion { retention: trial.times.short, ..trial.completion(ANSWER) };
    let _ = trial.complete_as(&new, completion).await?;
    trial.pass(trial.times.short).await;
    is_powerless(&trial, &old, "a retired key").await
}

/// An attempt that was replaced can change nothing after its successor released, gave up or lapsed.
pub async fn a_replaced_owner_changes_nothing_after_release<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for (state, saves) in [
        (State::Released, false),
        (State::GaveUp, false),
        (State::GaveUp, true),
        (State::Lapsed, false),
        (State::Lapsed, true),
    ] {
        let old = trial.key_in(State::GaveUp).await?;
        let claim = Claim { lease: trial.times.short, ..trial.claim() };
        let new = trial.acquire(&old.key, &claim).await?;
        if saves {
            let _ = trial.save(&new, 1, "half").await?;
        }
        match state {
            State::Released => drop(trial.release(&new).await?),
            State::GaveUp => drop(trial.give_up(&new).await?),
            _ => trial.pass(trial.times.short).await,
        }
        is_powerless(&trial, &old, &format!("a key whose next attempt is {state:?}")).await?;
    }
    Ok(())
}

/// An attempt whose record was evicted can change nothing of the next one.
pub async fn an_evicted_owner_changes_nothing<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let old = trial.owner().await?;
    let _ = trial.evict(&old.key, Expected::Any, true).await?;
    let _ = trial.acquire(&old.key, &trial.claim()).await?;
    is_powerless_by_attempt(&trial, &old, "a key that was evicted and claimed again").await
}

/// An attempt whose record was purged can change nothing of the next one.
pub async fn a_purged_owner_changes_nothing<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let old = purged(&trial).await?;
    let _ = trial.acquire(&old.key, &trial.claim()).await?;
    is_powerless_by_attempt(&trial, &old, "a key that was purged and claimed again").await
}

/// A grant is compared whole: a command with another attempt or with another token changes nothing.
pub async fn the_whole_grant_decides<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.owner().await?;
    let stranger =
        Owner { grant: Grant { attempt: trial.claim().attempt, ..owner.grant }, ..owner.clone() };
    is_powerless_by_attempt(&trial, &stranger, "a key whose token it guessed").await?;
    let token = owner.grant.token.get();
    for token in [token - 1, token + 1] {
        let grant = Grant { token: FencingToken::new(token), ..owner.grant };
        let mistaken = Owner { grant, ..owner.clone() };
        is_lost(&trial, &mistaken, &[], "a key that its attempt has by another token").await?;
    }
    Ok(())
}

/// Every command but a claim answers `Gone` on an absent key, and leaves it absent.
pub async fn nothing_is_known_of_an_absent_key<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let known = trial.owner().await?;
    let key = trial.key();
    let absent = Owner { key: key.clone(), ..known };
    let by_token = Expected::Token(absent.grant.token);
    for call in calls(&trial, &absent, &[absent.expected(), by_token, Expected::Any]) {
        let answer = call.fenced(&*trial.store, &key).await?;
        expect(format_args!("{call:?} on an absent key"), answer, Fenced::Gone)?;
    }
    expect("the record of a key that was never claimed", trial.store.get(&key).await?, None)
}

/// A completion that is under way while its key is evicted and claimed anew does not overwrite the
/// new owner.
pub async fn a_version_never_comes_back<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let other = fixture.open().await;
    let mut race = Race::new();
    while race.goes_on() {
        let old = trial.owner().await?;
        let complete = Operation::complete(old.grant, trial.completion(ANSWER));
        let new = trial.claim();
        let replace: Call<'_> = Box::pin(async {
            let evict = Operation::evict(Expected::Any, true);
            call(&evict, &*other, &old.key).await?;
            call(&Operation::Claim(new), &*other, &old.key).await
        });
        let complete = call(&complete, &*trial.store, &old.key);
        race.calls::<F>(vec![complete, replace]).await?;
        let seen = trial.seen(&old.key).await?;
        expect(
            "the attempt and the state of a key that was evicted and claimed anew",
            (seen.record.attempt, seen.state),
            (new.attempt, State::Live),
        )?;
    }
    race.took_place()
}

/// An attempt whose record is gone, by its time.
async fn purged<F: Fixture>(trial: &Trial<'_, F>) -> Result<Owner, Violation> {
    let owner = trial.owner().await?;
    let _ = trial.release_for(&owner, trial.times.short).await?;
    trial.pass(trial.times.short).await;
    trial.purge_all().await?;
    expect("a purged record", trial.store.get(&owner.key).await?, None)?;
    Ok(owner)
}

/// Also where the operator names the token: only while the record is remembered are tokens unique.
async fn is_powerless<F: Fixture>(trial: &Trial<'_, F>, old: &Owner, whose: &str) -> Verdict {
    let by_token = Expected::Token(old.grant.token);
    is_lost(trial, old, &[old.expected(), by_token], whose).await
}

async fn is_powerless_by_attempt<F: Fixture>(
    trial: &Trial<'_, F>,
    old: &Owner,
    whose: &str,
) -> Verdict {
    is_lost(trial, old, &[old.expected()], whose).await
}

async fn is_lost<F: Fixture>(
    trial: &Trial<'_, F>,
    old: &Owner,
    expected: &[Expected],
    whose: &str,
) -> Verdict {
    let before = trial.seen(&old.key).await?;
    for call in calls(trial, old, expected) {
        let answer = call.fenced(&*trial.store, &old.key).await?;
        let what = &format!("{call:?} by an attempt that does not own {whose}");
        expect(what, answer, Fenced::Lost)?;
        trial.unchanged(what, &old.key, &before).await?;
    }
    Ok(())
}

/// Everything that `owner` could try, and an operator who means one of `expected`.
fn calls<F: Fixture>(trial: &Trial<'_, F>, owner: &Owner, expected: &[Expected]) -> Vec<Operation> {
    let (grant, long) = (owner.grant, trial.times.long);
    let mut calls = vec![
        Operation::renew(grant, 5 * long, None),
        Operation::renew(grant, long, Some((9, "stolen"))),
        Operation::complete(grant, trial.completion(ANSWER)),
        Operation::release(grant, long),
        Operation::give_up(grant),
    ];
    for expected in expected.iter().copied() {
        calls.extend([
            Operation::settle(expected, Settlement::Done(trial.completion(ANSWER))),
            Operation::settle(expected, Settlement::NotDone { hold: long }),
            Operation::evict(expected, false),
            Operation::evict(expected, true),
        ]);
    }
    calls
}
