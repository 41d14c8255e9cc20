//! What node groups serve (target groups by ARN, classic load balancers by name): who fills it, and from which nodes it can
//! be served. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Inventory;
use crate::model::elb::{ClassicBalancer, TargetGroup, cluster_owned, controller_owned};
use crate::model::kube::{Pod, Service};

/// Whether a controller fills this target group and would undo what somebody else does to it.
pub fn is_controlled(inventory: &Inventory, group: &TargetGroup) -> bool {
    let bound = inventory
        .target_group_bindings
        .iter()
        .any(|b| b.target_group_arn.as_ref() == Some(&group.arn) && !b.multi_cluster);
    bound || is_tagged_by_controller(inventory, &group.arn, &group.tags)
}

/// Whether a controller fills this target group from nodes. With `multiClusterTargetGroup` it lets others register targets
/// too (LBC-4), so that a target group which an Auto Scaling group fills besides is the user's.
pub fn is_filled_from_nodes(inventory: &Inventory, group: &TargetGroup) -> bool {
    let shared = inventory
        .target_group_bindings
        .iter()
        .any(|b| b.target_group_arn.as_ref() == Some(&group.arn) && b.multi_cluster);
    let attached = || {
        inventory
            .asgs
            .values()
            .any(|a| a.registers_with(&group.arn))
    };
    is_controlled(inventory, group) || (shared && !attached())
}

/// No controller attaches an Auto Scaling group (LBC-9): where one is attached, a tag that only names the cluster is no
/// controller's.
fn is_tagged_by_controller(
    inventory: &Inventory,
    served: &str,
    tags: &BTreeMap<String, String>,
) -> bool {
    let attached = || inventory.asgs.values().any(|a| a.registers_with(served));
    controller_owned(tags) || (cluster_owned(tags) && !attached())
}

/// The classic load balancer of that name.
pub fn find_classic_balancer<'a>(
    inventory: &'a Inventory,
    name: &str,
) -> Option<&'a ClassicBalancer> {
    inventory.classic_balancers.iter().find(|b| b.name == name)
}

/// Whether a controller fills this classic load balancer.
pub fn is_classic_controlled(inventory: &Inventory, balancer: &ClassicBalancer) -> bool {
    is_tagged_by_controller(inventory, &balancer.name, &balancer.tags)
}

/// Instances of a node group, by its nodes and its Auto Scaling groups.
fn instances_of_group<'a>(inventory: &'a Inventory, group: &'a str) -> BTreeSet<&'a str> {
    let nodes = inventory.nodes_of(group).filter_map(|n| n.instance_id());
    let asgs = inventory.asgs_of(group);
    let in_asgs = asgs.flat_map(|a| a.instances.iter().map(|i| i.id.as_str()));
    nodes.chain(in_asgs).collect()
}

/// What the instances of each node group serve: what their Auto Scaling groups fill, and where they are registered.
pub fn targets_by_group(inventory: &Inventory) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for group in &inventory.nodegroups {
        let asgs = inventory.asgs_of(&group.name);
        // Both sources count: an Auto Scaling group may fill a target group before its instances show, and somebody may
        // have registered instances by hand.
        let mut served: BTreeSet<String> = asgs
            .flat_map(|a| a.registration_targets().cloned())
            .collect();
        let ids = instances_of_group(inventory, &group.name);
        for (arn, targets) in &inventory.target_health {
            if targets.iter().any(|t| ids.contains(t.id.as_str())) {
                served.insert(arn.clone());
            }
        }
        all.insert(group.name.clone(), served);
    }
    all
}

/// What a controller fills from nodes, of what a node group serves: instance target groups and classic load balancers.
pub fn filled_by_controller(inventory: &Inventory, behind: &BTreeSet<String>) -> Vec<String> {
    let of_instances = |g: &&TargetGroup| {
        g.target_type == "instance" && behind.contains(&g.arn) && is_filled_from_nodes(inventory, g)
    };
    let groups = inventory.target_groups.iter().filter(of_instances);
    let classic = inventory.classic_balancers.iter();
    let classic =
        classic.filter(|b| behind.contains(&b.name) && is_classic_controlled(inventory, b));
    let groups = groups.map(|g| g.arn.clone());
    groups.chain(classic.map(|b| b.name.clone())).collect()
}

/// Instances of a node group that are registered there and that no Auto Scaling group keeps registered, with their ports.
pub fn manually_registered(
    inventory: &Inventory,
    group: &str,
    served: &str,
) -> Vec<(String, Option<i32>)> {
    if inventory.asgs_of(group).any(|a| a.registers_with(served)) {
        return Vec::new();
    }
    let ids = instances_of_group(inventory, group);
    let targets = inventory.target_health.get(served).into_iter().flatten();
    let here = targets.filter(|t| ids.contains(t.id.as_str()) && !t.state.is_draining());
    here.map(|t| (t.id.clone(), t.port)).collect()
}

/// What makes a node healthy only while certain pods run on it.
pub enum LocalBackend<'a> {
    /// A Service with `externalTrafficPolicy: Local`.
    Service(&'a Service),
    /// Pods that answer on a port of their node, and of no DaemonSet: they move with the drain.
    HostPort { port: i32, pods: Vec<&'a Pod> },
}

impl LocalBackend<'_> {
    /// Returns the beginning of a finding's sentence, which says what makes a node healthy.
    pub fn sentence_start(&self) -> String {
        match self {
            Self::Service(service) => {
                format!("service {} has externalTrafficPolicy Local", service.key)
            }
            Self::HostPort { port, pods } => {
                let names: Vec<String> = pods.iter().take(3).map(|p| p.key.to_string()).collect();
                format!(
                    "pods answer on port {port} of their own nodes ({})",
                    names.join(", ")
                )
            }
        }
    }

    /// Whether the pod is one of those.
    pub fn is_served_by(&self, pod: &Pod) -> bool {
        match self {
            Self::Service(service) => {
                let mut selector = service.selector.iter();
                !service.selector.is_empty()
                    && pod.key.namespace == service.key.namespace
                    && selector.all(|(k, v)| pod.labels.get(k) == Some(v))
            }
            Self::HostPort { pods, .. } => pods.iter().any(|p| p.uid == pod.uid),
        }
    }
}

/// The ports of nodes that are asked there: the target group's own and those of its targets, or those that a classic load
/// balancer's listeners send traffic to.
fn backend_ports(inventory: &Inventory, served: &str) -> BTreeSet<i32> {
    let group = inventory.target_groups.iter().find(|g| g.arn == served);
    let own = group.and_then(|g| g.port);
    let targets = inventory.target_health.get(served).into_iter().flatten();
    let of_targets = targets.filter_map(|t| t.port);
    let classic = find_classic_balancer(inventory, served).into_iter();
    let classic = classic.flat_map(|b| b.instance_ports.iter().copied());
    own.into_iter().chain(of_targets).chain(classic).collect()
}

/// Pods that hold one of the ports of their own nodes, on nodes that are behind it.
fn host_port_pods<'a>(inventory: &'a Inventory, served: &str) -> Vec<(i32, &'a Pod)> {
    let ports = backend_ports(inventory, served);
    let of_service = |port: &i32| {
        let mut services = inventory.services.iter();
        services.any(|s| s.node_ports.contains(port))
    };
    let ports: BTreeSet<i32> = ports.into_iter().filter(|p| !of_service(p)).collect();
    if ports.is_empty() {
        return Vec::new();
    }
    // Only pods on nodes that are behind it matter: the same port on other nodes answers somebody else.
    let filled = inventory.asgs.values().filter(|a| a.registers_with(served));
    let in_asgs = filled.flat_map(|a| a.instances.iter().map(|i| i.id.as_str()));
    let targets = inventory.target_health.get(served).into_iter().flatten();
    let ids: BTreeSet<&str> = in_asgs.chain(targets.map(|t| t.id.as_str())).collect();
    let nodes = inventory.nodes.iter();
    let here = nodes.filter(|n| n.instance_id().is_some_and(|id| ids.contains(id)));
    let names: BTreeSet<&str> = here.map(|n| n.name.as_str()).collect();
    let pods = inventory.pods.iter();
    let on_them = pods.filter(|p| {
        !p.is_finished() && !p.mirror && p.node.as_deref().is_some_and(|n| names.contains(n))
    });
    let holds = |p: &'a Pod| {
        let taken = p.scheduling.host_ports.iter().map(|taken| taken.port);
        let port = { taken }.find(|port| ports.contains(port))?;
        Some((port, p))
    };
    on_them.filter_map(holds).collect()
}

/// What makes only some nodes healthy there, if anything does; else every node that is Ready serves.
pub fn find_local_backend<'a>(inventory: &'a Inventory, served: &str) -> Option<LocalBackend<'a>> {
    let ports = backend_ports(inventory, served);
    let local = inventory.services.iter().find(|s| {
        s.external_traffic_policy.as_deref() == Some("Local")
            && s.node_ports.iter().any(|p| ports.contains(p))
    });
    if let Some(service) = local {
        return Some(LocalBackend::Service(service));
    }
    let pods = host_port_pods(inventory, served).into_iter();
    let moving: Vec<(i32, &Pod)> = pods.filter(|(_, p)| !p.is_daemon_pod()).collect();
    let port = moving.first()?.0;
    let pods = moving.into_iter().map(|(_, pod)| pod).collect();
    Some(LocalBackend::HostPort { port, pods })
}

/// DaemonSets, by uid, whose pods answer there on ports of their own nodes: a node is healthy while it has one.
pub fn find_daemon_backends(inventory: &Inventory, served: &str) -> BTreeSet<String> {
    let pods = host_port_pods(inventory, served).into_iter();
    let owners = pods.filter_map(|(_, p)| p.owner.as_ref().filter(|_| p.is_daemon_pod()));
    owners.map(|o| o.uid.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::group_owner::OwningTool;
    use crate::model::kube::{NamespacedName, Owner, TargetGroupBinding};
    use crate::model::scheduling::HostPort;
    use crate::route::fixture::*;

    fn group(inventory: &mut Inventory) -> &mut TargetGroup {
        inventory
            .target_groups
            .iter_mut()
            .find(|g| g.name == "expense-blue-tg")
            .unwrap()
    }

    #[test]
    fn a_controllers_target_group_is_told_by_its_tags_and_a_users_is_not_taken_for_one() {
        let judge = |tags: BTreeMap<String, String>, attached: bool| {
            let mut i = expense_dev();
            group(&mut i).tags = tags;
            if !attached {
                i.asgs.values_mut().for_each(|a| a.target_groups.clear());
            }
            let group = i.target_groups.iter().find(|g| g.name == "expense-blue-tg");
            is_controlled(&i, group.unwrap())
        };
        // The cloud provider's.
        let service = string_map([
            ("kubernetes.io/service-name", "expense/web"),
            ("kubernetes.io/cluster/expense-dev", "owned"),
        ]);
        assert!(judge(service.clone(), false));
        // Somebody attached it all the same: it is the controller's.
        assert!(judge(service, true));
        // Auto Mode's.
        assert!(judge(
            string_map([("service.eks.amazonaws.com/stack", "expense/web")]),
            false
        ));
        assert!(judge(
            string_map([("eks:eks-cluster-name", "expense-dev")]),
            false
        ));
        // What whoever tags everything of a cluster has made and attached.
        for tags in [
            string_map([("kubernetes.io/cluster/expense-dev", "owned")]),
            string_map([("eks:eks-cluster-name", "expense-dev")]),
        ] {
            assert!(!judge(tags, true));
        }
        assert!(!judge(
            string_map([("kubernetes.io/cluster/expense-dev", "shared")]),
            false
        ));
        assert!(!judge(string_map([("team", "expense")]), false));
    }

    #[test]
    fn a_binding_that_shares_its_target_group_fills_it_where_no_auto_scaling_group_does() {
        let filled = |attached: bool| {
            let mut i = expense_dev();
            i.target_group_bindings.push(TargetGroupBinding {
                key: NamespacedName::new("expense", "web"),
                target_group_arn: Some(tg_arn("expense-blue-tg")),
                target_type: Some("instance".to_owned()),
                service: Some("frontend".to_owned()),
                node_selector: None,
                multi_cluster: true,
            });
            if !attached {
                i.asgs.values_mut().for_each(|a| a.target_groups.clear());
            }
            let behind = targets_by_group(&i)["expense-blue"].clone();
            filled_by_controller(&i, &behind)
        };
        assert_eq!(filled(false), [tg_arn("expense-blue-tg")]);
        assert!(filled(true).is_empty());
    }

    #[test]
    fn a_group_that_a_tool_owns_is_owned_whatever_else_its_tags_say() {
        let owner = |tags: BTreeMap<String, String>| {
            let mut i = expense_dev();
            i.nodegroups[0].tags = tags;
            crate::route::owning_tool(&i.nodegroups[0])
        };
        let in_tree = ("kubernetes.io/cluster/expense-dev", "owned");
        assert_eq!(owner(string_map([in_tree])), None);
        for (tag, tool) in [
            (
                ("alpha.eksctl.io/cluster-name", "expense-dev"),
                OwningTool::Eksctl,
            ),
            (
                ("aws:cloudformation:stack-name", "nodes"),
                OwningTool::Cloudformation,
            ),
            (("ManagedBy", "Terraform"), OwningTool::Terraform),
        ] {
            assert_eq!(owner(string_map([in_tree, tag])), Some(tool), "{tag:?}");
        }
    }

    /// Port 30080 is a host port of the first moving pod of blue, and no Service's.
    fn by_host_port(daemon: bool) -> Inventory {
        let mut i = expense_dev();
        i.services.iter_mut().for_each(|s| s.node_ports.clear());
        let port = group(&mut i).port.unwrap();
        let nodes: BTreeSet<String> = i.nodes_of("expense-blue").map(|n| n.name.clone()).collect();
        let on_blue =
            |p: &&mut Pod| !p.is_daemon_pod() && p.node.as_ref().is_some_and(|n| nodes.contains(n));
        let pod = i.pods.iter_mut().find(on_blue).unwrap();
        pod.scheduling.host_ports = vec![HostPort::tcp_port(port)];
        if daemon {
            pod.owner = Some(Owner {
                kind: "DaemonSet".to_owned(),
                name: "ingress".to_owned(),
                uid: "ds".to_owned(),
            });
        }
        i
    }

    #[test]
    fn a_host_port_makes_a_node_serve_only_while_its_pod_is_there() {
        let served = tg_arn("expense-blue-tg");
        assert!(find_local_backend(&expense_dev(), &served).is_none());
        let moving = by_host_port(false);
        let backend = find_local_backend(&moving, &served).unwrap();
        assert!(
            backend.sentence_start().contains("30080"),
            "{}",
            backend.sentence_start()
        );
        assert!(find_daemon_backends(&moving, &served).is_empty());
        // A DaemonSet's pod stays, and green's nodes have their own.
        let daemon = by_host_port(true);
        assert!(find_local_backend(&daemon, &served).is_none());
        assert_eq!(
            find_daemon_backends(&daemon, &served),
            ["ds".to_owned()].into()
        );
        // Behind a node port every node forwards to it.
        let mut forwarded = by_host_port(false);
        forwarded.services[0].node_ports = vec![30080];
        assert!(find_local_backend(&forwarded, &served).is_none());
        // A pod on a node that is not behind it is nobody's business.
        let mut elsewhere = by_host_port(false);
        elsewhere
            .asgs
            .values_mut()
            .for_each(|a| a.target_groups.clear());
        elsewhere.target_health.clear();
        assert!(find_local_backend(&elsewhere, &served).is_none());
    }

    #[test]
    fn what_an_auto_scaling_group_keeps_registered_is_not_registered_by_hand() {
        let mut i = expense_dev();
        let served = tg_arn("expense-blue-tg");
        assert!(manually_registered(&i, "expense-blue", &served).is_empty());
        i.asgs.values_mut().for_each(|a| a.target_groups.clear());
        assert_eq!(manually_registered(&i, "expense-blue", &served).len(), 3);
        assert!(targets_by_group(&i)["expense-blue"].contains(&served));
    }
}
