//! A zoo of broken stores. Each has one defect, many of them found in real software, and each must be
//! rejected by the rule of the suite that names its fault.

mod base;
mod cage;
mod claims;
mod clocks;
mod copies;
mod defect;
mod endings;
mod fencing;
mod handle;
mod identity;
mod keys;
mod matrix;
mod odd;
mod operators;
mod races;
mod renewals;
mod results;
mod runner;
mod store;
mod survival;
mod takeovers;
mod upkeep;

use defect::Defect;

/// An inhabitant of the zoo.
struct Inhabitant {
    name: &'static str,
    defect: fn() -> Defect,
}

/// The inhabitants, by the file that they live in: a test for each, and the list of all.
macro_rules! inhabitants {
    ($($house:ident { $($name:ident,)* })*) => {
        mod rejected {$(
            mod $house {$(
                #[test]
                fn $name() {
                    crate::matrix::assert_rejected(&crate::Inhabitant {
                        name: concat!(stringify!($house), "::", stringify!($name)),
                        defect: crate::$house::$name,
                    });
                }
            )*}
        )*}

        const INHABITANTS: &[Inhabitant] = &[$($(
            Inhabitant {
                name: concat!(stringify!($house), "::", stringify!($name)),
                defect: $house::$name,
            },
        )*)*];
    };
}

inhabitants! {
    claims {
        first_grant_has_a_past,
        first_grant_says_no_lease,
        overwrites_in_flight,
        reads_back_the_fingerprint,
        claims_on_a_replica,
        busy_is_interrupted,
        an_hour_is_stuck,
        come_back_at_once,
        refused_claim_deletes,
        polling_extends,
        mismatch_refreshes,
        every_attempt_is_the_first,
        counts_for_ever,
        never_replays,
        remembers_the_retired,
        retired_has_a_past,
        forgets_the_retired,
        retired_is_a_mismatch_first,
        retired_one_tick_early,
        replays_for_ever,
    }
    takeovers {
        one_tick_too_long,
        one_tick_too_short,
        claim_lives_like_a_response,
        zero_is_no_limit,
        takeover_is_told_the_old_lease,
        takeover_is_silent,
        takeover_names_itself,
        takeover_starts_over,
        progress_is_handed_on_once,
        takeover_keeps_the_sequence,
        inherited_is_number_one,
        always_takes_over,
        lapses_are_noticed_by_readers,
        lapsed_is_forgotten,
        short_leases_do_not_count,
        thirty_two_bits,
        heartbeats_wrap,
        nothing_lasts_fifty_days,
    }
    clocks {
        token_follows_the_clock,
        future_locks_are_stale,
        future_results_are_stale,
        ages_are_unsigned,
    }
    results {
        result_ends_the_count,
        too_late_to_complete,
        released_for_good,
        given_up_for_good,
        retention_counts_from_the_claim,
        result_has_no_hold,
        keeps_the_scaffolding,
        results_are_text,
        verdicts_are_text,
        streams_are_braces,
        cuts_large_results,
        results_have_affinity,
        empty_is_nothing,
        nothing_is_empty,
        not_kept_is_not_done,
        replays_to_the_owner_only,
    }
    copies {
        own_retry_is_busy,
        own_retry_gets_a_new_token,
        own_retry_has_no_past,
        own_retry_shortens,
        own_retry_is_promised_nothing_new,
        interrupted_by_itself,
        takes_over_from_itself,
        late_copy_is_granted,
        own_result_is_spent,
        second_completion_is_lost,
        second_completion_extends,
        last_result_wins,
        second_result_is_swallowed,
        compares_the_beginning,
        no_digest,
        retired_matches_anything,
        second_release_is_lost,
        second_release_extends,
        second_give_up_is_lost,
        second_give_up_extends,
        give_up_undoes_a_release,
        renewal_raises_the_dead,
        last_save_wins,
        old_save_is_refused,
    }
    renewals {
        renewal_is_ignored,
        renewals_add_up,
        renewal_shortens,
        lapsed_is_lost,
        ttl_stays_behind,
        saves_nothing,
        saves_or_extends,
        heartbeat_wipes_progress,
        progress_is_text,
        empty_progress_is_none,
        cuts_large_progress,
    }
    endings {
        release_waits_for_the_lease,
        released_is_interrupted,
        lapsed_cannot_release,
        given_up_cannot_release,
        releases_done_work,
        releases_inherited_work,
        release_has_no_hold_of_its_own,
        release_deletes_the_result,
        giving_up_waits_for_the_lease,
        given_up_is_soon_forgotten,
        given_up_is_blocked,
        lapsed_cannot_give_up,
        lapsed_gives_up_its_steps,
        release_forgets,
        unknown_is_nothing,
    }
    fencing {
        takeover_keeps_the_token,
        token_is_the_clock,
        retired_keeps_its_token,
        token_expires_with_the_record,
        token_counter_is_in_memory,
        replaced_owner_completes,
        replaced_owner_interrupts,
        deletes_any_lock,
        anybody_renews,
        rewrites_history,
        same_bytes_are_enough,
        free_for_all,
        eviction_leaves_the_owner,
        sweep_leaves_the_owner,
        compares_the_token,
        compares_the_attempt,
        completes_the_absent,
        releases_the_absent,
        gone_is_lost,
        version_starts_again,
    }
    identity {
        fingerprint_comes_with_the_result,
        busy_before_mismatch,
        takeover_is_busy_before_mismatch,
        replays_to_anything,
        interrupted_before_mismatch,
        takeover_brings_its_own,
        takeover_drops_the_fingerprint,
        released_is_for_anybody,
        given_up_is_for_anybody,
        fingerprint_is_for_ever,
        retired_keeps_its_fingerprint,
        compares_a_checksum,
        forgets_the_algorithm,
        trusts_its_own_attempt,
    }
    keys {
        no_tenant,
        no_operation,
        joins_with_a_colon,
        no_case,
        no_trailing_blanks,
        ends_at_nul,
        numbers_are_numbers,
        keys_are_text,
        hashed_keys_have_no_parts,
        cuts_hashed_keys,
        cuts_long_keys,
    }
    operators {
        settle_overrules_the_living,
        settles_whoever_is_there,
        settles_an_earlier_attempt,
        evicts_an_earlier_attempt,
        settles_the_interrupted_only,
        not_done_stays_interrupted,
        not_done_keeps_the_steps,
        second_verdict_is_lost,
        settle_erases_the_result,
        evicts_the_living,
        force_is_no_force,
        force_needs_the_attempt,
        evicts_whoever_is_there,
        results_stay,
        retired_stays,
        looking_erases,
        shows_inherited_as_saved,
        shows_the_stored_status,
        shows_no_ended_records,
        lists_the_stored_status,
        loses_a_row_between_pages,
        pages_by_offset,
        lists_readable_keys,
        damage_is_not_counted,
    }
    races {
        checks_then_acts,
        loser_gets_an_error,
        orphan_recovery_overwrites,
        takeover_is_two_steps,
        two_take_over,
        copies_collide,
        removes_then_stores,
        relocks_without_reading,
        release_is_taken_twice,
        completes_over_a_takeover,
        renews_over_a_takeover,
        two_results_are_recorded,
        settles_over_a_takeover,
    }
    survival {
        every_process_for_itself,
        nobody_invalidates,
        reads_a_replica,
        progress_stays_at_home,
        results_are_lost_in_a_crash,
        claims_are_lost_in_a_crash,
        progress_is_lost_in_a_crash,
        cleans_up_at_start,
        dropped_call_keeps_the_lock,
        dropped_call_keeps_the_connection,
        dropped_call_writes_half,
        dropped_verdict_is_half,
        dropped_call_fails_the_others,
        undecodable_is_absent,
        undecodable_is_gone,
        damage_is_an_outage,
        newer_is_absent,
        ignores_the_version,
        damage_is_for_ever,
        sweep_stops_at_damage,
    }
    upkeep {
        no_deadline_is_an_orphan,
        drops_when_full,
        full_for_everybody,
        full_for_results,
        full_for_ever,
        sweeps_results,
        sweeps_the_interrupted,
        sweeps_the_given_up,
        reaps_the_slow,
        keeps_the_released,
        keeps_the_given_up,
        never_sweeps,
        sweeps_without_limit,
        says_that_it_is_done,
        sweep_index_is_stale,
        sweeps_what_it_saw,
        sweeps_the_renewed,
        completes_in_silence,
        releases_in_silence,
        gives_up_in_silence,
        settles_in_silence,
        evicts_in_silence,
        wakes_the_last_only,
        subscribes_late,
        hides_its_listing,
    }
}
