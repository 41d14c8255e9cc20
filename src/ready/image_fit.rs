//! Whether green's image suits its instance types, whether its zones offer them, and whether capacity that is reserved for
//! blue leaves any for green.

use std::collections::BTreeSet;

use super::codes::Code;
use super::input::{BlueGreenPair, ReadinessInput, name_some};
use super::{Finding, Severity};
use crate::model::image::{
    Accelerator, accelerator_of, ami_type_carries, ami_type_is_accelerated, ami_type_is_arm, is_arm,
};
use crate::plan::Strategy;
use crate::route;

/// Judges images, instance types and reservations.
pub fn check_images(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    for change in &case.changes {
        let plan_entry = case.plan.node_group(&change.blue.name);
        let types = route::green_instance_types(case.inventory, change.blue, &plan_entry);
        check_processor(case, change, &types, out);
        check_drivers(change, &types, out);
        check_offerings(case, change, &types, out);
        check_reservations(case, change, out);
    }
}

fn processor_name(arm: bool) -> &'static str {
    if arm { "ARM" } else { "x86" }
}

/// An image runs on one kind of processor.
fn check_processor(
    case: &ReadinessInput<'_>,
    change: &BlueGreenPair<'_>,
    types: &[String],
    out: &mut Vec<Finding>,
) {
    let plan_entry = case.plan.node_group(&change.blue.name);
    // The AMI type tells the processor, and so does a custom image that could be read.
    let of_type = change.green.ami_type.as_deref().and_then(ami_type_is_arm);
    let template = route::launch_template_of_green(case.inventory, change.blue, &plan_entry);
    let image = plan_entry
        .ami
        .as_ref()
        .or(template.and_then(|t| t.image.as_ref()));
    let of_image = || {
        let mut images = case.inventory.images.iter();
        let found = images.find(|i| Some(&i.id) == image)?;
        found.architecture.as_ref().map(|a| a == "arm64")
    };
    // With an AMI type the type decides; a custom image is asked only where there is none.
    let arm = if change.green.ami_type.is_some() {
        of_type
    } else {
        of_image()
    };
    let Some(arm) = arm else { return };
    let wrong: Vec<String> = types.iter().filter(|t| is_arm(t) != arm).cloned().collect();
    if wrong.is_empty() {
        return;
    }
    // Named as the user knows the image: by its type, or by its id.
    let name = change.green.ami_type.as_deref();
    let name = name.or(image.map(String::as_str)).unwrap_or_default();
    out.push(Finding::new(
        Code::ImageMisfit,
        change.green_words(),
        format!(
            "image {name} is for {} processors, and {} has {} processors",
            processor_name(arm),
            name_some(&wrong),
            processor_name(!arm)
        ),
        "set an `amiType` (or an `ami`) for the processor of the group's `instanceTypes`; a group has one kind of processor",
    ));
}

/// EKS's images carry the drivers of one maker (EKS-NG-26).
fn check_drivers(change: &BlueGreenPair<'_>, types: &[String], out: &mut Vec<Finding>) {
    let Some(ami_type) = change.green.ami_type.as_deref() else {
        return;
    };
    // Without any driver in the image somebody installs them, as blue's nodes show.
    if !ami_type_is_accelerated(ami_type) {
        return;
    }
    // Types without a device run on any image.
    let wrong: Vec<String> = types
        .iter()
        .filter(|t| matches!(accelerator_of(t), Accelerator::Nvidia | Accelerator::Neuron))
        .filter(|t| !ami_type_carries(ami_type, accelerator_of(t)))
        .cloned()
        .collect();
    if !wrong.is_empty() {
        out.push(Finding::new(
            Code::ImageMisfit,
            change.green_words(),
            format!("AMI type {ami_type} has no driver for the devices of {}", name_some(&wrong)),
            "set `amiType` to the NEURON type for inf and trn instances and to the NVIDIA type for g and p instances",
        ));
    }
}

/// Zones that offer none of the types can hold no node of green.
fn check_offerings(
    case: &ReadinessInput<'_>,
    change: &BlueGreenPair<'_>,
    types: &[String],
    out: &mut Vec<Finding>,
) {
    let Some(limits) = &case.inventory.limits else {
        return;
    };
    // Unless the zones of every type are known, one that is not might be offered there.
    let known: Option<Vec<&BTreeSet<String>>> =
        types.iter().map(|t| limits.offerings.get(t)).collect();
    let Some(known) = known.filter(|k| !k.is_empty()) else {
        return;
    };
    // Zones of green's subnets: Auto Scaling starts instances nowhere else.
    let subnets = case.inventory.subnets.iter();
    let zones: BTreeSet<&String> = subnets
        .filter(|s| change.green.subnets.contains(&s.id))
        .map(|s| &s.zone)
        .collect();
    let without: Vec<String> = zones
        .iter()
        .filter(|z| !known.iter().any(|offering| offering.contains(**z)))
        .map(|z| (*z).clone())
        .collect();
    if without.is_empty() {
        return;
    }
    // Green needs a node in such a zone, or could have none anywhere, or simply avoids the zone.
    let demanded = without.iter().any(|z| change.zones.contains(z));
    let nowhere = without.len() == zones.len();
    // Blue lives with it where the types are its own.
    let own = case
        .plan
        .node_group(&change.blue.name)
        .instance_types
        .is_none();
    if own && !demanded && !nowhere {
        return;
    }
    let what = if demanded {
        "green must have a node there, for a volume or for pods that require the zone"
    } else if nowhere {
        "none of its subnets is in another zone"
    } else {
        "green will have nodes in its other zones only"
    };
    let finding = Finding::new(
        Code::TypeNotOffered,
        change.green_words(),
        format!(
            "none of its instance types ({}) is offered in {}: {what}",
            name_some(types),
            name_some(&without)
        ),
        "set `instanceTypes` for the group of which at least one is offered in each zone",
    );
    out.push(if demanded || nowhere {
        finding
    } else {
        finding.with_severity(Severity::Warning)
    });
}

/// Capacity that was bought or reserved for blue is blue's until blue is gone (EKS-NG-25).
fn check_reservations(
    case: &ReadinessInput<'_>,
    change: &BlueGreenPair<'_>,
    out: &mut Vec<Finding>,
) {
    // With `recreate` blue has no instances by then, and a green without nodes launches nothing.
    if case.plan.strategy == Strategy::Recreate || change.green.scaling.desired == 0 {
        return;
    }
    let plan_entry = case.plan.node_group(&change.blue.name);
    let template = route::launch_template_of_green(case.inventory, change.blue, &plan_entry);
    // A reservation is in the launch template, or follows from the group's capacity type.
    let of_template = |o: &crate::model::ec2::LaunchOptions| {
        if o.market.as_deref() == Some("capacity-block") {
            Some("a Capacity Block".to_owned())
        } else {
            o.reservation
                .as_ref()
                .map(|id| format!("capacity reservation {id}"))
        }
    };
    // The template goes first, as it names the reservation.
    let by_type = change.green.capacity_type.as_deref() == Some("CAPACITY_BLOCK");
    let what = template
        .and_then(|t| of_template(&t.options))
        .or_else(|| by_type.then(|| "a Capacity Block".to_owned()));
    let Some(what) = what else { return };
    out.push(Finding::new(
        Code::CapacityReserved,
        change.blue_words(),
        format!("its instances run in {what}, which holds as many instances as were reserved: green's instances cannot \
             launch while blue's use it"),
        "set `strategy: recreate` in a plan for this group alone, or create a template version without the reservation \
         and set `launchTemplateVersion`",
    ));
}
