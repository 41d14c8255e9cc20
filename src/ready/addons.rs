//! Add-ons: their state, whether a version runs on each minor of the way, and those EKS does not manage.

use super::addon_config;
use super::codes::Code;
use super::input::ReadinessInput;
use super::{Finding, Severity};
use crate::model::aws_status::AddonStatus;
use crate::model::{AddonVersion, Minor};
use crate::route;

/// Judges the add-ons.
pub fn check_addons(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    for addon in &case.inventory.addons {
        let subject = format!("add-on {}", addon.name);
        // The state of today, before anything moves.
        if addon.status != AddonStatus::Active {
            let why: Vec<String> = addon
                .health
                .iter()
                .map(|h| format!("{}: {}", h.code, h.message))
                .collect();
            let mut detail = format!("its status is {}", addon.status);
            if !why.is_empty() {
                detail += &format!(": {}", why.join("; "));
            }
            // EKS says DEGRADED while a rollout lags; that passes, a failed update does not.
            let skipped = case.plan.addons.skip.contains(&addon.name);
            let severity = if skipped
                || addon.status == AddonStatus::Updating
                || addon.status == AddonStatus::Creating
            {
                Severity::Warning
            } else {
                Severity::Blocker
            };
            let fix = if skipped {
                "nothing to do: the plan skips it"
            } else {
                "fix it before the upgrade: otherwise it hides faults that the upgrade causes. Or list it in `addons.skip`, \
                 so that eksup does not touch it"
            };
            let finding = Finding::new(Code::AddonStatus, &subject, detail, fix);
            out.push(finding.with_severity(severity));
        }
        check_compatibility(case, &addon.name, out);
    }
    addon_config::check_addon_configurations(case, out);
    // Add-ons that run without EKS: the route has no steps for them.
    for found in route::find_self_managed(case.inventory) {
        let version = found.version.as_deref().unwrap_or("of unknown version");
        out.push(Finding::new(
            Code::AddonSelfManaged,
            format!("add-on {}", found.addon),
            format!("{} ({version}) is not managed by EKS, so eksup does not update it", found.workload),
            format!(
                "before each hop, update it by hand to a version for the next minor; or let EKS manage it: aws eks \
                 create-addon --cluster-name {} --addon-name {} --resolve-conflicts NONE",
                case.plan.cluster, found.addon
            ),
        ));
    }
}

/// Why nothing is known to run on `minor`: EKS lists no version there, none for the nodes' architectures, or its
/// catalogue was not read for it.
fn not_listed(case: &ReadinessInput<'_>, name: &str, minor: Minor) -> Option<String> {
    if !route::offers_on_minor(case.inventory, name, minor).is_empty() {
        return None;
    }
    let listed = case.inventory.addon_catalog.get(name)?.get(&minor);
    Some(match listed {
        None => format!(
            "EKS's catalogue for {minor} could not be read, so it is unknown whether the add-on runs there"
        ),
        Some(offers) if offers.is_empty() => format!("EKS lists no version of it for {minor}"),
        Some(_) => format!(
            "EKS lists no version of it for {minor} that runs on the architectures of the cluster's nodes"
        ),
    })
}

/// What to do about an add-on that EKS does not list.
fn suggest_fix(case: &ReadinessInput<'_>, name: &str) -> String {
    format!(
        "ask its publisher which Kubernetes versions it supports. Then keep its objects and remove it from EKS's \
         management: aws eks delete-addon --cluster-name {} --addon-name {name} --preserve; or remove it; or list it in \
         `addons.skip` to continue with it as it is; or choose an older `to`",
        case.plan.cluster
    )
}

/// Walks the add-on along the route and looks at every minor.
fn check_compatibility(case: &ReadinessInput<'_>, name: &str, out: &mut Vec<Finding>) {
    let subject = format!("add-on {name}");
    let catalog = case.inventory.addon_catalog.get(name);
    let Some(addon) = case.inventory.addons.iter().find(|a| a.name == name) else {
        return;
    };
    // What is skipped is judged by the version that it keeps.
    let skipped = case.plan.addons.skip.iter().any(|s| s == name);
    let hops = case.minors_ahead().next().is_some();
    // The catalogue does not know the add-on at all.
    if catalog.is_none_or(|c| c.values().all(Vec::is_empty)) {
        let finding = Finding::new(
            Code::AddonUnknown,
            subject,
            "DescribeAddonVersions lists no version of it, so it is unknown which Kubernetes versions it supports",
            suggest_fix(case, name),
        );
        // Without a hop nothing changes under it, and who skips it has said that it is theirs to watch.
        out.push(if skipped || !hops {
            finding.with_severity(Severity::Warning)
        } else {
            finding
        });
        return;
    }
    // It knows the add-on, and no version of it for a minor ahead: no update could help there.
    if let Some((minor, why)) = case
        .minors_ahead()
        .find_map(|minor| Some((minor, not_listed(case, name, minor)?)))
    {
        if skipped {
            let detail = format!("the plan skips it, and {why}");
            let fix = format!(
                "make sure that {} works on {minor}, or remove the add-on before that hop",
                addon.version
            );
            out.push(Finding::new(Code::AddonSkipped, subject, detail, fix));
        } else {
            out.push(Finding::new(
                Code::AddonNotListed,
                subject,
                why,
                suggest_fix(case, name),
            ));
        }
        return;
    }
    // Each minor ahead has versions. A skipped add-on keeps its own, which must be among them.
    let runs = |version: &AddonVersion, minor| {
        let offers = route::offers_on_minor(case.inventory, name, minor);
        offers.iter().any(|o| o.version == *version)
    };
    if skipped {
        if let Some(minor) = case.minors_ahead().find(|m| !runs(&addon.version, *m)) {
            let detail = format!(
                "the plan skips it, and {} does not run on {minor}",
                addon.version
            );
            let fix = "take it out of `addons.skip`, or update it by hand before that hop";
            out.push(Finding::new(Code::AddonSkipped, subject, detail, fix));
        }
        return;
    }
    // The route changes the version of any other add-on: each must run on its minor until the next hop.
    let Some(route) = case.route else { return };
    let mut version = addon.version.clone();
    // The minor that is reached, and whether the add-on runs on it when the next hop (or the end) comes.
    let mut at = None;
    let mut misfit = None;
    for step in &route.steps {
        if let Some(change) = step.spec.addon_change().filter(|c| c.name == name) {
            version = change.version.clone();
        }
        if let Some(to) = step.spec.control_plane_target() {
            misfit = misfit.or(at.filter(|m| !runs(&version, *m)));
            at = Some(to);
        }
    }
    misfit = misfit.or(at.filter(|m| !runs(&version, *m)));
    if let Some(minor) = misfit {
        out.push(Finding::new(
            Code::AddonIncompatible,
            subject,
            format!("{version} does not run on {minor}, and EKS offers no newer version that does"),
            "remove the add-on, replace it, or choose an older `to`",
        ));
    }
}
