//! Recording a result.

use oncekey::store::{Completion, Fenced, State, Status};

use crate::support::{ANSWER, Owner, Trial, broken, ensure, expect, replayed};
use crate::{Fixture, Verdict};

/// An owner's completion is applied, every duplicate gets the result, and the record says whose it is.
pub async fn records_the_result<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let first = trial.key_in(State::GaveUp).await?;
    let second = trial.acquire(&first.key, &trial.claim()).await?;
    completes(&trial, &second).await?;
    let record = trial.seen(&first.key).await?.record;
    expect(
        "the fingerprint, attempt, token and number of a completed record",
        (record.fingerprint, record.attempt, record.token, record.number),
        (second.claim.fingerprint, second.claim.attempt, second.grant.token, second.number),
    )
}

/// A lapsed owner that nobody replaced completes: the effect happened.
pub async fn after_the_lease_lapsed<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    completes(&trial, &trial.key_in(State::Lapsed).await?).await
}

/// An attempt that was released and not replaced completes: the effect happened.
pub async fn after_release<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    completes(&trial, &trial.key_in(State::Released).await?).await
}

/// An attempt that gave up and was not replaced completes: the effect happened.
pub async fn after_giving_up<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    completes(&trial, &trial.key_in(State::GaveUp).await?).await
}

async fn completes<F: Fixture>(trial: &Trial<'_, F>, owner: &Owner) -> Verdict {
    let answer = trial.complete(owner, ANSWER).await?;
    expect("a completion by the last attempt", answer, Fenced::Applied)?;
    trial.is_in("a completed key", &owner.key, State::Completed).await?;
    for claim in [trial.claim(), trial.strict_claim()] {
        let outcome = trial.claims(&owner.key, &claim).await?;
        replayed("a claim on a completed key", &outcome, ANSWER)?;
    }
    Ok(())
}

/// Retention and hold count from the completion, not from the claim.
pub async fn retention_counts_from_the_completion<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.owner().await?;
    let completion = Completion {
        retention: 3 * trial.times.long,
        hold: 2 * trial.times.long,
        ..trial.completion(ANSWER)
    };
    trial.pass(trial.times.short).await;
    let before = trial.seen(&owner.key).await?;
    let _ = trial.complete_as(&owner, completion.clone()).await?;
    let after = trial.seen(&owner.key).await?;
    let Status::Completed { retained_until, .. } = after.record.status else {
        return broken("a completed key has a result", after.record.status);
    };
    let from = before.now.saturating_add(completion.retention);
    let to = after.now.saturating_add(completion.retention);
    ensure(
        (from..=to).contains(&retained_until),
        format_args!("the result is retained until {from:?} to {to:?}"),
        retained_until,
    )?;
    expect(
        "the time to forget is the end of the retention plus the hold",
        after.record.forget_at,
        retained_until.saturating_add(completion.hold),
    )
}

/// A completed record keeps neither progress nor the attempt it took over from.
pub async fn drops_what_was_saved<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let first = trial.owner().await?;
    let _ = trial.save(&first, 1, "half").await?;
    let _ = trial.give_up(&first).await?;
    let second = trial.acquire(&first.key, &trial.claim()).await?;
    let _ = trial.complete(&second, ANSWER).await?;
    let record = trial.seen(&first.key).await?.record;
    expect("the progress of a completed record", record.progress, None)?;
    expect("the predecessor of a completed record", record.previous, None)
}
