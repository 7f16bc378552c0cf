//! The same key with another request.

use oncekey::Fingerprint;
use oncekey::store::{Claim, ClaimOutcome, OnInterrupted, OnRetired, Settlement, State};

use crate::support::{Owner, Trial, busy, expect};
use crate::{Fixture, Verdict};

/// Another fingerprint is a mismatch while the owner lives.
pub async fn differs_in_progress<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.owner().await?;
    mismatches(&trial, &owner, "a live key").await
}

/// Another fingerprint is a mismatch while the result is replayed.
pub async fn differs_after_completion<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.key_in(State::Completed).await?;
    mismatches(&trial, &owner, "a completed key").await
}

/// Another fingerprint is a mismatch on a lapsed key, whatever the policy.
pub async fn differs_after_the_lease_lapsed<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.key_in(State::Lapsed).await?;
    mismatches(&trial, &owner, "a lapsed key").await
}

/// A takeover keeps the fingerprint.
pub async fn is_kept_through_takeover<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for state in [State::Lapsed, State::GaveUp] {
        let first = trial.key_in(state).await?;
        let second = trial.acquire(&first.key, &trial.claim()).await?;
        mismatches(&trial, &second, "a key that was taken over").await?;
        let outcome = trial.claims(&first.key, &trial.claim()).await?;
        busy("a claim for the same request on a key that was taken over", &outcome)?;
    }
    Ok(())
}

/// A release keeps the fingerprint, and so does a verdict that nothing was done.
pub async fn is_kept_through_release<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let released = trial.key_in(State::Released).await?;
    mismatches(&trial, &released, "a released key").await?;
    let settled = trial.key_in(State::GaveUp).await?;
    let verdict = Settlement::NotDone { hold: trial.times.long };
    let _ = trial.settle(&settled.key, settled.expected(), verdict).await?;
    mismatches(&trial, &settled, "a key that was settled as not done").await
}

/// Giving up keeps the fingerprint.
pub async fn is_kept_through_give_up<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.key_in(State::GaveUp).await?;
    mismatches(&trial, &owner, "a given-up key").await
}

/// A retired key accepts another fingerprint, and keeps that from then on.
pub async fn is_forgotten_with_the_result<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let retired = trial.key_in(State::Retired).await?;
    let next = trial.acquire(&retired.key, &trial.other_claim()).await?;
    let outcome = trial.claims(&next.key, &trial.claim()).await?;
    let what = "a claim for the request before the retired result";
    expect(what, outcome, ClaimOutcome::Mismatch)?;
    let outcome = trial.claims(&next.key, &trial.other_claim()).await?;
    busy("a claim for the request after the retired result", &outcome).map(drop)
}

/// Fingerprints that differ in one bit, or only in their algorithm, differ.
pub async fn is_compared_whole<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let digest: [u8; 32] = std::array::from_fn(|index| index as u8);
    let claim = |algorithm, digest| Claim {
        fingerprint: Fingerprint::from_digest(algorithm, digest),
        ..trial.claim()
    };
    let key = trial.key();
    let _ = trial.acquire(&key, &claim(Fingerprint::SHA256, digest)).await?;
    for bit in 0..256 {
        let mut near = digest;
        near[bit / 8] ^= 1 << (bit % 8);
        let outcome = trial.claims(&key, &claim(Fingerprint::SHA256, near)).await?;
        let what = &format!("a claim whose digest differs in bit {bit}");
        expect(what, outcome, ClaimOutcome::Mismatch)?;
    }
    for algorithm in [0, Fingerprint::HMAC_SHA256, Fingerprint::FIRST_CUSTOM, u8::MAX] {
        let outcome = trial.claims(&key, &claim(algorithm, digest)).await?;
        let what = &format!("a claim with the same digest of algorithm {algorithm}");
        expect(what, outcome, ClaimOutcome::Mismatch)?;
    }
    let outcome = trial.claims(&key, &claim(Fingerprint::SHA256, digest)).await?;
    busy("a claim with the same fingerprint", &outcome).map(drop)
}

/// An attempt that claims again with another fingerprint is a mismatch.
pub async fn binds_the_own_attempt_too<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for state in [State::Live, State::Lapsed, State::GaveUp, State::Released, State::Completed] {
        let owner = trial.key_in(state).await?;
        let changed = Claim { attempt: owner.claim.attempt, ..trial.other_claim() };
        let outcome = trial.claims(&owner.key, &changed).await?;
        let what = &format!("the same attempt's claim for another request on a {state:?} key");
        expect(what, outcome, ClaimOutcome::Mismatch)?;
    }
    Ok(())
}

async fn mismatches<F: Fixture>(trial: &Trial<'_, F>, owner: &Owner, on: &str) -> Verdict {
    for (on_interrupted, on_retired) in
        [(OnInterrupted::TakeOver, OnRetired::Forget), (OnInterrupted::Refuse, OnRetired::Tell)]
    {
        let claim = Claim { on_interrupted, on_retired, ..trial.other_claim() };
        let outcome = trial.claims(&owner.key, &claim).await?;
        let what = &format!("a claim for another request on {on}");
        expect(what, outcome, ClaimOutcome::Mismatch)?;
    }
    Ok(())
}
