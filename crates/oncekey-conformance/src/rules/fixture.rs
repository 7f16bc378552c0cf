//! What the fixture itself promises.

use crate::support::{Trial, ensure, expect};
use crate::{Capability, Fixture, Verdict};

/// The fixture has the capabilities that its store shows, and its time passes as it is told.
pub async fn is_what_it_says<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let capabilities = fixture.capabilities();
    // A channel on which nothing ever comes is allowed, and is no capability.
    ensure(
        trial.store.watch().is_some() || !capabilities.has(Capability::Watch),
        "the store has a watch() if the fixture has Watch",
        "None",
    )?;
    expect(
        "the fixture has Inspect if the store has an inspect()",
        capabilities.has(Capability::Inspect),
        trial.store.inspect().is_some(),
    )?;
    let owner = trial.owner().await?;
    let before = trial.seen(&owner.key).await?.now;
    trial.pass(trial.times.short).await;
    let after = trial.seen(&owner.key).await?.now;
    ensure(
        after.saturating_since(before) >= trial.times.short,
        format_args!("the store's clock goes on by {:?} when told to", trial.times.short),
        (before, after),
    )
}
