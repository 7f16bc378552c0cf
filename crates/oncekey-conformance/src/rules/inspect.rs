//! Reading and listing.

use std::collections::BTreeMap;

use oncekey::store::{
    Cause, ClaimOutcome, Fenced, Page, Query, Replaced, State, Status, Store, StoredValue,
};

use crate::support::{ANSWER, Trial, broken, ensure, expect, unchanged};
use crate::{Damage, Fixture, Verdict, Violation};

const ALL: [State; 6] =
    [State::Live, State::Lapsed, State::GaveUp, State::Released, State::Completed, State::Retired];

/// Reading shows the record, its state and the store's now, in every state.
pub async fn get_shows_every_state<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    expect("an absent record", trial.store.get(&trial.key()).await?, None)?;
    for state in ALL {
        let owner = trial.key_in(state).await?;
        let seen = trial.seen(&owner.key).await?;
        let what = &format!("the state of a {state:?} key, as told and by record and now");
        expect(what, (seen.state, seen.record.state(seen.now)), (state, state))?;
        let record = &seen.record;
        expect(
            format_args!("fingerprint, attempt, token and number of a {state:?} record"),
            (record.fingerprint, record.attempt, record.token, record.number),
            (owner.claim.fingerprint, owner.claim.attempt, owner.grant.token, 1),
        )?;
        if let Status::Completed { value, .. } = &record.status {
            let kept = value.is_of(ANSWER);
            let digest_only = matches!(value, StoredValue::Digest(_));
            ensure(
                kept && (!digest_only || state == State::Retired),
                format_args!("a {state:?} record has its value"),
                value,
            )?;
        }
    }
    let first = trial.owner().await?;
    let _ = trial.save(&first, 3, "half").await?;
    let _ = trial.give_up(&first).await?;
    let second = trial.acquire(&first.key, &trial.claim()).await?;
    let record = trial.seen(&second.key).await?.record;
    let (cause, token) = (Cause::GaveUp, first.grant.token);
    expect("the predecessor of a takeover", record.previous, Some(Replaced { cause, token }))?;
    let progress = record.progress.map(|progress| (progress.sequence, progress.data));
    expect("the inherited progress", progress, Some((0, "half".into())))
}

/// Reading an expired record does not change what a later claim is told.
pub async fn get_changes_nothing<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for (state, told) in
        [(State::Lapsed, ClaimOutcome::Interrupted), (State::Retired, ClaimOutcome::Retired)]
    {
        let key = trial.key_in(state).await?.key;
        let before = trial.seen(&key).await?;
        trial.unchanged("reading", &key, &before).await?;
        let outcome = trial.claims(&key, &trial.strict_claim()).await?;
        expect(format_args!("a refusing claim on a {state:?} key that was read"), outcome, told)?;
    }
    Ok(())
}

/// A listing shows every record, page by page, and ends.
pub async fn lists_every_record<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let mut records = BTreeMap::new();
    for state in ALL {
        let key = trial.key_in(state).await?.key;
        let record = trial.seen(&key).await?;
        records.insert(key.as_bytes().to_vec(), record);
    }
    for id in [&b"\0"[..], b"\xff\xff", b"'; --"] {
        let key = trial.key_with_id(id);
        let _ = trial.acquire(&key, &trial.claim()).await?;
        records.insert(key.as_bytes().to_vec(), trial.seen(&key).await?);
    }
    for limit in [1, 4, 1_000] {
        let mut missing = records.clone();
        for (key, listed) in list(&*trial.store, &ALL, limit).await?.entries {
            if let Some(record) = records.get(key.as_bytes()) {
                unchanged("listing", record, &listed)?;
                missing.remove(key.as_bytes());
            }
        }
        ensure(
            missing.is_empty(),
            format_args!("a listing in pages of {limit} shows every record"),
            format_args!("without {:?}", missing.values().collect::<Vec<_>>()),
        )?;
    }
    Ok(())
}

/// A listing shows every record that stays, although others that it showed go away between its pages.
pub async fn lists_what_stays_while_others_go<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    for limit in [1, 3] {
        let mut owners = Vec::new();
        for _ in 0..16 {
            owners.push(trial.owner().await?);
        }
        let mut pages = Pages::of(&*trial.store, &[State::Live], limit);
        while let Some(page) = pages.next().await? {
            for (listed, _) in page.entries {
                if let Some(place) = owners.iter().position(|owner| owner.key == listed) {
                    let gone = owners.swap_remove(place);
                    let answer = trial.evict(&gone.key, gone.expected(), true).await?;
                    expect("the eviction of a record that was listed", answer, Fenced::Applied)?;
                }
            }
        }
        ensure(
            owners.is_empty(),
            format_args!("a listing in pages of {limit} shows every record that stays"),
            format_args!("{} of 16 were not listed", owners.len()),
        )?;
    }
    Ok(())
}

/// A listing shows only records in the states it asks for.
pub async fn lists_only_the_wanted_states<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let mut keys = Vec::new();
    for state in ALL {
        keys.push((trial.key_in(state).await?.key, state));
    }
    for wanted in [
        &[State::Lapsed, State::GaveUp][..],
        &[State::Live],
        &[State::Released],
        &[State::Completed],
        &[State::Retired],
        &[],
    ] {
        let listing = list(&*trial.store, wanted, 5).await?;
        for (_, listed) in &listing.entries {
            ensure(
                wanted.contains(&listed.state),
                format_args!("a listing of {wanted:?} shows no other states"),
                listed.state,
            )?;
        }
        for (key, state) in keys.iter().filter(|(_, state)| wanted.contains(state)) {
            ensure(
                listing.entries.iter().any(|(listed, _)| listed == key),
                format_args!("a listing of {wanted:?} shows the {state:?} key"),
                "it is missing",
            )?;
        }
    }
    Ok(())
}

/// A listing passes over a damaged record, counts it, and goes on.
pub async fn counts_what_it_cannot_decode<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let (mut before, mut after) = (0, 0);
    // What other rules have damaged may be forgotten in between.
    for _ in 0..5 {
        before = list(&*trial.store, &ALL, 2).await?.undecodable;
        let mut intact = Vec::new();
        for damage in [None, Some(Damage::FlipBit), None, Some(Damage::NewerVersion), None] {
            let owner = trial.owner().await?;
            match damage {
                Some(damage) => fixture.damage(&owner.key, damage).await,
                None => intact.push(owner.key),
            }
        }
        let listing = list(&*trial.store, &ALL, 2).await?;
        for key in intact {
            ensure(
                listing.entries.iter().any(|(listed, _)| *listed == key),
                "a listing goes on after a damaged record",
                "an intact record is missing",
            )?;
        }
        after = listing.undecodable;
        if after >= before + 2 {
            return Ok(());
        }
    }
    Err(Violation::new(format!("the listing counts two damaged records beside {before}"), after))
}

/// All pages as one.
async fn list(store: &dyn Store, states: &[State], limit: usize) -> Result<Page, Violation> {
    let mut all = Page { entries: Vec::new(), undecodable: 0, next: None };
    let mut pages = Pages::of(store, states, limit);
    while let Some(page) = pages.next().await? {
        all.entries.extend(page.entries);
        all.undecodable += page.undecodable;
    }
    Ok(all)
}

/// A listing, page by page.
struct Pages<'a> {
    store: &'a dyn Store,
    query: Query,
    seen: usize,
    is_over: bool,
}

impl<'a> Pages<'a> {
    fn of(store: &'a dyn Store, states: &[State], limit: usize) -> Self {
        let query = Query { states: states.to_vec(), after: None, limit };
        Self { store, query, seen: 0, is_over: false }
    }

    /// The next page, unless the last one was the end.
    async fn next(&mut self) -> Result<Option<Page>, Violation> {
        const MOST: usize = 100_000;
        if self.is_over {
            return Ok(None);
        }
        let Some(inspect) = self.store.inspect() else {
            return broken("every handle of a store that lists has an Inspect", "None");
        };
        let mut page = inspect.list(&self.query).await?;
        let (limit, listed) = (self.query.limit, page.entries.len());
        ensure(listed <= limit, format_args!("a page of at most {limit} records"), listed)?;
        self.seen += 1;
        ensure(self.seen <= MOST, "a listing ends", format_args!("more than {MOST} pages"))?;
        self.query.after = page.next.take();
        self.is_over = self.query.after.is_none();
        Ok(Some(page))
    }
}
