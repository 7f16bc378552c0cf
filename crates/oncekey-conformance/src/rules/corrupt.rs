//! Records that cannot be understood.

use crate::{Fixture, Verdict, Violation};

/// On a record that was damaged, every command fails as `Corrupt`; it is never taken for absent.
pub async fn every_command_fails<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// On a record of a newer format version, every command fails as `Corrupt`.
pub async fn a_newer_version_fails_too<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A damaged record is removed by an eviction of whatever is there, and the key is as new.
pub async fn evict_any_removes_it<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}

/// A damaged record disturbs no other key, and no purge.
pub async fn spares_other_keys<F: Fixture>(_fixture: &F) -> Verdict {
    Err(Violation::new("the rule is written", "it is not yet"))
}
