//! Ending an attempt without a result: release and give up.

use oncekey::store::{Cause, Claim, ClaimOutcome, Fenced, Record, State, Status};

use crate::support::{Owner, Trial, expect};
use crate::{Fixture, Verdict};

/// A released key is granted to the next attempt at once, whatever its policies, with no predecessor.
pub async fn frees_the_key_at_once<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let first = trial.key_in(State::GaveUp).await?;
    let second = trial.acquire(&first.key, &trial.claim()).await?;
    let answer = trial.release(&second).await?;
    expect("a release by the owner", answer, Fenced::Applied)?;
    trial.is_in("a released key", &first.key, State::Released).await?;
    let next = trial.acquire(&first.key, &trial.strict_claim()).await?;
    expect("the predecessor after a release", next.previous, None)
}

/// A lapsed owner that nobody replaced can still say that nothing was done.
pub async fn after_the_lease_lapsed<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    releases(&trial, &trial.key_in(State::Lapsed).await?).await
}

/// An attempt that gave up without progress can still say that nothing was done.
pub async fn after_giving_up<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    releases(&trial, &trial.key_in(State::GaveUp).await?).await
}

async fn releases<F: Fixture>(trial: &Trial<'_, F>, owner: &Owner) -> Verdict {
    let answer = trial.release(owner).await?;
    expect("a release by the last attempt", answer, Fenced::Applied)?;
    trial.is_in("a released key", &owner.key, State::Released).await
}

/// Whoever saved progress did something: its release is recorded as given up.
pub async fn with_progress_is_giving_up<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let live = trial.owner().await?;
    let _ = trial.save(&live, 1, "half").await?;
    is_given_up_by_a_release(&trial, &live).await?;
    is_given_up_by_a_release(&trial, &live).await?;

    let brief = Claim { lease: trial.times.short, ..trial.claim() };
    let lapsed = trial.acquire(&trial.key(), &brief).await?;
    let _ = trial.save(&lapsed, 1, "half").await?;
    trial.pass(trial.times.short).await;
    is_given_up_by_a_release(&trial, &lapsed).await
}

/// A takeover that inherited progress cannot say that nothing was done.
pub async fn with_inherited_progress_is_giving_up<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let first = trial.owner().await?;
    let _ = trial.save(&first, 1, "half").await?;
    let _ = trial.give_up(&first).await?;
    let second = trial.acquire(&first.key, &trial.claim()).await?;
    is_given_up_by_a_release(&trial, &second).await
}

async fn is_given_up_by_a_release<F: Fixture>(trial: &Trial<'_, F>, owner: &Owner) -> Verdict {
    let answer = trial.release(owner).await?;
    expect("a release by an attempt with progress", answer, Fenced::Applied)?;
    let seen = trial.seen(&owner.key).await?;
    expect("a key whose attempt had progress", seen.state, State::GaveUp)?;
    let progress = seen.record.progress.map(|progress| progress.data);
    expect("its progress", progress, Some("half".into()))
}

/// A released key is remembered for the hold that the release names.
pub async fn is_remembered_for_its_hold<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for hold in [trial.times.long / 2, 3 * trial.times.long] {
        let owner = trial.owner().await?;
        let before = trial.seen(&owner.key).await?;
        let _ = trial.release_for(&owner, hold).await?;
        trial.is_forgotten_after(&owner.key, before.now, hold).await?;
    }
    Ok(())
}

/// A completed attempt is neither released nor given up, not after its retention either.
pub async fn never_after_completion<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for state in [State::Completed, State::Retired] {
        let owner = trial.key_in(state).await?;
        let before = trial.seen(&owner.key).await?;
        let answer = trial.release(&owner).await?;
        expect(format_args!("a release of a {state:?} key"), answer, Fenced::Lost)?;
        let answer = trial.give_up(&owner).await?;
        expect(format_args!("giving up a {state:?} key"), answer, Fenced::Lost)?;
        trial.unchanged("a late release", &owner.key, &before).await?;
    }
    Ok(())
}

/// A key whose owner gave up is interrupted at once, long before its lease ends.
pub async fn giving_up_interrupts_at_once<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for saves in [false, true] {
        let owner = trial.owner().await?;
        if saves {
            let _ = trial.save(&owner, 1, "half").await?;
        }
        let before = trial.seen(&owner.key).await?;
        let answer = trial.give_up(&owner).await?;
        expect("giving up by the owner", answer, Fenced::Applied)?;
        let outcome = trial.claims(&owner.key, &trial.strict_claim()).await?;
        expect("a refusing claim after giving up", outcome, ClaimOutcome::Interrupted)?;
        let expected = Record { status: Status::GaveUp, ..before.record };
        let after = trial.seen(&owner.key).await?;
        expect("giving up changes the status alone", after.record, expected)?;
    }
    Ok(())
}

/// A lapsed owner that gives up is recorded as given up, not as lapsed.
pub async fn giving_up_after_the_lease_lapsed<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.key_in(State::Lapsed).await?;
    let answer = trial.give_up(&owner).await?;
    expect("giving up by the last attempt", answer, Fenced::Applied)?;
    let next = trial.acquire(&owner.key, &trial.claim()).await?;
    let cause = next.previous.map(|previous| previous.cause);
    expect("how the predecessor ended", cause, Some(Cause::GaveUp))
}
