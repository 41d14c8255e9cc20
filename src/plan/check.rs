//! From the tree of a file to a checked plan. Every problem is noted and the reading goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use super::budgets::read_budget_consents;
use super::contradictions;
use super::error::PlanErrors;
use super::keys::known_keys;
use super::tree::{TreeNode, TreeValue};
use super::types::{
    AddonPolicy, Addons, ControlPlane, DeadKubelets, Drain, DrainOrder, Insights, OnDeadline,
    OnUnhealthy, OperatorBudgets, Plan, Retire, RetireHow, SingleReplicas, Strategy, Traffic,
};
use super::value_reader::{
    ValueReader, is_cluster_name, note_missing, read_duration_or, shorten_text,
};
use super::{consents, groups, notify, routes, windows_and_approvals};
use crate::model::{AddonVersion, Minor};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// What `apiVersion` must say.
pub const PLAN_API_VERSION: &str = "eksup.dev/v1";
/// What `kind` must say.
pub const PLAN_KIND: &str = "UpgradePlan";

/// Reads a plan from a tree.
pub fn check_plan(name: &str, text: &str, root: &TreeNode) -> Result<Plan, PlanErrors> {
    let mut r = ValueReader::default();
    if matches!(root.what, TreeValue::Null) {
        return Err(PlanErrors::for_whole_file(
            name,
            "plan::empty",
            "the plan is empty",
            "write at least `cluster: NAME` and `to: \"1.30\"`, or let `eksup init --cluster NAME` write one",
        ));
    }
    let f = r.read_fields(root, "", known_keys(""));
    for (key, must) in [("apiVersion", PLAN_API_VERSION), ("kind", PLAN_KIND)] {
        if let Some(node) = f.get(key) {
            r.read_text_where(
                node,
                key,
                must,
                &format!("this program reads `{key}: {must}`"),
                |t| t == must,
            );
        }
    }
    let cluster = match f.get("cluster") {
        Some(node) => r.read_text_where(node, "cluster", "prod", "a cluster's name has up to 100 letters, digits, `-` and `_`, and begins with a letter or digit", is_cluster_name),
        None => note_missing(&mut r, &f, "cluster", "cluster: NAME"),
    };
    let to = match f.get("to") {
        Some(node) => read_target(&mut r, node),
        None => note_missing(&mut r, &f, "to", "to: \"1.30\""),
    };
    let region = f.get("region").and_then(|n| {
        r.read_text_where(
            n,
            "region",
            "eu-central-1",
            "write a region's code",
            is_region_name,
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
        .and_then(|n| r.read_choice(n, "strategy", &strategies))
        .unwrap_or(Strategy::BlueGreen);
    let control_plane = f
        .get("controlPlane")
        .map(|n| read_control_plane(&mut r, n))
        .unwrap_or_default();
    let addons = f
        .get("addons")
        .map(|n| read_addons(&mut r, n))
        .unwrap_or_default();
    let mut node_groups = Vec::new();
    if let Some(node) = f.get("nodeGroups") {
        for (i, item) in r
            .read_list(node, "nodeGroups", "- blue: apps-blue")
            .iter()
            .enumerate()
        {
            node_groups.extend(groups::read_node_group(
                &mut r,
                item,
                &format!("nodeGroups[{i}]"),
                strategy,
            ));
        }
    }
    let drain = f
        .get("drain")
        .map(|n| read_drain(&mut r, n))
        .unwrap_or_default();
    let traffic = f
        .get("traffic")
        .map(|n| read_traffic(&mut r, n))
        .unwrap_or_default();
    let retire = f
        .get("retire")
        .map(|n| read_retire(&mut r, n))
        .unwrap_or_default();
    let windows = f
        .get("windows")
        .map(|n| windows_and_approvals::read_windows(&mut r, n))
        .unwrap_or_default();
    let approvals = f
        .get("approvals")
        .map(|n| windows_and_approvals::read_approvals(&mut r, n))
        .unwrap_or_default();
    let notify = f
        .get("notify")
        .map(|n| notify::read_notify(&mut r, n))
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
    contradictions::find_contradictions(&mut r, &f, &plan, to.is_some());
    if r.problems.is_empty() {
        Ok(plan)
    } else {
        Err(PlanErrors::new(name, text, r.problems))
    }
}

fn read_target(r: &mut ValueReader, node: &TreeNode) -> Option<Minor> {
    let text = r.read_text(node, "to", "1.30")?;
    let Ok(minor) = text.parse::<Minor>() else {
        let help = match Minor::from_reported(&text) {
            Ok(minor) => format!("EKS takes a minor version only: write `to: \"{minor}\"`"),
            Err(_) => "write a Kubernetes minor version such as `to: \"1.30\"`".to_owned(),
        };
        r.note_problem(
            "plan::value",
            node.at,
            format!("`{}` is no Kubernetes minor version", shorten_text(&text)),
            help,
        );
        return None;
    };
    if minor.number() < 20 || minor.number() > 99 {
        r.note_problem("plan::value", node.at, format!("EKS has no version {minor} to upgrade to"), "`aws eks describe-cluster-versions` lists what EKS offers; write one such as `to: \"1.30\"`");
        return None;
    }
    Some(minor)
}

fn read_control_plane(r: &mut ValueReader, node: &TreeNode) -> ControlPlane {
    let f = r.read_fields(node, "controlPlane", known_keys("controlPlane"));
    let d = ControlPlane::default();
    ControlPlane {
        bake: read_duration_or(r, &f, "bake", Duration::ZERO, d.bake),
        insights: f
            .get("insights")
            .and_then(|n| {
                r.read_choice(
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
        timeout: read_duration_or(r, &f, "timeout", 5 * MINUTE, d.timeout),
    }
}

fn read_addons(r: &mut ValueReader, node: &TreeNode) -> Addons {
    let f = r.read_fields(node, "addons", known_keys("addons"));
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
        for (addon, (text, entry)) in r.read_map(node, "addons.pins", "coredns: v1.11.1-eksbuild.9")
        {
            let version = AddonVersion::new(&text);
            if version.parse_semver().is_none() {
                r.note_problem("plan::value", entry.value.at, format!("`{}` is no add-on version", shorten_text(&text)), "write a whole version such as `v1.11.1-eksbuild.9`; `aws eks describe-addon-versions` lists them");
            } else {
                pins.insert(addon, version);
            }
        }
    }
    Addons {
        policy: f
            .get("policy")
            .and_then(|n| r.read_choice(n, "addons.policy", &policies))
            .unwrap_or(d.policy),
        conflicts: f
            .get("conflicts")
            .and_then(|n| r.read_choice(n, "addons.conflicts", &conflicts))
            .map_or(d.conflicts, str::to_owned),
        pins,
        skip: f
            .get("skip")
            .map(|n| r.read_texts(n, "addons.skip", "aws-ebs-csi-driver"))
            .unwrap_or_default(),
        timeout: read_duration_or(r, &f, "timeout", MINUTE, d.timeout),
    }
}

fn read_drain(r: &mut ValueReader, node: &TreeNode) -> Drain {
    let f = r.read_fields(node, "drain", known_keys("drain"));
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
            .and_then(|n| r.read_choice(n, "drain.order", &orders))
            .unwrap_or(d.order),
        parallel: f
            .get("parallel")
            .and_then(|n| r.read_integer(n, "drain.parallel", 1..=50))
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(d.parallel),
        pod_deadline: read_duration_or(r, &f, "podDeadline", SECOND, d.pod_deadline),
        node_deadline: read_duration_or(r, &f, "nodeDeadline", SECOND, d.node_deadline),
        on_deadline: f
            .get("onDeadline")
            .and_then(|n| r.read_choice(n, "drain.onDeadline", &deadlines))
            .unwrap_or(d.on_deadline),
        bare_pods: consents::read_consent(r, &f, "barePods").unwrap_or(d.bare_pods),
        empty_dir: consents::read_consent(r, &f, "emptyDir").unwrap_or(d.empty_dir),
        host_path: consents::read_consent(r, &f, "hostPath").unwrap_or(d.host_path),
        node_storage: consents::read_consent(r, &f, "nodeStorage").unwrap_or(d.node_storage),
        jobs: consents::read_jobs_consent(r, &f, "jobs").unwrap_or(d.jobs),
        single_replicas: f
            .get("singleReplicas")
            .and_then(|n| r.read_choice(n, "drain.singleReplicas", &singles))
            .unwrap_or(d.single_replicas),
        operator_budgets: f
            .get("operatorBudgets")
            .and_then(|n| {
                let words = [
                    ("block", OperatorBudgets::Block),
                    ("wait", OperatorBudgets::Wait),
                ];
                r.read_choice(n, "drain.operatorBudgets", &words)
            })
            .unwrap_or(d.operator_budgets),
        budgets: f
            .get("budgets")
            .map_or(d.budgets, |n| read_budget_consents(r, n)),
        dead_kubelets: f
            .get("deadKubelets")
            .and_then(|n| {
                r.read_choice(
                    n,
                    "drain.deadKubelets",
                    &[("stop", DeadKubelets::Stop), ("skip", DeadKubelets::Skip)],
                )
            })
            .unwrap_or(d.dead_kubelets),
        bake: read_duration_or(r, &f, "bake", Duration::ZERO, d.bake),
        canary_bake: read_duration_or(r, &f, "canaryBake", Duration::ZERO, d.canary_bake),
    }
}

fn read_traffic(r: &mut ValueReader, node: &TreeNode) -> Traffic {
    let f = r.read_fields(node, "traffic", known_keys("traffic"));
    let d = Traffic::default();
    Traffic {
        routes: f
            .get("routes")
            .map(|n| routes::read_routes(r, n))
            .unwrap_or_default(),
        steps: f
            .get("steps")
            .and_then(|n| routes::read_traffic_steps(r, n))
            .unwrap_or(d.steps),
        bake: read_duration_or(r, &f, "bake", Duration::ZERO, d.bake),
        min_healthy_percent: f
            .get("minHealthyPercent")
            .and_then(|n| r.read_integer(n, "traffic.minHealthyPercent", 1..=100))
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(d.min_healthy_percent),
        timeout: read_duration_or(r, &f, "timeout", MINUTE, d.timeout),
        on_unhealthy: f
            .get("onUnhealthy")
            .and_then(|n| {
                r.read_choice(
                    n,
                    "traffic.onUnhealthy",
                    &[("back", OnUnhealthy::Back), ("hold", OnUnhealthy::Hold)],
                )
            })
            .unwrap_or(d.on_unhealthy),
    }
}

fn read_retire(r: &mut ValueReader, node: &TreeNode) -> Retire {
    let f = r.read_fields(node, "retire", known_keys("retire"));
    let d = Retire::default();
    Retire {
        soak: read_duration_or(r, &f, "soak", Duration::ZERO, d.soak),
        then: f
            .get("then")
            .and_then(|n| {
                r.read_choice(
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

fn is_region_name(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.len() >= 3
        && parts
            .last()
            .is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
        && parts[..parts.len() - 1]
            .iter()
            .all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_lowercase()))
}
