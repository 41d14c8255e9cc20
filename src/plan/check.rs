//! From the tree of a file to a checked plan. Every problem is noted and the reading goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use super::contradictions;
use super::error::{PlanErrors, Problem};
use super::read::{Fields, Reader, shorten};
use super::tree::{Node, What};
use super::types::{
    AddonPolicy, Addons, Capacity, Consent, ControlPlane, DeadKubelets, Drain, DrainOrder,
    Insights, Jobs, NodeGroup, OnDeadline, OnUnhealthy, Plan, Retire, RetireHow, SingleReplicas,
    Strategy, Traffic,
};
use super::{notify, routes};
use crate::model::eks::NodegroupTaint;
use crate::model::{AddonVersion, Minor};

/// No wait of an upgrade is longer: EKS's own way back closes after seven days.
pub const LONGEST: Duration = Duration::from_secs(7 * 86_400);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// What `apiVersion` must say.
pub const API_VERSION: &str = "eksup.dev/v1";
/// What `kind` must say.
pub const KIND: &str = "UpgradePlan";

/// Keys by the map that holds them; the JSON Schema is held to the same table by a test.
pub const KEYS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "apiVersion",
            "kind",
            "cluster",
            "region",
            "to",
            "strategy",
            "controlPlane",
            "addons",
            "nodeGroups",
            "drain",
            "traffic",
            "retire",
            "notify",
        ],
    ),
    ("controlPlane", &["bake", "insights", "timeout"]),
    (
        "addons",
        &["policy", "conflicts", "pins", "skip", "timeout"],
    ),
    (
        "nodeGroups",
        &[
            "blue",
            "green",
            "amiType",
            "releaseVersion",
            "ami",
            "launchTemplateVersion",
            "capacity",
            "instanceTypes",
            "labels",
            "taints",
            "deleteOwned",
            "timeout",
        ],
    ),
    ("nodeGroups.capacity", &["surge"]),
    ("nodeGroups.taints", &["key", "value", "effect"]),
    (
        "drain",
        &[
            "order",
            "parallel",
            "podDeadline",
            "nodeDeadline",
            "onDeadline",
            "barePods",
            "emptyDir",
            "jobs",
            "singleReplicas",
            "deadKubelets",
            "bake",
            "canaryBake",
        ],
    ),
    (
        "traffic",
        &[
            "routes",
            "steps",
            "bake",
            "minHealthyPercent",
            "timeout",
            "onUnhealthy",
        ],
    ),
    ("traffic.routes", &["rule", "blue", "green"]),
    (
        "traffic.routes.rule",
        &["arn", "loadBalancer", "port", "conditions"],
    ),
    ("retire", &["soak", "then"]),
    ("notify", &["webhook", "sns"]),
    ("notify.webhook", &["url", "on"]),
    ("notify.sns", &["topic", "on"]),
];

/// The keys a map may hold.
pub fn keys(of: &str) -> &'static [&'static str] {
    KEYS.iter()
        .find(|(name, _)| *name == of)
        .map_or(&[], |(_, keys)| keys)
}

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
            node_groups.extend(node_group(
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
        notify,
    };
    contradictions::find(&mut r, &f, &plan, to.is_some());
    if r.problems.is_empty() {
        Ok(plan)
    } else {
        Err(PlanErrors::new(name, text, r.problems))
    }
}

fn missing<T>(r: &mut Reader, f: &Fields<'_>, key: &str, write: &str) -> Option<T> {
    r.problems.push(
        Problem::new(
            "plan::missing",
            f.at,
            format!("`{}` is missing", f.path_of(key)),
        )
        .help(format!("write `{write}`")),
    );
    None
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

fn node_group(r: &mut Reader, node: &Node, path: &str, strategy: Strategy) -> Option<NodeGroup> {
    let f = r.fields(node, path, keys("nodeGroups"));
    let group_rule = "a node group's name has up to 63 letters, digits, `-` and `_`, and begins with a letter or digit";
    let blue = match f.get("blue") {
        Some(n) => r.text_where(n, &f.path_of("blue"), "apps-blue", group_rule, group_name),
        None => missing(r, &f, "blue", "blue: apps-blue"),
    };
    let d = NodeGroup::of("", strategy);
    let group = NodeGroup {
        blue: blue.clone().unwrap_or_default(),
        green: f.get("green").and_then(|n| {
            r.text_where(n, &f.path_of("green"), "apps-green", group_rule, group_name)
        }),
        ami_type: f.get("amiType").and_then(|n| {
            r.text_where(
                n,
                &f.path_of("amiType"),
                "AL2023_x86_64_STANDARD",
                "write one of EKS's AMI types; leave `amiType` out for a custom AMI",
                |t| {
                    t != "CUSTOM"
                        && t.contains('_')
                        && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                },
            )
        }),
        release_version: f.get("releaseVersion").and_then(|n| {
            r.text_where(
                n,
                &f.path_of("releaseVersion"),
                "1.30.14-20260801",
                "write an AMI release version",
                |t| t.contains('-') && t.starts_with(|c: char| c.is_ascii_digit()),
            )
        }),
        ami: f.get("ami").and_then(|n| {
            r.text_where(
                n,
                &f.path_of("ami"),
                "ami-0123456789abcdef0",
                "write an image id",
                |t| {
                    t.strip_prefix("ami-").is_some_and(|id| {
                        (8..=17).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit())
                    })
                },
            )
        }),
        launch_template_version: f.get("launchTemplateVersion").and_then(|n| {
            r.integer(
                n,
                &f.path_of("launchTemplateVersion"),
                1..=i64::from(i32::MAX),
            )
        }),
        capacity: f
            .get("capacity")
            .and_then(|n| capacity(r, n, &f.path_of("capacity")))
            .unwrap_or(d.capacity),
        instance_types: f
            .get("instanceTypes")
            .map(|n| r.texts(n, &f.path_of("instanceTypes"), "m6i.large"))
            .filter(|l| !l.is_empty()),
        labels: f
            .get("labels")
            .map(|n| labels(r, n, &f.path_of("labels")))
            .unwrap_or_default(),
        taints: f
            .get("taints")
            .map(|n| taints(r, n, &f.path_of("taints")))
            .unwrap_or_default(),
        delete_owned: f
            .get("deleteOwned")
            .and_then(|n| r.boolean(n, &f.path_of("deleteOwned")))
            .unwrap_or(d.delete_owned),
        timeout: duration(r, &f, "timeout", MINUTE, d.timeout),
    };
    contradictions::of_group(r, &f, &group, strategy);
    blue.map(|_| group)
}

fn capacity(r: &mut Reader, node: &Node, path: &str) -> Option<Capacity> {
    if matches!(node.what, What::Scalar { .. }) {
        return r
            .choice(node, path, &[("full", Capacity::Full)])
            .or_else(|| {
                if let Some(last) = r.problems.last_mut() {
                    last.help = Some("write `capacity: full` or `capacity: {surge: 1}`".to_owned());
                }
                None
            });
    }
    let f = r.fields(node, path, keys("nodeGroups.capacity"));
    match f.get("surge") {
        Some(n) => r
            .integer(n, &f.path_of("surge"), 1..=450)
            .and_then(|n| u32::try_from(n).ok())
            .map(Capacity::Surge),
        None if matches!(node.what, What::Map(_) | What::Null) => {
            missing(r, &f, "surge", "capacity: {surge: 1}")
        }
        None => None,
    }
}

fn labels(r: &mut Reader, node: &Node, path: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (key, (value, entry)) in r.map(node, path, "tier: apps") {
        let word = |t: &str| {
            t.len() <= 63
                && t.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let name = key.rsplit('/').next().unwrap_or(&key);
        if name.is_empty() || !word(name) || key.len() > 253 {
            r.note(
                "plan::value",
                entry.at,
                format!("`{}` is no label key", shorten(&key)),
                "a key has up to 63 letters, digits, `-`, `_` and `.`, with an optional `prefix/`",
            );
        } else if !word(&value) {
            r.note(
                "plan::value",
                entry.value.at,
                format!("`{}` is no label value", shorten(&value)),
                "a value has up to 63 letters, digits, `-`, `_` and `.`",
            );
        } else if key.starts_with("eks.amazonaws.com/") || key.starts_with("alpha.eksctl.io/") {
            r.note(
                "plan::value",
                entry.at,
                format!("the label `{key}` is not yours to set"),
                "EKS and eksctl set labels of this prefix themselves; remove it",
            );
        } else {
            all.insert(key, value);
        }
    }
    all
}

fn taints(r: &mut Reader, node: &Node, path: &str) -> Vec<NodegroupTaint> {
    let effects = [
        ("NoSchedule", "NO_SCHEDULE"),
        ("NoExecute", "NO_EXECUTE"),
        ("PreferNoSchedule", "PREFER_NO_SCHEDULE"),
    ];
    let mut all = Vec::new();
    for (i, item) in r
        .list(
            node,
            path,
            "- {key: dedicated, value: batch, effect: NoSchedule}",
        )
        .iter()
        .enumerate()
    {
        let f = r.fields(item, &format!("{path}[{i}]"), keys("nodeGroups.taints"));
        let key = match f.get("key") {
            Some(n) => r.text_where(
                n,
                &f.path_of("key"),
                "dedicated",
                "a taint's key is not eksup's own",
                |t| t.len() <= 253 && t != crate::model::marks::BLUE_TAINT,
            ),
            None => missing(r, &f, "key", "key: dedicated"),
        };
        let effect = match f.get("effect") {
            Some(n) => r.choice(n, &f.path_of("effect"), &effects),
            None => missing(r, &f, "effect", "effect: NoSchedule"),
        };
        let value = f.get("value").and_then(|n| {
            r.text_where(
                n,
                &f.path_of("value"),
                "batch",
                "a taint's value has up to 63 characters",
                |t| t.len() <= 63,
            )
        });
        if let (Some(key), Some(effect)) = (key, effect) {
            all.push(NodegroupTaint {
                key,
                value,
                effect: effect.to_owned(),
            });
        }
    }
    all
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
    let consent = [("block", Consent::Block), ("evict", Consent::Evict)];
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
        bare_pods: f
            .get("barePods")
            .and_then(|n| r.choice(n, "drain.barePods", &consent))
            .unwrap_or(d.bare_pods),
        empty_dir: f
            .get("emptyDir")
            .and_then(|n| r.choice(n, "drain.emptyDir", &consent))
            .unwrap_or(d.empty_dir),
        jobs: f
            .get("jobs")
            .and_then(|n| {
                r.choice(
                    n,
                    "drain.jobs",
                    &[("wait", Jobs::Wait), ("evict", Jobs::Evict)],
                )
            })
            .unwrap_or(d.jobs),
        single_replicas: f
            .get("singleReplicas")
            .and_then(|n| r.choice(n, "drain.singleReplicas", &singles))
            .unwrap_or(d.single_replicas),
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

fn duration(
    r: &mut Reader,
    f: &Fields<'_>,
    key: &str,
    least: Duration,
    default: Duration,
) -> Duration {
    f.get(key)
        .and_then(|n| r.duration(n, &f.path_of(key), least))
        .unwrap_or(default)
}

fn cluster_name(text: &str) -> bool {
    text.len() <= 100
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn group_name(text: &str) -> bool {
    text.len() <= 63 && cluster_name(text)
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
