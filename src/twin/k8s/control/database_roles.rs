//! What the operators of PostgreSQL clusters do when a node is closed: CloudNativePG and Zalando's move the primary to a
//! replica on an open node, so that the budget on the role's label lets its old pod go (CTL-4, CTL-5). A primary that is
//! gone is followed by a replica.

use std::sync::Arc;
use std::time::Duration;

use super::super::KubeEvent;
use super::super::cluster::SimCluster;
use super::super::json::{as_object_mut, slot_at};
use super::super::kinds::PODS;
use super::super::selector::{LabelSelector, Labels};
use super::super::store::{ObjectKey, ObjectName};
use super::super::typed_views::PodView;
use super::ControllerWork;

/// How an operator marks its pods.
struct RoleLabels {
    /// The kind by which a fault rule stops it.
    kind: &'static str,
    /// The label with the database's name.
    database: &'static str,
    /// Labels with the role.
    roles: &'static [&'static str],
    primary: &'static str,
    replica: &'static str,
}

const KNOWN_OPERATORS: &[RoleLabels] = &[
    RoleLabels {
        kind: "Cluster",
        database: "cnpg.io/cluster",
        roles: &["cnpg.io/instanceRole", "role"],
        primary: "primary",
        replica: "replica",
    },
    RoleLabels {
        kind: "postgresql",
        database: "cluster-name",
        roles: &["spilo-role"],
        primary: "master",
        replica: "replica",
    },
];

/// How long an operator takes from an event to its switchover.
const SWITCHOVER_DELAY: Duration = Duration::from_secs(8);
/// When it looks again while it finds nobody to switch to.
const SWITCHOVER_RETRY_INTERVAL: Duration = Duration::from_secs(10);

impl RoleLabels {
    fn role_of<'a>(&self, pod: &'a PodView) -> Option<&'a str> {
        let mut roles = self.roles.iter();
        roles.find_map(|r| pod.labels.get(*r)).map(String::as_str)
    }
}

fn role_labels_of(pod: &PodView) -> Option<(&'static RoleLabels, String)> {
    KNOWN_OPERATORS.iter().find_map(|marks| {
        let name = pod.labels.get(marks.database)?;
        let zalando = marks.kind != "postgresql"
            || pod.labels.get("application").is_some_and(|a| a == "spilo");
        zalando.then(|| (marks, name.clone()))
    })
}

/// A pod's place, readiness or node has changed: its operator looks at the database.
pub fn notice_pod_change(cluster: &mut SimCluster, pod: &PodView) {
    if let Some((marks, name)) = role_labels_of(pod) {
        let database = format!("{}={name}", marks.database);
        let work = ControllerWork::Roles(ObjectName::new(pod.ns.clone(), database));
        if cluster.queued.insert(work.clone()) {
            cluster.schedule_after(SWITCHOVER_DELAY, KubeEvent::Work(work));
        }
    }
}

/// Looks at a database: `label=name` in its namespace.
pub fn reconcile(cluster: &mut SimCluster, at: &ObjectName) {
    let Some((label, name)) = at.name.split_once('=') else {
        return;
    };
    let Some(marks) = KNOWN_OPERATORS.iter().find(|m| m.database == label) else {
        return;
    };
    // Without its operator nobody moves the primary, and the budget on its label holds the drain.
    if cluster.operators_down.contains(marks.kind) {
        return;
    }
    let selector = LabelSelector::from_map(&Labels::from([(label.to_owned(), name.to_owned())]));
    let mut pods = cluster.store.index.selected_pods(&at.ns, &selector);
    pods.retain(|p| p.is_active() && role_labels_of(p).is_some());
    // A pod whose node is gone counts as being on a closed node.
    let closed = |pod: &Arc<PodView>| {
        let node = cluster.store.index.nodes.get(&pod.node);
        node.is_none_or(|n| n.unschedulable)
    };
    let is_primary = |pod: &&Arc<PodView>| marks.role_of(pod) == Some(marks.primary);
    let primary = pods.iter().find(is_primary).cloned();
    // The primary is on an open node: nothing has to move.
    let stays = primary.as_ref().is_some_and(|p| !closed(p));
    if stays || pods.is_empty() {
        return;
    }
    let candidates = pods.iter().filter(|p| p.ready && !is_primary(p));
    let open = candidates.clone().find(|p| !closed(p)).cloned();
    // A primary that lives is given up for a better place only; one that is gone for any.
    let next = open.or_else(|| {
        let any = candidates.clone().next().cloned();
        any.filter(|_| primary.is_none())
    });
    // The old primary loses its label first, so that two primaries are never seen.
    match next {
        Some(next) => {
            if let Some(old) = &primary {
                set_role(cluster, marks, old, marks.replica);
            }
            set_role(cluster, marks, &next, marks.primary);
        }
        // No replica is fit yet: the operator looks again later, and the budget stands until then (CTL-4).
        None => cluster.schedule_after(
            SWITCHOVER_RETRY_INTERVAL,
            KubeEvent::RepeatWork(ControllerWork::Roles(at.clone())),
        ),
    }
}

fn set_role(cluster: &mut SimCluster, marks: &RoleLabels, pod: &PodView, role: &str) {
    let key = ObjectKey::new(PODS, pod.ns.clone(), pod.name.clone());
    cluster.change_object(&key, |p| {
        let labels = as_object_mut(slot_at(p, "metadata.labels"));
        for (n, label) in marks.roles.iter().enumerate() {
            if n == 0 || labels.contains_key(*label) {
                labels.insert((*label).to_owned(), role.into());
            }
        }
    });
}
