//! Green is asked to be no worse than blue is: what EKS reports of both, and a DaemonSet that is Ready on neither, is no
//! reason to wait for it. Pure.

use crate::k8s::cache::CacheSnapshot;
use crate::model::aws_status::NodegroupStatus;
use crate::model::eks::{HealthIssue, Nodegroup};
use crate::model::kube::Pod;

/// Whether a pod of the owner with that uid is Ready on a node of the group.
pub fn is_ready_on(snapshot: &CacheSnapshot, group: &str, owner: &str) -> bool {
    let nodes = snapshot.nodes.values();
    let mut of_group = nodes.filter(|n| n.nodegroup_name() == Some(group));
    of_group.any(|node| {
        let pods = snapshot.pods.on_node(&node.name);
        let is_of = |p: &Pod| p.owner.as_ref().is_some_and(|o| o.uid == owner);
        pods.iter().any(|p| p.ready && is_of(p))
    })
}

/// What EKS reports of green and not of blue, and whether green is DEGRADED for nothing else than blue.
pub fn issues_beyond_blue(green: &Nodegroup, blue_codes: &[String]) -> (bool, Vec<HealthIssue>) {
    let of_blue = |i: &HealthIssue| blue_codes.contains(&i.code);
    // Compared by code: the messages name the group's own resources.
    let (same, new): (Vec<HealthIssue>, Vec<HealthIssue>) =
        green.health.iter().cloned().partition(of_blue);
    let degraded_as_blue =
        green.status == NodegroupStatus::Degraded && !same.is_empty() && new.is_empty();
    (degraded_as_blue, new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::fixture::{add_group, empty_cluster};

    fn degraded(codes: &[&str]) -> Nodegroup {
        let mut inventory = empty_cluster("c", 29);
        add_group(&mut inventory, "green", 29, 0);
        let mut green = inventory.nodegroups.remove(0);
        green.status = NodegroupStatus::Degraded;
        let issue = |code: &&str| HealthIssue {
            code: (*code).to_owned(),
            message: "no".to_owned(),
            resource_ids: vec![],
        };
        green.health = codes.iter().map(issue).collect();
        green
    }

    #[test]
    fn green_is_not_waited_for_because_of_what_eks_reports_of_blue_too() {
        let blue = ["AsgInstanceLaunchFailures".to_owned()];
        let same = degraded(&["AsgInstanceLaunchFailures"]);
        assert_eq!(issues_beyond_blue(&same, &blue), (true, vec![]));
        let more = degraded(&["AsgInstanceLaunchFailures", "AccessDenied"]);
        let (as_blue, new) = issues_beyond_blue(&more, &blue);
        assert!(!as_blue && new.len() == 1 && new[0].code == "AccessDenied");
        // DEGRADED without a reason, or for a reason of its own, is waited for.
        assert!(!issues_beyond_blue(&degraded(&[]), &blue).0);
        assert!(!issues_beyond_blue(&same, &[]).0);
    }
}
