//! Waking those who wait.

use std::time::Duration;

use futures::FutureExt;
use oncekey::Key;
use oncekey::store::{Expected, Fenced, Settlement, State, Store, Subscription};

use crate::history::Operation;
use crate::support::{ANSWER, Owner, Trial, broken, expect, soon};
use crate::{Fixture, Verdict, Violation};

/// Notifications may get lost; a store that loses this many in a row does not notify.
const TRIES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(3);

/// A subscriber on another handle is woken by a completion.
pub async fn wakes_on_completion<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let completion = trial.completion(ANSWER);
    wakes_on(&trial, State::Live, |owner| Operation::complete(owner.grant, completion.clone()))
        .await
}

/// A subscriber is woken by a release.
pub async fn wakes_on_release<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let hold = trial.times.long;
    wakes_on(&trial, State::Live, |owner| Operation::release(owner.grant, hold)).await
}

/// A subscriber is woken when the owner gives up.
pub async fn wakes_on_giving_up<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    wakes_on(&trial, State::Live, |owner| Operation::give_up(owner.grant)).await
}

/// A subscriber is woken by an operator's verdict.
pub async fn wakes_on_settlement<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let done = Settlement::Done(trial.completion(ANSWER));
    let not_done = Settlement::NotDone { hold: trial.times.long };
    for verdict in [done, not_done] {
        wakes_on(&trial, State::Lapsed, |owner| {
            Operation::settle(owner.expected(), verdict.clone())
        })
        .await?;
    }
    Ok(())
}

/// A subscriber is woken by an eviction.
pub async fn wakes_on_eviction<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    wakes_on(&trial, State::Live, |_| Operation::evict(Expected::Any, true)).await
}

/// A subscription is in force once it is acknowledged, before anybody waits for it.
pub async fn is_in_force_at_once<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let other = fixture.open().await;
    let ends: [fn(&Trial<'_, F>, &Owner) -> Operation; TRIES] = [
        |trial, owner| Operation::complete(owner.grant, trial.completion(ANSWER)),
        |trial, owner| Operation::release(owner.grant, trial.times.long),
        |_, owner| Operation::give_up(owner.grant),
    ];
    // Which of them notify is the matter of other rules.
    for end in ends {
        let owner = trial.owner().await?;
        let mut subscription = subscribe(&*other, &owner.key).await?;
        let _ = end(&trial, &owner).fenced(&*trial.store, &owner.key).await?;
        if is_woken(&mut subscription).await {
            return Ok(());
        }
    }
    broken(
        "a subscriber that waits after the end of an attempt is woken by it",
        "a completion, a release and giving up were missed",
    )
}

/// No subscriber is left out when others of its key are woken, or have gone.
pub async fn wakes_every_subscriber<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let other = fixture.open().await;
    for _ in 0..TRIES {
        let owner = trial.owner().await?;
        let mut gone = subscribe(&*other, &owner.key).await?;
        let mut subscriptions = [
            subscribe(&*other, &owner.key).await?,
            subscribe(&*other, &owner.key).await?,
            subscribe(&*trial.store, &owner.key).await?,
        ];
        skip_what_came(&mut gone);
        drop(gone);
        for subscription in &mut subscriptions {
            skip_what_came(subscription);
        }
        let _ = trial.complete(&owner, ANSWER).await?;
        let mut woken = 0;
        for subscription in &mut subscriptions {
            woken += usize::from(is_woken(subscription).await);
        }
        // Whether a completion wakes anybody is the matter of another rule.
        if woken == subscriptions.len() || woken == 0 {
            return Ok(());
        }
    }
    broken(
        "all of three subscribers are woken by a completion, or none",
        format_args!("some slept on, {TRIES} times"),
    )
}

/// Subscribes on one handle to a key in `state`, ends it on another, and waits.
async fn wakes_on<F: Fixture>(
    trial: &Trial<'_, F>,
    state: State,
    end: impl Fn(&Owner) -> Operation + Send + Sync,
) -> Verdict {
    let other = trial.fixture.open().await;
    for others in 0..TRIES {
        // Of a channel that loses every second notification, not always the same one.
        for _ in 0..others {
            trial.owner().await?;
        }
        let owner = trial.key_in(state).await?;
        let mut subscription = subscribe(&*other, &owner.key).await?;
        skip_what_came(&mut subscription);
        let answer = end(&owner).fenced(&*trial.store, &owner.key).await?;
        expect("a command that ends an attempt", answer, Fenced::Applied)?;
        if is_woken(&mut subscription).await {
            return Ok(());
        }
    }
    broken(
        "a subscriber is woken when the attempt ends",
        format_args!("no notification within {PATIENCE:?}, {TRIES} times"),
    )
}

/// Notifications may come for nothing.
fn skip_what_came(subscription: &mut Subscription) {
    for _ in 0..100 {
        if subscription.changed().now_or_never().is_none() {
            break;
        }
    }
}

async fn subscribe(store: &dyn Store, key: &Key) -> Result<Subscription, Violation> {
    match store.watch() {
        Some(watch) => Ok(watch.subscribe(key).await?),
        None => broken("every handle of a store that notifies has a Watch", "None"),
    }
}

async fn is_woken(subscription: &mut Subscription) -> bool {
    let changed = Box::pin(subscription.changed());
    soon(PATIENCE, changed).await.is_ok()
}
