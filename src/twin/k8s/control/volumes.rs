//! Volumes: which nodes they tie a pod to, and how they are attached and detached.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;

use super::super::Due;
use super::super::cluster::Cluster;
use super::super::facts::Pod;
use super::super::json::{at, flag, list, set, text, unset};
use super::super::kinds::{ATTACHMENTS, CLAIMS, CSI_DRIVERS, PODS, VOLUMES};
use super::super::kubelet;
use super::super::store::{Change, Key, Name, Object};
use super::Work;
pub use super::volume_needs::VolumeNeeds;
use super::volume_needs::{
    NO_PROVISIONER, by_hand, class_of, driver_of_class, place_of_new, reaches,
};

/// From a pod's end to its volumes' unmount, on a node that works.
const UNMOUNT: Duration = Duration::from_millis(1500);
/// When a volume is taken from a node that never said it had unmounted it.
const FORCE: Duration = Duration::from_secs(360);

/// The claims a pod uses.
pub fn claims(pod: &Value) -> Vec<Name> {
    let ns = text(pod, "metadata.namespace");
    let of = |v: &Value| {
        let name = text(v, "persistentVolumeClaim.claimName");
        (!name.is_empty()).then(|| Name::new(ns, name))
    };
    list(pod, "spec.volumes").iter().filter_map(of).collect()
}

/// The volume of a claim.
pub fn volume_of<'a>(cluster: &'a Cluster, claim: &Name) -> Option<&'a Object> {
    let claim = cluster.store.find(CLAIMS, claim)?;
    cluster
        .store
        .find(VOLUMES, &Name::new("", text(claim, "spec.volumeName")))
}

/// The pod's volumes that must be attached to its node.
fn attachable(cluster: &Cluster, pod: &Value) -> Vec<Object> {
    let volumes = claims(pod)
        .into_iter()
        .filter_map(|c| volume_of(cluster, &c).cloned());
    volumes.filter(|v| is_attached(cluster, v)).collect()
}

/// Drivers whose volumes are mounted without being attached, where the cluster does not say so itself.
const NEVER_ATTACHED: &[&str] = &["efs.csi.aws.com", "s3.csi.aws.com", "nfs.csi.k8s.io"];

/// Whether a volume is attached to the node of its pod.
fn is_attached(cluster: &Cluster, volume: &Value) -> bool {
    let driver = text(volume, "spec.csi.driver");
    let known = cluster.store.find(CSI_DRIVERS, &Name::new("", driver));
    let says = known.and_then(|d| at(d, "spec.attachRequired")?.as_bool());
    !driver.is_empty() && says.unwrap_or(!NEVER_ATTACHED.contains(&driver))
}

/// Whether a volume may be attached to several nodes at once.
fn is_shared(volume: &Value) -> bool {
    let modes = list(volume, "spec.accessModes");
    modes
        .iter()
        .any(|m| m == "ReadWriteMany" || m == "ReadOnlyMany")
}

/// Makes the volumes that waited for their first consumer, where the pod is going to be.
pub fn provision(cluster: &mut Cluster, pod: &Value, node: &str) {
    let Some(node) = cluster.store.index.nodes.get(node).cloned() else {
        return;
    };
    for name in claims(pod) {
        let Some(claim) = cluster.store.find(CLAIMS, &name).cloned() else {
            continue;
        };
        if !text(&claim, "spec.volumeName").is_empty() {
            continue;
        }
        let Some(class) = class_of(cluster, &claim).cloned() else {
            continue;
        };
        if text(&class, "provisioner") == NO_PROVISIONER {
            let volumes = by_hand(cluster, &claim);
            let volume = volumes.into_iter().find(|v| reaches(v, &node)).cloned();
            if let Some(volume) = volume {
                bind(cluster, &name, &claim, &volume);
            }
            continue;
        }
        let uid = text(&claim, "metadata.uid").to_owned();
        let policy = text(&class, "reclaimPolicy");
        let policy = if policy.is_empty() { "Delete" } else { policy };
        let (volume, handle) = (
            format!("pvc-{uid}"),
            format!("vol-{:017x}", cluster.rng.u64(..)),
        );
        let size = at(&claim, "spec.resources.requests.storage")
            .cloned()
            .unwrap_or(json!("1Gi"));
        let modes = at(&claim, "spec.accessModes")
            .cloned()
            .unwrap_or(json!(["ReadWriteOnce"]));
        let place = place_of_new(cluster, &class, &node);
        let place = place
            .into_iter()
            .map(|(key, value)| json!({"key": key, "operator": "In", "values": [value]}));
        let place: Vec<Value> = place.collect();
        let driver = driver_of_class(&class);
        let class = text(&class, "metadata.name");
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
        if !place.is_empty() {
            let required = json!({"nodeSelectorTerms": [{"matchExpressions": place}]});
            set(&mut made, "spec.nodeAffinity.required", required);
        }
        if cluster.create(VOLUMES, made, false).is_ok() {
            cluster.change(&Key { res: CLAIMS, at: name }, |c| {
                set(c, "spec.volumeName", volume);
                set(c, "status", json!({"phase": "Bound", "accessModes": modes, "capacity": {"storage": size}}));
            });
        }
    }
}

/// Binds a volume that is there to a claim.
fn bind(cluster: &mut Cluster, name: &Name, claim: &Value, volume: &Value) {
    let to = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": name.name, "namespace": name.ns,
        "uid": text(claim, "metadata.uid"),
    });
    cluster.change(&Key::new(VOLUMES, "", text(volume, "metadata.name")), |v| {
        set(v, "spec.claimRef", to);
        set(v, "status.phase", "Bound");
    });
    let status = json!({
        "phase": "Bound", "accessModes": at(volume, "spec.accessModes"), "capacity": at(volume, "spec.capacity"),
    });
    let key = Key {
        res: CLAIMS,
        at: name.clone(),
    };
    cluster.change(&key, |c| {
        set(c, "spec.volumeName", text(volume, "metadata.name"));
        set(c, "status", status);
    });
}

/// The name of the attachment of a volume to a node, as Kubernetes makes it.
fn attachment_name(volume: &Value, node: &str) -> String {
    let (handle, driver) = (
        text(volume, "spec.csi.volumeHandle"),
        text(volume, "spec.csi.driver"),
    );
    format!(
        "csi-{}",
        hex::encode(Sha256::digest(format!("{handle}{driver}{node}")))
    )
}

/// Whether all of a pod's volumes are attached to its node; what is missing is set going.
pub fn mounted(cluster: &mut Cluster, pod: &Value, node: &str) -> bool {
    let mut all = true;
    for volume in attachable(cluster, pod) {
        let (name, pv) = (
            attachment_name(&volume, node),
            text(&volume, "metadata.name"),
        );
        if let Some(there) = cluster
            .store
            .find(ATTACHMENTS, &Name::new("", name.clone()))
        {
            all &=
                flag(there, "status.attached") && at(there, "metadata.deletionTimestamp").is_none();
            continue;
        }
        all = false;
        // A volume of one writer must first leave the node it is on.
        let elsewhere = !is_shared(&volume)
            && cluster
                .store
                .all(ATTACHMENTS, "")
                .any(|(_, a)| text(a, "spec.source.persistentVolumeName") == pv);
        if elsewhere {
            continue;
        }
        let driver = text(&volume, "spec.csi.driver");
        let attachment = json!({
            "metadata": {"name": name, "finalizers": [format!("external-attacher/{}", driver.replace('.', "-"))]},
            "spec": {"attacher": driver, "nodeName": node, "source": {"persistentVolumeName": pv}},
            "status": {"attached": false},
        });
        // That it is there already cannot be: it has just been looked for.
        let _ = cluster.create(ATTACHMENTS, attachment, false);
    }
    all
}

/// The attacher: attaches what is new, lets go what is to go.
pub fn attachment(cluster: &mut Cluster, name: &str) {
    let key = Key::new(ATTACHMENTS, "", name);
    cluster.change(&key, |a| {
        if at(a, "metadata.deletionTimestamp").is_some() {
            unset(a, "metadata.finalizers");
        } else {
            set(a, "status.attached", true);
        }
    });
}

/// Wakes the pods that wait for an attachment, or for its end.
pub fn wake_waiting(cluster: &mut Cluster, change: &Change) {
    let gone = change.new.is_none();
    let Some(either) = change.new.as_ref().or(change.old.as_ref()) else {
        return;
    };
    if !gone && !flag(either, "status.attached") {
        return;
    }
    let pv = Name::new("", text(either, "spec.source.persistentVolumeName"));
    let Some(volume) = cluster.store.find(VOLUMES, &pv) else {
        return;
    };
    let (ns, claim) = (
        text(volume, "spec.claimRef.namespace"),
        text(volume, "spec.claimRef.name"),
    );
    let uses = |pod: &Pod| {
        let object = cluster
            .store
            .find(PODS, &Name::new(pod.ns.clone(), pod.name.clone()));
        object.is_some_and(|o| claims(o).iter().any(|c| c.name == claim))
    };
    let pods = cluster
        .store
        .index
        .pods
        .range(Name::new(ns, "")..)
        .take_while(|(n, _)| n.ns == ns)
        .map(|(_, p)| p);
    let waiting: Vec<_> = pods
        .filter(|p| p.phase == "Pending" && !p.node.is_empty() && p.active() && uses(p))
        .cloned()
        .collect();
    for pod in waiting {
        kubelet::arrive(cluster, &pod);
    }
}

/// A pod has left a node: its volumes are unmounted and then detached, by force where no kubelet can say so (K8S-VOL-1).
pub fn pod_left(cluster: &mut Cluster, pod: Option<&Object>, node: &str) {
    let Some(pod) = pod else { return };
    if node.is_empty() || claims(pod).is_empty() {
        return;
    }
    if cluster.alive(node) {
        cluster.later(UNMOUNT, Due::Again(Work::Detach(node.to_owned())));
    } else {
        cluster.later(FORCE, Due::Again(Work::ForceDetach(node.to_owned())));
    }
}

/// Detaches what no pod of the node uses any more.
pub fn detach(cluster: &mut Cluster, node: &str, by_force: bool) {
    if !by_force && !cluster.alive(node) {
        // Its kubelet died before it could unmount them.
        cluster.later(FORCE, Due::Again(Work::ForceDetach(node.to_owned())));
        return;
    }
    let pods = cluster.store.pods_on(node);
    let pods = pods.iter().filter(|p| !p.finished());
    let used: Vec<String> = pods
        .filter_map(|p| {
            cluster
                .store
                .find(PODS, &Name::new(p.ns.clone(), p.name.clone()))
        })
        .flat_map(|p| attachable(cluster, p))
        .map(|v| text(&v, "metadata.name").to_owned())
        .collect();
    let idle = |a: &Value| {
        let pv = text(a, "spec.source.persistentVolumeName");
        text(a, "spec.nodeName") == node && !used.iter().any(|u| u == pv)
    };
    let going: Vec<Name> = cluster
        .store
        .all(ATTACHMENTS, "")
        .filter(|(_, a)| idle(a))
        .map(|(n, _)| n.clone())
        .collect();
    for name in going {
        cluster.delete(
            &Key {
                res: ATTACHMENTS,
                at: name,
            },
            None,
        );
    }
}

/// Lets a claim that is to go go when no pod uses it, and its volume after it.
pub fn claim(cluster: &mut Cluster, name: &Name) {
    let key = Key {
        res: CLAIMS,
        at: name.clone(),
    };
    let Some(object) = cluster.store.get(&key).cloned() else {
        release(cluster, name);
        return;
    };
    if at(&object, "metadata.deletionTimestamp").is_none() {
        return;
    }
    let used = cluster
        .store
        .all(PODS, &name.ns)
        .any(|(_, p)| claims(p).contains(name));
    if used {
        cluster.later(
            Duration::from_secs(5),
            Due::Again(Work::Claim(name.clone())),
        );
    } else {
        cluster.change(&key, |c| unset(c, "metadata.finalizers"));
    }
}

fn release(cluster: &mut Cluster, claim: &Name) {
    let of_claim = |v: &Value| {
        text(v, "spec.claimRef.name") == claim.name
            && text(v, "spec.claimRef.namespace") == claim.ns
    };
    let volumes: Vec<(Name, Object)> = cluster
        .store
        .all(VOLUMES, "")
        .filter(|(_, v)| of_claim(v))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    for (name, volume) in volumes {
        let key = Key {
            res: VOLUMES,
            at: name,
        };
        if text(&volume, "spec.persistentVolumeReclaimPolicy") == "Delete" {
            cluster.change(&key, |v| unset(v, "metadata.finalizers"));
            cluster.delete(&key, None);
        } else {
            cluster.change(&key, |v| set(v, "status.phase", "Released"));
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
