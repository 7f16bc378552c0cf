//! Calls that are given up before they are sent.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod postgres_fixture;
mod shop;

use std::time::Duration;

use futures::FutureExt;
use oncekey::runtime::{ProcessRandom, Random};
use oncekey::store::{AttemptId, Claim, ClaimOutcome, OnInterrupted, OnRetired, Store};
use oncekey_conformance::Fixture;

use postgres_fixture::{PostgresFixture, block_on};
use shop::{key, request};

fn claim() -> Claim {
    Claim {
        attempt: AttemptId::from_bytes(ProcessRandom::new().next().to_be_bytes()),
        fingerprint: request(),
        lease: Duration::from_secs(3600),
        hold: Duration::from_secs(3600),
        on_interrupted: OnInterrupted::TakeOver,
        on_retired: OnRetired::Forget,
    }
}

/// The first poll of a lone call finds a free lane, and looks for others that come. Dropped there, it is not
/// sent by somebody else; what has queued up behind it is.
#[test]
fn a_call_that_is_dropped_before_it_is_sent_is_not_sent() {
    block_on(async {
        let fixture = PostgresFixture::create().await;
        let store = fixture.store();
        for round in 0..20 {
            let (dropped, behind) = (key(&format!("dropped {round}")), key(&format!("{round}")));
            let (first, second) = (claim(), claim());
            let mut call = store.claim(&dropped, &first);
            assert!((&mut call).now_or_never().is_none());
            let mut others: Vec<_> = (0..3).map(|_| store.claim(&behind, &second)).collect();
            assert!(others.iter_mut().all(|other| other.now_or_never().is_none()));
            drop(call);
            for other in others {
                let outcome = other.await.unwrap();
                assert!(matches!(outcome, ClaimOutcome::Acquired { .. }), "{outcome:?}");
            }
            assert_eq!(store.get(&dropped).await.unwrap(), None, "round {round}");
        }
    });
}
