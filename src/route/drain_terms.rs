//! The plan's terms for pods and budgets, as a step keeps them.

use super::DrainSpec;
use crate::plan::{DeadKubelets, Drain, Jobs, OperatorBudgets};

/// What the plan says of pods, budgets and deadlines, whatever they leave.
pub fn drain_terms(d: &Drain) -> DrainSpec {
    DrainSpec {
        order: d.order,
        parallel: d.parallel,
        pod_deadline: d.pod_deadline,
        node_deadline: d.node_deadline,
        on_deadline: d.on_deadline,
        bare_pods: d.bare_pods.scope(),
        empty_dir: d.empty_dir.scope(),
        host_path: d.host_path.scope(),
        wait_for_jobs: d.jobs != Jobs::Evict,
        evict_jobs: d.jobs.evicted(),
        single_replicas: d.single_replicas,
        wait_for_operators: d.operator_budgets == OperatorBudgets::Wait,
        budgets: d.budgets.clone(),
        skip_dead_kubelets: d.dead_kubelets == DeadKubelets::Skip,
        bake: d.bake,
        canary_bake: None,
        surge: None,
        leave_target_groups: Vec::new(),
        served_by_pods: Vec::new(),
        deregister_from: Vec::new(),
        downtime: false,
        nodes_follow: false,
    }
}
