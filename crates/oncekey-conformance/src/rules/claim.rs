//! Asking for the right to run.

use std::time::Duration;

use oncekey::store::{Change, Claim, ClaimOutcome, Completion, State, Status, transition};

use crate::support::{ANSWER, Owner, Trial, broken, busy, ensure, expect};
use crate::{Fixture, Verdict};

/// An absent key is granted, as attempt 1 and without a predecessor.
pub async fn grants_an_absent_key<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for claim in [trial.claim(), trial.strict_claim()] {
        let owner = trial.acquire(&trial.key(), &claim).await?;
        expect("the number of a first grant", owner.number, 1)?;
        expect("the predecessor of a first grant", owner.previous, None)?;
        ensure(
            owner.lease_left > claim.lease / 2 && owner.lease_left <= claim.lease,
            format_args!("a new grant has its whole lease left, {:?}", claim.lease),
            owner.lease_left,
        )?;
        trial.is_in("a granted key", &owner.key, State::Live).await?;
    }
    Ok(())
}

/// While the owner's lease runs, every other attempt is told `Busy`, whatever its policies.
pub async fn refuses_while_the_owner_lives<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.owner().await?;
    for claim in [trial.claim(), trial.strict_claim()] {
        let outcome = trial.claims(&owner.key, &claim).await?;
        busy("another attempt's claim on a live key", &outcome)?;
    }
    Ok(())
}

/// `Busy` says how long the owner's lease still runs.
pub async fn busy_says_when_the_lease_lapses<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.owner().await?;
    is_told_the_rest_of_the_lease(&trial, &owner).await?;
    trial.pass(trial.times.short).await;
    is_told_the_rest_of_the_lease(&trial, &owner).await?;
    let _ = trial.renew(&owner, 3 * trial.times.long).await?;
    is_told_the_rest_of_the_lease(&trial, &owner).await
}

async fn is_told_the_rest_of_the_lease<F: Fixture>(trial: &Trial<'_, F>, owner: &Owner) -> Verdict {
    let before = trial.seen(&owner.key).await?;
    let outcome = trial.claims(&owner.key, &trial.claim()).await?;
    let told = busy("another attempt's claim on a live key", &outcome)?;
    let after = trial.seen(&owner.key).await?;
    let Status::InProgress { deadline } = after.record.status else {
        return broken("a live key is in progress", after.record.status);
    };
    let most = deadline.saturating_since(before.now);
    let least = deadline.saturating_since(after.now);
    ensure(
        (least..=most).contains(&told),
        format_args!("retry_after is what is left of the lease, {least:?} to {most:?}"),
        told,
    )
}

/// A claim that is refused or answered with a replay leaves the record as it was.
pub async fn a_refusal_changes_nothing<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let not_kept = trial.owner().await?;
    let completion = Completion { replayable: false, ..trial.completion(ANSWER) };
    let _ = trial.complete_as(&not_kept, completion).await?;
    let mut owners = vec![not_kept];
    for state in [
        State::Live,
        State::Lapsed,
        State::GaveUp,
        State::Completed,
        State::Released,
        State::Retired,
    ] {
        owners.push(trial.key_in(state).await?);
    }
    for owner in &owners {
        let before = trial.seen(&owner.key).await?;
        for claim in of_every_kind(&trial, owner) {
            let decided = transition(Some(&before.record), &claim, before.now);
            if decided.change != Change::Keep {
                continue;
            }
            match trial.claims(&owner.key, &claim).await? {
                // A wrong grant is the matter of other rules.
                ClaimOutcome::Acquired { .. } => break,
                told => {
                    let what = &format!("a claim on a {:?} key, told {told:?},", before.state);
                    trial.unchanged(what, &owner.key, &before).await?;
                }
            }
        }
    }
    Ok(())
}

/// By the owner and by another, for the same request and another, with every policy.
fn of_every_kind<F: Fixture>(trial: &Trial<'_, F>, owner: &Owner) -> Vec<Claim> {
    let longer = trial.times.long + Duration::from_secs(60);
    let mut claims = Vec::new();
    for policy in [trial.claim(), trial.strict_claim()] {
        for fingerprint in [owner.claim.fingerprint, trial.other_claim().fingerprint] {
            for attempt in [owner.claim.attempt, trial.claim().attempt] {
                claims.push(Claim { attempt, fingerprint, lease: longer, hold: longer, ..policy });
            }
        }
    }
    claims
}

/// Grants in a row without a result are numbered 1, 2, 3; a retired result starts over.
pub async fn counts_the_grants_without_a_result<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let released = trial.owner().await?;
    let _ = trial.release(&released).await?;
    let gave_up = trial.acquire(&released.key, &trial.claim()).await?;
    expect("the number after a release", gave_up.number, 2)?;
    let _ = trial.give_up(&gave_up).await?;
    let brief = Claim { lease: trial.times.short, ..trial.claim() };
    let lapsed = trial.acquire(&released.key, &brief).await?;
    expect("the number after giving up", lapsed.number, 3)?;
    trial.pass(trial.times.short).await;
    let completed = trial.acquire(&released.key, &trial.claim()).await?;
    expect("the number after a lapse", completed.number, 4)?;

    let retired = trial.key_in(State::Retired).await?;
    let next = trial.acquire(&retired.key, &trial.claim()).await?;
    expect("the number after a retired result", next.number, 1)
}
