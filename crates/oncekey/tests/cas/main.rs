//! The adapter that makes a full store of compare-and-swap: it agrees with the rules, finds out what
//! became of a swap in the dark, and never takes damage for absence.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

#[path = "../arbitrary/mod.rs"]
mod arbitrary;
mod commands;
mod corrupt;
mod forward;
mod purge;
mod storage;
mod unknown;

use bytes::Bytes;
use futures::FutureExt;
use futures::executor::block_on;
use oncekey::Fingerprint;
use oncekey::store::{
    Abandon, CasStore, Change, Claim, ClaimOutcome, Command, Complete, Evict, Fenced, Record,
    Renew, Settle, Store, transition,
};
use proptest::prelude::*;
use storage::{Storage, key};

#[test]
fn a_key_lives_its_life() {
    let store = CasStore::new(Storage::default());
    let key = key("a");
    block_on(async {
        let claimed = store.claim(&key, &commands::claim(1)).await.unwrap();
        let ClaimOutcome::Acquired { grant, number: 1, previous: None, .. } = claimed else {
            panic!("{claimed:?}");
        };
        let busy = store.claim(&key, &commands::claim(2)).await.unwrap();
        assert!(matches!(busy, ClaimOutcome::Busy { .. }));
        let other = Claim { fingerprint: Fingerprint::of("another"), ..commands::claim(2) };
        assert_eq!(store.claim(&key, &other).await.unwrap(), ClaimOutcome::Mismatch);

        store.get_ref().pass(commands::LEASE);
        assert_eq!(store.renew(&key, &commands::renew(grant)).await.unwrap(), Fenced::Applied);
        let completed = store.complete(&key, &commands::complete(grant, "receipt")).await;
        assert_eq!(completed.unwrap(), Fenced::Applied);
        let replayed = store.claim(&key, &commands::claim(2)).await.unwrap();
        assert_eq!(replayed, ClaimOutcome::Replay(Some(Bytes::from_static(b"receipt"))));
    });
}

#[test]
fn an_entry_says_when_it_may_be_purged() {
    let store = CasStore::new(Storage::default());
    let key = key("a");
    let forget_at = || store.get_ref().entry(&key).unwrap().forget_at;
    let claimed = block_on(store.claim(&key, &commands::claim(1))).unwrap();
    let ClaimOutcome::Acquired { grant, .. } = claimed else { panic!("{claimed:?}") };
    assert_eq!(forget_at(), store.get_ref().record(&key).unwrap().forget_at);
    let completed = block_on(store.complete(&key, &commands::complete(grant, "receipt")));
    assert_eq!(completed.unwrap(), Fenced::Applied);
    assert_eq!(forget_at(), store.get_ref().record(&key).unwrap().forget_at);
}

#[test]
fn what_the_storage_can_notify_is_handed_on() {
    let store = CasStore::new(Storage::default());
    let watch = store.watch().expect("the storage can");
    let mut subscription = block_on(watch.subscribe(&key("a"))).unwrap();
    block_on(subscription.changed());
    // The channel is closed: nothing more is notified, and nobody is woken for nothing.
    assert_eq!(subscription.changed().now_or_never(), None);
    assert!(store.inspect().is_none());
}

#[derive(Debug, Clone)]
enum Sent {
    Claim(Claim),
    Renew(Renew),
    Complete(Complete),
    Abandon(Abandon),
    Settle(Settle),
    Evict(Evict),
    Pass(u64),
}

fn sent() -> impl Strategy<Value = Sent> {
    prop_oneof![
        4 => arbitrary::claim().prop_map(Sent::Claim),
        2 => arbitrary::renew().prop_map(Sent::Renew),
        2 => arbitrary::complete().prop_map(Sent::Complete),
        2 => arbitrary::abandon().prop_map(Sent::Abandon),
        1 => arbitrary::settle().prop_map(Sent::Settle),
        1 => arbitrary::evict().prop_map(Sent::Evict),
        3 => (0..30_u64).prop_map(Sent::Pass),
    ]
}

/// What the rules say of the record as it is now, and what is on record then.
fn by_the_rules<C: Command>(
    store: &CasStore<Storage>,
    command: &C,
) -> (C::Outcome, Option<Record>) {
    let storage = store.get_ref();
    let record = storage.record(&key("a"));
    let decided = transition(record.as_ref(), command, storage.now());
    let after = match decided.change {
        Change::Keep => record,
        Change::Put(next) => Some(next),
        Change::Remove => None,
    };
    (decided.outcome, after)
}

proptest! {
    #![proptest_config(arbitrary::config())]

    #[test]
    fn every_sequence_goes_as_the_rules_say(sequence in proptest::collection::vec(sent(), 1..20)) {
        let store = CasStore::new(Storage::default());
        let key = key("a");
        macro_rules! check {
            ($verb:ident, $command:expr) => {{
                let expected = by_the_rules(&store, $command);
                let outcome = block_on(store.$verb(&key, $command)).unwrap();
                prop_assert_eq!((outcome, store.get_ref().record(&key)), expected);
            }};
        }
        for sent in &sequence {
            match sent {
                Sent::Claim(claim) => check!(claim, claim),
                Sent::Renew(renew) => check!(renew, renew),
                Sent::Complete(complete) => check!(complete, complete),
                Sent::Abandon(abandon) => check!(abandon, abandon),
                Sent::Settle(settle) => check!(settle, settle),
                Sent::Evict(evict) => check!(evict, evict),
                Sent::Pass(micros) => store.get_ref().pass(*micros),
            }
            let observed = block_on(store.get(&key)).unwrap();
            let record = store.get_ref().record(&key);
            prop_assert_eq!(observed.as_ref().map(|observed| observed.record.clone()), record);
            if let Some(observed) = observed {
                prop_assert_eq!(observed.now, store.get_ref().now());
                prop_assert_eq!(observed.state, observed.record.state(observed.now));
            }
        }
    }
}
