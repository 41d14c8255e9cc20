//! The keys of `traffic`.

use std::time::Duration;

use super::{
    Choice, InitUse, KeyDefault, KeyMap, ListRule, MINUTE, MapRule, PlanKey, ValueKind, any_text,
    choice, fitting_text, text_rules,
};
use crate::plan::value_reader::{MapFields, ReadValues, ValueReader};
use crate::plan::words::{EveryRule, OnUnhealthy};

pub static TRAFFIC: KeyMap = KeyMap {
    schema: "TrafficSchema",
    meaning: "",
    rule: MapRule::Any,
    keys: &[
        STEPS,
        BAKE,
        ROUTES,
        MIN_HEALTHY_PERCENT,
        TIMEOUT,
        ON_UNHEALTHY,
    ],
};

/// What a node group may say of its own routes.
pub static GROUP_TRAFFIC: KeyMap = KeyMap {
    schema: "GroupTrafficSchema",
    meaning: "",
    rule: MapRule::Any,
    keys: &[STEPS, BAKE, MIN_HEALTHY_PERCENT, TIMEOUT, ON_UNHEALTHY],
};

const STEPS: PlanKey = PlanKey {
    name: "steps",
    kind: ValueKind::List {
        items: &ValueKind::Percent,
        rule: ListRule::RisingTo100,
    },
    default: KeyDefault::Written("[10, 50, 100]"),
    example: "[10, 50, 100]",
    meaning: "Percent on green, rising, the last 100.",
    more: "A tenth shows most faults to a tenth of the users.",
    init: InitUse::Written,
};

const BAKE: PlanKey = PlanKey {
    name: "bake",
    kind: ValueKind::Duration {
        least: Duration::ZERO,
    },
    default: KeyDefault::Written("5m"),
    example: "10m",
    meaning: "Watch this long after each step, from when its weights took.",
    more: "",
    init: InitUse::Written,
};

const ROUTES: PlanKey = PlanKey {
    name: "routes",
    kind: ValueKind::List {
        items: &ValueKind::Map(&TRAFFIC_ROUTE),
        rule: ListRule::Unique,
    },
    default: KeyDefault::Absent("none: green joins blue's own target groups"),
    example: "[{rule: every, blue: apps-blue-tg, green: apps-green-tg}]",
    meaning: "Pairs of target groups whose weights are shifted.",
    more: "",
    init: InitUse::Shown,
};

const MIN_HEALTHY_PERCENT: PlanKey = PlanKey {
    name: "minHealthyPercent",
    kind: ValueKind::Percent,
    default: KeyDefault::Written("100"),
    example: "80",
    meaning: "Least healthy share of green's targets before a step.",
    more: "Besides, every zone in which green has targets must have a healthy one (except with `externalTrafficPolicy: Local`, where a node without a pod is unhealthy by design).",
    init: InitUse::LeftOut,
};

const TIMEOUT: PlanKey = PlanKey {
    name: "timeout",
    kind: ValueKind::Duration { least: MINUTE },
    default: KeyDefault::Written("15m"),
    example: "30m",
    meaning: "Longest green may take to be healthy.",
    more: "",
    init: InitUse::LeftOut,
};

const ON_UNHEALTHY: PlanKey = PlanKey {
    name: "onUnhealthy",
    kind: ValueKind::Choice(&Choice {
        schema: "OnUnhealthySchema",
        words: OnUnhealthy::WORDS,
        retired: &[("back", "rollback")],
    }),
    default: KeyDefault::Written("rollback"),
    example: "hold",
    meaning: "What happens when green turns unhealthy after a step.",
    more: "",
    init: InitUse::LeftOut,
};

static TRAFFIC_ROUTE: KeyMap = KeyMap {
    schema: "TrafficRouteSchema",
    meaning: "",
    rule: MapRule::Checked(has_two_target_groups),
    keys: &[
        PlanKey {
            name: "rule",
            kind: ValueKind::ChoiceOrMap {
                schema: "RuleSchema",
                choice: &choice("EveryRuleSchema", EveryRule::WORDS),
                map: &NAMED_RULE,
            },
            default: KeyDefault::Written("every"),
            example: "{loadBalancer: apps-alb, port: 443, conditions: [\"path-pattern=/api/*\"]}",
            meaning: "Which listener rule is edited: a word, or a map with `arn`, or with `loadBalancer` and `port`.",
            more: "",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "blue",
            kind: ValueKind::Text(&any_text("apps-blue-tg")),
            default: KeyDefault::Required,
            example: "apps-blue-tg",
            meaning: "Name or ARN of blue's target group, of target type `instance`.",
            more: "",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "green",
            kind: ValueKind::Text(&any_text("apps-green-tg")),
            default: KeyDefault::Required,
            example: "apps-green-tg",
            meaning: "Name or ARN of green's target group, of target type `instance`.",
            more: "",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "nodeGroup",
            kind: ValueKind::Text(&text_rules::ASG_NAME),
            default: KeyDefault::Absent("every group that serves the live target group"),
            example: "apps-blue",
            meaning: "The blue group that the route belongs to: weights are shifted directly before that group is emptied (or directly after it, where nodes without a pod are unhealthy or green grows with the drain), while other groups still serve their own routes.",
            more: "No other group may serve the live target group. Without it weights are shifted for all groups together, before the first of them is emptied.",
            init: InitUse::LeftOut,
        },
    ],
};

fn has_two_target_groups(r: &mut ValueReader, f: &MapFields<'_>, values: &ReadValues) -> bool {
    if let Some(blue) = values.get("blue").and_then(|v| v.as_str())
        && values.get("green").and_then(|v| v.as_str()) == Some(blue)
    {
        r.note_problem("plan::contradiction", f.location_of("green"), format!("blue and green are the same target group, `{blue}`"), "a shift needs two target groups; leave `traffic.routes` out if green shall join blue's own");
    }
    true
}

static NAMED_RULE: KeyMap = KeyMap {
    schema: "NamedRuleSchema",
    meaning: "Either `arn`, or `loadBalancer` and `port`.",
    rule: MapRule::Checked(names_one_rule),
    keys: &[
        PlanKey {
            name: "arn",
            kind: ValueKind::Text(&fitting_text(
                "arn:aws:elasticloadbalancing:...:listener-rule/...",
                "write a listener rule's or a listener's ARN",
                |t| t.starts_with("arn:") && t.contains(":listener"),
            )),
            default: KeyDefault::Absent("none"),
            example: "\"arn:aws:elasticloadbalancing:eu-central-1:123456789012:listener/app/apps-alb/50dc6c495c0c9188/f2f7dc8efc522ab2\"",
            meaning: "A rule's ARN, or a listener's for its default action.",
            more: "",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "loadBalancer",
            kind: ValueKind::Text(&any_text("apps-alb")),
            default: KeyDefault::Absent("none"),
            example: "apps-alb",
            meaning: "The load balancer's name.",
            more: "",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "port",
            kind: ValueKind::Integer {
                least: 1,
                most: u16::MAX as i64,
            },
            default: KeyDefault::Absent("none"),
            example: "443",
            meaning: "The listener's port.",
            more: "",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "conditions",
            kind: ValueKind::List {
                items: &ValueKind::Text(&fitting_text(
                    "path-pattern=/api/*",
                    "a condition is a field, `=` and a value",
                    |t| {
                        t.split_once('=')
                            .is_some_and(|(k, v)| !k.is_empty() && !v.is_empty())
                    },
                )),
                rule: ListRule::Any,
            },
            default: KeyDefault::Absent("the default action"),
            example: "[\"path-pattern=/api/*\"]",
            meaning: "The conditions of the rule, such as `path-pattern=/api/*`.",
            more: "",
            init: InitUse::LeftOut,
        },
    ],
};

fn names_one_rule(r: &mut ValueReader, f: &MapFields<'_>, values: &ReadValues) -> bool {
    let by_match = ["loadBalancer", "port", "conditions"]
        .iter()
        .any(|key| f.get(key).is_some());
    // An ARN is enough by itself; with more beside it the two could disagree.
    if f.get("arn").is_some() {
        if by_match {
            r.note_problem(
                "plan::contradiction",
                f.at,
                format!(
                    "`{}` names its rule twice, by ARN and by load balancer",
                    f.path
                ),
                "keep `arn`, or `loadBalancer` and `port`",
            );
        }
        return !by_match && values.contains_key("arn");
    }
    // Without an ARN it takes both: a load balancer has several listeners.
    if f.get("loadBalancer").is_none() {
        r.note_problem(
            "plan::missing",
            f.at,
            format!("`{}` does not say which rule", f.path),
            "write `arn: ARN`, or `loadBalancer: NAME` and `port: 443`",
        );
        return false;
    }
    if f.get("port").is_none() {
        r.note_problem(
            "plan::missing",
            f.at,
            format!("`{}` is missing", f.path_of("port")),
            "write the listener's port, such as `port: 443`",
        );
        return false;
    }
    // Keys that are given and wrong have their problems already.
    values.contains_key("loadBalancer") && values.contains_key("port")
}
