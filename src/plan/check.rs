//! From the tree of a file to a checked plan. Every problem is noted and the reading goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use super::budgets::budgets;
use super::contradictions;
use super::error::PlanErrors;
use super::keys::keys;
use super::read::{Reader, cluster_name, duration, missing, shorten};
use super::tree::{Node, What};
use super::types::{
    AddonPolicy, Addons, ControlPlane, DeadKubelets, Drain, DrainOrder, Insights, OnDeadline,
    OnUnhealthy, OperatorBudgets, Plan, Retire, RetireHow, SingleReplicas, Strategy, Traffic,
};
use super::{consents, gates, groups, notify, routes};
use crate::model::{AddonVersion, Minor};

/// No wait of an upgrade is longer: EKS's own way back closes after seven days.
pub const LONGEST: Duration = Duration::from_secs(7 * 86_400);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// What `apiVersion` must say.
pub const API_VERSION: &str = "eksup.dev/v1";
/// What `kind` must say.
pub const KIND: &str = "UpgradePlan";

/// Reads a plan from a tree.
pub fn plan(name: &str, text: &str, root: &Node) -> Result<Plan, PlanErrors> {
    let mut r = Reader::default();
    if matches!(root.what, What::Null) {
        return Err(PlanErrors::whole(
            name,
            "plan::empty",
            "the plan is empty",
            "write at least `cluster: NAME` and `to: \"1.30\"`, or let `eksup init --cluster NAME` write one",
        ));
    }
    let f = r.fields(root, "", keys(""));
    for (key, must) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        if let Some(node) = f.get(key) {
            r.text_where(
                node,
                key,
                must,
                &format!("this program reads `{key}: {must}`"),
                |t| t == must,
            );
        }
    }
    let cluster = match f.get("cluster") {
        Some(node) => r.text_where(node, "cluster", "prod", "a cluster's name has up to 100 letters, digits, `-` and `_`, and begins with a letter or digit", cluster_name),
        None => missing(&mut r, &f, "cluster", "cluster: NAME"),
    };
    let to = match f.get("to") {
        Some(node) => minor(&mut r, node),
        None => missing(&mut r, &f, "to", "to: \"1.30\""),
    };
    let region = f.get("region").and_then(|n| {
        r.text_where(
            n,
            "region",
            "eu-central-1",
            "write a region's code",
            region_name,
        )
    });
    let strategies = [
        ("blue-green", Strategy::BlueGreen),
        ("canary", Strategy::Canary),
        ("rolling", Strategy::Rolling),
        ("recreate", Strategy::Recreate),
    ];
    let strategy = f
        .get("strategy")
        .and_then(|n| r.choice(n, "strategy", &strategies))
        .unwrap_or(Strategy::BlueGreen);
    let control_plane = f
        .get("controlPlane")
        .map(|n| control_plane(&mut r, n))
        .unwrap_or_default();
    let addons = f
        .get("addons")
        .map(|n| addons(&mut r, n))
        .unwrap_or_default();
    let mut node_groups = Vec::new();
    if let Some(node) = f.get("nodeGroups") {
        for (i, item) in r
            .list(node, "nodeGroups", "- blue: apps-blue")
            .iter()
            .enumerate()
        {
            node_groups.extend(groups::read(
                &mut r,
                item,
                &format!("nodeGroups[{i}]"),
                strategy,
            ));
        }
    }
    let drain = f.get("drain").map(|n| drain(&mut r, n)).unwrap_or_default();
    let traffic = f
        .get("traffic")
        .map(|n| traffic(&mut r, n))
        .unwrap_or_default();
    let retire = f
        .get("retire")
        .map(|n| retire(&mut r, n))
        .unwrap_or_default();
    let windows = f
        .get("windows")
        .map(|n| gates::windows(&mut r, n))
        .unwrap_or_default();
    let approvals = f
        .get("approvals")
        .map(|n| gates::approvals(&mut r, n))
        .unwrap_or_default();
    let notify = f
        .get("notify")
        .map(|n| notify::read(&mut r, n))
        .unwrap_or_default();
    let plan = Plan {
        cluster: cluster.unwrap_or_default(),
        region,
        to: to.unwrap_or(Minor::new(0)),
        strategy,
        control_plane,
        addons,
        node_groups,
        drain,
        traffic,
        retire,
        windows,
        approvals,
        notify,
    };
    contradictions::find(&mut r, &f, &plan, to.is_some());
    if r.problems.is_empty() {
        Ok(plan)
    } else {
        Err(PlanErrors::new(name, text, r.problems))
    }
}

fn minor(r: &mut Reader, node: &Node) -> Option<Minor> {
    let text = r.text(node, "to", "1.30")?;
    let Ok(minor) = text.parse::<Minor>() else {
        let help = match Minor::from_reported(&text) {
            Ok(minor) => format!("EKS takes a minor version only: write `to: \"{minor}\"`"),
            Err(_) => "write a Kubernetes minor version such as `to: \"1.30\"`".to_owned(),
        };
        r.note(
            "plan::value",
            node.at,
            format!("`{}` is no Kubernetes minor version", shorten(&text)),
            help,
        );
        return None;
    };
    if minor.number() < 20 || minor.number() > 99 {
        r.note("plan::value", node.at, format!("EKS has no version {minor} to upgrade to"), "`aws eks describe-cluster-versions` lists what EKS offers; write one such as `to: \"1.30\"`");
        return None;
    }
    Some(minor)
}

fn control_plane(r: &mut Reader, node: &Node) -> ControlPlane {
    let f = r.fields(node, "controlPlane", keys("controlPlane"));
    let d = ControlPlane::default();
    ControlPlane {
        bake: duration(r, &f, "bake", Duration::ZERO, d.bake),
        insights: f
            .get("insights")
            .and_then(|n| {
                r.choice(
                    n,
                    "controlPlane.insights",
                    &[
                        ("block", Insights::Block),
                        ("warn", Insights::Warn),
                        ("ignore", Insights::Ignore),
                    ],
                )
            })
            .unwrap_or(d.insights),
        timeout: duration(r, &f, "timeout", 5 * MINUTE, d.timeout),
    }
}

fn addons(r: &mut Reader, node: &Node) -> Addons {
    let f = r.fields(node, "addons", keys("addons"));
    let d = Addons::default();
    let policies = [
        ("default", AddonPolicy::Default),
        ("latest", AddonPolicy::Latest),
        ("minimal", AddonPolicy::Minimal),
    ];
    let conflicts = [
        ("preserve", "PRESERVE"),
        ("overwrite", "OVERWRITE"),
        ("none", "NONE"),
    ];
    let mut pins = BTreeMap::new();
    if let Some(node) = f.get("pins") {
        for (addon, (text, entry)) in r.map(node, "addons.pins", "coredns: v1.11.1-eksbuild.9") {
            let version = AddonVersion::new(&text);
            if version.semver().is_none() {
                r.note("plan::value", entry.value.at, format!("`{}` is no add-on version", shorten(&text)), "write a whole version such as `v1.11.1-eksbuild.9`; `aws eks describe-addon-versions` lists them");
            } else {
                pins.insert(addon, version);
            }
        }
    }
    Addons {
        policy: f
            .get("policy")
            .and_then(|n| r.choice(n, "addons.policy", &policies))
            .unwrap_or(d.policy),
        conflicts: f
            .get("conflicts")
            .and_then(|n| r.choice(n, "addons.conflicts", &conflicts))
            .map_or(d.conflicts, str::to_owned),
        pins,
        skip: f
            .get("skip")
            .map(|n| r.texts(n, "addons.skip", "aws-ebs-csi-driver"))
            .unwrap_or_default(),
        timeout: duration(r, &f, "timeout", MINUTE, d.timeout),
    }
}

fn drain(r: &mut Reader, node: &Node) -> Drain {
    let f = r.fields(node, "drain", keys("drain"));
    let d = Drain::default();
    let orders = [
        ("easiest", DrainOrder::Easiest),
        ("zones", DrainOrder::Zones),
        ("oldest", DrainOrder::Oldest),
        ("name", DrainOrder::Name),
    ];
    let deadlines = [
        ("stop", OnDeadline::Stop),
        ("skip", OnDeadline::Skip),
        ("delete", OnDeadline::Delete),
    ];
    let singles = [
        ("block", SingleReplicas::Block),
        ("surge", SingleReplicas::Surge),
        ("evict", SingleReplicas::Evict),
    ];
    Drain {
        order: f
            .get("order")
            .and_then(|n| r.choice(n, "drain.order", &orders))
            .unwrap_or(d.order),
        parallel: f
            .get("parallel")
            .and_then(|n| r.integer(n, "drain.parallel", 1..=50))
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(d.parallel),
        pod_deadline: duration(r, &f, "podDeadline", SECOND, d.pod_deadline),
        node_deadline: duration(r, &f, "nodeDeadline", SECOND, d.node_deadline),
        on_deadline: f
            .get("onDeadline")
            .and_then(|n| r.choice(n, "drain.onDeadline", &deadlines))
            .unwrap_or(d.on_deadline),
        bare_pods: consents::consent(r, &f, "barePods").unwrap_or(d.bare_pods),
        empty_dir: consents::consent(r, &f, "emptyDir").unwrap_or(d.empty_dir),
        host_path: consents::consent(r, &f, "hostPath").unwrap_or(d.host_path),
        node_storage: consents::consent(r, &f, "nodeStorage").unwrap_or(d.node_storage),
        jobs: consents::jobs(r, &f, "jobs").unwrap_or(d.jobs),
        single_replicas: f
            .get("singleReplicas")
            .and_then(|n| r.choice(n, "drain.singleReplicas", &singles))
            .unwrap_or(d.single_replicas),
        operator_budgets: f
            .get("operatorBudgets")
            .and_then(|n| {
                let words = [
                    ("block", OperatorBudgets::Block),
                    ("wait", OperatorBudgets::Wait),
                ];
                r.choice(n, "drain.operatorBudgets", &words)
            })
            .unwrap_or(d.operator_budgets),
        budgets: f.get("budgets").map_or(d.budgets, |n| budgets(r, n)),
        dead_kubelets: f
            .get("deadKubelets")
            .and_then(|n| {
                r.choice(
                    n,
                    "drain.deadKubelets",
                    &[("stop", DeadKubelets::Stop), ("skip", DeadKubelets::Skip)],
                )
            })
            .unwrap_or(d.dead_kubelets),
        bake: duration(r, &f, "bake", Duration::ZERO, d.bake),
        canary_bake: duration(r, &f, "canaryBake", Duration::ZERO, d.canary_bake),
    }
}

fn traffic(r: &mut Reader, node: &Node) -> Traffic {
    let f = r.fields(node, "traffic", keys("traffic"));
    let d = Traffic::default();
    Traffic {
        routes: f
            .get("routes")
            .map(|n| routes::read(r, n))
            .unwrap_or_default(),
        steps: f
            .get("steps")
            .and_then(|n| routes::steps(r, n))
            .unwrap_or(d.steps),
        bake: duration(r, &f, "bake", Duration::ZERO, d.bake),
        min_healthy_percent: f
            .get("minHealthyPercent")
            .and_then(|n| r.integer(n, "traffic.minHealthyPercent", 1..=100))
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(d.min_healthy_percent),
        timeout: duration(r, &f, "timeout", MINUTE, d.timeout),
        on_unhealthy: f
            .get("onUnhealthy")
            .and_then(|n| {
                r.choice(
                    n,
                    "traffic.onUnhealthy",
                    &[("back", OnUnhealthy::Back), ("hold", OnUnhealthy::Hold)],
                )
            })
            .unwrap_or(d.on_unhealthy),
    }
}

fn retire(r: &mut Reader, node: &Node) -> Retire {
    let f = r.fields(node, "retire", keys("retire"));
    let d = Retire::default();
    Retire {
        soak: duration(r, &f, "soak", Duration::ZERO, d.soak),
        then: f
            .get("then")
            .and_then(|n| {
                r.choice(
                    n,
                    "retire.then",
                    &[
                        ("delete", RetireHow::Delete),
                        ("keep-at-zero", RetireHow::KeepAtZero),
                    ],
                )
            })
            .unwrap_or(d.then),
    }
}

fn region_name(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.len() >= 3
        && parts
            .last()
            .is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
        && parts[..parts.len() - 1]
            .iter()
            .all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_lowercase()))
}
