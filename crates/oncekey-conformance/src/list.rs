//! The list of all rules, once: the tests of [`suite!`](crate::suite), [`rules`] and
//! [`run_all`](crate::run_all) all come from it.
//!
//! One requirement of the contract has no rule: that *now* is read after any wait for a lock. No fixture
//! can make every store wait for one, for long enough to be seen and at the place where it reads the time.
//! Each store that takes locks tests it by itself.

use std::sync::LazyLock;

use futures::future::BoxFuture;

use crate::{Capability, Fixture, Verdict};

/// Hands the list to the macro `$then`, by its path in this crate: subjects with their source file,
/// rules with the capabilities that they need.
#[doc(hidden)]
#[macro_export]
macro_rules! __rules {
    ([$($then:ident)::+] $with:tt) => {
        $crate::$($then)::+! { $with
            claim "rules/claim.rs" {
                grants_an_absent_key;
                refuses_while_the_owner_lives;
                busy_says_when_the_lease_lapses;
                a_refusal_changes_nothing;
                counts_the_grants_without_a_result;
            }
            complete "rules/complete.rs" {
                records_the_result;
                after_the_lease_lapsed;
                after_release;
                after_giving_up;
                retention_counts_from_the_completion;
                drops_what_was_saved;
            }
            release "rules/release.rs" {
                frees_the_key_at_once;
                after_the_lease_lapsed;
                after_giving_up;
                with_progress_is_giving_up;
                with_inherited_progress_is_giving_up;
                is_remembered_for_its_hold;
                never_after_completion;
                giving_up_interrupts_at_once;
                giving_up_after_the_lease_lapsed;
            }
            renew "rules/renew.rs" {
                extends_the_lease;
                never_shortens_the_lease;
                a_lapsed_lease_lives_again;
                forgetting_moves_with_the_deadline;
                saves_progress;
                progress_is_byte_for_byte;
                without_progress_keeps_what_was_saved;
            }
            expiry "rules/expiry.rs" {
                a_lease_lapses_at_its_deadline;
                a_lapsed_lease_is_taken_over;
                a_takeover_says_what_it_replaced;
                a_takeover_inherits_progress;
                a_takeover_numbers_its_progress_anew;
                an_interrupted_key_is_refused_if_asked;
                a_lapsed_key_is_remembered_for_its_hold;
                a_result_is_replayed_until_its_retention_ends;
                a_retired_key_is_as_new;
                a_retired_key_is_told_if_asked;
                months_are_recorded;
                months_are_counted [InjectedTime];
            }
            clock "rules/clock.rs" {
                tokens_increase_when_it_steps_back [ClockStep];
                a_live_lease_outlasts_a_step_back [ClockStep];
                a_result_outlasts_a_step_back [ClockStep];
                every_command_is_answered_after_a_step_back [ClockStep];
            }
            fencing "rules/fencing.rs" {
                tokens_increase;
                tokens_increase_across_eviction;
                a_replaced_owner_changes_nothing;
                a_replaced_owner_changes_nothing_after_completion;
                a_replaced_owner_changes_nothing_after_release;
                an_evicted_owner_changes_nothing;
                a_purged_owner_changes_nothing;
                the_whole_grant_decides;
                nothing_is_known_of_an_absent_key;
                a_version_never_comes_back;
            }
            replay "rules/replay.rs" {
                is_byte_for_byte;
                an_empty_result_is_a_result;
                a_result_that_was_not_kept_is_still_done;
            }
            fingerprint "rules/fingerprint.rs" {
                differs_in_progress;
                differs_after_completion;
                differs_after_the_lease_lapsed;
                is_kept_through_takeover;
                is_kept_through_release;
                is_kept_through_give_up;
                is_forgotten_with_the_result;
                is_compared_whole;
                binds_the_own_attempt_too;
            }
            retry "rules/retry.rs" {
                claim_again_gets_the_same_grant;
                claim_again_moves_the_deadline_on;
                claim_again_after_the_lease_lapsed;
                a_late_claim_of_an_ended_attempt_is_spent;
                a_late_claim_after_completion_is_replayed;
                complete_again_changes_nothing;
                complete_with_other_bytes_conflicts;
                complete_again_without_the_bytes;
                complete_again_after_the_retention;
                release_again_changes_nothing;
                give_up_again_changes_nothing;
                give_up_after_release_is_lost;
                a_late_renew_of_an_ended_attempt_is_lost;
                an_older_progress_never_replaces_a_newer;
            }
            operator "rules/operator.rs" {
                settle_spares_a_live_owner;
                settle_names_its_attempt;
                settle_as_done_records_the_result;
                settle_as_not_done_frees_the_key;
                settle_as_not_done_again_changes_nothing;
                settle_never_overrules_a_result;
                evict_spares_a_live_owner;
                evict_by_force_removes_a_live_owner;
                evict_names_its_attempt;
                an_evicted_key_is_as_new;
            }
            limits "rules/limits.rs" {
                near_identical_keys_are_distinct;
                the_longest_keys_are_distinct;
                huge_durations_saturate;
                a_large_result_fits_or_is_refused;
                large_progress_fits_or_is_refused;
                a_full_store_refuses_new_keys [Bounded];
                a_full_store_has_room_again [Bounded];
            }
            contention "rules/contention.rs" {
                one_claim_wins;
                one_takeover_wins;
                copies_of_a_claim_agree;
                a_completion_never_frees_the_key;
                a_release_is_taken_once;
                completion_or_takeover;
                renewal_or_takeover;
                one_result_is_recorded;
            }
            watch "rules/watch.rs" {
                wakes_on_completion [Watch];
                wakes_on_release [Watch];
                wakes_on_giving_up [Watch];
                wakes_on_settlement [Watch];
                wakes_on_eviction [Watch];
                wakes_every_subscriber [Watch];
                is_in_force_at_once [Watch];
            }
            purge "rules/purge.rs" {
                spares_what_matters;
                removes_what_is_over;
                heeds_its_limit;
                goes_by_the_latest_time_to_forget;
                races_with_claims;
                races_with_renewals;
            }
            reopen "rules/reopen.rs" {
                a_second_handle_agrees;
                an_answer_survives [Restart];
                tokens_increase_across_a_restart [Restart];
            }
            corrupt "rules/corrupt.rs" {
                every_command_fails [Damage];
                a_newer_version_fails_too [Damage];
                evict_any_removes_it [Damage];
                spares_other_keys [Damage];
            }
            cancel "rules/cancel.rs" {
                a_dropped_call_leaves_nothing_behind;
                a_dropped_call_happened_or_did_not;
                a_dropped_call_disturbs_no_other;
            }
            inspect "rules/inspect.rs" {
                get_shows_every_state;
                get_changes_nothing;
                lists_every_record [Inspect];
                lists_what_stays_while_others_go [Inspect];
                lists_only_the_wanted_states [Inspect];
                counts_what_it_cannot_decode [Inspect, Damage];
            }
            fixture "rules/fixture.rs" {
                is_what_it_says;
            }
            model "model/mod.rs" {
                agrees_with_the_rules;
            }
            history "history/mod.rs" {
                is_linearizable;
            }
        }
    };
}

/// One rule of the suite.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rule {
    /// Its name, `subject::rule`: stable, and the name of its test.
    pub name: &'static str,
    /// What it requires, in one sentence.
    pub doc: String,
    /// What a fixture needs for it to run.
    pub needs: &'static [Capability],
}

/// Every rule of the suite, in the order in which they run.
#[must_use]
pub fn rules() -> &'static [Rule] {
    static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| crate::__rules!([list::listing]()));
    &RULES
}

macro_rules! listing {
    (() $($subject:ident $file:literal {
        $($rule:ident $([$($need:ident),+])?;)*
    })*) => {
        vec![$($(Rule {
            name: concat!(stringify!($subject), "::", stringify!($rule)),
            doc: doc_of(include_str!($file), stringify!($rule)),
            needs: &[$($(Capability::$need),+)?],
        },)*)*]
    };
}
pub(crate) use listing;

/// The doc line above the function `rule`: kept there and nowhere else.
fn doc_of(source: &str, rule: &str) -> String {
    let head = format!("pub async fn {rule}<");
    let mut doc = Vec::new();
    for line in source.lines() {
        match line.strip_prefix("///") {
            Some(text) => doc.push(text.trim()),
            None if line.starts_with(&head) => return doc.join(" "),
            None => doc.clear(),
        }
    }
    String::new()
}

/// A rule as it runs on a fixture.
pub(crate) type Run<F> = for<'f> fn(&'f F) -> BoxFuture<'f, Verdict>;

/// The functions of the rules, in the order of [`rules`].
pub(crate) fn runs<F: Fixture>() -> Vec<Run<F>> {
    crate::__rules!([list::functions](F))
}

macro_rules! functions {
    (($fixture:ident) $($subject:ident $file:literal {
        $($rule:ident $([$($need:ident),+])?;)*
    })*) => {
        vec![$($(
            (|fixture| Box::pin(crate::rules::$subject::$rule(fixture))) as Run<$fixture>,
        )*)*]
    };
}
pub(crate) use functions;
