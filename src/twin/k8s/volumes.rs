//! Volumes: which nodes they tie a pod to, and how they are attached and detached.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;

use super::KubeEvent;
use super::cluster::SimCluster;
use super::controller_work::ControllerWork;
use super::json::{flag_at, list_at, remove_at, set_at, text_at, value_at};
use super::kinds::{ATTACHMENTS, CLAIMS, CSI_DRIVERS, PODS, VOLUMES};
use super::kubelet;
use super::store::{ObjectChange, ObjectKey, ObjectName, StoredObject};
use super::typed_views::PodView;
pub use super::volume_needs::VolumeNeeds;
use super::volume_needs::{
    NO_PROVISIONER, driver_of_class, is_volume_reachable, new_volume_topology, static_volumes_for,
    storage_class_of,
};

/// From a pod's end to its volumes' unmount, on a node that works.
const UNMOUNT_DELAY: Duration = Duration::from_millis(1500);
/// When a volume is taken from a node that never said it had unmounted it.
const FORCE_DETACH_DELAY: Duration = Duration::from_secs(360);

/// The claims a pod uses.
pub fn claims_of(pod: &Value) -> Vec<ObjectName> {
    let ns = text_at(pod, "metadata.namespace");
    let of = |v: &Value| {
        let name = text_at(v, "persistentVolumeClaim.claimName");
        (!name.is_empty()).then(|| ObjectName::new(ns, name))
    };
    list_at(pod, "spec.volumes").iter().filter_map(of).collect()
}

/// The volume of a claim.
pub fn volume_of_claim<'a>(
    cluster: &'a SimCluster,
    claim: &ObjectName,
) -> Option<&'a StoredObject> {
    let claim = cluster.store.find_object(CLAIMS, claim)?;
    cluster.store.find_object(
        VOLUMES,
        &ObjectName::new("", text_at(claim, "spec.volumeName")),
    )
}

/// The pod's volumes that must be attached to its node.
fn attachable_volumes(cluster: &SimCluster, pod: &Value) -> Vec<StoredObject> {
    let volumes = claims_of(pod)
        .into_iter()
        .filter_map(|c| volume_of_claim(cluster, &c).cloned());
    volumes.filter(|v| is_attached(cluster, v)).collect()
}

/// Drivers whose volumes are mounted without being attached, where the cluster does not say so itself.
const UNATTACHED_DRIVERS: &[&str] = &["efs.csi.aws.com", "s3.csi.aws.com", "nfs.csi.k8s.io"];

/// Whether a volume is attached to the node of its pod.
fn is_attached(cluster: &SimCluster, volume: &Value) -> bool {
    let driver = text_at(volume, "spec.csi.driver");
    let known = cluster
        .store
        .find_object(CSI_DRIVERS, &ObjectName::new("", driver));
    let says = known.and_then(|d| value_at(d, "spec.attachRequired")?.as_bool());
    !driver.is_empty() && says.unwrap_or(!UNATTACHED_DRIVERS.contains(&driver))
}

/// Whether a volume may be attached to several nodes at once.
fn is_shared(volume: &Value) -> bool {
    let modes = list_at(volume, "spec.accessModes");
    modes
        .iter()
        .any(|m| m == "ReadWriteMany" || m == "ReadOnlyMany")
}

/// Makes the volumes that waited for their first consumer, where the pod is going to be.
pub fn provision_volumes(cluster: &mut SimCluster, pod: &Value, node: &str) {
    let Some(node) = cluster.store.index.nodes.get(node).cloned() else {
        return;
    };
    for name in claims_of(pod) {
        let Some(claim) = cluster.store.find_object(CLAIMS, &name).cloned() else {
            continue;
        };
        // A claim that is bound already has its volume, and the scheduler has looked whether the node can reach it.
        if !text_at(&claim, "spec.volumeName").is_empty() {
            continue;
        }
        let Some(class) = storage_class_of(cluster, &claim).cloned() else {
            continue;
        };
        // Without a provisioner one of the volumes that exist is taken, if the node can reach it. The scheduler has
        // made sure that there is one.
        if text_at(&class, "provisioner") == NO_PROVISIONER {
            let volumes = static_volumes_for(cluster, &claim);
            let volume = volumes
                .into_iter()
                .find(|v| is_volume_reachable(v, &node))
                .cloned();
            if let Some(volume) = volume {
                bind_volume(cluster, &name, &claim, &volume);
            }
            continue;
        }
        // The names are those that the external provisioner gives: the claim's UID for the volume, an identifier of
        // the cloud for the disk.
        let uid = text_at(&claim, "metadata.uid").to_owned();
        let policy = text_at(&class, "reclaimPolicy");
        let policy = if policy.is_empty() { "Delete" } else { policy };
        let (volume, handle) = (
            format!("pvc-{uid}"),
            format!("vol-{:017x}", cluster.rng.u64(..)),
        );
        let size = value_at(&claim, "spec.resources.requests.storage")
            .cloned()
            .unwrap_or(json!("1Gi"));
        let modes = value_at(&claim, "spec.accessModes")
            .cloned()
            .unwrap_or(json!(["ReadWriteOnce"]));
        // The volume is tied to the zone of the node, where its disk will be made (K8S-VOL-2).
        let place = new_volume_topology(cluster, &class, &node);
        let place = place
            .into_iter()
            .map(|(key, value)| json!({"key": key, "operator": "In", "values": [value]}));
        let place: Vec<Value> = place.collect();
        let driver = driver_of_class(&class);
        let class = text_at(&class, "metadata.name");
        let mut made = json!({
            "metadata": {"name": volume},
            "spec": {
                "accessModes": modes, "capacity": {"storage": size}, "storageClassName": class, "volumeMode": "Filesystem",
                "persistentVolumeReclaimPolicy": policy,
                "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": name.name, "namespace": name.ns, "uid": uid},
                "csi": {"driver": driver, "fsType": "ext4", "volumeHandle": handle},
            },
            "status": {"phase": "Bound"},
        });
        // A driver whose volumes can be reached from everywhere gives them no node affinity.
        if !place.is_empty() {
            let required = json!({"nodeSelectorTerms": [{"matchExpressions": place}]});
            set_at(&mut made, "spec.nodeAffinity.required", required);
        }
        // The claim is bound only when its volume exists, so it never names one that does not.
        if cluster.create_object(VOLUMES, made, false).is_ok() {
            cluster.change_object(&ObjectKey { res: CLAIMS, at: name }, |c| {
                set_at(c, "spec.volumeName", volume);
                set_at(c, "status", json!({"phase": "Bound", "accessModes": modes, "capacity": {"storage": size}}));
            });
        }
    }
}

/// Binds a volume that is there to a claim.
fn bind_volume(cluster: &mut SimCluster, name: &ObjectName, claim: &Value, volume: &Value) {
    let to = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": name.name, "namespace": name.ns,
        "uid": text_at(claim, "metadata.uid"),
    });
    // Both sides name each other; the claim's side follows in the same step, so nobody sees only one.
    cluster.change_object(
        &ObjectKey::new(VOLUMES, "", text_at(volume, "metadata.name")),
        |v| {
            set_at(v, "spec.claimRef", to);
            set_at(v, "status.phase", "Bound");
        },
    );
    let status = json!({
        "phase": "Bound", "accessModes": value_at(volume, "spec.accessModes"), "capacity": value_at(volume, "spec.capacity"),
    });
    let key = ObjectKey {
        res: CLAIMS,
        at: name.clone(),
    };
    cluster.change_object(&key, |c| {
        set_at(c, "spec.volumeName", text_at(volume, "metadata.name"));
        set_at(c, "status", status);
    });
}

/// The name of the attachment of a volume to a node, as Kubernetes makes it.
fn attachment_name(volume: &Value, node: &str) -> String {
    let (handle, driver) = (
        text_at(volume, "spec.csi.volumeHandle"),
        text_at(volume, "spec.csi.driver"),
    );
    format!(
        "csi-{}",
        hex::encode(Sha256::digest(format!("{handle}{driver}{node}")))
    )
}

/// Whether all of a pod's volumes are attached to its node; what is missing is set going.
pub fn ensure_mounted(cluster: &mut SimCluster, pod: &Value, node: &str) -> bool {
    let mut all = true;
    // Each volume of the pod needs its own attachment to this node, and one that is missing is made.
    for volume in attachable_volumes(cluster, pod) {
        let (name, pv) = (
            attachment_name(&volume, node),
            text_at(&volume, "metadata.name"),
        );
        // An attachment that is being deleted does not count: its volume is about to go from the node.
        if let Some(there) = cluster
            .store
            .find_object(ATTACHMENTS, &ObjectName::new("", name.clone()))
        {
            all &= flag_at(there, "status.attached")
                && value_at(there, "metadata.deletionTimestamp").is_none();
            continue;
        }
        all = false;
        // A volume of one writer must first leave the node it is on.
        let elsewhere = !is_shared(&volume)
            && cluster
                .store
                .objects_of(ATTACHMENTS, "")
                .any(|(_, a)| text_at(a, "spec.source.persistentVolumeName") == pv);
        if elsewhere {
            continue;
        }
        // The finalizer keeps the attachment until the driver has detached the volume.
        let driver = text_at(&volume, "spec.csi.driver");
        let attachment = json!({
            "metadata": {"name": name, "finalizers": [format!("external-attacher/{}", driver.replace('.', "-"))]},
            "spec": {"attacher": driver, "nodeName": node, "source": {"persistentVolumeName": pv}},
            "status": {"attached": false},
        });
        // That it is there already cannot be: it has just been looked for.
        let _ = cluster.create_object(ATTACHMENTS, attachment, false);
    }
    all
}

/// The attacher: attaches what is new, lets go what is to go.
pub fn reconcile_attachment(cluster: &mut SimCluster, name: &str) {
    let key = ObjectKey::new(ATTACHMENTS, "", name);
    cluster.change_object(&key, |a| {
        if value_at(a, "metadata.deletionTimestamp").is_some() {
            remove_at(a, "metadata.finalizers");
        } else {
            set_at(a, "status.attached", true);
        }
    });
}

/// Wakes the pods that wait for an attachment, or for its end.
pub fn wake_waiting_pods(cluster: &mut SimCluster, change: &ObjectChange) {
    let gone = change.new.is_none();
    let Some(either) = change.new.as_ref().or(change.old.as_ref()) else {
        return;
    };
    // Only an attachment that is complete or gone frees a pod from waiting; others change nothing for it.
    if !gone && !flag_at(either, "status.attached") {
        return;
    }
    let pv = ObjectName::new("", text_at(either, "spec.source.persistentVolumeName"));
    let Some(volume) = cluster.store.find_object(VOLUMES, &pv) else {
        return;
    };
    // The pods are found through the volume's claim, since an attachment names no pod.
    let (ns, claim) = (
        text_at(volume, "spec.claimRef.namespace"),
        text_at(volume, "spec.claimRef.name"),
    );
    let uses = |pod: &PodView| {
        let object = cluster
            .store
            .find_object(PODS, &ObjectName::new(pod.ns.clone(), pod.name.clone()));
        object.is_some_and(|o| claims_of(o).iter().any(|c| c.name == claim))
    };
    let pods = cluster
        .store
        .index
        .pods
        .range(ObjectName::new(ns, "")..)
        .take_while(|(n, _)| n.ns == ns)
        .map(|(_, p)| p);
    let waiting: Vec<_> = pods
        .filter(|p| p.phase == "Pending" && !p.node.is_empty() && p.is_active() && uses(p))
        .cloned()
        .collect();
    // The kubelet looks at all of the pod's volumes again.
    for pod in waiting {
        kubelet::on_pod_bound(cluster, &pod);
    }
}

/// A pod has left a node: its volumes are unmounted and then detached, by force where no kubelet can say so (K8S-VOL-1).
pub fn on_pod_left(cluster: &mut SimCluster, pod: Option<&StoredObject>, node: &str) {
    let Some(pod) = pod else { return };
    if node.is_empty() || claims_of(pod).is_empty() {
        return;
    }
    if cluster.is_kubelet_alive(node) {
        cluster.schedule_after(
            UNMOUNT_DELAY,
            KubeEvent::RepeatWork(ControllerWork::Detach(node.to_owned())),
        );
    } else {
        cluster.schedule_after(
            FORCE_DETACH_DELAY,
            KubeEvent::RepeatWork(ControllerWork::ForceDetach(node.to_owned())),
        );
    }
}

/// Detaches what no pod of the node uses any more.
pub fn detach_unused(cluster: &mut SimCluster, node: &str, by_force: bool) {
    if !by_force && !cluster.is_kubelet_alive(node) {
        // Its kubelet died before it could unmount them.
        cluster.schedule_after(
            FORCE_DETACH_DELAY,
            KubeEvent::RepeatWork(ControllerWork::ForceDetach(node.to_owned())),
        );
        return;
    }
    // Pods that are being deleted still use their volumes; those that have ended do not.
    let pods = cluster.store.pods_on(node);
    let pods = pods.iter().filter(|p| !p.is_finished());
    let used: Vec<String> = pods
        .filter_map(|p| {
            cluster
                .store
                .find_object(PODS, &ObjectName::new(p.ns.clone(), p.name.clone()))
        })
        .flat_map(|p| attachable_volumes(cluster, p))
        .map(|v| text_at(&v, "metadata.name").to_owned())
        .collect();
    let idle = |a: &Value| {
        let pv = text_at(a, "spec.source.persistentVolumeName");
        text_at(a, "spec.nodeName") == node && !used.iter().any(|u| u == pv)
    };
    let going: Vec<ObjectName> = cluster
        .store
        .objects_of(ATTACHMENTS, "")
        .filter(|(_, a)| idle(a))
        .map(|(n, _)| n.clone())
        .collect();
    // The attachments get a deletion time. The driver detaches each of them and takes its finalizer away after a
    // while.
    for name in going {
        cluster.delete_object(
            &ObjectKey {
                res: ATTACHMENTS,
                at: name,
            },
            None,
        );
    }
}

/// Lets a claim that is to go go when no pod uses it, and its volume after it.
pub fn reconcile_claim(cluster: &mut SimCluster, name: &ObjectName) {
    let key = ObjectKey {
        res: CLAIMS,
        at: name.clone(),
    };
    // The claim is gone, so its volume is released.
    let Some(object) = cluster.store.get_object(&key).cloned() else {
        release_claim(cluster, name);
        return;
    };
    if value_at(&object, "metadata.deletionTimestamp").is_none() {
        return;
    }
    // A claim that a pod uses stays, which is what its finalizer is for; no change tells when the pod is gone, so it
    // is looked at again.
    let used = cluster
        .store
        .objects_of(PODS, &name.ns)
        .any(|(_, p)| claims_of(p).contains(name));
    if used {
        cluster.schedule_after(
            Duration::from_secs(5),
            KubeEvent::RepeatWork(ControllerWork::Claim(name.clone())),
        );
    } else {
        cluster.change_object(&key, |c| remove_at(c, "metadata.finalizers"));
    }
}

fn release_claim(cluster: &mut SimCluster, claim: &ObjectName) {
    let of_claim = |v: &Value| {
        text_at(v, "spec.claimRef.name") == claim.name
            && text_at(v, "spec.claimRef.namespace") == claim.ns
    };
    let volumes: Vec<(ObjectName, StoredObject)> = cluster
        .store
        .objects_of(VOLUMES, "")
        .filter(|(_, v)| of_claim(v))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    for (name, volume) in volumes {
        let key = ObjectKey {
            res: VOLUMES,
            at: name,
        };
        // What becomes of the volume is its own policy: it goes with the claim, or stays with its data.
        if text_at(&volume, "spec.persistentVolumeReclaimPolicy") == "Delete" {
            cluster.change_object(&key, |v| remove_at(v, "metadata.finalizers"));
            cluster.delete_object(&key, None);
        } else {
            cluster.change_object(&key, |v| set_at(v, "status.phase", "Released"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attachment_is_named_as_kubernetes_names_it() {
        let volume = json!({"spec": {"csi": {"driver": "ebs.csi.aws.com", "volumeHandle": "vol-0657870656e73652d"}}});
        let name = attachment_name(&volume, "ip-10-0-0-4.ec2.internal");
        assert_eq!(
            name,
            "csi-95e25c7a1b05040fe8719558a5e1eaaa92567b37928ba71207e07a5b0c5af150"
        );
    }
}
