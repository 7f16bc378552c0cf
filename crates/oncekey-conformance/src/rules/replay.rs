//! What duplicates get.

use bytes::Bytes;
use oncekey::store::{ClaimOutcome, Completion, Fenced};

use crate::support::{Trial, expect, replayed};
use crate::{Fixture, Verdict};

/// A result is replayed byte for byte, whatever its bytes are.
pub async fn is_byte_for_byte<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let other = fixture.open().await;
    let every_byte: Vec<u8> = (0..=u8::MAX).chain((0..=u8::MAX).rev()).collect();
    let long: Vec<u8> =
        (0..100_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for value in [
        every_byte.as_slice(),
        &[0],
        &[0; 33],
        b"\xff\xfe\xc3\x28",
        b"{\"a\": 1}\r\n ",
        b"007",
        b"1e3",
        b"true",
        b"null",
        "ﬁancé e\u{301}".as_bytes(),
        &long,
    ] {
        let owner = trial.owner().await?;
        let _ = trial.complete(&owner, Bytes::copy_from_slice(value)).await?;
        for store in [&trial.store, &other] {
            let outcome = store.claim(&owner.key, &trial.claim()).await?;
            replayed("a claim on a completed key", &outcome, value)?;
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
