//! Extending the lease, saving progress.

use bytes::Bytes;
use oncekey::runtime::Timestamp;
use oncekey::store::{Claim, Fenced, Observed, State, Status};

use crate::history::Operation;
use crate::support::{HARD_BYTES, Trial, broken, busy, ensure, expect};
use crate::{Fixture, Verdict, Violation};

/// A renewal moves the deadline to now plus the lease it names.
pub async fn extends_the_lease<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.owner().await?;
    trial.pass(trial.times.short).await;
    let lease = 3 * trial.times.long;
    let before = trial.seen(&owner.key).await?;
    let answer = trial.renew(&owner, lease).await?;
    expect("a renewal by the owner", answer, Fenced::Applied)?;
    let after = trial.seen(&owner.key).await?;
    let from = before.now.saturating_add(lease);
    let to = after.now.saturating_add(lease);
    let deadline = deadline(&after)?;
    ensure(
        (from..=to).contains(&deadline),
        format_args!("the deadline is {lease:?} from now, {from:?} to {to:?}"),
        deadline,
    )
}

/// A renewal with a shorter lease leaves the later deadline.
pub async fn never_shortens_the_lease<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.owner().await?;
    let before = trial.seen(&owner.key).await?;
    let answer = trial.renew(&owner, trial.times.short).await?;
    expect("a renewal by the owner", answer, Fenced::Applied)?;
    trial.unchanged("a renewal with a shorter lease", &owner.key, &before).await
}

/// A lapsed lease that nobody took over is renewed, and lives.
pub async fn a_lapsed_lease_lives_again<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.key_in(State::Lapsed).await?;
    let answer = trial.renew(&owner, trial.times.long).await?;
    expect("a renewal by a lapsed owner", answer, Fenced::Applied)?;
    trial.is_in("a renewed key", &owner.key, State::Live).await?;
    let outcome = trial.claims(&owner.key, &trial.claim()).await?;
    busy("a claim on a renewed key", &outcome).map(drop)
}

/// A renewal moves the time to forget by as much as the deadline.
pub async fn forgetting_moves_with_the_deadline<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let claim = Claim { hold: 2 * trial.times.long, ..trial.claim() };
    let owner = trial.acquire(&trial.key(), &claim).await?;
    let _ = trial.renew(&owner, 5 * trial.times.long).await?;
    let seen = trial.seen(&owner.key).await?;
    expect(
        "the time to forget is the new deadline plus the hold of the claim",
        seen.record.forget_at,
        deadline(&seen)?.saturating_add(claim.hold),
    )
}

/// Progress is saved together with the renewal, which extends a live or lapsed lease all the same.
pub async fn saves_progress<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for state in [State::Live, State::Lapsed] {
        let owner = trial.key_in(state).await?;
        for (sequence, data) in [(1, "a third"), (2, "two thirds"), (7, "nearly all")] {
            let before = trial.seen(&owner.key).await?;
            let lease = deadline(&before)?.saturating_since(before.now) + trial.times.long;
            let save = Operation::renew(owner.grant, lease, Some((sequence, data)));
            let answer = save.fenced(&*trial.store, &owner.key).await?;
            expect("a renewal with progress", answer, Fenced::Applied)?;
            let seen = trial.seen(&owner.key).await?;
            let saved = seen.record.progress.as_deref();
            let saved = saved.map(|progress| (progress.sequence, progress.data.clone()));
            expect("the saved progress", saved, Some((sequence, data.into())))?;
            let from = before.now.saturating_add(lease);
            ensure(
                deadline(&seen)? >= from,
                format_args!("a renewal with progress moves the deadline on to {from:?}"),
                deadline(&seen)?,
            )?;
        }
    }
    Ok(())
}

/// Saved progress is shown and handed on byte for byte, whatever its bytes are, also none.
pub async fn progress_is_byte_for_byte<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let other = fixture.open().await;
    let every_byte: Vec<u8> = (0..=u8::MAX).chain((0..=u8::MAX).rev()).collect();
    for data in HARD_BYTES.iter().copied().chain([every_byte.as_slice(), b""]) {
        let owner = trial.owner().await?;
        let answer = trial.save(&owner, 1, Bytes::copy_from_slice(data)).await?;
        expect("a renewal with progress", answer, Fenced::Applied)?;
        for store in [&trial.store, &other] {
            let seen = store.get(&owner.key).await?;
            let saved = seen.and_then(|seen| seen.record.progress);
            let saved = saved.map(|progress| (progress.sequence, progress.data.to_vec()));
            expect("the saved progress", saved, Some((1, data.to_vec())))?;
        }
        let _ = trial.give_up(&owner).await?;
        let next = trial.acquire(&owner.key, &trial.claim()).await?;
        let inherited = next.previous.and_then(|previous| previous.progress);
        let inherited = inherited.map(|data| data.to_vec());
        expect("the progress that a takeover gets", inherited, Some(data.to_vec()))?;
    }
    Ok(())
}

/// A renewal without progress leaves the saved progress alone.
pub async fn without_progress_keeps_what_was_saved<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.owner().await?;
    let _ = trial.save(&owner, 1, "half").await?;
    let before = trial.seen(&owner.key).await?;
    let _ = trial.renew(&owner, 2 * trial.times.long).await?;
    let after = trial.seen(&owner.key).await?;
    expect("the saved progress", after.record.progress, before.record.progress)
}

fn deadline(seen: &Observed) -> Result<Timestamp, Violation> {
    match seen.record.status {
        Status::InProgress { deadline } => Ok(deadline),
        ref other => broken("a renewed key is in progress", other),
    }
}
