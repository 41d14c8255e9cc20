//! What a pod's volumes ask of a node: where they can be reached, who else uses them, how many a node takes (K8S-SCHED-5).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::cluster::SimCluster;
use super::json::{list_at, number_at, quantity_units, text_at, text_map_at, value_at};
use super::kinds::{ATTACHMENTS, CLAIMS, CSI_NODES, PODS, STORAGE_CLASSES, VOLUMES};
use super::node_affinity::NodeTerm;
use super::selector::Labels;
use super::store::{ObjectName, StoredObject};
use super::typed_views::{NodeView, PodView};
use super::volumes::{claims_of, volume_of_claim};

/// The class of volumes that somebody makes by hand, on nodes' own disks.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// By driver: the volumes' handles.
type Handles = BTreeMap<String, BTreeSet<String>>;

/// Labels, each with the values that will do.
type TopologyTerm = Vec<(String, Vec<String>)>;

/// What a pod's volumes ask of a node.
#[derive(Default)]
pub struct VolumeNeeds {
    /// Of each bound volume: one of these must match.
    bound: Vec<Vec<NodeTerm>>,
    /// Of each claim without a volume: labels, one set of which a node must have.
    unbound: Vec<Vec<TopologyTerm>>,
    /// Of each claim that waits for a volume made by hand: the nodes' terms of those there are.
    static_choices: Vec<Vec<Vec<NodeTerm>>>,
    /// Labels of bound volumes: where they are.
    topology: TopologyTerm,
    /// Claims that only one pod may use.
    single: Vec<ObjectName>,
    /// Counted against a node's limits.
    handles: Handles,
}

impl VolumeNeeds {
    /// Reads a pod's claims; an error is the scheduler's reason for all nodes.
    pub fn for_pod(cluster: &SimCluster, pod: &Value) -> Result<Self, String> {
        let mut needs = Self::default();
        for claim in claims_of(pod) {
            // A claim that is missing or being deleted keeps the pod off all nodes, so no node has to be looked at.
            let Some(object) = cluster.store.find_object(CLAIMS, &claim) else {
                return Err(format!(
                    "persistentvolumeclaim \"{}\" not found",
                    claim.name
                ));
            };
            if value_at(object, "metadata.deletionTimestamp").is_some() {
                let name = &claim.name;
                return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            // A ReadWriteOncePod claim can be used by one pod at a time (K8S-SCHED-5).
            if is_single_pod_claim(object) {
                needs.single.push(claim.clone());
            }
            if text_at(object, "spec.volumeName").is_empty() {
                needs.add_unbound(cluster, &claim, object)?;
            } else {
                needs.add_bound(cluster, &claim, object)?;
            }
        }
        Ok(needs)
    }

    fn add_unbound(
        &mut self,
        cluster: &SimCluster,
        name: &ObjectName,
        claim: &StoredObject,
    ) -> Result<(), String> {
        let unbound = || "pod has unbound immediate PersistentVolumeClaims".to_owned();
        let class = storage_class_of(cluster, claim).ok_or_else(unbound)?;
        // A class without a provisioner makes nothing: the volume has to exist already where the pod goes.
        if text_at(class, "provisioner") == NO_PROVISIONER {
            let options = static_volumes_for(cluster, claim).into_iter();
            self.static_choices
                .push(options.map(|v| node_terms_of(v)).collect());
            return Ok(());
        }
        // A class can limit where its volumes are made.
        let allowed = list_at(class, "allowedTopologies");
        if !allowed.is_empty() {
            let labels = |term: &Value| {
                let expressions = list_at(term, "matchLabelExpressions").iter();
                expressions
                    .map(|e| (text_at(e, "key").to_owned(), list_strings(e, "values")))
                    .collect()
            };
            self.unbound.push(allowed.iter().map(labels).collect());
        }
        // A volume that is still to be made counts against the node's limit as well.
        let handles = self.handles.entry(driver_of_class(class)).or_default();
        handles.insert(format!("{}/{}", name.ns, name.name));
        Ok(())
    }

    fn add_bound(
        &mut self,
        cluster: &SimCluster,
        name: &ObjectName,
        claim: &StoredObject,
    ) -> Result<(), String> {
        let missing = || {
            let volume = text_at(claim, "spec.volumeName");
            format!("persistentvolume \"{volume}\" not found")
        };
        let volume = volume_of_claim(cluster, name).ok_or_else(missing)?;
        // Required affinity ties the pod to the place where the volume is, by any label (K8S-VOL-6).
        if value_at(volume, "spec.nodeAffinity.required").is_some() {
            self.bound.push(node_terms_of(volume));
        }
        // Older volumes say their zone by labels only; a value can name several zones.
        for (key, value) in text_map_at(volume, "metadata.labels") {
            if TOPOLOGY_LABELS.contains(&key.as_str()) {
                self.topology
                    .push((key, value.split("__").map(str::to_owned).collect()));
            }
        }
        if let Some((driver, handle)) = volume_handle(volume) {
            self.handles.entry(driver).or_default().insert(handle);
        }
        Ok(())
    }

    /// Whether a node will do, were `gone` no longer on it; else why not, and whether it might help if pods went.
    pub fn check_node(
        &self,
        cluster: &SimCluster,
        node: &NodeView,
        gone: &[Arc<PodView>],
    ) -> Result<(), (&'static str, bool)> {
        // The wording of some messages changed with the version.
        let new_words = cluster.version >= NEW_WORDING_SINCE;
        let words = |new, old| if new_words { new } else { old };
        // The order is that of the real plugins: single use, limits, affinity, binding, zones.
        if self.single.iter().any(|c| is_claim_used(cluster, c, gone)) {
            let new = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod";
            let old = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
            return Err((words(new, old), true));
        }
        if self.exceeds_limit(cluster, node, gone) {
            return Err(("node(s) exceed max volume count", true));
        }
        let any = |terms: &Vec<NodeTerm>| terms.iter().any(|t| t.matches(node));
        if !self.bound.iter().all(any) {
            let new = "node(s) didn't match PersistentVolume's node affinity";
            return Err((
                words(new, "node(s) had volume node affinity conflict"),
                false,
            ));
        }
        let one = |node: &NodeView, (key, values): &(String, Vec<String>)| {
            node.labels.get(key).is_some_and(|v| values.contains(v))
        };
        let allowed = |topologies: &Vec<TopologyTerm>| {
            topologies.iter().any(|t| t.iter().all(|l| one(node, l)))
        };
        // Where a claim can be met by several volumes, one that the node can reach is enough.
        let there = |options: &Vec<Vec<NodeTerm>>| options.iter().any(|o| o.is_empty() || any(o));
        if !self.unbound.iter().all(allowed) || !self.static_choices.iter().all(there) {
            return Err((
                "node(s) didn't find available persistent volumes to bind",
                false,
            ));
        }
        // A node that says nothing of its place is taken to be anywhere.
        let is_placed = TOPOLOGY_LABELS
            .iter()
            .any(|key| node.labels.contains_key(*key));
        if is_placed && !self.topology.iter().all(|place| one(node, place)) {
            return Err(("node(s) had no available volume zone", false));
        }
        Ok(())
    }

    fn exceeds_limit(&self, cluster: &SimCluster, node: &NodeView, gone: &[Arc<PodView>]) -> bool {
        if self.handles.is_empty() {
            return false;
        }
        // Without a CSINode nothing is known of a limit, and the scheduler does not refuse.
        let Some(csi_node) = cluster
            .store
            .find_object(CSI_NODES, &ObjectName::new("", node.name.as_str()))
        else {
            return false;
        };
        // Only drivers that the pod uses and that state a limit matter.
        let limits: Vec<(&str, i64)> = list_at(csi_node, "spec.drivers")
            .iter()
            .filter_map(|d| Some((text_at(d, "name"), number_at(d, "allocatable.count")?)))
            .filter(|(driver, _)| self.handles.contains_key(*driver))
            .collect();
        if limits.is_empty() {
            return false;
        }
        let there = handles_on_node(cluster, node, gone);
        // A volume that the node has already does not count twice.
        limits.iter().any(|(driver, limit)| {
            let none = BTreeSet::new();
            let there = there.get(*driver).unwrap_or(&none);
            let new = self.handles[*driver].difference(there).count();
            new > 0 && (there.len() + new) as i64 > *limit
        })
    }
}

/// The first minor with the newer messages about volumes.
const NEW_WORDING_SINCE: crate::model::Minor = crate::model::Minor::new(34);

/// Labels that say where a volume or a node is.
const TOPOLOGY_LABELS: &[&str] = &[
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

fn list_strings(value: &Value, path: &str) -> Vec<String> {
    let values = list_at(value, path).iter().filter_map(Value::as_str);
    values.map(str::to_owned).collect()
}

fn node_terms_of(volume: &Value) -> Vec<NodeTerm> {
    let terms = list_at(volume, "spec.nodeAffinity.required.nodeSelectorTerms");
    terms.iter().map(NodeTerm::from_term).collect()
}

fn is_single_pod_claim(claim: &Value) -> bool {
    list_at(claim, "spec.accessModes")
        .iter()
        .any(|m| m == "ReadWriteOncePod")
}

/// Whether a pod on a node uses the claim.
fn is_claim_used(cluster: &SimCluster, claim: &ObjectName, gone: &[Arc<PodView>]) -> bool {
    let pods = cluster
        .store
        .index
        .pods
        .range(ObjectName::new(claim.ns.clone(), "")..);
    let here = pods.take_while(|(n, _)| n.ns == claim.ns).map(|(_, p)| p);
    let uses = |pod: &Arc<PodView>| {
        let object = cluster
            .store
            .find_object(PODS, &ObjectName::new(pod.ns.clone(), pod.name.clone()));
        object.is_some_and(|o| claims_of(o).contains(claim))
    };
    here.filter(|p| !p.node.is_empty() && !p.is_finished())
        .filter(|p| !gone.iter().any(|g| g.uid == p.uid))
        .any(uses)
}

/// The class of a claim.
pub fn storage_class_of<'a>(cluster: &'a SimCluster, claim: &Value) -> Option<&'a StoredObject> {
    let name = text_at(claim, "spec.storageClassName");
    cluster
        .store
        .find_object(STORAGE_CLASSES, &ObjectName::new("", name))
}

/// The CSI driver behind a class; the in-tree one for EBS is served by it too.
pub fn driver_of_class(class: &Value) -> String {
    match text_at(class, "provisioner") {
        "kubernetes.io/aws-ebs" => "ebs.csi.aws.com".to_owned(),
        other => other.to_owned(),
    }
}

/// The volumes made by hand that would do for a claim.
pub fn static_volumes_for<'a>(cluster: &'a SimCluster, claim: &Value) -> Vec<&'a StoredObject> {
    let size = |v: &Value, path: &str| quantity_units(value_at(v, path));
    let suits = |volume: &StoredObject| {
        let modes = list_at(volume, "spec.accessModes");
        text_at(volume, "status.phase") == "Available"
            && text_at(volume, "spec.storageClassName") == text_at(claim, "spec.storageClassName")
            && list_at(claim, "spec.accessModes")
                .iter()
                .all(|m| modes.contains(m))
            && size(volume, "spec.capacity.storage")
                >= size(claim, "spec.resources.requests.storage")
    };
    let all = cluster.store.objects_of(VOLUMES, "").map(|(_, v)| v);
    all.filter(|v| suits(v)).collect()
}

/// Whether a volume made by hand can be reached from a node.
pub fn is_volume_reachable(volume: &Value, node: &NodeView) -> bool {
    let terms = node_terms_of(volume);
    terms.is_empty() || terms.iter().any(|t| t.matches(node))
}

fn volume_handle(volume: &Value) -> Option<(String, String)> {
    let csi = value_at(volume, "spec.csi")?;
    Some((
        text_at(csi, "driver").to_owned(),
        text_at(csi, "volumeHandle").to_owned(),
    ))
}

/// What is counted on a node: the volumes of its pods, and those that are attached to it.
fn handles_on_node(cluster: &SimCluster, node: &NodeView, gone: &[Arc<PodView>]) -> Handles {
    let mut found = Handles::new();
    let mut add = |volume: Option<&StoredObject>| {
        if let Some((driver, handle)) = volume.and_then(|v| volume_handle(v)) {
            found.entry(driver).or_default().insert(handle);
        }
    };
    // What pods of the node use counts even before it is attached.
    for pod in cluster.store.pods_on(&node.name) {
        if pod.is_finished() || gone.iter().any(|g| g.uid == pod.uid) {
            continue;
        }
        let object = cluster
            .store
            .find_object(PODS, &ObjectName::new(pod.ns.clone(), pod.name.clone()));
        for claim in object.map(|o| claims_of(o)).unwrap_or_default() {
            add(volume_of_claim(cluster, &claim));
        }
    }
    // An attachment that outlived its pod takes a place as well. It is left out when pods are thought gone, since
    // theirs would go too.
    if gone.is_empty() {
        let here = |a: &&StoredObject| text_at(a, "spec.nodeName") == node.name;
        for attachment in cluster
            .store
            .objects_of(ATTACHMENTS, "")
            .map(|(_, a)| a)
            .filter(here)
        {
            let name = text_at(attachment, "spec.source.persistentVolumeName");
            add(cluster
                .store
                .find_object(VOLUMES, &ObjectName::new("", name)));
        }
    }
    found
}

/// Where a volume that is made for a pod on this node can be reached, by the labels of the node: as the other volumes of its
/// class, or what is known of its driver.
pub fn new_volume_topology(cluster: &SimCluster, class: &Value, node: &NodeView) -> Labels {
    // A volume of the same class tells best by which labels its driver ties volumes to nodes.
    let name = text_at(class, "metadata.name");
    let mut others = cluster.store.objects_of(VOLUMES, "").map(|(_, v)| v);
    let like = others.find(|v| text_at(v, "spec.storageClassName") == name);
    let keys: Vec<String> = match like {
        Some(volume) => {
            let terms = list_at(volume, "spec.nodeAffinity.required.nodeSelectorTerms");
            let expressions = terms
                .iter()
                .take(1)
                .flat_map(|t| list_at(t, "matchExpressions"));
            expressions.map(|e| text_at(e, "key").to_owned()).collect()
        }
        None => known_topology_label(&driver_of_class(class))
            .map(str::to_owned)
            .into_iter()
            .collect(),
    };
    let value = |key: String| Some((key.clone(), node.labels.get(&key)?.clone()));
    keys.into_iter().filter_map(value).collect()
}

fn known_topology_label(driver: &str) -> Option<&'static str> {
    let on_disk = [
        "local-path",
        "local.csi",
        "openebs.io/local",
        "topolvm",
        "zfs",
        "lvm",
    ];
    if driver == "ebs.csi.aws.com" {
        Some("topology.kubernetes.io/zone")
    } else if on_disk.iter().any(|part| driver.contains(part)) {
        Some("kubernetes.io/hostname")
    } else {
        None
    }
}
