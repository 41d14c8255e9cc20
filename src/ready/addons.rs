//! Add-ons: their state, whether a version runs on each minor of the way, and those EKS does not manage.

use super::case::Case;
use super::codes::Code;
use super::{Finding, Severity};
use crate::model::AddonVersion;
use crate::route::{self, StepSpec};

/// Judges the add-ons.
pub fn judge(case: &Case<'_>, out: &mut Vec<Finding>) {
    for addon in &case.inventory.addons {
        let subject = format!("add-on {}", addon.name);
        if addon.status != "ACTIVE" {
            let why: Vec<String> = addon
                .health
                .iter()
                .map(|h| format!("{}: {}", h.code, h.message))
                .collect();
            let detail = format!("its status is {} {}", addon.status, why.join("; "));
            // EKS says DEGRADED while a rollout lags; that passes, a failed update does not.
            let severity = if addon.status == "UPDATING" || addon.status == "CREATING" {
                Severity::Warning
            } else {
                Severity::Blocker
            };
            let fix = "mend it first: an upgrade would not tell a new fault from this one";
            let finding = Finding::new(Code::AddonStatus, &subject, detail.trim_end(), fix);
            out.push(finding.weighing(severity));
        }
        compatible(case, &addon.name, out);
    }
    for found in route::self_managed(case.inventory) {
        let version = found.version.as_deref().unwrap_or("of unknown version");
        out.push(Finding::new(
            Code::AddonSelfManaged,
            format!("add-on {}", found.addon),
            format!("{} ({version}) is not managed by EKS: eksup leaves it as it is", found.workload),
            format!(
                "before each hop, bring it to a version for the next minor by hand; or let EKS manage it: aws eks create-addon --cluster-name {} --addon-name {} --resolve-conflicts NONE",
                case.plan.cluster, found.addon
            ),
        ));
    }
}

/// Walks the add-on along the route and looks at every minor.
fn compatible(case: &Case<'_>, name: &str, out: &mut Vec<Finding>) {
    let subject = format!("add-on {name}");
    let catalog = case.inventory.addon_catalog.get(name);
    let Some(addon) = case.inventory.addons.iter().find(|a| a.name == name) else {
        return;
    };
    if catalog.is_none_or(|c| c.values().all(Vec::is_empty)) {
        out.push(Finding::new(
            Code::AddonUnknown,
            subject,
            "DescribeAddonVersions lists no version of it, so nobody knows what it runs on",
            "look its compatibility up with whoever publishes it",
        ));
        return;
    }
    let runs = |version: &AddonVersion, minor| {
        let offers = route::offers(case.inventory, name, minor);
        offers.is_empty() || offers.iter().any(|o| o.version == *version)
    };
    let skipped = case.plan.addons.skip.iter().any(|s| s == name);
    if skipped {
        if let Some(minor) = case.minors().find(|m| !runs(&addon.version, *m)) {
            let detail = format!(
                "the plan skips it, and {} does not run on {minor}",
                addon.version
            );
            let fix = "take it out of `addons.skip`, or update it by hand before that hop";
            out.push(Finding::new(Code::AddonSkipped, subject, detail, fix));
        }
        return;
    }
    let Some(route) = case.route else { return };
    let mut version = addon.version.clone();
    // The minor that is reached, and whether the add-on runs on it when the next hop (or the end) comes.
    let mut at = None;
    let mut misfit = None;
    for step in &route.steps {
        match &step.spec {
            StepSpec::Addon { change, .. } if change.name == name => {
                version = change.version.clone();
            }
            StepSpec::ControlPlane { to, .. } => {
                misfit = misfit.or(at.filter(|m| !runs(&version, *m)));
                at = Some(*to);
            }
            _ => {}
        }
    }
    misfit = misfit.or(at.filter(|m| !runs(&version, *m)));
    if let Some(minor) = misfit {
        out.push(Finding::new(
            Code::AddonIncompatible,
            subject,
            format!("{version} does not run on {minor}, and EKS offers no newer version there"),
            "remove the add-on, replace it, or stop at an older minor",
        ));
    }
}
