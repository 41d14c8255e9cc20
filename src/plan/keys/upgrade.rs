//! The top level of a plan, and the maps with few keys: `controlPlane`, `addons` and `retire`.

use std::time::Duration;

use super::{
    InitUse, KeyDefault, KeyMap, ListRule, MINUTE, MapRule, PlanKey, TextCheck, TextRule,
    ValueKind, any_text, choice, text_rules,
};
use crate::plan::words::{
    AddonConflicts, AddonPolicy, AutoModeNodes, FargatePods, Insights, RetireHow, Strategy,
    UngroupedNodes,
};

/// The whole file.
pub static UPGRADE_PLAN: KeyMap = KeyMap {
    schema: "UpgradePlan",
    meaning: "What eksup is to do with one EKS cluster.",
    rule: MapRule::Any,
    keys: &[
        PlanKey {
            name: "apiVersion",
            kind: ValueKind::Text(&always("eksup.dev/v1")),
            default: KeyDefault::Written("eksup.dev/v1"),
            example: "eksup.dev/v1",
            meaning: "Always `eksup.dev/v1`.",
            more: "May be left out; anything else is refused.",
            init: InitUse::Written,
        },
        PlanKey {
            name: "kind",
            kind: ValueKind::Text(&always("UpgradePlan")),
            default: KeyDefault::Written("UpgradePlan"),
            example: "UpgradePlan",
            meaning: "Always `UpgradePlan`.",
            more: "May be left out; anything else is refused.",
            init: InitUse::Written,
        },
        PlanKey {
            name: "cluster",
            kind: ValueKind::Text(&text_rules::CLUSTER_NAME),
            default: KeyDefault::Required,
            example: "prod",
            meaning: "The cluster's name.",
            more: "",
            init: InitUse::Written,
        },
        PlanKey {
            name: "region",
            kind: ValueKind::Text(&text_rules::REGION),
            default: KeyDefault::Absent("AWS's own settings say it"),
            example: "eu-central-1",
            meaning: "The cluster's region.",
            more: "Write it, and the plan works the same everywhere.",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "to",
            kind: ValueKind::Version,
            default: KeyDefault::Required,
            example: "\"1.30\"",
            meaning: "The Kubernetes version to go to; those in between are passed one by one.",
            more: "EKS takes one minor at a time.",
            init: InitUse::Written,
        },
        PlanKey {
            name: "strategy",
            kind: ValueKind::Choice(&choice("StrategySchema", Strategy::WORDS)),
            default: KeyDefault::Written("blue-green"),
            example: "canary",
            meaning: "How nodes are replaced.",
            more: "",
            init: InitUse::Written,
        },
        section(
            "controlPlane",
            &CONTROL_PLANE,
            "{bake: 20m}",
            "How the control plane is raised.",
            InitUse::Written,
        ),
        section(
            "addons",
            &ADDONS,
            "{policy: latest}",
            "How add-ons that EKS manages are brought along.",
            InitUse::Written,
        ),
        PlanKey {
            name: "nodeGroups",
            kind: ValueKind::List {
                items: &ValueKind::Map(&super::node_groups::NODE_GROUP),
                rule: ListRule::Any,
            },
            default: KeyDefault::Absent("every managed node group"),
            example: "[{blue: apps-blue}]",
            meaning: "The groups to be replaced; a group that is not listed stays as it is.",
            more: "",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "autoScalingGroups",
            kind: ValueKind::List {
                items: &ValueKind::Map(&super::auto_scaling_groups::AUTO_SCALING_GROUP),
                rule: ListRule::Any,
            },
            default: KeyDefault::Absent("none"),
            example: "[{blue: workers-blue, ami: auto}]",
            meaning: "Self-managed groups to be replaced; one that is not listed stays as it is.",
            more: "",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "karpenter",
            kind: ValueKind::List {
                items: &ValueKind::Map(&super::karpenter::KARPENTER_POOL),
                rule: ListRule::Any,
            },
            default: KeyDefault::Absent("every NodePool, with `strategy: drift`"),
            example: "[{nodePool: general, strategy: drift}]",
            meaning: "Karpenter's NodePools, and who replaces their nodes; one that is not listed is left to Karpenter.",
            more: "",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "fargate",
            kind: ValueKind::Choice(&choice("FargatePodsSchema", FargatePods::WORDS)),
            default: KeyDefault::Written("restart"),
            example: "leave",
            meaning: "What becomes of pods on Fargate nodes of an old version.",
            more: "A Fargate node keeps its version until its pod is replaced. Pods that no Deployment or StatefulSet makes are evicted as `drain` says.",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "autoMode",
            kind: ValueKind::Choice(&choice("AutoModeNodesSchema", AutoModeNodes::WORDS)),
            default: KeyDefault::Written("wait"),
            example: "leave",
            meaning: "Whether the run waits until EKS Auto Mode has replaced its nodes.",
            more: "EKS begins once the control plane is upgraded, and nothing holds it back.",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "otherNodes",
            kind: ValueKind::Choice(&choice("UngroupedNodesSchema", UngroupedNodes::WORDS)),
            default: KeyDefault::Written("check"),
            example: "leave",
            meaning: "Hybrid nodes and nodes of no group, which the run does not replace.",
            more: "A kubelet that is more minors older than the API server than Kubernetes allows may stop working, with the pods of its node. `leave` is consent to that. EKS's own insight about such nodes needs `controlPlane.insights: warn` besides.",
            init: InitUse::LeftOut,
        },
        section(
            "drain",
            &super::drain::DRAIN,
            "{parallel: 2}",
            "How blue is emptied.",
            InitUse::Written,
        ),
        section(
            "traffic",
            &super::traffic::TRAFFIC,
            "{steps: [5, 100]}",
            "How traffic is shifted.",
            InitUse::Written,
        ),
        section(
            "retire",
            &RETIRE,
            "{soak: 2h}",
            "How blue ends.",
            InitUse::Written,
        ),
        PlanKey {
            name: "windows",
            kind: ValueKind::List {
                items: &ValueKind::Map(&super::windows::WINDOW),
                rule: ListRule::Any,
            },
            default: KeyDefault::Absent("at any time"),
            example: "[{days: [mon, tue], from: \"22:00\", to: \"04:00\", timeZone: Europe/Berlin}]",
            meaning: "When something new may begin; outside, the run pauses, and the same command continues it within.",
            more: "",
            init: InitUse::Shown,
        },
        section(
            "approvals",
            &super::windows::APPROVALS,
            "{before: [drain, retire]}",
            "Where a person says yes first, with `eksup approve`.",
            InitUse::Shown,
        ),
        PlanKey {
            name: "notify",
            kind: ValueKind::List {
                items: &ValueKind::Map(&super::notify::NOTIFY),
                rule: ListRule::Any,
            },
            default: KeyDefault::Absent("nobody"),
            example: "[{webhook: {url: \"https://example.com/hook\"}}, {sns: {topic: \"arn:aws:sns:eu-central-1:123456789012:upgrades\"}}]",
            meaning: "Who is told of what happens.",
            more: "",
            init: InitUse::Shown,
        },
    ],
};

/// A key that holds a map of its own.
const fn section(
    name: &'static str,
    map: &'static KeyMap,
    example: &'static str,
    meaning: &'static str,
    init: InitUse,
) -> PlanKey {
    PlanKey {
        name,
        kind: ValueKind::Map(map),
        default: KeyDefault::OfItsKeys,
        example,
        meaning,
        more: "",
        init,
    }
}

const fn always(text: &'static str) -> TextRule {
    TextRule {
        schema: None,
        pattern: None,
        example: text,
        known: &[],
        check: TextCheck::Always(text),
    }
}

static CONTROL_PLANE: KeyMap = KeyMap {
    schema: "ControlPlaneSchema",
    meaning: "",
    rule: MapRule::Any,
    keys: &[
        PlanKey {
            name: "bake",
            kind: ValueKind::Duration {
                least: Duration::ZERO,
            },
            default: KeyDefault::Written("10m"),
            example: "20m",
            meaning: "Watch this long after each hop, with nodes and add-ons still on the old version.",
            more: "While no node is newer, EKS can roll the control plane back (for seven days, one minor only).",
            init: InitUse::Written,
        },
        PlanKey {
            name: "insights",
            kind: ValueKind::Choice(&choice("InsightsSchema", Insights::WORDS)),
            default: KeyDefault::Written("block"),
            example: "warn",
            meaning: "What an EKS upgrade insight in ERROR means: it names an API or an add-on that the hop breaks.",
            more: "None for the next version counts as one in ERROR. EKS is asked to judge them again before they are read. EKS knows which removed APIs were called in the last 30 days. eksup never sends EKS's `force`.",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "timeout",
            kind: ValueKind::Duration {
                least: Duration::from_secs(300),
            },
            default: KeyDefault::Written("1h"),
            example: "90m",
            meaning: "Longest one hop may take; EKS takes 10 to 20 minutes.",
            more: "",
            init: InitUse::LeftOut,
        },
    ],
};

static ADDONS: KeyMap = KeyMap {
    schema: "AddonsSchema",
    meaning: "",
    rule: MapRule::Any,
    keys: &[
        PlanKey {
            name: "policy",
            kind: ValueKind::Choice(&choice("AddonPolicySchema", AddonPolicy::WORDS)),
            default: KeyDefault::Written("default"),
            example: "minimal",
            meaning: "Which version an add-on goes to when it is not pinned.",
            more: "",
            init: InitUse::Written,
        },
        PlanKey {
            name: "conflicts",
            kind: ValueKind::Choice(&choice("ConflictsSchema", AddonConflicts::WORDS)),
            default: KeyDefault::Written("preserve"),
            example: "overwrite",
            meaning: "What happens to fields that somebody changed in the cluster.",
            more: "Overwriting has wiped CoreDNS configurations.",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "pins",
            kind: ValueKind::NamedValues {
                names: &any_text("coredns"),
                values: &ValueKind::Text(&text_rules::ADDON_VERSION),
            },
            default: KeyDefault::Absent("none"),
            example: "{coredns: v1.11.1-eksbuild.9}",
            meaning: "Add-on to the version it must end on.",
            more: "Must be offered on the target and not be older than what runs.",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "skip",
            kind: ValueKind::List {
                items: &ValueKind::Text(&any_text("aws-ebs-csi-driver")),
                rule: ListRule::Unique,
            },
            default: KeyDefault::Absent("none"),
            example: "[aws-ebs-csi-driver]",
            meaning: "Add-ons that are left alone.",
            more: "",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "timeout",
            kind: ValueKind::Duration { least: MINUTE },
            default: KeyDefault::Written("20m"),
            example: "30m",
            meaning: "Longest one update may take.",
            more: "",
            init: InitUse::LeftOut,
        },
    ],
};

static RETIRE: KeyMap = KeyMap {
    schema: "RetireSchema",
    meaning: "",
    rule: MapRule::Any,
    keys: &[
        PlanKey {
            name: "soak",
            kind: ValueKind::Duration {
                least: Duration::ZERO,
            },
            default: KeyDefault::Written("1h"),
            example: "2h",
            meaning: "Blue stays, empty, this long: until it is deleted everything can be rolled back to it.",
            more: "An hour is long enough for caches to expire, cron jobs to run and people to complain.",
            init: InitUse::Written,
        },
        PlanKey {
            name: "then",
            kind: ValueKind::Choice(&choice("RetireHowSchema", RetireHow::WORDS)),
            default: KeyDefault::Written("delete"),
            example: "keep-at-zero",
            meaning: "What becomes of an empty blue.",
            more: "EKS makes groups of the control plane's version only, so that a deleted blue cannot be made again as it was.",
            init: InitUse::Written,
        },
    ],
};
