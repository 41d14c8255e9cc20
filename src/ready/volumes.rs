//! Volumes that would not find their zone or their node on green, and those whose data a storage system keeps on blue.

use std::collections::{BTreeSet, HashMap};

use super::Finding;
use super::codes::Code;
use super::input::{ReadinessInput, name_some};
use super::losses::{Losses, covers_either_name};
use super::storage_systems::STORAGE_SYSTEMS;
use super::volume_nodes::LabelCounts;
use crate::model::Inventory;
use crate::model::consent::ConsentScope;
use crate::model::kube::{NamespacedName, Pod, Volume};
use crate::model::workload_name::WorkloadName;
use crate::route;

/// Judges the volumes of the pods that move.
pub fn check_volumes(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let volumes = by_claim(case.inventory);
    let blue: BTreeSet<&str> = case.blue_nodes().map(|n| n.name.as_str()).collect();
    let changes = case.changes.iter();
    let zones: BTreeSet<String> = changes
        .flat_map(|c| route::subnet_zones(case.inventory, c.blue))
        .collect();
    let labels = LabelCounts::new(&case.inventory.nodes);
    // Pods may share a volume, which is told once.
    let mut told = BTreeSet::new();
    for pod in case.moving_pods() {
        for claim in &pod.claims {
            let Some(volume) = volumes.get(&(pod.key.namespace.as_str(), claim.as_str())) else {
                continue;
            };
            if !told.insert(volume.name.as_str()) {
                continue;
            }
            let name = case.workloads.name_of(pod);
            let subject = format!("volume {} of {name}", volume.name);
            check_node_binding(volume, &labels, &blue, &subject, out);
            if !case.changes.is_empty() {
                check_zone_binding(volume, &zones, subject, out);
            }
        }
    }
    check_node_storage(case, &blue, out);
}

/// Volumes by the namespace and name of their claims.
pub fn by_claim(inventory: &Inventory) -> HashMap<(&str, &str), &Volume> {
    let volumes = inventory.volumes.iter();
    volumes
        .filter_map(|v| {
            let claim = v.claim.as_ref()?;
            Some(((claim.namespace.as_str(), claim.name.as_str()), v))
        })
        .collect()
}

/// A volume that can be used on blue nodes only.
fn check_node_binding(
    volume: &Volume,
    labels: &LabelCounts<'_>,
    blue: &BTreeSet<&str>,
    subject: &str,
    out: &mut Vec<Finding>,
) {
    // A volume is bound by host name, or by a label of its driver.
    let bound = if volume.nodes.is_empty() {
        labels.nodes_bound_to(volume)
    } else {
        volume.nodes.clone()
    };
    let (on_blue, elsewhere): (Vec<String>, Vec<String>) =
        bound.into_iter().partition(|n| blue.contains(n.as_str()));
    // A node elsewhere can use it too.
    if on_blue.is_empty() || !elsewhere.is_empty() {
        return;
    }
    out.push(Finding::new(
        Code::LocalVolume,
        subject,
        format!(
            "it is bound to {}, and its data is lost when blue is deleted",
            name_some(&on_blue)
        ),
        "move the data with the application's own tools before the upgrade",
    ));
}

/// A volume in a zone in which green has no subnet.
fn check_zone_binding(
    volume: &Volume,
    zones: &BTreeSet<String>,
    subject: String,
    out: &mut Vec<Finding>,
) {
    if volume.zones.is_empty() || zones.is_empty() || volume.zones.iter().any(|z| zones.contains(z))
    {
        return;
    }
    let zones: Vec<&str> = zones.iter().map(String::as_str).collect();
    let detail = format!(
        "it is in {}, and green's subnets are in {}",
        name_some(&volume.zones),
        zones.join(", ")
    );
    let fix = "add a node group with a subnet in the volume's zone";
    out.push(Finding::new(Code::VolumeZone, subject, detail, fix));
}

/// Volumes whose data end with blue although they are bound to no node.
fn check_node_storage(case: &ReadinessInput<'_>, blue: &BTreeSet<&str>, out: &mut Vec<Finding>) {
    if blue.is_empty() {
        return;
    }
    // The disks of all groups hold it, so that each of them has to consent.
    let drains = case.drains();
    let scopes: Vec<ConsentScope> = drains.iter().map(|d| d.node_storage.scope()).collect();
    let pods = case.inventory.pods.iter();
    // The workload that uses a claim is what a consent names.
    let users: HashMap<(&str, &str), &Pod> = pods
        .flat_map(|p| {
            let claims = p.claims.iter();
            claims.map(move |c| ((p.key.namespace.as_str(), c.as_str()), p))
        })
        .collect();
    // Only systems that have volumes here and keep copies on blue.
    for system in STORAGE_SYSTEMS {
        let volumes = case.inventory.volumes.iter();
        let mut volumes = volumes.filter(|v| system.provides_volume(v)).peekable();
        if volumes.peek().is_none() || !system.is_on_blue(case.inventory, blue) {
            continue;
        }
        let mut losses = Losses::default();
        for volume in volumes {
            let Some(claim) = &volume.claim else { continue };
            let user = users.get(&(claim.namespace.as_str(), claim.name.as_str()));
            // A volume that no pod mounts now is named by its claim: its data would be lost as well.
            let name = match user {
                Some(pod) => case.workloads.name_of(pod),
                None => WorkloadName::new("PersistentVolumeClaim", claim.clone()),
            };
            let covers = |scope: &ConsentScope| {
                user.is_some_and(|pod| covers_either_name(scope, pod, &name))
                    || scope.covers_workload(&name)
            };
            if scopes.iter().all(covers) {
                continue;
            }
            losses.add_loss(&name, volume_text(volume, claim));
        }
        // One finding for each system, with the consent that its volumes would need.
        let fix = format!(
            "{}: {}",
            system.fix_text(),
            losses.consent_snippet("nodeStorage", &case.plan.drain.node_storage)
        );
        let detail = |volumes: &str| {
            format!(
                "{} keeps its data on the disks of blue's nodes, and the data is lost when blue is deleted: {volumes}",
                system.name
            )
        };
        losses.report_losses(out, Code::NodeStorage, detail, &fix);
    }
}

fn volume_text(volume: &Volume, claim: &NamespacedName) -> String {
    format!("volume {} of claim {claim}", volume.name)
}
