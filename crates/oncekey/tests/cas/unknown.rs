//! Swaps in the dark: settled by deciding again, and reported as unknown where that is impossible.

use futures::executor::block_on;
use oncekey::store::{
    CasStore, ClaimOutcome, ErrorKind, Expected, Fenced, Grant, State, Status, Store, StoredValue,
};

use super::commands::{self, LEASE, attempt};
use super::storage::{Storage, Swap, key};

const IN_THE_DARK: [Swap; 3] = [Swap::DoneInTheDark, Swap::NotDoneInTheDark, Swap::DoneLater];

fn acquire(store: &CasStore<Storage>, number: u8) -> Grant {
    let outcome = block_on(store.claim(&key("a"), &commands::claim(number))).unwrap();
    let ClaimOutcome::Acquired { grant, .. } = outcome else { panic!("{outcome:?}") };
    grant
}

fn state(store: &CasStore<Storage>) -> Option<State> {
    store.get_ref().record(&key("a")).map(|record| record.state(store.get_ref().now()))
}

#[test]
fn a_claim_in_the_dark_is_granted_once() {
    for swap in IN_THE_DARK {
        let store = CasStore::new(Storage::default());
        store.get_ref().next_swaps([swap]);
        // A key that was absent and is may have been there in between: whoever asked asks again.
        let first = block_on(store.claim(&key("a"), &commands::claim(1)));
        let settled = matches!(swap, Swap::DoneInTheDark);
        assert_eq!(first.is_ok(), settled, "{swap:?}");
        if let Err(error) = first {
            assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{swap:?}");
        }
        let grant = acquire(&store, 1);
        let record = store.get_ref().record(&key("a")).unwrap();
        assert_eq!(record.grant(), grant, "{swap:?}");
        assert_eq!(record.number, 1, "{swap:?}");
    }
}

#[test]
fn whatever_happened_in_the_dark_a_verb_is_in_force_once() {
    for swap in IN_THE_DARK {
        let ready = || {
            let store = CasStore::new(Storage::default());
            let grant = acquire(&store, 1);
            store.get_ref().next_swaps([swap]);
            (store, grant)
        };
        let key = key("a");

        let (store, grant) = ready();
        let outcome = block_on(store.renew(&key, &commands::renew(grant))).unwrap();
        assert_eq!(outcome, Fenced::Applied, "{swap:?}");
        assert_eq!(state(&store), Some(State::Live));

        let (store, grant) = ready();
        let outcome = block_on(store.complete(&key, &commands::complete(grant, "receipt")));
        assert_eq!(outcome.unwrap(), Fenced::Applied, "{swap:?}");
        let record = store.get_ref().record(&key).unwrap();
        let Status::Completed { value, .. } = record.status else { panic!("{record:?}") };
        assert_eq!(value, StoredValue::Replayable("receipt".into()));

        let (store, grant) = ready();
        let outcome = block_on(store.abandon(&key, &commands::release(grant))).unwrap();
        assert_eq!(outcome, Fenced::Applied, "{swap:?}");
        assert_eq!(state(&store), Some(State::Released));

        let (store, _) = ready();
        store.get_ref().pass(LEASE);
        let settle = commands::settle(Expected::Attempt(attempt(1)));
        assert_eq!(block_on(store.settle(&key, &settle)).unwrap(), Fenced::Applied, "{swap:?}");
        assert_eq!(state(&store), Some(State::Completed));

        let (store, _) = ready();
        store.get_ref().pass(LEASE);
        let outcome = block_on(store.evict(&key, &commands::evict(Expected::Any)));
        // Nobody can tell an eviction of one's own from another's.
        let outcome = outcome.map_err(|error| error.kind());
        let honest = [Ok(Fenced::Applied), Err(ErrorKind::OutcomeUnknown)];
        assert!(honest.contains(&outcome), "{swap:?}: {outcome:?}");
        assert_eq!(state(&store), None);
    }
}

/// The swap may have taken place, and somebody else's after it: a refusal would say that it did not.
#[test]
fn what_somebody_else_did_in_the_dark_makes_no_refusal() {
    let key = key("a");
    let store = CasStore::new(Storage::default());
    let grant = acquire(&store, 1);
    store.get_ref().set_aside(&key);
    store.get_ref().next_swaps([Swap::BeatenInTheDark]);
    let error = block_on(store.claim(&key, &commands::claim(2))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(store.get_ref().record(&key).unwrap().grant(), grant);
    let outcome = block_on(store.claim(&key, &commands::claim(2))).unwrap();
    assert!(matches!(outcome, ClaimOutcome::Busy { .. }), "{outcome:?}");
}

#[test]
fn what_stays_in_the_dark_is_reported_as_unknown() {
    let key = key("a");
    for then in [ErrorKind::Unavailable, ErrorKind::Timeout] {
        // The load that would have told fails.
        let store = CasStore::new(Storage::default());
        store.get_ref().next_swaps([Swap::DoneInTheDark]);
        store.get_ref().next_loads([None, Some(then)]);
        let error = block_on(store.claim(&key, &commands::claim(1))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
        assert!(error.is_retryable());

        // So does the next swap.
        let store = CasStore::new(Storage::default());
        store.get_ref().next_swaps([Swap::NotDoneInTheDark, Swap::Fails(then)]);
        let error = block_on(store.claim(&key, &commands::claim(1))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    }
    // Nothing ever comes back.
    let store = CasStore::new(Storage::default());
    store.get_ref().every_swap(Swap::NotDoneInTheDark);
    let error = block_on(store.claim(&key, &commands::claim(1))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    // Also not after others were faster for a long time.
    let store = CasStore::new(Storage::default());
    store.get_ref().next_swaps([Swap::NotDoneInTheDark]);
    store.get_ref().every_swap(Swap::Beaten);
    let error = block_on(store.claim(&key, &commands::claim(1))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
}

#[test]
fn without_a_swap_in_the_dark_an_error_means_not_applied() {
    let key = key("a");
    let kinds = [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::TooLarge, ErrorKind::Full];
    for kind in kinds {
        let store = CasStore::new(Storage::default());
        store.get_ref().next_loads([Some(kind)]);
        let error = block_on(store.claim(&key, &commands::claim(1))).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(state(&store), None);

        store.get_ref().next_swaps([Swap::Beaten, Swap::Fails(kind)]);
        let error = block_on(store.claim(&key, &commands::claim(1))).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(state(&store), None);
    }
}

#[test]
fn who_is_beaten_decides_again() {
    let store = CasStore::new(Storage::default());
    store.get_ref().next_swaps([Swap::Beaten; 20]);
    let grant = acquire(&store, 1);
    assert_eq!(store.get_ref().record(&key("a")).unwrap().grant(), grant);
    assert_eq!(store.get_ref().loaded(), 21);
}

#[test]
fn a_storage_that_refuses_every_swap_is_unavailable() {
    let store = CasStore::new(Storage::default());
    store.get_ref().every_swap(Swap::Beaten);
    let error = block_on(store.claim(&key("a"), &commands::claim(1))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.operation(), "claim");
    assert!(error.to_string().contains("compare-and-swap"), "{error}");
    // Many times, and not for ever.
    assert!((100..100_000).contains(&store.get_ref().loaded()));
}

/// The claim took place, an operator evicted what it made, and the key is as good as new: claimed once
/// more, it would be granted twice for one question.
#[test]
fn what_took_place_in_the_dark_is_not_done_again_after_others() {
    for frozen in [true, false] {
        let key = key("a");
        let store = CasStore::new(Storage::default());
        store.get_ref().next_swaps([Swap::DoneInTheDark]);
        let claim = commands::claim(1);
        let claiming = store.claim(&key, &claim);
        // Between the swap in the dark and the load that follows it.
        store.get_ref().remove_at_load(2, &key);
        if !frozen {
            store.get_ref().pass(1);
        }
        let error = block_on(claiming).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(store.get_ref().entry(&key), None);
    }
}
