//! The twin arm, in virtual time.

/// Every body, given to a macro that makes it a test of an arm.
macro_rules! all {
    ($arm:ident) => {
        $arm!(
            an_eviction_within_budget_is_accepted_and_so_is_a_second_one_of_the_same_pod,
            an_eviction_with_another_uid_is_a_conflict_that_still_spends_the_budget,
            a_pod_that_is_not_there_is_not_found,
            two_budgets_on_one_pod_are_an_internal_error_for_ever,
            a_pending_pod_is_evicted_past_its_budget,
            a_percentage_over_bare_pods_allows_nothing,
            a_budget_of_two_lets_exactly_two_of_ten_go,
            budgets_round_percentages_up_and_follow_the_wanted_count,
            an_evicted_pod_says_so_and_is_replaced_by_its_controller,
            a_stateful_pod_comes_back_under_its_name_only_when_the_old_one_is_gone,
            a_restart_brings_the_new_pod_up_before_the_old_one_goes_whatever_the_budget,
            a_patch_of_an_older_version_is_a_conflict_and_null_removes,
            a_list_comes_in_pages_of_one_version,
            a_watch_begins_where_the_list_ended_and_tells_of_every_change,
            a_daemon_pod_comes_back_on_a_cordoned_node,
            a_lease_is_fenced_by_its_version,
        );
    };
}
pub(crate) use all;
