//! What duplicates get.

use bytes::Bytes;
use oncekey::store::{ClaimOutcome, Completion, Fenced, Settlement, State};

use crate::support::{HARD_BYTES, Trial, expect, replayed};
use crate::{Fixture, Verdict};

/// A result is replayed byte for byte, whatever its bytes are, and whether its owner or an operator recorded it.
pub async fn is_byte_for_byte<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let other = fixture.open().await;
    let every_byte: Vec<u8> = (0..=u8::MAX).chain((0..=u8::MAX).rev()).collect();
    let long: Vec<u8> =
        (0..100_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for value in HARD_BYTES.iter().copied().chain([every_byte.as_slice(), &long]) {
        let completed = trial.owner().await?;
        let _ = trial.complete(&completed, Bytes::copy_from_slice(value)).await?;
        let settled = trial.key_in(State::GaveUp).await?;
        let done = Settlement::Done(trial.completion(Bytes::copy_from_slice(value)));
        let _ = trial.settle(&settled.key, settled.expected(), done).await?;
        for (what, key) in [("completed", &completed.key), ("settled", &settled.key)] {
            for store in [&trial.store, &other] {
                let outcome = store.claim(key, &trial.claim()).await?;
                replayed(format_args!("a claim on a {what} key"), &outcome, value)?;
            }
        }
    }
    Ok(())
}

/// An empty result is replayed as an empty result, not as a result that was not kept.
pub async fn an_empty_result_is_a_result<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.owner().await?;
    let answer = trial.complete(&owner, Bytes::new()).await?;
    expect("a completion with no bytes", answer, Fenced::Applied)?;
    let outcome = trial.claims(&owner.key, &trial.claim()).await?;
    replayed("a claim on a key that was completed with no bytes", &outcome, b"")
}

/// A result that was not to be kept is replayed as done, without bytes.
pub async fn a_result_that_was_not_kept_is_still_done<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.owner().await?;
    let completion = Completion { replayable: false, ..trial.completion("too large to keep") };
    let answer = trial.complete_as(&owner, completion).await?;
    expect("a completion that is not replayable", answer, Fenced::Applied)?;
    for claim in [trial.claim(), trial.strict_claim(), owner.claim] {
        let outcome = trial.claims(&owner.key, &claim).await?;
        let what = "a claim on a key whose result was not kept";
        expect(what, outcome, ClaimOutcome::Replay(None))?;
    }
    Ok(())
}
