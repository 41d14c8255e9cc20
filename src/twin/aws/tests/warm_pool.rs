//! Warm pools: filled, used, given back to, emptied and deleted (ASG-16 to ASG-19).

use aws_sdk_autoscaling::types::{InstanceReusePolicy, WarmPoolState};

use super::sdk::{Asked, asked, said, seconds};
use crate::twin::k8s::cloud_hooks;
use crate::twin::world::SimWorld;
use crate::twin::{Twin, scenario};

const GROUP: &str = "web-blue";

fn self_managed() -> Asked {
    let snapshot = scenario::find_scenario("self-managed").unwrap();
    asked(Twin::start(scenario::load_world(&snapshot, 7)), "us-east-1")
}

impl Asked {
    async fn put_pool(&self, min: i32, state: WarmPoolState) {
        let reuse = InstanceReusePolicy::builder().reuse_on_scale_in(true);
        let put = self.asg.put_warm_pool().auto_scaling_group_name(GROUP);
        let put = put.max_group_prepared_capacity(0).min_size(min);
        let put = put.pool_state(state).instance_reuse_policy(reuse.build());
        put.send().await.unwrap();
    }

    /// The pool's instances, by their lifecycle states.
    async fn pool(&self) -> Vec<String> {
        let told = self.asg.describe_warm_pool().auto_scaling_group_name(GROUP);
        let told = told.send().await.unwrap().instances.unwrap_or_default();
        let states = told.iter().filter_map(|i| i.lifecycle_state.as_ref());
        let mut states: Vec<String> = states.map(|s| s.as_str().to_owned()).collect();
        states.sort();
        states
    }

    /// How many instances the group itself tells, and how many of them are in service.
    async fn in_service(&self) -> (usize, usize) {
        let told = self.asg.describe_auto_scaling_groups();
        let told = told.auto_scaling_group_names(GROUP).send().await.unwrap();
        let group = told.auto_scaling_groups.unwrap_or_default().pop().unwrap();
        let all = group.instances.unwrap_or_default();
        let serving = all.iter().filter_map(|i| i.lifecycle_state.as_ref());
        let serving = serving.filter(|s| s.as_str() == "InService").count();
        (all.len(), serving)
    }

    async fn resize(&self, max: i32, desired: i32) {
        let change = self.asg.update_auto_scaling_group();
        let change = change.auto_scaling_group_name(GROUP).min_size(0);
        let change = change.max_size(max).desired_capacity(desired);
        change.send().await.unwrap();
    }

    /// Nodes of the pool's instances: all of them, and those that are Ready.
    fn pool_nodes(&self) -> (usize, usize) {
        self.twin.with_world(|w| {
            let ids: Vec<String> = w.cloud.asgs[GROUP].pool.keys().cloned().collect();
            let nodes = ids
                .iter()
                .filter_map(|id| cloud_hooks::node_of_instance(w, id));
            let nodes: Vec<String> = nodes.collect();
            let ready = nodes.iter().filter(|n| cloud_hooks::is_node_ready(w, n));
            (nodes.len(), ready.count())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_fills_and_stops_its_instances_whose_nodes_stay_and_are_not_ready() {
    let asked = self_managed();
    let before = asked.in_service().await;
    asked.put_pool(2, WarmPoolState::Stopped).await;
    assert_eq!(asked.pool().await, ["Warmed:Pending", "Warmed:Pending"]);
    seconds(400).await;
    assert_eq!(asked.pool().await, ["Warmed:Stopped", "Warmed:Stopped"]);
    assert_eq!(
        asked.in_service().await,
        before,
        "none of them is the group's"
    );
    let (nodes, ready) = asked.pool_nodes();
    assert_eq!(ready, 0);
    assert!(
        nodes > 0,
        "user data that asks for nothing registers while it warms"
    );
    // A scale-out takes one, its node is Ready again, and the pool is filled up.
    asked.resize(5, 4).await;
    seconds(10).await;
    let told = asked.in_service().await;
    assert_eq!(told, (4, 3), "it starts");
    seconds(400).await;
    assert_eq!(asked.in_service().await, (4, 4));
    assert_eq!(asked.pool().await, ["Warmed:Stopped", "Warmed:Stopped"]);
    let nodes = |w: &mut SimWorld| {
        let nodes = cloud_hooks::nodes_of_group(w, GROUP);
        let ready = nodes.iter().filter(|n| cloud_hooks::is_node_ready(w, n));
        (nodes.len(), ready.count())
    };
    assert_eq!(asked.twin.with_world(nodes), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_made_smaller_gives_instances_back_to_a_pool_that_has_room() {
    let asked = self_managed();
    let reuse = InstanceReusePolicy::builder().reuse_on_scale_in(true);
    let put = asked.asg.put_warm_pool().auto_scaling_group_name(GROUP);
    let put = put.instance_reuse_policy(reuse.build());
    put.send().await.unwrap();
    asked.resize(3, 3).await;
    seconds(400).await;
    // Its size is what the largest size leaves: nothing here.
    assert_eq!(asked.pool().await, Vec::<String>::new());
    asked.resize(3, 1).await;
    seconds(900).await;
    assert_eq!(asked.in_service().await, (1, 1));
    assert_eq!(asked.pool().await, ["Warmed:Stopped", "Warmed:Stopped"]);
    let (nodes, ready) = asked.pool_nodes();
    assert_eq!((nodes, ready), (2, 0), "their nodes stay");
    // What -1 removes is the limit, and a pool of its own size stays.
    asked.put_pool(1, WarmPoolState::Stopped).await;
    seconds(100).await;
    assert_eq!(asked.pool().await.len(), 1);
    let put = asked.asg.put_warm_pool().auto_scaling_group_name(GROUP);
    put.max_group_prepared_capacity(-1).send().await.unwrap();
    seconds(400).await;
    assert_eq!(asked.pool().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_launched_into_a_pool_while_launch_is_suspended() {
    let asked = self_managed();
    let suspend = asked.asg.suspend_processes().auto_scaling_group_name(GROUP);
    suspend.scaling_processes("Launch").send().await.unwrap();
    asked.put_pool(2, WarmPoolState::Stopped).await;
    seconds(600).await;
    assert_eq!(asked.pool().await, Vec::<String>::new());
    let resume = asked.asg.resume_processes().auto_scaling_group_name(GROUP);
    resume.scaling_processes("Launch").send().await.unwrap();
    assert_eq!(asked.pool().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_hook_holds_an_instance_before_it_stops_and_before_it_ends() {
    let asked = self_managed();
    let hook = |name: &str, transition: &str| {
        let hook = asked.asg.put_lifecycle_hook().lifecycle_hook_name(name);
        let hook = hook
            .auto_scaling_group_name(GROUP)
            .default_result("CONTINUE");
        let transition = format!("autoscaling:EC2_INSTANCE_{transition}");
        hook.lifecycle_transition(transition).heartbeat_timeout(300)
    };
    hook("hello", "LAUNCHING").send().await.unwrap();
    hook("bye", "TERMINATING").send().await.unwrap();
    asked.put_pool(1, WarmPoolState::Hibernated).await;
    seconds(120).await;
    assert_eq!(asked.pool().await, ["Warmed:Pending:Wait"]);
    assert_eq!(asked.pool_nodes().1, 1, "it is open to pods meanwhile");
    seconds(300).await;
    assert_eq!(asked.pool().await, ["Warmed:Hibernated"]);
    asked.put_pool(0, WarmPoolState::Hibernated).await;
    seconds(120).await;
    assert_eq!(asked.pool().await, ["Warmed:Terminating:Wait"]);
    seconds(300).await;
    assert_eq!(asked.pool().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_pool_with_instances_is_deleted_by_force_only_and_a_group_with_a_pool_too() {
    let asked = self_managed();
    asked.put_pool(2, WarmPoolState::Running).await;
    seconds(400).await;
    assert_eq!(asked.pool().await, ["Warmed:Running", "Warmed:Running"]);
    assert_eq!(asked.pool_nodes(), (2, 2));
    let ids = |w: &mut SimWorld| w.cloud.asgs[GROUP].pool.keys().cloned().collect::<Vec<_>>();
    let ids = asked.twin.with_world(ids);
    let delete = || asked.asg.delete_warm_pool().auto_scaling_group_name(GROUP);
    let refused = delete().send().await.unwrap_err();
    assert_eq!(said(refused).0, "ResourceInUse");
    asked.resize(3, 0).await;
    seconds(900).await;
    let group = || {
        let delete = asked.asg.delete_auto_scaling_group();
        delete.auto_scaling_group_name(GROUP)
    };
    let refused = group().send().await.unwrap_err();
    assert_eq!(said(refused).0, "ResourceInUse");
    delete().force_delete(true).send().await.unwrap();
    let told = asked
        .asg
        .describe_warm_pool()
        .auto_scaling_group_name(GROUP);
    let pool = told.send().await.unwrap().warm_pool_configuration.unwrap();
    assert_eq!(pool.status.unwrap().as_str(), "PendingDelete");
    seconds(120).await;
    let told = asked
        .asg
        .describe_warm_pool()
        .auto_scaling_group_name(GROUP);
    assert_eq!(told.send().await.unwrap().warm_pool_configuration, None);
    let refused = delete().send().await.unwrap_err();
    assert!(said(refused).1.contains("No warm pool found"));
    group().send().await.unwrap();
    let left = |w: &mut SimWorld| {
        let ended = |id: &String| w.cloud.instances[id].state == "terminated";
        ids.iter().filter(|id| !ended(id)).count()
    };
    assert_eq!(asked.twin.with_world(left), 0);
}
