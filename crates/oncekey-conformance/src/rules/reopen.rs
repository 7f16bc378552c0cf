//! Other handles, and restarts.

use oncekey::store::{Claim, ClaimOutcome, Expected, Fenced, State};

use crate::support::{ANSWER, Trial, busy, ensure, expect, replayed};
use crate::{Fixture, Verdict};

/// What one handle was answered, every other handle sees at once.
pub async fn a_second_handle_agrees<F: Fixture>(fixture: &F) -> Verdict {
    let here = Trial::new(fixture).await;
    let there = Trial::new(fixture).await;
    let key = here.key();
    // Each reads first: what it remembers of that must not count later.
    expect("a key that was never claimed", there.store.get(&key).await?, None)?;
    let first = here.acquire(&key, &here.claim()).await?;
    let outcome = there.claims(&key, &there.claim()).await?;
    busy("a claim on another handle, of a live key", &outcome)?;
    let answer = there.save(&first, 1, "half").await?;
    expect("a renewal on another handle", answer, Fenced::Applied)?;
    let seen = here.seen(&key).await?;
    ensure(
        seen.record.progress.is_some(),
        "the first handle sees the progress that was saved on the other",
        &seen,
    )?;
    let answer = here.give_up(&first).await?;
    expect("giving up on the first handle", answer, Fenced::Applied)?;
    let outcome = there.claims(&key, &there.strict_claim()).await?;
    let what = "a refusing claim on another handle, of a given-up key";
    expect(what, outcome, ClaimOutcome::Interrupted)?;
    let second = there.acquire(&key, &there.claim()).await?;
    let answer = here.renew(&first, here.times.long).await?;
    expect("a renewal by an attempt replaced on another handle", answer, Fenced::Lost)?;
    let answer = there.complete(&second, ANSWER).await?;
    expect("a completion on the other handle", answer, Fenced::Applied)?;
    for trial in [&here, &there] {
        let outcome = trial.claims(&key, &trial.claim()).await?;
        replayed("a claim after the completion on either handle", &outcome, ANSWER)?;
    }
    let answer = here.evict(&key, Expected::Any, false).await?;
    expect("an eviction on the first handle", answer, Fenced::Applied)?;
    expect("a key evicted on another handle", there.store.get(&key).await?, None)?;
    let third = there.acquire(&key, &there.other_claim()).await?;
    expect("the number after an eviction on another handle", third.number, 1)
}

/// What was acknowledged is in force after a restart.
pub async fn an_answer_survives<F: Fixture>(fixture: &F) -> Verdict {
    let before = Trial::new(fixture).await;
    let mut records = Vec::new();
    for state in [
        State::Live,
        State::Lapsed,
        State::GaveUp,
        State::Released,
        State::Completed,
        State::Retired,
    ] {
        let owner = before.key_in(state).await?;
        let what = format!("a restart with a {state:?} key");
        records.push((what, before.seen(&owner.key).await?, owner));
    }
    let renewed = before.owner().await?;
    let _ = before.save(&renewed, 1, "half").await?;
    let what = "a restart after a renewal with progress".to_owned();
    records.push((what, before.seen(&renewed.key).await?, renewed));
    let taken_over = before.key_in(State::GaveUp).await?;
    let next = before.acquire(&taken_over.key, &before.claim()).await?;
    let what = "a restart after a takeover".to_owned();
    records.push((what, before.seen(&next.key).await?, next));
    let settled = before.key_in(State::GaveUp).await?;
    let done = oncekey::store::Settlement::Done(before.completion(ANSWER));
    let _ = before.settle(&settled.key, settled.expected(), done).await?;
    let what = "a restart after a verdict of done".to_owned();
    records.push((what, before.seen(&settled.key).await?, settled));
    let evicted = before.owner().await?;
    let _ = before.evict(&evicted.key, Expected::Any, true).await?;

    fixture.restart().await;

    let after = Trial::new(fixture).await;
    for (what, record, owner) in &records {
        after.unchanged(what, &owner.key, record).await?;
        if record.state == State::Live {
            let answer = after.complete(owner, ANSWER).await?;
            expect("a completion by an owner from before", answer, Fenced::Applied)?;
        }
    }
    let what = "the record of a key that was evicted before the restart";
    expect(what, after.store.get(&evicted.key).await?, None)
}

/// After a restart, the next grant of a remembered key has a higher token.
pub async fn tokens_increase_across_a_restart<F: Fixture>(fixture: &F) -> Verdict {
    let before = Trial::new(fixture).await;
    let released = before.key_in(State::Released).await?;
    // A second grant at once: its token is ahead of the clock, if the clock stands still.
    let claim = Claim { lease: before.times.long, ..before.claim() };
    let last = before.acquire(&released.key, &claim).await?;
    let _ = before.release(&last).await?;
    fixture.restart().await;
    let after = Trial::new(fixture).await;
    let next = after.acquire(&released.key, &after.claim()).await?;
    ensure(
        next.grant.token > last.grant.token,
        format_args!("a token above {}", last.grant.token),
        next.grant.token,
    )
}
