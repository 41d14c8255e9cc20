//! The rollback with `--control-plane` from every step of every plan, sampled without `EKSUP_FULL_SWEEP`.

use std::collections::BTreeMap;

use eksup::engine::RunOutcome;
use eksup::model::Minor;
use eksup::model::kube::Node;
use eksup::route::StepSpec;
use eksup::run::RunErrorKind;

use super::back::{Stop, back, find_differences, nothing, sampled, swept, walk};
use super::world::{addons, differences};

/// With the flag: the last hop is rolled back too where EKS still can, or nothing is touched and every reason is said.
fn sweep_versions(name: &'static str, every: usize) {
    let walk = walk(name);
    let mut wrong = Vec::new();
    let mut back_to = BTreeMap::<Minor, usize>::new();
    let mut refused = 0;
    for (i, stop) in walk.stops.iter().enumerate() {
        let hop = walk.stops[..=i].iter().rev().find_map(|s| match s.spec {
            StepSpec::ControlPlane { from, to, .. } => Some((from, to)),
            _ => None,
        });
        let last = i + 1 == walk.stops.len();
        if !sampled(i, every) && !last {
            continue;
        }
        let at = &stop.step;
        let back = back(walk, &stop.world, true, nothing);
        match (&back.ended, hop) {
            (Ok(RunOutcome::RolledBack { kept }), Some((from, to))) => {
                *back_to.entry(from).or_default() += 1;
                let after = &back.after;
                if (after.cluster.version, after.server_version) != (from, Some(from)) {
                    wrong.push(format!("after {at}: at {}", after.cluster.version));
                }
                let found = find_differences(walk, i, after);
                let minor = |n: &Node| Minor::from_reported(&n.kubelet_version).unwrap();
                for node in after.nodes.iter().filter(|n| minor(n) > from) {
                    wrong.push(format!("after {at}: {} is newer than {from}", node.name));
                }
                if !found.is_empty() {
                    wrong.push(format!("after {at}: {}", found.join("\n  ")));
                }
                // Earlier hops are kept, and said so; the last one is not among them.
                let earlier =
                    |s: &&Stop| matches!(s.spec, StepSpec::ControlPlane { to: t, .. } if t < to);
                for hop in walk.stops[..=i].iter().filter(earlier) {
                    if !kept.contains(&hop.step) {
                        wrong.push(format!("after {at}: {} is not said to stay", hop.step));
                    }
                }
                for (addon, version) in addons(after) {
                    let fits = eksup::route::offers_on_minor(after, &addon, from);
                    if !fits.is_empty() && !fits.iter().any(|o| o.version.as_str() == version) {
                        wrong.push(format!(
                            "after {at}: add-on {addon} {version} does not run on {from}"
                        ));
                    }
                }
            }
            (Err(error), _)
                if matches!(error.kind, RunErrorKind::NotReady | RunErrorKind::Stuck) =>
            {
                refused += 1;
                let found = differences(&stop.inventory, &back.after);
                let versions = (stop.inventory.cluster.version, addons(&stop.inventory));
                let moved = versions != (back.after.cluster.version, addons(&back.after));
                // Marks of the run under way are as they were, so only what moved counts.
                let moved_things: Vec<&String> =
                    found.iter().filter(|f| f.contains(": was ")).collect();
                if moved || !moved_things.is_empty() {
                    wrong.push(format!("refused after {at}, and yet {moved_things:?}"));
                }
                let retired = walk.origin(i).1;
                // A kubelet of the newer minor stays, and none may be newer than the control plane.
                let renewed = walk.stops[..=i].iter().any(|s| {
                    matches!(
                        s.spec,
                        StepSpec::DriftPool { .. } | StepSpec::RestartFargate { .. }
                    )
                });
                let named = renewed && error.message.contains("kubelet");
                if hop.is_some() && !retired && !named {
                    wrong.push(format!("after {at}: {}", error.message));
                }
            }
            (other, _) => wrong.push(format!("after {at}: {other:?}\n{}", back.log)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Before the first hop there is nothing to roll back.
    let begins_with_hop = matches!(walk.stops[0].spec, StepSpec::ControlPlane { .. });
    assert!(begins_with_hop || refused > 0, "{back_to:?}");
    assert!(!back_to.is_empty());
}

swept!(sweep_versions:
    the_control_plane_of_expense_dev_rolls_back_one_minor_until_blue_is_deleted: "expense-dev", 4,
    the_control_plane_of_minimal_rolls_back_one_minor_until_blue_is_deleted: "minimal", 5,
    the_control_plane_of_multi_hop_rolls_back_by_its_last_hop_only: "multi-hop", 11,
    the_control_plane_of_self_managed_rolls_back_by_its_last_hop_only: "self-managed", 9,
    the_control_plane_of_karpenter_blue_green_rolls_back_until_blue_is_deleted: "karpenter-blue-green", 9,
    the_control_plane_of_karpenter_drift_rolls_back_until_karpenter_replaces_a_node: "karpenter-drift", 5,
    the_control_plane_of_fargate_rolls_back_until_a_pod_is_restarted: "fargate", 5,
    the_control_plane_of_auto_mode_rolls_back_with_its_nodes: "auto-mode", 1,
    the_control_plane_of_windows_rolls_back_until_blue_is_deleted: "windows", 7,
    the_control_plane_of_eksctl_rolls_back_until_a_blue_is_deleted: "eksctl", 11,
    the_control_plane_of_mixed_rolls_back_until_a_node_is_replaced_for_good: "mixed", 25,
);
