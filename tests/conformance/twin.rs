//! The twin arm, in virtual time.

/// Every body, given to a macro that makes it a test of an arm.
macro_rules! all {
    ($arm:ident) => {
        $arm!(
            an_eviction_within_budget_is_accepted_and_so_is_a_second_one_of_the_same_pod,
            an_eviction_with_another_uid_is_a_conflict_that_still_spends_the_budget,
            a_pod_that_is_not_there_is_not_found,
            two_budgets_on_one_pod_are_an_internal_error_forever,
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
            a_write_answers_with_metadata_alone_when_that_is_wanted,
            an_evicted_pod_is_marked_while_it_still_says_ready_and_before_its_replacement_exists,
            a_stateful_replacement_is_made_only_after_the_old_pod_is_deleted,
            times_of_objects_have_whole_seconds_and_those_of_leases_do_not,
            a_mark_is_later_than_the_eviction_by_the_grace_period,
            a_budget_remembers_an_eviction_without_effect_and_forgets_it_in_time,
            pods_of_a_node_that_is_gone_go_on_saying_ready_until_they_are_collected,
            a_pod_that_tolerates_everything_comes_back_to_its_cordoned_and_tainted_node,
            who_may_evict_can_be_asked,
            a_restart_keeps_the_old_pod_while_the_new_one_is_not_ready,
            a_pod_gets_a_node_exactly_where_the_evaluator_says_that_one_suits_it,
            a_level_of_pod_security_refuses_exactly_the_pods_that_are_said_to_violate_it,
            a_quota_refuses_what_is_not_stated_and_what_is_too_much_and_says_which,
            a_replica_set_says_why_its_pods_are_refused_until_one_is_made,
            a_pods_spec_is_fixed_but_for_images_deadlines_and_more_tolerations,
            a_stateful_sets_identity_is_fixed,
            a_service_keeps_its_address_and_gates_of_a_pod_are_only_taken_away,
            a_jobs_template_is_fixed_while_it_runs,
            an_owner_of_an_unknown_kind_keeps_its_object_as_it_is,
            an_update_stops_at_the_partition_counted_from_the_first_ordinal,
            a_stateful_pod_that_never_gets_ready_is_kept_though_a_new_template_has_come,
            a_stateful_set_waits_until_a_pod_is_available,
            preemption_takes_two_pods_without_a_budget_before_one_past_its_budget,
            preemption_on_a_node_spares_the_pod_past_its_budget_though_it_matters_least,
        );
    };
}
pub(crate) use all;

use std::collections::BTreeMap;

use eksup::clients::kube_client::{ClusterAuth, client_over_wire};
use eksup::model::{Clock, Minor};
use eksup::twin::Twin;
use eksup::twin::k8s::{SimCluster, cloud_hooks};
use eksup::twin::world::SimWorld;

use super::bodies;
use super::call::Arm;

/// Two nodes, and whoever asks is let in.
fn arm() -> Arm {
    let clock = Clock::starting_at("2026-11-21T08:00:00Z".parse().unwrap());
    let cluster = SimCluster::new_empty(Minor::new(29)).allow_anonymous();
    let twin = Twin::start(SimWorld::new(clock, 1, Default::default(), cluster));
    for i in 1..=2 {
        let birth = cloud_hooks::JoiningNode {
            name: format!("node-{i}"),
            provider_id: format!("aws:///us-east-1a/i-{i}"),
            zone: "us-east-1a".into(),
            zone_id: "use1-az1".into(),
            region: "us-east-1".into(),
            instance_type: "t3.large".into(),
            labels: BTreeMap::new(),
            taints: vec![],
            kubelet_version: "v1.29.3".into(),
            cpu_millis: 2000,
            memory_bytes: 8 << 30,
            ephemeral_storage: 18 << 30,
            short_hop: false,
            driverless: false,
            startup_taints: Vec::new(),
            max_pods: 35,
            internal_ip: format!("10.0.0.{i}"),
            architecture: "amd64".into(),
            os_image: "Amazon Linux 2023".into(),
        };
        twin.with_world(|world| cloud_hooks::join_node(world, birth));
    }
    let config = kube::Config::new("https://twin.eks.amazonaws.com".parse().unwrap());
    Arm {
        client: client_over_wire(&config, ClusterAuth::Kubeconfig, twin.wire()).unwrap(),
        namespace: "default".into(),
    }
}

macro_rules! twin {
    ($($body:ident),* $(,)?) => {$(
        #[tokio::test(start_paused = true)]
        async fn $body() {
            bodies::$body(&arm()).await;
        }
    )*};
}

all!(twin);
