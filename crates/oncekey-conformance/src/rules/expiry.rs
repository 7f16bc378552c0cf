//! What time does: lapsing, takeover, retention.

use std::time::Duration;

use oncekey::Key;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    Cause, Claim, ClaimOutcome, Completion, Fenced, Previous, Settlement, State, Status,
};

use crate::support::{ANSWER, Trial, broken, busy, ensure, expect, replayed};
use crate::{Fixture, Verdict};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A lease lives until its deadline and has lapsed when the clock shows the deadline.
pub async fn a_lease_lapses_at_its_deadline<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let claim = Claim { lease: trial.times.short, ..trial.claim() };
    let owner = trial.acquire(&trial.key(), &claim).await?;
    around(&trial, &owner.key, |outcome, over| {
        if over {
            let what = "a refusing claim at the deadline or later";
            expect(what, outcome, ClaimOutcome::Interrupted)
        } else {
            busy("a claim before the deadline", &outcome).map(drop)
        }
    })
    .await
}

/// A lapsed key is granted to another attempt, with a whole lease.
pub async fn a_lapsed_lease_is_taken_over<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let first = trial.key_in(State::Lapsed).await?;
    let second = trial.acquire(&first.key, &trial.claim()).await?;
    ensure(
        second.lease_left > second.claim.lease / 2,
        format_args!("a takeover has its whole lease left, {:?}", second.claim.lease),
        second.lease_left,
    )?;
    trial.is_in("a key that was taken over", &first.key, State::Live).await?;
    let outcome = trial.claims(&first.key, &trial.claim()).await?;
    busy("a claim on a key that was taken over", &outcome).map(drop)
}

/// A takeover says how the attempt before it ended, and its token.
pub async fn a_takeover_says_what_it_replaced<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for (state, cause) in [(State::Lapsed, Cause::Lapsed), (State::GaveUp, Cause::GaveUp)] {
        let mut last = trial.key_in(state).await?;
        let mut expected = cause;
        for _ in 0..2 {
            let next = trial.acquire(&last.key, &trial.claim()).await?;
            let previous = Previous { cause: expected, token: last.grant.token, progress: None };
            expect("the predecessor of a takeover", next.previous.clone(), Some(previous))?;
            let _ = trial.give_up(&next).await?;
            expected = Cause::GaveUp;
            last = next;
        }
    }
    Ok(())
}

/// A takeover gets the saved progress, also over several takeovers that save none.
pub async fn a_takeover_inherits_progress<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let brief = || Claim { lease: trial.times.short, ..trial.claim() };
    for lapses in [false, true] {
        let mut last = trial.acquire(&trial.key(), &brief()).await?;
        let _ = trial.save(&last, 7, "half").await?;
        for _ in 0..2 {
            if lapses {
                trial.pass(trial.times.short).await;
            } else {
                let _ = trial.give_up(&last).await?;
            }
            last = trial.acquire(&last.key, &brief()).await?;
            inherits(&last.previous, "half")?;
            let attempt = trial.seen(&last.key).await?.record.attempt;
            expect("the attempt of a key that was taken over", attempt, last.claim.attempt)?;
        }
    }
    Ok(())
}

/// A takeover's first saved progress replaces what it inherited, whatever its number was.
pub async fn a_takeover_numbers_its_progress_anew<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let first = trial.owner().await?;
    let _ = trial.save(&first, 7, "half").await?;
    let _ = trial.give_up(&first).await?;
    let second = trial.acquire(&first.key, &trial.claim()).await?;
    let answer = trial.save(&second, 1, "more").await?;
    expect("a renewal with progress", answer, Fenced::Applied)?;
    let _ = trial.give_up(&second).await?;
    let third = trial.acquire(&first.key, &trial.claim()).await?;
    inherits(&third.previous, "more")
}

fn inherits(previous: &Option<Previous>, data: &'static str) -> Verdict {
    let progress = previous.as_ref().and_then(|previous| previous.progress.clone());
    ensure(
        progress.as_deref() == Some(data.as_bytes()),
        format_args!("a takeover inherits the progress {data:?}"),
        &progress,
    )
}

/// A claim that asks to refuse is told `Interrupted` on a lapsed and on a given-up key.
pub async fn an_interrupted_key_is_refused_if_asked<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for state in [State::Lapsed, State::GaveUp] {
        let owner = trial.key_in(state).await?;
        let outcome = trial.claims(&owner.key, &trial.strict_claim()).await?;
        let what = &format!("a refusing claim on a {state:?} key");
        expect(what, outcome, ClaimOutcome::Interrupted)?;
    }
    Ok(())
}

/// A lapsed key is remembered until its deadline plus the hold of its claim.
pub async fn a_lapsed_key_is_remembered_for_its_hold<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.key_in(State::Lapsed).await?;
    let seen = trial.seen(&owner.key).await?;
    let Status::InProgress { deadline } = seen.record.status else {
        return broken("a lapsed key is in progress", seen.record.status);
    };
    expect(
        "the time to forget is the deadline plus the hold",
        seen.record.forget_at,
        deadline.saturating_add(owner.claim.hold),
    )?;
    trial.pass(trial.times.short).await;
    trial.purge_all().await?;
    trial.unchanged("a purge within the hold", &owner.key, &seen).await
}

/// A result is replayed until its retention ends, and not after.
pub async fn a_result_is_replayed_until_its_retention_ends<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.owner().await?;
    let completion = Completion { retention: trial.times.short, ..trial.completion(ANSWER) };
    let _ = trial.complete_as(&owner, completion).await?;
    around(&trial, &owner.key, |outcome, over| {
        if over {
            let what = "a claim that asks to be told, at the end of the retention or later";
            expect(what, outcome, ClaimOutcome::Retired)
        } else {
            replayed("a claim before the end of the retention", &outcome, ANSWER)
        }
    })
    .await
}

/// A retired key is granted as if it were new.
pub async fn a_retired_key_is_as_new<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let retired = trial.key_in(State::Retired).await?;
    let next = trial.acquire(&retired.key, &trial.claim()).await?;
    expect("the predecessor after a retired result", next.previous, None)?;
    trial.is_in("a retired key that was claimed", &next.key, State::Live).await
}

/// A claim that asks to be told gets `Retired` while a retired key is remembered.
pub async fn a_retired_key_is_told_if_asked<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let retired = trial.key_in(State::Retired).await?;
    let other = Claim { fingerprint: trial.other_claim().fingerprint, ..trial.strict_claim() };
    for claim in [trial.strict_claim(), other] {
        let outcome = trial.claims(&retired.key, &claim).await?;
        let what = "a claim on a retired key that asks to be told";
        expect(what, outcome, ClaimOutcome::Retired)?;
    }
    Ok(())
}

/// Durations of months are not cut short in the record: no unit overflows, whoever sets them.
pub async fn months_are_recorded<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let claim = Claim { lease: 60 * DAY, hold: 400 * DAY, ..trial.claim() };
    let completion =
        Completion { retention: 200 * DAY, hold: 400 * DAY, ..trial.completion(ANSWER) };

    let from = trial.now().await?;
    let owner = trial.acquire(&trial.key(), &claim).await?;
    lasts("a claim", &trial, &owner.key, from, 60 * DAY, 400 * DAY).await?;
    let from = trial.now().await?;
    let _ = trial.renew(&owner, 90 * DAY).await?;
    lasts("a renewal", &trial, &owner.key, from, 90 * DAY, Duration::ZERO).await?;
    let from = trial.now().await?;
    let _ = trial.complete_as(&owner, completion.clone()).await?;
    lasts("a completion", &trial, &owner.key, from, 200 * DAY, 400 * DAY).await?;

    let settled = trial.key_in(State::GaveUp).await?;
    let from = trial.now().await?;
    let done = Settlement::Done(completion);
    let _ = trial.settle(&settled.key, settled.expected(), done).await?;
    lasts("a verdict", &trial, &settled.key, from, 200 * DAY, 400 * DAY).await?;

    let released = trial.acquire(&trial.key(), &claim).await?;
    let from = trial.now().await?;
    let _ = trial.release_for(&released, 400 * DAY).await?;
    lasts("a release", &trial, &released.key, from, Duration::ZERO, 400 * DAY).await
}

/// What the record of `key` shows after `what`: lease or retention last for `length` from `from` on, or
/// longer, and the key is remembered for `hold` after that.
async fn lasts<F: Fixture>(
    what: &str,
    trial: &Trial<'_, F>,
    key: &Key,
    from: Timestamp,
    length: Duration,
    hold: Duration,
) -> Verdict {
    let record = trial.seen(key).await?.record;
    let end = match record.status {
        Status::InProgress { deadline } => deadline,
        Status::Completed { retained_until, .. } => retained_until,
        _ => Timestamp::MAX,
    };
    let least = from.saturating_add(length);
    ensure(end >= least, format_args!("{what} for {length:?} lasts until {least:?}"), end)?;
    let least = least.saturating_add(hold);
    ensure(
        record.forget_at >= least,
        format_args!("{what} with a hold of {hold:?} is remembered until {least:?}"),
        record.forget_at,
    )
}

/// Durations of months are waited for: no unit overflows while time passes.
pub async fn months_are_counted<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let claim = Claim { lease: 60 * DAY, hold: 400 * DAY, ..trial.claim() };
    let lapsing = trial.acquire(&trial.key(), &claim).await?;
    let retiring = trial.owner().await?;
    let completion =
        Completion { retention: 60 * DAY, hold: 400 * DAY, ..trial.completion(ANSWER) };
    let _ = trial.complete_as(&retiring, completion).await?;
    trial.pass(59 * DAY).await;
    trial.is_in("a lease of 60 days after 59", &lapsing.key, State::Live).await?;
    trial.is_in("60 days of retention after 59", &retiring.key, State::Completed).await?;
    trial.pass(2 * DAY).await;
    for remembered_for in [0, 380] {
        trial.pass(remembered_for * DAY).await;
        trial.purge_all().await?;
        let what = &format!("a lease of 60 days after {} days", 61 + remembered_for);
        trial.is_in(what, &lapsing.key, State::Lapsed).await?;
        let what = &format!("60 days of retention after {} days", 61 + remembered_for);
        trial.is_in(what, &retiring.key, State::Retired).await?;
    }
    trial.pass(40 * DAY).await;
    trial.purge_all().await?;
    for key in [&lapsing.key, &retiring.key] {
        expect("a record after 60 and 400 days and a purge", trial.store.get(key).await?, None)?;
    }
    Ok(())
}

/// Lets time pass from before the end of the lease or retention of `key` to exactly there, and
/// `check`s what a refusing claim is told: its outcome, and whether the end was over by then.
async fn around<F: Fixture>(
    trial: &Trial<'_, F>,
    key: &Key,
    check: impl Fn(ClaimOutcome, bool) -> Verdict,
) -> Verdict {
    const MICROSECOND: Duration = Duration::from_micros(1);
    let left = |end: Timestamp, now: Timestamp| end.saturating_since(now);
    for _ in 0..50 {
        let before = trial.seen(key).await?;
        let outcome = trial.claims(key, &trial.strict_claim()).await?;
        let after = trial.seen(key).await?;
        let end = match before.record.status {
            Status::InProgress { deadline } => deadline,
            Status::Completed { retained_until, .. } => retained_until,
            other => return broken("a key in progress or completed", other),
        };
        for seen in [&before, &after] {
            expect(
                format_args!("the state {:?} before the end", left(end, seen.now)),
                matches!(seen.state, State::Live | State::Completed),
                seen.now < end,
            )?;
        }
        if before.now >= end {
            return check(outcome, true);
        }
        if after.now < end {
            check(outcome, false)?;
        }
        match left(end, after.now) {
            MICROSECOND => fixture_steps(trial, MICROSECOND).await,
            rest if rest > trial.times.short / 2 => fixture_steps(trial, rest / 2).await,
            rest => fixture_steps(trial, rest.saturating_sub(MICROSECOND)).await,
        }
    }
    broken("time passes as the fixture is told", "the end has not come")
}

async fn fixture_steps<F: Fixture>(trial: &Trial<'_, F>, duration: Duration) {
    trial.fixture.advance(duration).await;
}
