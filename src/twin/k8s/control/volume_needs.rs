//! What a pod's volumes ask of a node: where they can be reached, who else uses them, how many a node takes (K8S-SCHED-5).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::super::cluster::Cluster;
use super::super::facts::{Node, Pod};
use super::super::json::{at, list, number, text, texts, units};
use super::super::kinds::{ATTACHMENTS, CLAIMS, CSI_NODES, PODS, STORAGE_CLASSES, VOLUMES};
use super::super::scheduler::NodeTerm;
use super::super::selector::Labels;
use super::super::store::{Name, Object};
use super::volumes::{claims, volume_of};

/// The class of volumes that somebody makes by hand, on nodes' own disks.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// By driver: the volumes' handles.
type Handles = BTreeMap<String, BTreeSet<String>>;

/// Labels, each with the values that will do.
type Topology = Vec<(String, Vec<String>)>;

/// What a pod's volumes ask of a node.
#[derive(Default)]
pub struct VolumeNeeds {
    /// Of each bound volume: one of these must match.
    bound: Vec<Vec<NodeTerm>>,
    /// Of each claim without a volume: labels, one set of which a node must have.
    unbound: Vec<Vec<Topology>>,
    /// Of each claim that waits for a volume made by hand: the nodes' terms of those there are.
    by_hand: Vec<Vec<Vec<NodeTerm>>>,
    /// Labels of bound volumes: where they are.
    places: Topology,
    /// Claims that only one pod may use.
    single: Vec<Name>,
    /// Counted against a node's limits.
    handles: Handles,
}

impl VolumeNeeds {
    /// Reads a pod's claims; an error is the scheduler's reason for all nodes.
    pub fn of(cluster: &Cluster, pod: &Value) -> Result<Self, String> {
        let mut needs = Self::default();
        for claim in claims(pod) {
            let Some(object) = cluster.store.find(CLAIMS, &claim) else {
                return Err(format!(
                    "persistentvolumeclaim \"{}\" not found",
                    claim.name
                ));
            };
            if at(object, "metadata.deletionTimestamp").is_some() {
                let name = &claim.name;
                return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            if is_single(object) {
                needs.single.push(claim.clone());
            }
            if text(object, "spec.volumeName").is_empty() {
                needs.add_unbound(cluster, &claim, object)?;
            } else {
                needs.add_bound(cluster, &claim, object)?;
            }
        }
        Ok(needs)
    }

    fn add_unbound(
        &mut self,
        cluster: &Cluster,
        name: &Name,
        claim: &Object,
    ) -> Result<(), String> {
        let unbound = || "pod has unbound immediate PersistentVolumeClaims".to_owned();
        let class = class_of(cluster, claim).ok_or_else(unbound)?;
        if text(class, "provisioner") == NO_PROVISIONER {
            let options = by_hand(cluster, claim).into_iter();
            self.by_hand.push(options.map(|v| terms_of(v)).collect());
            return Ok(());
        }
        let allowed = list(class, "allowedTopologies");
        if !allowed.is_empty() {
            let labels = |term: &Value| {
                let expressions = list(term, "matchLabelExpressions").iter();
                expressions
                    .map(|e| (text(e, "key").to_owned(), strings(e, "values")))
                    .collect()
            };
            self.unbound.push(allowed.iter().map(labels).collect());
        }
        let handles = self.handles.entry(driver_of_class(class)).or_default();
        handles.insert(format!("{}/{}", name.ns, name.name));
        Ok(())
    }

    fn add_bound(&mut self, cluster: &Cluster, name: &Name, claim: &Object) -> Result<(), String> {
        let missing = || {
            let volume = text(claim, "spec.volumeName");
            format!("persistentvolume \"{volume}\" not found")
        };
        let volume = volume_of(cluster, name).ok_or_else(missing)?;
        if at(volume, "spec.nodeAffinity.required").is_some() {
            self.bound.push(terms_of(volume));
        }
        for (key, value) in texts(volume, "metadata.labels") {
            if PLACE_LABELS.contains(&key.as_str()) {
                self.places
                    .push((key, value.split("__").map(str::to_owned).collect()));
            }
        }
        if let Some((driver, handle)) = handle_of(volume) {
            self.handles.entry(driver).or_default().insert(handle);
        }
        Ok(())
    }

    /// Whether a node will do, were `gone` no longer on it; else why not, and whether it might help if pods went.
    pub fn check(
        &self,
        cluster: &Cluster,
        node: &Node,
        gone: &[Arc<Pod>],
    ) -> Result<(), (&'static str, bool)> {
        let new_words = cluster.version >= NEW_WORDS_SINCE;
        let words = |new, old| if new_words { new } else { old };
        if self.single.iter().any(|c| is_used(cluster, c, gone)) {
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
        let one = |node: &Node, (key, values): &(String, Vec<String>)| {
            node.labels.get(key).is_some_and(|v| values.contains(v))
        };
        let allowed =
            |topologies: &Vec<Topology>| topologies.iter().any(|t| t.iter().all(|l| one(node, l)));
        let there = |options: &Vec<Vec<NodeTerm>>| options.iter().any(|o| o.is_empty() || any(o));
        if !self.unbound.iter().all(allowed) || !self.by_hand.iter().all(there) {
            return Err((
                "node(s) didn't find available persistent volumes to bind",
                false,
            ));
        }
        // A node that says nothing of its place is taken to be anywhere.
        let is_placed = PLACE_LABELS
            .iter()
            .any(|key| node.labels.contains_key(*key));
        if is_placed && !self.places.iter().all(|place| one(node, place)) {
            return Err(("node(s) had no available volume zone", false));
        }
        Ok(())
    }

    fn exceeds_limit(&self, cluster: &Cluster, node: &Node, gone: &[Arc<Pod>]) -> bool {
        if self.handles.is_empty() {
            return false;
        }
        let Some(csi_node) = cluster
            .store
            .find(CSI_NODES, &Name::new("", node.name.as_str()))
        else {
            return false;
        };
        let limits: Vec<(&str, i64)> = list(csi_node, "spec.drivers")
            .iter()
            .filter_map(|d| Some((text(d, "name"), number(d, "allocatable.count")?)))
            .filter(|(driver, _)| self.handles.contains_key(*driver))
            .collect();
        if limits.is_empty() {
            return false;
        }
        let there = handles_on(cluster, node, gone);
        limits.iter().any(|(driver, limit)| {
            let none = BTreeSet::new();
            let there = there.get(*driver).unwrap_or(&none);
            let new = self.handles[*driver].difference(there).count();
            new > 0 && (there.len() + new) as i64 > *limit
        })
    }
}

/// The first minor with the newer messages about volumes.
const NEW_WORDS_SINCE: crate::model::Minor = crate::model::Minor::new(34);

/// Labels that say where a volume or a node is.
const PLACE_LABELS: &[&str] = &[
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

fn strings(value: &Value, path: &str) -> Vec<String> {
    let values = list(value, path).iter().filter_map(Value::as_str);
    values.map(str::to_owned).collect()
}

fn terms_of(volume: &Value) -> Vec<NodeTerm> {
    let terms = list(volume, "spec.nodeAffinity.required.nodeSelectorTerms");
    terms.iter().map(NodeTerm::of).collect()
}

fn is_single(claim: &Value) -> bool {
    list(claim, "spec.accessModes")
        .iter()
        .any(|m| m == "ReadWriteOncePod")
}

/// Whether a pod on a node uses the claim.
fn is_used(cluster: &Cluster, claim: &Name, gone: &[Arc<Pod>]) -> bool {
    let pods = cluster
        .store
        .index
        .pods
        .range(Name::new(claim.ns.clone(), "")..);
    let here = pods.take_while(|(n, _)| n.ns == claim.ns).map(|(_, p)| p);
    let uses = |pod: &Arc<Pod>| {
        let object = cluster
            .store
            .find(PODS, &Name::new(pod.ns.clone(), pod.name.clone()));
        object.is_some_and(|o| claims(o).contains(claim))
    };
    here.filter(|p| !p.node.is_empty() && !p.finished())
        .filter(|p| !gone.iter().any(|g| g.uid == p.uid))
        .any(uses)
}

/// The class of a claim.
pub fn class_of<'a>(cluster: &'a Cluster, claim: &Value) -> Option<&'a Object> {
    let name = text(claim, "spec.storageClassName");
    cluster.store.find(STORAGE_CLASSES, &Name::new("", name))
}

/// The CSI driver behind a class; the in-tree one for EBS is served by it too.
pub fn driver_of_class(class: &Value) -> String {
    match text(class, "provisioner") {
        "kubernetes.io/aws-ebs" => "ebs.csi.aws.com".to_owned(),
        other => other.to_owned(),
    }
}

/// The volumes made by hand that would do for a claim.
pub fn by_hand<'a>(cluster: &'a Cluster, claim: &Value) -> Vec<&'a Object> {
    let size = |v: &Value, path: &str| units(at(v, path));
    let suits = |volume: &Object| {
        let modes = list(volume, "spec.accessModes");
        text(volume, "status.phase") == "Available"
            && text(volume, "spec.storageClassName") == text(claim, "spec.storageClassName")
            && list(claim, "spec.accessModes")
                .iter()
                .all(|m| modes.contains(m))
            && size(volume, "spec.capacity.storage")
                >= size(claim, "spec.resources.requests.storage")
    };
    let all = cluster.store.all(VOLUMES, "").map(|(_, v)| v);
    all.filter(|v| suits(v)).collect()
}

/// Whether a volume made by hand can be reached from a node.
pub fn reaches(volume: &Value, node: &Node) -> bool {
    let terms = terms_of(volume);
    terms.is_empty() || terms.iter().any(|t| t.matches(node))
}

fn handle_of(volume: &Value) -> Option<(String, String)> {
    let csi = at(volume, "spec.csi")?;
    Some((
        text(csi, "driver").to_owned(),
        text(csi, "volumeHandle").to_owned(),
    ))
}

/// What is counted on a node: the volumes of its pods, and those that are attached to it.
fn handles_on(cluster: &Cluster, node: &Node, gone: &[Arc<Pod>]) -> Handles {
    let mut found = Handles::new();
    let mut add = |volume: Option<&Object>| {
        if let Some((driver, handle)) = volume.and_then(|v| handle_of(v)) {
            found.entry(driver).or_default().insert(handle);
        }
    };
    for pod in cluster.store.pods_on(&node.name) {
        if pod.finished() || gone.iter().any(|g| g.uid == pod.uid) {
            continue;
        }
        let object = cluster
            .store
            .find(PODS, &Name::new(pod.ns.clone(), pod.name.clone()));
        for claim in object.map(|o| claims(o)).unwrap_or_default() {
            add(volume_of(cluster, &claim));
        }
    }
    if gone.is_empty() {
        let here = |a: &&Object| text(a, "spec.nodeName") == node.name;
        for attachment in cluster
            .store
            .all(ATTACHMENTS, "")
            .map(|(_, a)| a)
            .filter(here)
        {
            let name = text(attachment, "spec.source.persistentVolumeName");
            add(cluster.store.find(VOLUMES, &Name::new("", name)));
        }
    }
    found
}

/// Where a volume that is made for a pod on this node can be reached, by the labels of the node: as the other volumes of its
/// class, or what is known of its driver.
pub fn place_of_new(cluster: &Cluster, class: &Value, node: &Node) -> Labels {
    let name = text(class, "metadata.name");
    let mut others = cluster.store.all(VOLUMES, "").map(|(_, v)| v);
    let like = others.find(|v| text(v, "spec.storageClassName") == name);
    let keys: Vec<String> = match like {
        Some(volume) => {
            let terms = list(volume, "spec.nodeAffinity.required.nodeSelectorTerms");
            let expressions = terms
                .iter()
                .take(1)
                .flat_map(|t| list(t, "matchExpressions"));
            expressions.map(|e| text(e, "key").to_owned()).collect()
        }
        None => known_place(&driver_of_class(class))
            .map(str::to_owned)
            .into_iter()
            .collect(),
    };
    let value = |key: String| Some((key.clone(), node.labels.get(&key)?.clone()));
    keys.into_iter().filter_map(value).collect()
}

fn known_place(driver: &str) -> Option<&'static str> {
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
