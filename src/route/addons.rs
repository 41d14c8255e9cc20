//! Which add-on goes to which version, and when.
//!
//! Before a hop only what the next minor does not run is moved, to a version that both minors run: so the hop can still
//! be rolled back. After it the policy of the plan is met, networking first. Nothing ever goes down.

use super::draft::{RouteDraft, StepDraft};
use super::problem::Obstacle;
use super::{StepSpec, estimate};
use crate::model::eks::{AddonChange, AddonOffer};
use crate::model::kube::Workload;
use crate::model::{AddonVersion, Inventory, Minor};
use crate::plan::AddonPolicy;

/// Networking first, then name resolution, then what pods need to start; the rest by name.
const ADDON_ORDER: &[&str] = &[
    "vpc-cni",
    "kube-proxy",
    "coredns",
    "eks-pod-identity-agent",
    "aws-ebs-csi-driver",
    "aws-efs-csi-driver",
];

/// AL2023 nodes need this vpc-cni. Source: the EKS user guide on AL2023.
const MIN_CNI_FOR_AL2023: semver::Version = semver::Version::new(1, 16, 2);

/// An add-on that runs in the cluster and that EKS does not manage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfManagedAddon {
    pub addon: &'static str,
    /// Such as `DaemonSet kube-system/aws-node`.
    pub workload: String,
    /// The tag of its image.
    pub version: Option<String>,
}

/// Finds add-ons that EKS does not manage. Clusters made by API or Terraform have the first three this way by default.
pub fn find_self_managed(inventory: &Inventory) -> Vec<SelfManagedAddon> {
    const ADDON_WORKLOADS: &[(&str, &str, &str)] = &[
        ("vpc-cni", "DaemonSet", "aws-node"),
        ("kube-proxy", "DaemonSet", "kube-proxy"),
        ("coredns", "Deployment", "coredns"),
        (
            "eks-pod-identity-agent",
            "DaemonSet",
            "eks-pod-identity-agent",
        ),
        ("aws-ebs-csi-driver", "Deployment", "ebs-csi-controller"),
        ("aws-efs-csi-driver", "Deployment", "efs-csi-controller"),
    ];
    // An add-on counts as self-managed only when EKS does not list it and its workload is there (EKS-ADD-9).
    let is = |w: &Workload, kind: &str, name: &str| {
        w.kind == kind && w.key.namespace == "kube-system" && w.key.name == name
    };
    let managed = |addon: &str| inventory.addons.iter().any(|a| a.name == addon);
    ADDON_WORKLOADS
        .iter()
        .filter(|(addon, ..)| !managed(addon))
        .filter_map(|(addon, kind, name)| {
            let found = inventory.workloads.iter().find(|w| is(w, kind, name))?;
            // The tag of the image is the only version that a workload tells. One without a tag, or by digest, has
            // none.
            let version = found
                .images
                .first()
                .and_then(|image| image.rsplit_once(':'))
                .map(|(_, tag)| tag.to_owned());
            Some(SelfManagedAddon {
                addon,
                workload: format!("{kind} {}", found.key),
                version,
            })
        })
        .collect()
}

/// The versions of an add-on that a minor runs, on every architecture of the cluster's nodes.
pub fn offers_on_minor<'a>(
    inventory: &'a Inventory,
    addon: &str,
    minor: Minor,
) -> Vec<&'a AddonOffer> {
    let runs_here = |offer: &&AddonOffer| {
        let arch = |n: &crate::model::kube::Node| n.labels.get("kubernetes.io/arch").cloned();
        // An offer without architectures is one for all of them.
        offer.architectures.is_empty()
            || inventory
                .nodes
                .iter()
                .filter_map(arch)
                .all(|a| offer.architectures.contains(&a))
    };
    let listed = inventory
        .addon_catalog
        .get(addon)
        .and_then(|by_minor| by_minor.get(&minor));
    listed.into_iter().flatten().filter(runs_here).collect()
}

/// Moves what the next minor does not run.
pub fn push_addons_before_hop(draft: &mut RouteDraft<'_>) {
    let (at, next) = (draft.at, draft.at.next());
    for name in ordered_addon_names(draft) {
        let current = draft.addons[&name].clone();
        // Moved only where it must be: an add-on that runs on both minors keeps the hop's rollback open as it is.
        let there = offers_on_minor(draft.inventory, &name, next);
        let fits = there.iter().any(|o| o.version == current)
            && !(name == "kube-proxy" && is_too_old_for_server(&current, next));
        // Of what EKS lists nothing on the next minor, nobody knows whether it runs there: the readiness checks stop the
        // run for it, unless the plan skips the add-on.
        if there.is_empty() || fits || draft.plan.addons.skip.contains(&name) {
            continue;
        }
        let here: Vec<&AddonOffer> = offers_on_minor(draft.inventory, &name, at)
            .into_iter()
            .filter(|o| name != "kube-proxy" || !is_newer_than_server(&o.version, at))
            .collect();
        let pin = draft.plan.addons.pins.get(&name);
        // The version has to run on both minors: EKS refuses a version rollback while an add-on does not run below
        // (docs/rollback.md).
        let both: Vec<&AddonOffer> = there
            .into_iter()
            .filter(|o| o.version > current && here.iter().any(|h| h.version == o.version))
            .filter(|o| pin.is_none_or(|pin| o.version <= *pin))
            .collect();
        let default_here = here.iter().find(|h| h.default).map(|h| &h.version);
        // The next minor's default first, then this minor's, then the smallest step that does.
        let choice = both
            .iter()
            .find(|o| o.default)
            .or_else(|| both.iter().find(|o| Some(&o.version) == default_here))
            .or_else(|| both.iter().min_by(|a, b| a.version.cmp(&b.version)))
            .map(|o| o.version.clone());
        match choice {
            Some(version) => {
                let why = format!("{next} does not run {name} {current}; {version} runs on {at} and on {next}, so the hop can still be rolled back");
                push_addon_steps(draft, &name, &version, &format!("addon-{name}-before-{next}"), Some(why));
            }
            None => draft.add_note(format!("No version of the add-on {name} newer than {current} runs on both {at} and {next}: it is moved right after the hop.")),
        }
    }
}

/// Meets the plan's policy on the minor the control plane is at.
pub fn push_addons_after_hop(draft: &mut RouteDraft<'_>) {
    for name in ordered_addon_names(draft) {
        if let Some(version) = choose_addon_version(draft, &name) {
            let id = format!("addon-{name}-{}", draft.at);
            push_addon_steps(draft, &name, &version, &id, None);
        }
    }
}

/// Makes sure the network add-on works on the nodes that come.
pub fn push_addons_before_nodes(draft: &mut RouteDraft<'_>, ami_types: &[Option<String>]) {
    let name = "vpc-cni";
    let al2023 = ami_types.iter().flatten().any(|t| t.starts_with("AL2023"));
    let Some(current) = draft.addons.get(name).cloned() else {
        return;
    };
    let enough = |v: &AddonVersion| {
        // One without numbers may be any: it is no proof that these nodes become Ready.
        v.parse_semver().is_some_and(|v| {
            (v.major, v.minor, v.patch)
                >= (
                    MIN_CNI_FOR_AL2023.major,
                    MIN_CNI_FOR_AL2023.minor,
                    MIN_CNI_FOR_AL2023.patch,
                )
        })
    };
    // Nodes of AL2023 whose network add-on is older never become Ready, and green would wait until its deadline.
    if !al2023 || enough(&current) {
        return;
    }
    // The plan's word stands even where it blocks: what it skips or pins is a problem to tell, not to overrule.
    let frozen = draft.plan.addons.skip.iter().any(|s| s == name)
        || draft.plan.addons.pins.contains_key(name);
    let fitting: Vec<AddonVersion> = {
        let all = offers_on_minor(draft.inventory, name, draft.at);
        let default = all.iter().filter(|o| o.default);
        let rest = all.iter().rev();
        default
            .chain(rest)
            .map(|o| o.version.clone())
            .filter(enough)
            .collect()
    };
    // The default first, then the oldest that is new enough: offers come newest first, and the smallest step is the
    // safest.
    match fitting.first() {
        Some(version) if !frozen => {
            let why = format!("nodes with AL2023 need {name} {MIN_CNI_FOR_AL2023} or newer");
            push_addon_steps(draft, name, version, "addon-vpc-cni-for-al2023", Some(why));
        }
        Some(_) | None => draft.add_problem(
            Obstacle::CniTooOld,
            format!("add-on {name}"),
            format!("it will be at {current} when the green nodes join, and nodes with AL2023 need {MIN_CNI_FOR_AL2023} or newer"),
            if frozen { "take vpc-cni out of `addons.skip` and `addons.pins`, or pin a newer version" } else { "update the add-on by hand first: EKS lists no version that is new enough" },
        ),
    }
}

fn ordered_addon_names(draft: &RouteDraft<'_>) -> Vec<String> {
    let rank = |name: &str| {
        ADDON_ORDER
            .iter()
            .position(|o| *o == name)
            .unwrap_or(ADDON_ORDER.len())
    };
    let mut names: Vec<String> = draft.addons.keys().cloned().collect();
    names.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
    names
}

/// The version an add-on goes to where the control plane is, when it goes anywhere.
fn choose_addon_version(draft: &mut RouteDraft<'_>, name: &str) -> Option<AddonVersion> {
    let (at, to) = (draft.at, draft.plan.to);
    let current = draft.addons[name].clone();
    // The user's word goes before every policy.
    if draft.plan.addons.skip.iter().any(|s| s == name) {
        return None;
    }
    let inventory = draft.inventory;
    let here = offers_on_minor(inventory, name, at);
    let pin = draft.plan.addons.pins.get(name).cloned();
    // A pin is for the plan's target. On a minor in between it only bounds from above.
    if let Some(pin) = &pin
        && at == to
    {
        if *pin < current {
            let fix = format!(
                "pin {current} or newer: an add-on is never rolled back to an older version"
            );
            draft.add_problem(
                Obstacle::PinUnusable,
                format!("add-on {name}"),
                format!("it is pinned to {pin}, which is older than {current}, which runs now"),
                fix,
            );
            return None;
        }
        // EKS refuses a version that it does not list for the minor.
        if !here.iter().any(|o| o.version == *pin) {
            let known: Vec<&str> = here.iter().take(4).map(|o| o.version.as_str()).collect();
            let fix = if known.is_empty() {
                "take it out of `addons.pins`: EKS lists no version of it there".to_owned()
            } else {
                format!("pin one of {}", known.join(", "))
            };
            draft.add_problem(
                Obstacle::PinUnusable,
                format!("add-on {name}"),
                format!("it is pinned to {pin}, which EKS does not offer on {to}"),
                fix,
            );
            return None;
        }
        return (*pin != current).then(|| pin.clone());
    }
    // Nothing goes down: an older version is a choice that somebody has to make.
    let newer: Vec<&AddonOffer> = here
        .iter()
        .copied()
        .filter(|o| o.version > current)
        .filter(|o| pin.as_ref().is_none_or(|pin| o.version <= *pin))
        // kube-proxy must not be newer than the API server that it talks to.
        .filter(|o| name != "kube-proxy" || !is_newer_than_server(&o.version, at))
        .collect();
    // Whether the add-on may stay as it is decides how much the policy asks for.
    let fits = here.iter().any(|o| o.version == current)
        && !(name == "kube-proxy" && is_too_old_for_server(&current, at));
    let default = newer.iter().find(|o| o.default);
    let newest = newer.iter().max_by(|a, b| a.version.cmp(&b.version));
    // A pin for the target says nothing of a minor in between: there only what must change does.
    let policy = if pin.is_some() {
        AddonPolicy::Minimal
    } else {
        draft.plan.addons.policy
    };
    // EKS's default may be older than what runs: the newest is taken then, but only where the add-on cannot stay.
    let choice = match policy {
        AddonPolicy::Latest => newest,
        AddonPolicy::Default => default.or(if fits { None } else { newest }),
        AddonPolicy::Minimal if fits => None,
        AddonPolicy::Minimal => default.or(newest),
    };
    choice.map(|o| o.version.clone())
}

/// Adds the steps that take an add-on to `version`; the network add-on goes one of its minors at a time.
fn push_addon_steps(
    draft: &mut RouteDraft<'_>,
    name: &str,
    version: &AddonVersion,
    id: &str,
    why: Option<String>,
) {
    let Some(addon) = draft.inventory.addons.iter().find(|a| a.name == name) else {
        return;
    };
    for rung in versions_on_the_way(draft, name, version) {
        let from = draft.addons[name].clone();
        let last = rung == *version;
        let id = if last {
            id.to_owned()
        } else {
            format!(
                "{id}-v{}",
                rung.parse_semver()
                    .map(|v| format!("{}.{}", v.major, v.minor))
                    .unwrap_or_default()
            )
        };
        let spec = StepSpec::Addon {
            from: from.clone(),
            change: AddonChange {
                name: name.to_owned(),
                version: rung.clone(),
                resolve_conflicts: draft.plan.addons.conflicts.eks_name().to_owned(),
                // What is left out falls back to EKS's defaults: the role is sent again as it is, and so is the
                // configuration, read again.
                service_account_role_arn: addon.service_account_role_arn.clone(),
            },
            timeout: draft.plan.addons.timeout,
        };
        let mut step_draft = StepDraft::new(
            format!("Add-on {name} {from} to {rung}"),
            [format!("add-on {name}")],
            estimate::ADDON,
            spec,
        );
        step_draft.why = if last {
            why.clone()
        } else {
            Some(format!(
                "{name} is updated by one of its own minor versions at a time"
            ))
        };
        draft.push_step(id, step_draft);
        // What follows on the route sees the add-on at this version.
        draft.addons.insert(name.to_owned(), rung);
    }
}

/// The versions on the way to `version`, itself last.
fn versions_on_the_way(
    draft: &RouteDraft<'_>,
    name: &str,
    version: &AddonVersion,
) -> Vec<AddonVersion> {
    let (from, to) = (draft.addons[name].parse_semver(), version.parse_semver());
    let mut rungs = Vec::new();
    if let (Some(from), Some(to)) = (from, to)
        && name == "vpc-cni"
        && from.major == to.major
    {
        // EKS takes vpc-cni up one of its own minors at a time (EKS-ADD-6).
        for minor in from.minor + 1..to.minor {
            let of_minor = offers_on_minor(draft.inventory, name, draft.at)
                .into_iter()
                .filter(|o| {
                    o.version
                        .parse_semver()
                        .is_some_and(|v| v.major == to.major && v.minor == minor)
                });
            rungs.extend(of_minor.map(|o| o.version.clone()).max());
        }
    }
    rungs.push(version.clone());
    rungs
}

/// Whether a kube-proxy is newer than the API server would be.
fn is_newer_than_server(version: &AddonVersion, server: Minor) -> bool {
    Minor::from_reported(version.as_str()).is_ok_and(|minor| minor > server)
}

/// Whether a kube-proxy trails the API server further than it may; the rule is the kubelet's.
fn is_too_old_for_server(version: &AddonVersion, server: Minor) -> bool {
    Minor::from_reported(version.as_str())
        .is_ok_and(|minor| minor < server && !minor.kubelet_may_join(server))
}
