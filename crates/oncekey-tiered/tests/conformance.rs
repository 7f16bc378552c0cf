//! The conformance suite on two stores as one: one test a rule.

mod tiered_fixture;

use tiered_fixture::TieredFixture;

oncekey_conformance::suite!(TieredFixture);
