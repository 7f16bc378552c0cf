//! The same command, sent again or delivered late.

use std::time::Duration;

use oncekey::store::{Claim, ClaimOutcome, Completion, Fenced, State, Status};

use crate::support::{ANSWER, Owner, Trial, acquired, broken, ensure, expect, replayed};
use crate::{Fixture, Verdict, Violation};

/// An owner that claims again gets the same token, number and account of its predecessor.
pub async fn claim_again_gets_the_same_grant<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for owner in owners_of_every_kind(&trial, trial.times.long).await? {
        let outcome = trial.claims(&owner.key, &owner.claim).await?;
        let again = acquired("the same attempt's claim", &owner.key, &owner.claim, outcome)?;
        expect(
            "the grant, number and predecessor of an attempt that claims again",
            (again.grant, again.number, again.previous),
            (owner.grant, owner.number, owner.previous),
        )?;
    }
    Ok(())
}

/// Live owners of a new key, and of keys that were taken over, with and without saved progress.
async fn owners_of_every_kind<F: Fixture>(
    trial: &Trial<'_, F>,
    lease: Duration,
) -> Result<Vec<Owner>, Violation> {
    let claim = || Claim { lease, ..trial.claim() };
    let saved = trial.owner().await?;
    let _ = trial.save(&saved, 1, "half").await?;
    let _ = trial.give_up(&saved).await?;
    let gave_up = trial.key_in(State::GaveUp).await?;
    let lapsed = trial.key_in(State::Lapsed).await?;
    let mut owners = vec![trial.acquire(&trial.key(), &claim()).await?];
    for replaced in [saved, gave_up, lapsed] {
        owners.push(trial.acquire(&replaced.key, &claim()).await?);
    }
    Ok(owners)
}

/// An owner that claims again has its lease extended, never shortened.
pub async fn claim_again_moves_the_deadline_on<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for owner in owners_of_every_kind(&trial, trial.times.long).await? {
        is_extended(&trial, &owner).await?;
    }
    Ok(())
}

async fn is_extended<F: Fixture>(trial: &Trial<'_, F>, owner: &Owner) -> Verdict {
    let longer = Claim { lease: 3 * trial.times.long, ..owner.claim };
    let before = trial.seen(&owner.key).await?;
    let again = trial.acquire(&owner.key, &longer).await?;
    let extended = trial.seen(&owner.key).await?;
    let Status::InProgress { deadline } = extended.record.status else {
        return broken("a key claimed again is in progress", extended.record.status);
    };
    let from = before.now.saturating_add(longer.lease);
    let to = extended.now.saturating_add(longer.lease);
    ensure(
        (from..=to).contains(&deadline),
        format_args!("the deadline is {:?} from now, {from:?} to {to:?}", longer.lease),
        deadline,
    )?;
    expect(
        "the time to forget is the new deadline plus the hold",
        extended.record.forget_at,
        deadline.saturating_add(longer.hold),
    )?;
    ensure(
        again.lease_left > 2 * trial.times.long,
        format_args!("the lease left is that of the second claim, {:?}", longer.lease),
        again.lease_left,
    )?;

    let shorter = Claim { lease: trial.times.short, hold: trial.times.short, ..owner.claim };
    let again = trial.acquire(&owner.key, &shorter).await?;
    let what = "claiming again with a shorter lease and hold";
    trial.unchanged(what, &owner.key, &extended).await?;
    ensure(
        again.lease_left > 2 * trial.times.long,
        "the lease left is that of the longer claim before",
        again.lease_left,
    )
}

/// A lapsed owner that claims again gets its grant back, even if it asks to refuse interrupted keys.
pub async fn claim_again_after_the_lease_lapsed<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for policy in [trial.claim(), trial.strict_claim()] {
        let owners = owners_of_every_kind(&trial, trial.times.short).await?;
        trial.pass(trial.times.short).await;
        for owner in owners {
            let claim = Claim { attempt: owner.claim.attempt, ..policy };
            let outcome = trial.claims(&owner.key, &claim).await?;
            let what = "the same attempt's claim on its lapsed key";
            let again = acquired(what, &owner.key, &claim, outcome)?;
            expect(
                "the grant and number of a lapsed attempt that claims again",
                (again.grant, again.number),
                (owner.grant, owner.number),
            )?;
            trial.is_in("a lapsed key claimed again", &owner.key, State::Live).await?;
        }
    }
    Ok(())
}

/// A late copy of a claim whose attempt gave up, was released or is retired is told `Spent`.
pub async fn a_late_claim_of_an_ended_attempt_is_spent<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for state in [State::GaveUp, State::Released, State::Retired] {
        let owner = trial.key_in(state).await?;
        for policy in [trial.claim(), trial.strict_claim(), trial.other_claim()] {
            if state != State::Retired && policy.fingerprint != owner.claim.fingerprint {
                continue;
            }
            let late = Claim { attempt: owner.claim.attempt, ..policy };
            let outcome = trial.claims(&owner.key, &late).await?;
            let what = &format!("a late copy of the claim of a {state:?} key");
            expect(what, outcome, ClaimOutcome::Spent)?;
        }
    }
    Ok(())
}

/// A late copy of a claim whose attempt completed gets the result.
pub async fn a_late_claim_after_completion_is_replayed<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.key_in(State::Completed).await?;
    let outcome = trial.claims(&owner.key, &owner.claim).await?;
    replayed("a late copy of the claim of a completed key", &outcome, ANSWER)
}

/// Completing again with the same bytes is applied and changes nothing, not the retention either.
pub async fn complete_again_changes_nothing<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.key_in(State::Completed).await?;
    let before = trial.seen(&owner.key).await?;
    trial.pass(trial.times.short).await;
    for replayable in [true, false] {
        let again = Completion {
            replayable,
            retention: 3 * trial.times.long,
            hold: 3 * trial.times.long,
            ..trial.completion(ANSWER)
        };
        let answer = trial.complete_as(&owner, again).await?;
        expect("completing again with the same bytes", answer, Fenced::Applied)?;
        trial.unchanged("completing again", &owner.key, &before).await?;
    }
    Ok(())
}

/// Completing again with other bytes is a conflict and changes nothing.
pub async fn complete_with_other_bytes_conflicts<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.key_in(State::Completed).await?;
    let before = trial.seen(&owner.key).await?;
    for other in ["the Answer", "the answer ", "the answe", ""] {
        let answer = trial.complete(&owner, other).await?;
        expect("completing again with other bytes", answer, Fenced::Conflict)?;
        trial.unchanged("a conflict", &owner.key, &before).await?;
    }
    Ok(())
}

/// A result that was not kept is compared by its digest when it is completed again.
pub async fn complete_again_without_the_bytes<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.owner().await?;
    let completion = |value| Completion { replayable: false, ..trial.completion(value) };
    let _ = trial.complete_as(&owner, completion(ANSWER)).await?;
    let answer = trial.complete_as(&owner, completion(ANSWER)).await?;
    let what = "completing again with the bytes that were not kept";
    expect(what, answer, Fenced::Applied)?;
    let answer = trial.complete_as(&owner, completion(b"another answer")).await?;
    let what = "completing again with other bytes than those that were not kept";
    expect(what, answer, Fenced::Conflict)
}

/// Completing again after the retention still tells the same bytes from others.
pub async fn complete_again_after_the_retention<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.key_in(State::Retired).await?;
    let before = trial.seen(&owner.key).await?;
    for (value, required) in [(ANSWER, Fenced::Applied), (b"another answer", Fenced::Conflict)] {
        let answer = trial.complete(&owner, value).await?;
        expect("completing again after the retention", answer, required)?;
        trial.unchanged("completing again", &owner.key, &before).await?;
    }
    Ok(())
}

/// Releasing again is applied and changes nothing, not the time to forget either.
pub async fn release_again_changes_nothing<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.key_in(State::Released).await?;
    let before = trial.seen(&owner.key).await?;
    let answer = trial.release_for(&owner, 3 * trial.times.long).await?;
    expect("releasing again", answer, Fenced::Applied)?;
    trial.unchanged("releasing again", &owner.key, &before).await
}

/// Giving up again is applied and changes nothing.
pub async fn give_up_again_changes_nothing<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.key_in(State::GaveUp).await?;
    let before = trial.seen(&owner.key).await?;
    let answer = trial.give_up(&owner).await?;
    expect("giving up again", answer, Fenced::Applied)?;
    trial.unchanged("giving up again", &owner.key, &before).await
}

/// A late copy of giving up does not interrupt a released key.
pub async fn give_up_after_release_is_lost<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.key_in(State::Released).await?;
    let before = trial.seen(&owner.key).await?;
    let answer = trial.give_up(&owner).await?;
    expect("giving up a released key", answer, Fenced::Lost)?;
    trial.unchanged("giving up late", &owner.key, &before).await
}

/// A late copy of a renewal revives no attempt that ended.
pub async fn a_late_renew_of_an_ended_attempt_is_lost<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for state in [State::GaveUp, State::Released, State::Completed, State::Retired] {
        let owner = trial.key_in(state).await?;
        let before = trial.seen(&owner.key).await?;
        let what = &format!("a renewal of a {state:?} key");
        let answer = trial.renew(&owner, 3 * trial.times.long).await?;
        expect(what, answer, Fenced::Lost)?;
        let answer = trial.save(&owner, 9, "late").await?;
        expect(what, answer, Fenced::Lost)?;
        trial.unchanged(what, &owner.key, &before).await?;
    }
    Ok(())
}

/// An older or repeated progress extends the lease and leaves the newer progress alone.
pub async fn an_older_progress_never_replaces_a_newer<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let mut owner = trial.owner().await?;
    let _ = trial.save(&owner, 2, "new").await?;
    for sequence in [1, 2, 0] {
        let before = trial.seen(&owner.key).await?;
        owner.claim.lease += trial.times.long;
        let answer = trial.save(&owner, sequence, "old").await?;
        expect("a renewal with an older progress", answer, Fenced::Applied)?;
        let after = trial.seen(&owner.key).await?;
        expect("the progress", after.record.progress, before.record.progress)?;
        ensure(
            after.record.forget_at > before.record.forget_at,
            "a renewal with an older progress extends the lease all the same",
            (before.record.status, after.record.status),
        )?;
    }
    Ok(())
}
