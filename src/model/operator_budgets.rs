//! Budgets that an operator runs: it lets a pod go itself, once it has moved what the pod does, or does not let go at all.
//!
//! CloudNativePG and Zalando put a budget on the role label of a primary, Strimzi one of `maxUnavailable: 0` on its brokers,
//! Longhorn one on every instance manager. All of them watch for a node that is cordoned, or for an eviction.

use super::kube::{Owner, Pdb, Pod};

/// Kinds whose pods Kubernetes itself makes again.
const BUILT_IN_KINDS: [&str; 6] = [
    "ReplicaSet",
    "StatefulSet",
    "ReplicationController",
    "DaemonSet",
    "Job",
    "Node",
];
/// Labels by which a budget selects one pod of a StatefulSet without any operator.
const POD_NAME_LABELS: [&str; 2] = [
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
];

/// Whether a custom resource makes the pods of this owner.
pub fn is_custom_owner(owner: &Owner) -> bool {
    !BUILT_IN_KINDS.contains(&owner.kind.as_str())
}

/// Whether an operator runs the budget, and how that shows: it belongs to a custom resource, or its pods do, or it selects
/// some of the pods of one owner only (by a role that moves). `pods`: all pods of its namespace, or more.
pub fn run_by<'a>(budget: &Pdb, pods: impl Iterator<Item = &'a Pod> + Clone) -> Option<String> {
    // From the surest sign to the weakest.
    if let Some(owner) = &budget.owner {
        return Some(format!("it belongs to {} {}", owner.kind, owner.name));
    }
    let selector = budget.selector.as_ref()?;
    let here = pods.filter(|p| p.key.namespace == budget.key.namespace && !p.is_finished());
    let selected = |p: &&Pod| selector.matches(&p.labels);
    let owners = || {
        let selected = here.clone().filter(selected);
        selected.filter_map(|p| p.owner.as_ref())
    };
    if let Some(owner) = owners().find(|o| is_custom_owner(o)) {
        return Some(format!("its pods belong to {} {}", owner.kind, owner.name));
    }
    // A budget on a single pod by its name is a user's own, not a role that an operator moves.
    let names_pods = |key: &String| POD_NAME_LABELS.contains(&key.as_str());
    let expressions = selector.expressions.iter().map(|e| &e.key);
    if (selector.match_labels.keys().chain(expressions)).any(names_pods) {
        return None;
    }
    let some_only = |owner: &&Owner| {
        let of_owner = here.clone();
        let mut of_owner =
            of_owner.filter(|p| p.owner.as_ref().is_some_and(|o| o.uid == owner.uid));
        owner.kind == "StatefulSet" && of_owner.any(|p| !selected(&p))
    };
    let owner = owners().find(some_only)?;
    Some(format!(
        "it selects some of the pods of {} {} only, by a label that moves between them",
        owner.kind, owner.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kube::{NamespacedName, Selector};
    use crate::steps::drain::budget::tests::pdb;
    use crate::steps::evictable::tests::pod;

    fn of(kind: &str, name: &str, role: &str) -> Pod {
        let mut pod = pod(name, "n");
        pod.owner = Some(Owner {
            kind: kind.into(),
            name: "db".into(),
            uid: "uid-db".into(),
        });
        pod.labels.insert("role".into(), role.into());
        pod
    }

    fn on_label(key: &str, value: &str) -> Pdb {
        let mut budget = (*pdb("db", 0, 1, 1, 1)).clone();
        budget.key = NamespacedName::new("shop", "db");
        budget.selector = Some(Selector {
            match_labels: [(key.to_owned(), value.to_owned())].into(),
            expressions: vec![],
        });
        budget
    }

    #[test]
    fn a_budget_over_pods_of_a_custom_resource_or_on_a_role_is_an_operators() {
        let cnpg = [
            of("Cluster", "db-1", "primary"),
            of("Cluster", "db-2", "replica"),
        ];
        let spilo = [
            of("StatefulSet", "db-0", "master"),
            of("StatefulSet", "db-1", "replica"),
        ];
        let by = |pods: &[Pod], key: &str, value: &str| run_by(&on_label(key, value), pods.iter());
        assert!(by(&cnpg, "app", "web").is_some_and(|why| why.contains("Cluster db")));
        assert!(by(&spilo, "role", "master").is_some_and(|why| why.contains("StatefulSet db")));
        // A chart's budget over all of a StatefulSet's pods, or over a Deployment's in a rollout, is nobody's but the user's.
        assert_eq!(by(&spilo, "app", "web"), None);
        let rollout = [
            of("ReplicaSet", "web-1", "a"),
            of("ReplicaSet", "web-2", "b"),
        ];
        assert_eq!(by(&rollout, "role", "a"), None);
        let mut owned = on_label("app", "web");
        owned.owner = cnpg[0].owner.clone();
        assert!(run_by(&owned, rollout.iter()).is_some());
    }
}
