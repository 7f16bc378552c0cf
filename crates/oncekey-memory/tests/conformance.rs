//! The conformance suite on the store in memory: one test a rule.

mod memory_fixture;

use memory_fixture::MemoryFixture;

oncekey_conformance::suite!(MemoryFixture);
