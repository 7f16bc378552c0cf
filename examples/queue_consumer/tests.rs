//! The whole of it, on a real server.

use super::broker::Broker;
use super::{ORDERS, play};

#[tokio::test]
async fn every_order_is_booked_once() {
    if !Broker::is_installed() && !is_required("redis") {
        eprintln!(
            "SKIPPED: there is no redis-server here; REQUIRE_BACKENDS=redis makes that a failure"
        );
        return;
    }
    let report = play().await.unwrap();

    assert!(report.is_good(), "{report}");
    // It was not easy.
    assert!(report.sent > ORDERS && report.tally.deliveries > report.sent, "{report}");
    assert!(report.tally.died_before > 0 && report.tally.died_after > 0, "{report}");
    assert!(report.tally.replayed > 0 && report.tally.put_aside > 0, "{report}");
}

/// Whether `cargo xtask test`, or somebody else, wants this backend to be there.
fn is_required(backend: &str) -> bool {
    let required = std::env::var("REQUIRE_BACKENDS").unwrap_or_default();
    required.split(',').any(|name| name == backend)
}
