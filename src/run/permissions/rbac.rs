//! The ClusterRole.

use std::fmt::Write as _;

use super::needs::PermissionNeeds;
use crate::k8s::access::ResourceVerb;
use crate::model::marks::{RUN_NAME, RUN_NAMESPACE};

/// One rule: API groups, resources, verbs.
type RbacRule = (&'static str, &'static str, &'static str);

/// What an upgrade reads.
const READ_RULES: &[RbacRule] = &[
    ("\"\"", "nodes, pods", "list, watch"),
    (
        "\"\"",
        "persistentvolumes, services, serviceaccounts, resourcequotas, limitranges",
        "list",
    ),
    (
        "apps",
        "deployments, replicasets, statefulsets, daemonsets",
        "list",
    ),
    ("batch", "jobs", "list"),
    ("policy", "poddisruptionbudgets", "list, watch"),
    ("storage.k8s.io", "volumeattachments, csinodes", "list"),
    ("scheduling.k8s.io", "priorityclasses", "list"),
    ("elbv2.k8s.aws", "targetgroupbindings", "list"),
    ("eks.amazonaws.com", "targetgroupbindings", "list"),
    ("crd.k8s.amazonaws.com", "eniconfigs", "list"),
    ("\"\"", "namespaces", "list"),
    (
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations, mutatingwebhookconfigurations",
        "list",
    ),
];

/// What is read where a node is Karpenter's or EKS Auto Mode's.
const NODE_POOL_RULES: &[RbacRule] = &[
    ("karpenter.sh", "nodepools, nodeclaims", "list"),
    ("karpenter.k8s.aws", "ec2nodeclasses", "list"),
];

/// What `eksup snapshot` reads besides, and so a rehearsal from the live cluster.
const SNAPSHOT_RULES: &[RbacRule] = &[
    ("\"\"", "persistentvolumeclaims", "list"),
    ("discovery.k8s.io", "endpointslices", "list"),
    ("storage.k8s.io", "storageclasses", "list"),
];

/// The run's own records: API group, resource, and the verb that changes one.
const RUN_RECORD_RULES: &[RbacRule] = &[
    ("\"\"", "configmaps", "patch"),
    ("coordination.k8s.io", "leases", "update"),
];

/// What an upgrade changes.
fn change_rules(needs: &PermissionNeeds) -> Vec<RbacRule> {
    let mut rules = vec![
        ("\"\"", "nodes", "patch"),
        ("\"\"", "pods/eviction", "create"),
    ];
    // At a deadline, where the plan says so; and pods of green that are not Ready, in a rollback.
    rules.push(("\"\"", "pods", "delete"));
    if needs.restart_deployments {
        rules.push(("apps", "replicasets", "get"));
        rules.push(("apps", "deployments", "get, patch"));
    }
    if needs.change_node_pools {
        rules.push(("karpenter.sh", "nodepools", "patch"));
    }
    if needs.make_node_pools {
        rules.push(("karpenter.sh", "nodepools, nodeclaims", "create, delete"));
        rules.push(("karpenter.k8s.aws", "ec2nodeclasses", "create, delete"));
    }
    rules
}

/// What a run of the plan reads.
fn read_rules(needs: &PermissionNeeds) -> impl Iterator<Item = RbacRule> {
    let of_pools = NODE_POOL_RULES.iter().filter(|_| needs.reads_node_pools);
    READ_RULES.iter().chain(of_pools).copied()
}

/// Every verb that a run of the plan needs, as [`render_yaml`] prints it; what only a snapshot reads is left out, and
/// aws-auth, without which a run goes on.
pub fn required_verbs(needs: &PermissionNeeds) -> Vec<ResourceVerb<'static>> {
    let mut verbs = Vec::new();
    // Rules name several resources and verbs at once; RBAC judges each pair for itself.
    for (groups, resources, each) in read_rules(needs).chain(change_rules(needs)) {
        for (resource, verb) in resources
            .split(", ")
            .flat_map(|r| each.split(", ").map(move |v| (r, v)))
        {
            verbs.push(ResourceVerb {
                verb,
                group: groups.trim_matches('"'),
                resource,
                namespace: None,
                name: None,
            });
        }
    }
    for (group, resource, changed) in RUN_RECORD_RULES {
        // A create cannot be limited to a name: the API server does not know it yet when it judges.
        for (verb, name) in [
            ("create", None),
            ("get", Some(RUN_NAME)),
            (*changed, Some(RUN_NAME)),
        ] {
            verbs.push(ResourceVerb {
                verb,
                group: group.trim_matches('"'),
                resource,
                namespace: Some(RUN_NAMESPACE),
                name,
            });
        }
    }
    verbs
}

/// ClusterRole, Role for the run's own records, and bindings to a group that an access entry names. What the default
/// roles of every cluster give (`/version`, discovery) is not repeated.
pub fn render_yaml(needs: &PermissionNeeds) -> String {
    let mut rules: Vec<RbacRule> = read_rules(needs)
        .chain(SNAPSHOT_RULES.iter().copied())
        .collect();
    rules.extend(change_rules(needs));
    let mut out = "# Bind an access entry of type STANDARD with kubernetesGroups: [eksup] to the principal that runs eksup.\n".to_owned();
    out += "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: eksup\nrules:\n";
    for (groups, resources, verbs) in rules {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "  - apiGroups: [{groups}]\n    resources: [{resources}]\n    verbs: [{verbs}]"
        );
    }
    out += &render_binding("ClusterRoleBinding", "ClusterRole", None);
    let _ = write!(
        out,
        "---\n# The run's journal and lock.\napiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata:\n  name: eksup\n  namespace: {RUN_NAMESPACE}\nrules:\n"
    );
    for (group, resource, changed) in RUN_RECORD_RULES {
        let _ = writeln!(
            out,
            "  - apiGroups: [{group}]\n    resources: [{resource}]\n    verbs: [create]"
        );
        let _ = writeln!(
            out,
            "  - apiGroups: [{group}]\n    resources: [{resource}]\n    resourceNames: [{RUN_NAME}]\n    verbs: [get, {changed}]"
        );
    }
    // Where it is missing, a finding says what is not known: no run needs it.
    if needs.reads_node_access {
        let _ = writeln!(
            out,
            "  # Whether the role of a self-managed green may join.\n  - apiGroups: [\"\"]\n    resources: [configmaps]\n    resourceNames: [aws-auth]\n    verbs: [get]"
        );
    }
    out + &render_binding("RoleBinding", "Role", Some(RUN_NAMESPACE))
}

fn render_binding(kind: &str, role: &str, namespace: Option<&str>) -> String {
    let namespace = namespace
        .map(|n| format!("\n  namespace: {n}"))
        .unwrap_or_default();
    format!(
        "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: eksup{namespace}\nroleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: {role}\n  name: eksup\nsubjects:\n  - apiGroup: rbac.authorization.k8s.io\n    kind: Group\n    name: eksup\n"
    )
}
