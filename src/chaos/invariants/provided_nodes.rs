//! Laws on nodes that somebody else makes: Karpenter's, those of EKS Auto Mode, and Fargate's.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde::Deserialize;

use super::{Invariants, workloads};
use crate::model::Minor;
use crate::model::marks::{CREATED_BY, RUN_NAME, RUN_NAMESPACE};
use crate::twin::k8s::ground_truth;
use crate::twin::k8s::karpenter::PoolAction;
use crate::twin::k8s::pool_truth::{self, ProvidedNode};
use crate::twin::world::SimWorld;

const KUBELETS_INVARIANT: &str = "a run ends done with no kubelet older than the target";
const HELD_INVARIANT: &str = "a NodePool that the run holds loses no node by Karpenter";
const BUDGET_INVARIANT: &str = "Karpenter replaces no more nodes at once than the plan says";
const OPENED_INVARIANT: &str = "a NodePool is let go only when what was moved is Ready again";

/// The nodes that a plan brings to the target.
#[derive(Clone, Debug, Default)]
pub struct NodeTerms {
    /// None where nothing is asked of kubelets.
    pub target: Option<Minor>,
    /// Node groups and Auto Scaling groups, blue and green.
    pub groups: BTreeSet<String>,
    /// NodePools whose nodes eksup replaces, blue and green.
    pub replaced_pools: BTreeSet<String>,
    /// NodePools whose nodes Karpenter replaces, and how many at once where the plan says a number.
    pub drifted_pools: BTreeMap<String, Option<usize>>,
    pub fargate: bool,
    pub auto_mode: bool,
}

impl NodeTerms {
    fn moves_node(&self, node: &ProvidedNode) -> bool {
        if node.auto_mode {
            return self.auto_mode;
        }
        if node.fargate {
            return self.fargate;
        }
        match &node.pool {
            Some(pool) => {
                self.replaced_pools.contains(pool) || self.drifted_pools.contains_key(pool)
            }
            None => self.groups.contains(&node.group),
        }
    }
}

/// What the laws know of these nodes.
#[derive(Clone, Debug, Default)]
pub struct ProvidedRecords {
    /// How many actions of the engine of pools were looked at.
    actions: usize,
    /// Nodes of pools, ever.
    pool_nodes: BTreeSet<String>,
    /// By NodePool: claims whose replacement for a new version has begun.
    drifting: BTreeMap<String, BTreeSet<String>>,
    /// Of the NodePool that a request is about: it held before.
    asked: Option<(String, bool)>,
}

impl ProvidedRecords {
    /// Whether the node is of a pool, so that Karpenter or EKS may empty it by itself.
    pub fn is_pool_node(&self, node: &str) -> bool {
        self.pool_nodes.contains(node)
    }
}

/// Something has happened: has the engine of pools done what it must not?
pub fn check_pool_actions(laws: &mut Invariants, world: &SimWorld) {
    let actions = pool_truth::pool_actions(world);
    let seen = std::mem::replace(&mut laws.provided.actions, actions.len());
    for action in actions.get(seen..).unwrap_or_default() {
        let PoolAction::Disrupted { reason, claims } = action else {
            continue;
        };
        for claim in claims {
            let Some((pool, node)) = pool_truth::pool_and_node_of_claim(world, claim) else {
                continue;
            };
            let word = reason.as_str();
            if let Some(step) = find_hold(laws, world, &pool, word == "Drifted") {
                let node = node.as_deref().unwrap_or(claim);
                let what = format!("{node} of {pool} is disrupted ({word}) during {step}");
                laws.record_violation(world, HELD_INVARIANT, what);
            }
            if word == "Drifted" {
                check_drift_budget(laws, world, &pool, claim);
            }
        }
    }
}

fn check_drift_budget(laws: &mut Invariants, world: &SimWorld, pool: &str, claim: &str) {
    // The plan's number is the run's. Once it is over, the pool's own budgets are Karpenter's only ones.
    if is_run_over(world) {
        return;
    }
    let Some(most) = laws.terms.nodes.drifted_pools.get(pool).copied().flatten() else {
        return;
    };
    let drifting = laws.provided.drifting.entry(pool.to_owned()).or_default();
    drifting.insert(claim.to_owned());
    drifting.retain(|claim| {
        pool_truth::pool_and_node_of_claim(world, claim).is_some()
            && !pool_truth::is_instance_ending(world, claim)
    });
    if drifting.len() > most {
        let names: Vec<&str> = drifting.iter().map(String::as_str).collect();
        let what = format!("{pool}: {}; {most} at once", names.join(", "));
        laws.record_violation(world, BUDGET_INVARIANT, what);
    }
}

/// Notes which nodes are of pools.
pub fn record_pool_nodes(laws: &mut Invariants, world: &SimWorld) {
    let nodes = pool_truth::list_provided_nodes(world).into_iter();
    let of_pools = nodes.filter(|n| n.pool.is_some());
    laws.provided.pool_nodes.extend(of_pools.map(|n| n.name));
}

/// A step of the run, as the journal in the cluster has it.
#[derive(Deserialize)]
struct StoredStep {
    id: String,
    status: String,
}

/// Whether the journal says that the run is done or rolled back.
pub fn is_run_over(world: &SimWorld) -> bool {
    #[derive(Deserialize)]
    struct StoredOutcome {
        outcome: Option<serde::de::IgnoredAny>,
    }
    let text = ground_truth::config_entry(world, RUN_NAMESPACE, RUN_NAME, "checkpoint");
    let read = text.and_then(|text| serde_json::from_str::<StoredOutcome>(text).ok());
    read.is_some_and(|read| read.outcome.is_some())
}

fn read_steps(world: &SimWorld) -> Vec<StoredStep> {
    #[derive(Deserialize)]
    struct StoredSteps {
        steps: Vec<StoredStep>,
    }
    let text = ground_truth::config_entry(world, RUN_NAMESPACE, RUN_NAME, "checkpoint");
    let read = text.and_then(|text| serde_json::from_str::<StoredSteps>(text).ok());
    read.map_or(Vec::new(), |read| read.steps)
}

/// What the run is doing while it holds the NodePool; none where it does not hold it, or lets Karpenter replace its nodes.
fn find_hold(laws: &Invariants, world: &SimWorld, pool: &str, drifted: bool) -> Option<String> {
    let terms = &laws.terms.nodes;
    let replaced = terms.replaced_pools.contains(pool);
    if !(replaced || drifted && terms.drifted_pools.contains_key(pool)) {
        return None;
    }
    let steps = read_steps(world);
    let status = |id: &str| {
        let found = steps.iter().find(|s| s.id == id);
        found.map_or("", |s| s.status.as_str())
    };
    let is = |id: String, of: &[&str]| of.contains(&status(&id));
    // A green is held from its creation on; its blue's name is not told here.
    let held = is(format!("hold-pool-{pool}"), &["done"]) || is_green(world, pool);
    let released = is(
        format!("release-pool-{pool}"),
        &["started", "begun", "done"],
    );
    let going = ["started", "begun", "failed", "undoing", "undone"];
    let drifts = steps
        .iter()
        .filter(|s| s.id.starts_with(&format!("drift-pool-{pool}")));
    let drifts = { drifts }.any(|s| going.contains(&s.status.as_str()));
    if !held || released || drifts {
        return None;
    }
    let at = steps
        .iter()
        .find(|s| s.status == "begun" || s.status == "started");
    Some(at.map_or_else(|| "no step".to_owned(), |s| s.id.clone()))
}

fn is_green(world: &SimWorld, pool: &str) -> bool {
    let mut objects = pool_truth::list_pool_objects(world).into_iter();
    objects
        .any(|o| o.kind == "NodePool" && o.name == pool && o.annotations.contains_key(CREATED_BY))
}

/// A request of the run is about to be served: is it about a NodePool, and does that hold its nodes?
pub fn note_pool_request(laws: &mut Invariants, world: &SimWorld, method: &Method, path: &str) {
    laws.provided.asked = None;
    if let (&Method::PATCH | &Method::PUT, Some(("nodepools", name))) = (method, pool_object(path))
    {
        let held = pool_truth::holds_drift(world, name).unwrap_or(false);
        laws.provided.asked = Some((name.to_owned(), held));
    }
}

/// It was answered: a NodePool that is let go to be replaced must find the workloads whole.
pub fn check_pool_answer(laws: &mut Invariants, world: &SimWorld) {
    let Some((pool, true)) = laws.provided.asked.take() else {
        return;
    };
    let steps = read_steps(world);
    let mut drifts = steps
        .iter()
        .filter(|s| s.id.starts_with(&format!("drift-pool-{pool}")));
    let drifts = drifts.any(|s| s.status == "begun");
    if !drifts || pool_truth::holds_drift(world, &pool) != Some(false) {
        return;
    }
    let short = workloads::workloads_short_of_start(world, laws);
    if !short.is_empty() {
        let what = format!("{pool}: {}", short.join("; "));
        laws.record_violation(world, OPENED_INVARIANT, what);
    }
}

/// The resource and the name of an object of Karpenter, by its path in the API.
fn pool_object(path: &str) -> Option<(&str, &str)> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        [
            "apis",
            "karpenter.sh" | "karpenter.k8s.aws",
            _,
            resource,
            name,
        ] => Some((resource, name)),
        _ => None,
    }
}

/// Whether a deletion takes a NodePool, so that its nodes go.
pub fn is_pool_deletion(path: &str) -> bool {
    matches!(pool_object(path), Some(("nodepools", _)))
}

/// Why an object of Karpenter is not the upgrade's to delete; outer none where the path is of no such object.
pub fn forbidden_deletion(
    laws: &Invariants,
    world: &SimWorld,
    path: &str,
) -> Option<Option<String>> {
    let (resource, name) = pool_object(path)?;
    let pools = &laws.terms.nodes.replaced_pools;
    let all = pool_truth::list_provided_nodes(world);
    let occupied = |nodes: BTreeSet<String>| {
        let pods = pool_truth::evictable_pods_of(world, &nodes);
        (!pods.is_empty()).then(|| format!("{path} still has {}", pods.join(", ")))
    };
    Some(match resource {
        "nodepools" if pools.contains(name) => {
            let of = all.into_iter().filter(|n| n.pool.as_deref() == Some(name));
            occupied(of.map(|n| n.name).collect())
        }
        "nodeclaims" => match pool_truth::pool_and_node_of_claim(world, name) {
            Some((pool, _)) if !pools.contains(&pool) => Some(format!(
                "{path} is of {pool}, which the plan leaves to Karpenter"
            )),
            Some((_, node)) => occupied(node.into_iter().collect()),
            None => None,
        },
        "ec2nodeclasses" => {
            let mut objects = pool_truth::list_pool_objects(world).into_iter();
            let class = objects.find(|o| o.kind == "EC2NodeClass" && o.name == name);
            let foreign = class.is_some_and(|c| !c.annotations.contains_key(CREATED_BY));
            foreign.then(|| format!("{path} was not made by the run"))
        }
        _ => Some(format!("DELETE {path}")),
    })
}

/// A run says that it is done: no kubelet that it was to bring to the target is older.
pub fn check_run_done(laws: &mut Invariants, world: &SimWorld) {
    let Some(target) = laws.terms.nodes.target else {
        return;
    };
    let nodes = pool_truth::list_provided_nodes(world).into_iter();
    let old =
        nodes.filter(|n| laws.terms.nodes.moves_node(n) && n.kubelet.is_none_or(|k| k < target));
    let old: Vec<String> = old
        .map(|n| match n.kubelet {
            Some(kubelet) => format!("{} runs {kubelet}", n.name),
            None => format!("{} runs no known version", n.name),
        })
        .collect();
    if !old.is_empty() {
        laws.record_violation(world, KUBELETS_INVARIANT, old.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::invariants::UpgradeTerms;
    use crate::twin::scenario;

    /// What a run that has done nothing and says that it is done breaks.
    fn broken_by_idle(name: &str, nodes: NodeTerms) -> String {
        let snapshot = scenario::find_scenario(name).unwrap();
        let mut world = scenario::load_world(&snapshot, 7);
        let terms = UpgradeTerms {
            nodes,
            ..UpgradeTerms::default()
        };
        world.observer = Some(Box::new(Invariants::new(terms)));
        Invariants::check_run_done(&mut world);
        let laws = Invariants::of_world(&mut world).unwrap();
        let each = laws.violations().iter().map(ToString::to_string);
        each.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_run_that_ends_done_with_an_old_kubelet_is_caught_whoever_made_the_node() {
        let drifts = NodeTerms {
            drifted_pools: [("general".to_owned(), None)].into(),
            ..NodeTerms::default()
        };
        let replaces = NodeTerms {
            replaced_pools: ["general".to_owned()].into(),
            ..NodeTerms::default()
        };
        let fargate = NodeTerms {
            fargate: true,
            ..NodeTerms::default()
        };
        let auto_mode = NodeTerms {
            auto_mode: true,
            ..NodeTerms::default()
        };
        let groups = NodeTerms {
            groups: ["expense-blue".to_owned()].into(),
            ..NodeTerms::default()
        };
        for (name, terms, to) in [
            ("karpenter-drift", drifts, 29),
            ("karpenter-blue-green", replaces, 29),
            ("fargate", fargate, 29),
            ("auto-mode", auto_mode, 31),
            ("expense-dev", groups, 29),
        ] {
            let terms = NodeTerms {
                target: Some(Minor::new(to)),
                ..terms
            };
            let broken = broken_by_idle(name, terms.clone());
            assert!(broken.contains(KUBELETS_INVARIANT), "{name}: {broken}");
            // What the plan leaves is not the run's.
            let left = NodeTerms {
                target: terms.target,
                ..NodeTerms::default()
            };
            assert_eq!(broken_by_idle(name, left), "", "{name}");
        }
    }
}
