//! What a seed's upgrade is and may do: its plan, its route's groups, and the terms that the laws hold it to.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::sleep;

use super::fault_schedule::FaultSchedule;
use super::stack_faults::StackTarget;
use super::trial::Trial;
use super::twin_connection::connect_twin;
use crate::chaos::invariants::{NodeTerms, UpgradeTerms};
use crate::inventory;
use crate::model::group_owner::GroupOwner;
use crate::model::node_source::NodeSource;
use crate::model::snapshot::Snapshot;
use crate::model::{Clock, Inventory};
use crate::plan::{
    AutoModeNodes, BudgetConsent, Drain, FargatePods, OnDeadline, Plan, PoolStrategy,
    SingleReplicas, Strategy,
};
use crate::route::{Route, ShiftSpec, StepSpec};
use crate::run::error::RunError;
use crate::twin::{Twin, fault, scenario};

impl Trial<'_> {
    /// The groups that the plan makes.
    pub fn green_group_names(&self) -> Result<Vec<String>, String> {
        let inventory = self.before.unwrap_or(&self.snapshot.inventory);
        let route = build_route(&self.input.plan, inventory)?;
        let mut names = green_names_in(&route);
        // NodePools have no sizes that anybody could change, and EKS deletes none.
        names.retain(|name| route.source_of(name) != NodeSource::NodePool);
        Ok(names)
    }

    /// The stacks that the plan deletes.
    pub(super) fn deleted_stacks(&self) -> Result<Vec<StackTarget>, String> {
        let inventory = self.before.unwrap_or(&self.snapshot.inventory);
        let route = build_route(&self.input.plan, inventory)?;
        let blues = route.steps.iter().filter_map(|step| match &step.spec {
            StepSpec::DeleteStack { blue, .. } => inventory.find_nodegroup(blue),
            _ => None,
        });
        let targets = blues.filter_map(|blue| {
            let owner = GroupOwner::from_tags(&blue.tags)?;
            let by_default = match blue.source {
                NodeSource::ManagedGroup => "ManagedNodeGroup",
                NodeSource::AutoScalingGroup | NodeSource::NodePool => "NodeGroup",
            };
            Some(StackTarget {
                name: owner.stack()?.to_owned(),
                group: owner.logical_id().unwrap_or(by_default).to_owned(),
            })
        });
        Ok(targets.collect())
    }

    /// The plan of a seed; a saved one is carried as it was saved.
    pub(super) fn plan_of(&self, schedule: &FaultSchedule) -> Plan {
        match self.input.saved {
            None => schedule
                .variation
                .apply_to_plan(schedule.speed.shorten_plan(&self.input.plan)),
            Some(_) => self.input.plan.clone(),
        }
    }

    /// What the plan lets the upgrade do in the cluster of this reading.
    pub(super) fn upgrade_terms(
        &self,
        plan: &Plan,
        inventory: &Inventory,
    ) -> Result<UpgradeTerms, String> {
        let route = build_route(plan, inventory)?;
        let blues = &inventory.nodegroups;
        // The groups that a run may touch are those that are there and those that its route makes.
        let mut groups: BTreeSet<String> = green_names_in(&route).into_iter().collect();
        groups.extend(blues.iter().map(|g| g.name.clone()));
        // Target groups are named by the shifts of the route.
        let shifts = |f: fn(&ShiftSpec) -> &String| -> BTreeSet<String> {
            let shifts = route.steps.iter().filter_map(|s| s.spec.shifted_traffic());
            shifts.map(|shift| f(shift).clone()).collect()
        };
        // On a long way a target group may be green first and blue later; of such a one nothing is said.
        let green_targets = &shifts(|s| &s.green) - &shifts(|s| &s.blue);
        let single_replicas =
            |word: SingleReplicas| plan.all_drains().any(|d| d.single_replicas == word);
        Ok(UpgradeTerms {
            groups,
            // Pods may be deleted where the plan says so in any of its parts.
            may_delete_pods: plan.strategy == Strategy::Recreate
                || plan.all_drains().any(may_delete_pods),
            single_replicas_down: single_replicas(SingleReplicas::Evict),
            surge: single_replicas(SingleReplicas::Surge),
            max_parallel_nodes: parallel_nodes_by_group(&route),
            pod_deadline: (plan.all_drains().map(|d| d.pod_deadline).min()).unwrap_or_default(),
            downtime: plan.strategy == Strategy::Recreate,
            green_targets,
            stacks: { route.steps.iter() }
                .filter_map(|step| match &step.spec {
                    StepSpec::DeleteStack { blue, stack } => Some((stack.clone(), blue.clone())),
                    _ => None,
                })
                .collect(),
            nodes: node_terms(plan, inventory, &route),
        })
    }
}

/// The nodes that the plan brings to the target, whatever makes them.
fn node_terms(plan: &Plan, inventory: &Inventory, route: &Route) -> NodeTerms {
    let mut terms = NodeTerms {
        target: Some(plan.to),
        fargate: plan.fargate == FargatePods::Restart,
        auto_mode: plan.auto_mode == AutoModeNodes::Wait,
        ..NodeTerms::default()
    };
    let blues = plan.all_groups().map(|g| g.blue.clone());
    let greens = green_names_in(route);
    for group in blues.chain(greens) {
        match route.source_of(&group) {
            NodeSource::NodePool => terms.replaced_pools.insert(group),
            NodeSource::ManagedGroup | NodeSource::AutoScalingGroup => terms.groups.insert(group),
        };
    }
    for pool in inventory.node_pools().filter(|p| !p.is_auto_mode()) {
        let entry = plan.karpenter_pool(&pool.name);
        let drifts = entry.filter(|entry| entry.strategy == PoolStrategy::Drift);
        if let Some(entry) = drifts {
            let most = entry.budget.as_ref().and_then(|text| text.parse().ok());
            terms.drifted_pools.insert(pool.name.clone(), most);
        }
    }
    terms
}

fn build_route(plan: &Plan, inventory: &Inventory) -> Result<Route, String> {
    let route = crate::route::build_route(plan, inventory);
    route.map_err(|problems| format!("no route: {problems:?}"))
}

/// Reads a cluster as the program would, with what the plan names, before anything is done to it.
pub(super) async fn read_before(snapshot: &Snapshot, plan: &Plan) -> Result<Inventory, RunError> {
    let twin = Twin::start(scenario::load_world(snapshot, 0));
    let clock = Clock::starting_at(snapshot.inventory.taken_at);
    let reached = connect_twin(twin.wire(), snapshot, &clock).await?;
    let inventory = reached.read_inventory(Some(plan.to)).await?;
    Ok(inventory::read_for_plan(&reached.aws, plan, inventory).await?)
}

fn may_delete_pods(drain: &Drain) -> bool {
    drain.on_deadline == OnDeadline::Delete
        || drain.single_replicas == SingleReplicas::Evict
        || (drain.budgets.values()).any(|c| *c == BudgetConsent::Delete)
}

/// How many nodes of a group may be drained at once: of a blue in the run, of its green in a rollback.
fn parallel_nodes_by_group(route: &Route) -> BTreeMap<String, u32> {
    let mut by_group: BTreeMap<String, u32> = BTreeMap::new();
    for step in &route.steps {
        if let StepSpec::Drain { blue, green, drain } = &step.spec {
            for group in [blue, green] {
                let most = by_group.entry(group.clone()).or_default();
                *most = drain.parallel.max(*most);
            }
        }
    }
    by_group
}

fn green_names_in(route: &Route) -> Vec<String> {
    let greens = route.steps.iter().filter_map(|s| s.spec.created_group());
    greens.map(|green| green.name.clone()).collect()
}

/// The runner's clock, as far off the world's as the rules say.
pub fn skewed_clock(start: jiff::Timestamp, rules: &[fault::FaultRule]) -> Clock {
    let clock = Clock::starting_at(start);
    for (since, by) in rules.iter().filter_map(fault::FaultRule::clock_skew) {
        if since.is_zero() {
            clock.jump_by(by);
            continue;
        }
        let clock = clock.clone();
        tokio::spawn(async move {
            sleep(since).await;
            clock.jump_by(by);
        });
    }
    clock
}
