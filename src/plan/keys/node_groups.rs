//! The keys of one entry of `nodeGroups`.

use super::{
    InitUse, KeyDefault, KeyMap, ListRule, MINUTE, MapRule, PlanKey, ValueKind, any_text, choice,
    text_rules,
};
use crate::plan::value_reader::{MapFields, ReadValues, ValueReader};
use crate::plan::words::{DeleteOwned, TaintEffect, WholeCapacity};

pub static NODE_GROUP: KeyMap = KeyMap {
    schema: "NodeGroupSchema",
    meaning: "",
    rule: MapRule::Checked(agrees_with_itself),
    keys: &[
        PlanKey {
            name: "blue",
            kind: ValueKind::Text(&text_rules::GROUP_NAME),
            default: KeyDefault::Required,
            example: "apps-blue",
            meaning: "The group to be replaced.",
            more: "",
            init: InitUse::Written,
        },
        PlanKey {
            name: "green",
            kind: ValueKind::Text(&text_rules::GROUP_NAME),
            default: KeyDefault::Absent(
                "`x-green` for `x-blue` and the other way round, else `NAME-green`",
            ),
            example: "apps-green",
            meaning: "The new group's name.",
            more: "A taken name gets the version. A name given here is kept for the last green where a group stops over on the way.",
            init: InitUse::Shown,
        },
        PlanKey {
            name: "amiType",
            kind: ValueKind::Text(&text_rules::AMI_TYPE),
            default: KeyDefault::Absent(
                "blue's, or its successor where blue's has no image for the target",
            ),
            example: "AL2023_x86_64_STANDARD",
            meaning: "The AMI type that EKS picks an image by.",
            more: "Where the target has no Amazon Linux 2 (from 1.33 on): AL2023 of the same architecture.",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "releaseVersion",
            kind: ValueKind::Text(&text_rules::RELEASE_VERSION),
            default: KeyDefault::Absent("the newest"),
            example: "1.30.14-20260801",
            meaning: "A fixed AMI release, such as `1.30.14-20260801`.",
            more: "",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "ami",
            kind: ValueKind::Text(&text_rules::IMAGE_ID),
            default: KeyDefault::Absent("none"),
            example: "ami-0123456789abcdef0",
            meaning: "For a group with a custom AMI: the image for the target.",
            more: "eksup makes a version of the same template with it.",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "launchTemplateVersion",
            kind: ValueKind::Integer {
                least: 1,
                most: i32::MAX as i64,
            },
            default: KeyDefault::Absent("none"),
            example: "7",
            meaning: "For a group with a custom AMI: a template version that has the new one already.",
            more: "Instead of `ami`.",
            init: InitUse::LeftOut,
        },
        CAPACITY,
        PlanKey {
            name: "instanceTypes",
            kind: ValueKind::List {
                items: &ValueKind::Text(&any_text("m6i.large")),
                rule: ListRule::Unique,
            },
            default: KeyDefault::Absent("blue's"),
            example: "[m6i.large, m6a.large]",
            meaning: "Replaces blue's instance types.",
            more: "Refused where the launch template decides.",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "labels",
            kind: ValueKind::NamedValues {
                names: &text_rules::LABEL_KEY,
                values: &ValueKind::Text(&text_rules::LABEL_VALUE),
            },
            default: KeyDefault::Absent("none"),
            example: "{tier: apps}",
            meaning: "Added to blue's labels, or in their place.",
            more: "Not of `kubernetes.io`, `k8s.io`, `eks.amazonaws.com` and their subdomains, which EKS or the kubelet refuses (`node.kubernetes.io` and `kubelet.kubernetes.io` are taken).",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "taints",
            kind: ValueKind::List {
                items: &ValueKind::Map(&TAINT),
                rule: ListRule::Any,
            },
            default: KeyDefault::Absent("none"),
            example: "[{key: dedicated, value: batch, effect: NoSchedule}]",
            meaning: "Added to blue's taints.",
            more: "",
            init: InitUse::LeftOut,
        },
        DRAIN,
        TRAFFIC,
        DELETE_OWNED,
        PlanKey {
            name: "acceptDegraded",
            kind: ValueKind::Boolean,
            default: KeyDefault::Written("false"),
            example: "true",
            meaning: "Consent to move a group that EKS calls DEGRADED while it has nodes.",
            more: "It stays so after one failed launch until the next that works. Green is asked to be no better than blue.",
            init: InitUse::LeftOut,
        },
        TIMEOUT,
    ],
};

/// Of groups that AWS makes nodes for.
pub(super) const DELETE_OWNED: PlanKey = PlanKey {
    name: "deleteOwned",
    kind: ValueKind::Choice(&choice("DeleteOwnedSchema", DeleteOwned::WORDS)),
    default: KeyDefault::Written("false"),
    example: "true",
    meaning: "Consent to delete a group that eksctl, CloudFormation, Terraform or Pulumi owns.",
    more: "The tool has to be told: `eksup handback` prints what. `stack` is for a stack that eksctl or CloudFormation made for this group alone.",
    init: InitUse::LeftOut,
};

/// Of every kind of group.
pub(super) const DRAIN: PlanKey = PlanKey {
    name: "drain",
    kind: ValueKind::PartOf {
        schema: "GroupDrainSchema",
        map: &super::drain::DRAIN,
    },
    default: KeyDefault::Absent("the plan's own `drain`"),
    example: "{parallel: 2, bake: 5m}",
    meaning: "Keys of `drain` for this group alone.",
    more: "Each key that is given stands in place of the plan's own, as a whole; the others are the plan's own.",
    init: InitUse::LeftOut,
};

/// Of every kind of group.
pub(super) const TRAFFIC: PlanKey = PlanKey {
    name: "traffic",
    kind: ValueKind::PartOf {
        schema: "GroupTrafficSchema",
        map: &super::traffic::GROUP_TRAFFIC,
    },
    default: KeyDefault::Absent("the plan's own `traffic`"),
    example: "{steps: [5, 25, 100], bake: 15m}",
    meaning: "Keys of `traffic` for the routes that belong to this group (`traffic.routes[].nodeGroup`): all but `routes`.",
    more: "Each key that is given stands in place of the plan's own; the others are the plan's own.",
    init: InitUse::LeftOut,
};

/// Of every kind of group.
pub(super) const CAPACITY: PlanKey = PlanKey {
    name: "capacity",
    kind: ValueKind::ChoiceOrMap {
        schema: "CapacitySchema",
        choice: &choice("WholeCapacitySchema", WholeCapacity::WORDS),
        map: &SURGE,
    },
    // Strategy `rolling` is chosen where a second whole group is too expensive; see `Strategy::default_capacity`.
    default: KeyDefault::Absent("`full`, or `{surge: 1}` with `strategy: rolling`"),
    example: "{surge: 2}",
    meaning: "How much green stands beside blue, which bounds what it costs.",
    more: "With a surge, weights move after the drain.",
    init: InitUse::Shown,
};

/// Of every kind of group.
pub(super) const TIMEOUT: PlanKey = PlanKey {
    name: "timeout",
    kind: ValueKind::Duration { least: MINUTE },
    default: KeyDefault::Written("30m"),
    example: "45m",
    meaning: "Longest green may take to be ready.",
    more: "EKS itself gives nodes 15 minutes to join.",
    init: InitUse::LeftOut,
};

/// Notes contradictions between the keys; the group means something all the same.
fn agrees_with_itself(r: &mut ValueReader, f: &MapFields<'_>, values: &ReadValues) -> bool {
    check_names_differ(r, f, values);
    // Of two keys that decide the image, one would be ignored in silence.
    let given = |key: &str| values.contains_key(key);
    if given("ami") && given("launchTemplateVersion") {
        r.note_problem("plan::contradiction", f.location_of("ami"), "both `ami` and `launchTemplateVersion` say which image green has", "keep `ami` to have a template version made, or `launchTemplateVersion` for one that exists");
    }
    if given("ami") || given("launchTemplateVersion") {
        // With an image in the launch template EKS refuses both keys (EKS-NG-5).
        for key in ["amiType", "releaseVersion"] {
            if given(key) {
                r.note_problem(
                    "plan::contradiction",
                    f.location_of(key),
                    format!("`{key}` cannot go with a custom AMI: EKS takes only one of them"),
                    format!("remove `{key}`, or remove `ami` and `launchTemplateVersion`"),
                );
            }
        }
    }
    // The entry is kept, so that checks of the whole plan see it too.
    true
}

/// Notes a green with blue's name.
pub(super) fn check_names_differ(r: &mut ValueReader, f: &MapFields<'_>, values: &ReadValues) {
    let blue = values.get("blue").and_then(|v| v.as_str());
    if let Some(blue) = blue
        && values.get("green").and_then(|v| v.as_str()) == Some(blue)
    {
        r.note_problem(
            "plan::contradiction",
            f.location_of("green"),
            format!("green has blue's name, `{blue}`"),
            "give green another name, or leave `green` out",
        );
    }
}

static SURGE: KeyMap = KeyMap {
    schema: "SurgeSchema",
    meaning: "",
    rule: MapRule::Any,
    keys: &[PlanKey {
        name: "surge",
        kind: ValueKind::Integer {
            least: 1,
            most: 450,
        },
        default: KeyDefault::Required,
        example: "1",
        meaning: "This many nodes more than have been drained.",
        more: "",
        init: InitUse::LeftOut,
    }],
};

static TAINT: KeyMap = KeyMap {
    schema: "TaintSchema",
    meaning: "",
    rule: MapRule::Any,
    keys: &[
        PlanKey {
            name: "key",
            kind: ValueKind::Text(&text_rules::TAINT_KEY),
            default: KeyDefault::Required,
            example: "dedicated",
            meaning: "The taint's key.",
            more: "",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "value",
            kind: ValueKind::Text(&text_rules::TAINT_VALUE),
            default: KeyDefault::Absent("none"),
            example: "batch",
            meaning: "The taint's value.",
            more: "",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "effect",
            kind: ValueKind::Choice(&choice("TaintEffectSchema", TaintEffect::WORDS)),
            default: KeyDefault::Required,
            example: "NoSchedule",
            meaning: "What it does to pods that do not tolerate it.",
            more: "",
            init: InitUse::LeftOut,
        },
    ],
};
