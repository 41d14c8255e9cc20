//! A green with another operating system than blue: what changes for its pods, and whether its user data suits it.

use super::codes::Code;
use super::input::{BlueGreenPair, ReadinessInput, name_some};
use super::metadata_access::{self, MetadataAccess};
use super::{Finding, Severity};
use crate::model::image::OsFamily;
use crate::model::{Inventory, Minor};
use crate::route;

/// EKS has no image of Amazon Linux 2 from this minor on (EKS-NG-6).
const WITHOUT_AL2: Minor = Minor::new(33);

/// Judges operating systems.
pub fn check_operating_systems(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    for change in &case.changes {
        let plan_entry = case.plan.node_group(&change.blue.name);
        let ami_type = change.green.ami_type.as_deref();
        let blue = route::blue_os_family(case.inventory, change.blue);
        let green = route::green_os_family(case.inventory, change.blue, &plan_entry, ami_type);
        // Misfits that block are problems of the route already.
        for misfit in route::find_misfits(case.inventory, change.blue, &plan_entry, ami_type) {
            if !misfit.blocks {
                out.push(Finding::new(
                    Code::UserDataUnsure,
                    format!("{} {}", change.blue.source.group_words(), change.blue.name),
                    misfit.detail,
                    misfit.fix,
                ));
            }
        }
        let Some(blue) = blue else { continue };
        // Pods lose the nodes' credentials only where they have them today.
        let before = metadata_access::access_of_pods(
            Some(blue),
            route::launch_template_of(case.inventory, change.blue),
            change.blue.launch_template.is_some(),
        );
        let template = route::launch_template_of_green(case.inventory, change.blue, &plan_entry);
        let has_template = change.green.launch_template.is_some();
        let after = metadata_access::access_of_pods(green, template, has_template);
        let lost = before == MetadataAccess::Open && after != MetadataAccess::Open;
        let consent = plan_entry.ami_type.is_some();
        if lost {
            metadata_access::check_metadata_access(case, change, (green, after), consent, out);
        }
        if let Some(green) = green.filter(|g| *g != blue) {
            report_other_system(case, change, (blue, green), lost, consent, out);
        }
    }
    check_karpenter(case, out);
}

/// Tells what another operating system changes.
fn report_other_system(
    case: &ReadinessInput<'_>,
    change: &BlueGreenPair<'_>,
    (blue, green): (OsFamily, OsFamily),
    lost: bool,
    consent: bool,
    out: &mut Vec<Finding>,
) {
    // What pods and user data notice of it.
    let mut changes = Vec::new();
    if blue == OsFamily::AmazonLinux2 {
        changes.push(
            "nodes use control groups version 2, which old JVMs, old .NET runtimes and old agents misread".to_owned(),
        );
        if green == OsFamily::AmazonLinux2023 {
            changes.push("the metadata service requires session tokens (IMDSv2)".to_owned());
            changes.push("nodes are set up by nodeadm, not by /etc/eks/bootstrap.sh".to_owned());
        }
    }
    if green == OsFamily::Bottlerocket {
        changes.push(
            "nodes have no shell and no package manager, and their user data is settings in TOML"
                .to_owned(),
        );
    }
    // Workloads that are not known to call AWS, and may.
    if lost {
        let others = metadata_access::without_own_role(case, change);
        if !others.is_empty() {
            changes.push(format!(
                "containers no longer reach the nodes' credentials, and it is unknown whether these workloads, which have \
                 no role of their own, call AWS: {}",
                name_some(&others)
            ));
        }
    }
    // Who decided on it: the plan, or EKS by having no such image any more.
    let why = if consent {
        "the plan sets it"
    } else {
        "EKS has no image of blue's operating system for that version, or the plan sets another image"
    };
    let mut detail = format!(
        "its operating system changes from {} to {} ({why})",
        blue.display_name(),
        green.display_name()
    );
    if !changes.is_empty() {
        detail = format!("{detail}: {}", changes.join("; "));
    }
    let finding = Finding::new(
        Code::OtherSystem,
        change.blue_words(),
        detail,
        "test the workloads on a node group of that image before the upgrade, and set `nodeGroups[].amiType` to accept \
         the change",
    );
    out.push(if consent {
        finding.with_severity(Severity::Info)
    } else {
        finding
    });
}

/// Nodes that Karpenter replaces by itself get the image family of their EC2NodeClass.
fn check_karpenter(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    if case.plan.to < WITHOUT_AL2 {
        return;
    }
    let pools = pools_on_al2(case.inventory);
    if pools.is_empty() {
        return;
    }
    out.push(Finding::new(
        Code::KarpenterSystem,
        format!("NodePool {}", name_some(&pools)),
        format!("its nodes run Amazon Linux 2, and EKS has no image of it for {}: Karpenter finds no image and launches \
             no node", case.plan.to),
        "before the upgrade, set `amiFamily: AL2023` (and `amiSelectorTerms`) in its EC2NodeClass, and check its user \
         data and `metadataOptions`",
    ));
}

fn pools_on_al2(inventory: &Inventory) -> Vec<String> {
    let nodes = inventory.nodes.iter();
    let mut pools: Vec<String> = nodes
        .filter(|n| OsFamily::of_node(&n.os_image) == Some(OsFamily::AmazonLinux2))
        .filter_map(|n| {
            let pool = n.labels.get("karpenter.sh/nodepool");
            pool.or_else(|| n.labels.get("karpenter.sh/provisioner-name"))
        })
        .cloned()
        .collect();
    pools.sort();
    pools.dedup();
    pools
}
