//! The keys of `drain`.

use std::time::Duration;

use super::{
    Choice, InitUse, KeyDefault, KeyMap, ListRule, MapRule, PlanKey, SECOND, ValueKind, choice,
    text_rules,
};
use crate::plan::words::{
    BudgetConsent, ConsentWord, DeadKubelets, DrainOrder, JobsWord, OnDeadline, OperatorBudgets,
    SingleReplicas,
};

pub static DRAIN: KeyMap = KeyMap {
    schema: "DrainSchema",
    meaning: "",
    rule: MapRule::Any,
    keys: &[
        PlanKey {
            name: "order",
            kind: ValueKind::Choice(&choice("DrainOrderSchema", DrainOrder::WORDS)),
            default: KeyDefault::Written("easiest"),
            example: "zones",
            meaning: "Which node is next.",
            more: "",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "parallel",
            kind: ValueKind::Integer { least: 1, most: 50 },
            default: KeyDefault::Written("1"),
            example: "2",
            meaning: "Nodes at once.",
            more: "Budgets hold at any number; one is the easiest to watch.",
            init: InitUse::Written,
        },
        PlanKey {
            name: "podDeadline",
            kind: ValueKind::Duration { least: SECOND },
            default: KeyDefault::Written("15m"),
            example: "20m",
            meaning: "How long a pod's eviction may be refused without any other pod under its budget going, or the pod be stopping beyond its grace period.",
            more: "Must be longer than the longest grace period.",
            init: InitUse::Written,
        },
        PlanKey {
            name: "nodeDeadline",
            kind: ValueKind::Duration { least: SECOND },
            default: KeyDefault::Written("1h"),
            example: "2h",
            meaning: "How long a node may stay as it is, with no pod leaving it.",
            more: "Not shorter than `podDeadline`.",
            init: InitUse::Written,
        },
        PlanKey {
            name: "onDeadline",
            kind: ValueKind::Choice(&choice("OnDeadlineSchema", OnDeadline::WORDS)),
            default: KeyDefault::Written("stop"),
            example: "skip",
            meaning: "What happens at a deadline.",
            more: "Whatever is chosen, the next node waits for what was moved.",
            init: InitUse::Written,
        },
        PlanKey {
            name: "barePods",
            kind: SCOPED_CONSENT,
            default: KeyDefault::Written("block"),
            example: "{evict: [\"pod shop/tool\"]}",
            meaning: "Pods without a controller, which are lost when evicted.",
            more: "",
            init: InitUse::Shown,
        },
        PlanKey {
            name: "emptyDir",
            kind: SCOPED_CONSENT,
            default: KeyDefault::Written("block"),
            example: "{evict: [\"Deployment shop/cache\"]}",
            meaning: "Pods with data in an emptyDir, which end with the pod.",
            more: "Scratch space does not count; EKSUP-P006 says what does.",
            init: InitUse::Shown,
        },
        PlanKey {
            name: "hostPath",
            kind: SCOPED_CONSENT,
            default: KeyDefault::Written("block"),
            example: "{evict: [\"shop/*\"]}",
            meaning: "Pods with data in a directory of their node, which end with blue.",
            more: "EKSUP-P050 names them.",
            init: InitUse::Shown,
        },
        PlanKey {
            name: "nodeStorage",
            kind: SCOPED_CONSENT,
            default: KeyDefault::Written("block"),
            example: "{evict: [\"db/pg\"]}",
            meaning: "Volumes whose data a storage system keeps on blue's disks.",
            more: "EKSUP-P051 names them.",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "jobs",
            kind: ValueKind::ChoiceOrMap {
                schema: "ScopedJobsSchema",
                choice: &choice("JobsSchema", JobsWord::WORDS),
                map: &EVICT_ONLY,
            },
            default: KeyDefault::Written("wait"),
            example: "{evict: [\"pod ci/runner-*\"]}",
            meaning: "Pods that run to completion, of Jobs and others with `restartPolicy` `Never` or `OnFailure`.",
            more: "",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "singleReplicas",
            kind: ValueKind::Choice(&choice("SingleReplicasSchema", SingleReplicas::WORDS)),
            default: KeyDefault::Written("block"),
            example: "surge",
            meaning: "One replica under a budget that never lets it go.",
            more: "",
            init: InitUse::Shown,
        },
        PlanKey {
            name: "operatorBudgets",
            kind: ValueKind::Choice(&choice("OperatorBudgetsSchema", OperatorBudgets::WORDS)),
            default: KeyDefault::Written("block"),
            example: "wait",
            meaning: "Budgets that an operator runs and that stay closed while its pod is there.",
            more: "`wait` is not for pods that keep data on their node.",
            init: InitUse::Shown,
        },
        PlanKey {
            name: "budgets",
            kind: ValueKind::NamedValues {
                names: &text_rules::BUDGET_NAME,
                values: &ValueKind::Choice(&choice("BudgetConsentSchema", BudgetConsent::WORDS)),
            },
            default: KeyDefault::Absent("none"),
            example: "{kafka/events: wait}",
            meaning: "What is consented to for single budgets, by `NAMESPACE/NAME` or `NAMESPACE/*`.",
            more: "Such as `{kafka/events: wait}`.",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "deadKubelets",
            kind: ValueKind::Choice(&choice("DeadKubeletsSchema", DeadKubelets::WORDS)),
            default: KeyDefault::Written("stop"),
            example: "skip",
            meaning: "Nodes whose kubelet does not answer: nobody can say whether their pods have stopped.",
            more: "",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "bake",
            kind: ValueKind::Duration {
                least: Duration::ZERO,
            },
            default: KeyDefault::Written("1m"),
            example: "2m",
            meaning: "Watch this long after each node, from when it is empty.",
            more: "EKS's own update does so too.",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "canaryBake",
            kind: ValueKind::Duration {
                least: Duration::ZERO,
            },
            default: KeyDefault::Written("10m"),
            example: "30m",
            meaning: "With `strategy: canary` only: watch this long after the first node.",
            more: "",
            init: InitUse::LeftOut,
        },
    ],
};

/// Consent for all workloads, for none, or for those that are meant.
const SCOPED_CONSENT: ValueKind = ValueKind::ChoiceOrMap {
    schema: "ScopedConsentSchema",
    choice: &CONSENT,
    map: &EVICT_ONLY,
};

static CONSENT: Choice = choice("ConsentSchema", ConsentWord::WORDS);

static EVICT_ONLY: KeyMap = KeyMap {
    schema: "EvictOnlySchema",
    meaning: "",
    rule: MapRule::Any,
    keys: &[PlanKey {
        name: "evict",
        kind: ValueKind::List {
            items: &ValueKind::Text(&text_rules::WORKLOAD_PATTERN),
            rule: ListRule::Unique,
        },
        default: KeyDefault::Required,
        example: "[\"Deployment shop/web\"]",
        meaning: "Consent for these workloads only, such as `shop/*`, `shop/web`, `Deployment shop/web` or `pod ci/runner-*`.",
        more: "",
        init: InitUse::LeftOut,
    }],
};
