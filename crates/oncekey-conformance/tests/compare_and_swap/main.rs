//! The whole suite on correct but unusual stores: the core's `CasStore` over a map in memory.
#![allow(clippy::unwrap_used, reason = "a fixture may panic")]

mod driver;
mod fixtures;
mod map;
mod report;

mod in_memory {
    oncekey_conformance::suite!(crate::fixtures::InMemory);
}

mod in_real_time {
    oncekey_conformance::suite!(crate::fixtures::InRealTime, skip {
        contention::one_takeover_wins: "it waits for many leases to lapse, and runs in memory too",
    });
}
