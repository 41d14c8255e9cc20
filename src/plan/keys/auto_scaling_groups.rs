//! The keys of one entry of `autoScalingGroups`.

use super::{InitUse, KeyDefault, KeyMap, MapRule, PlanKey, ValueKind, node_groups, text_rules};
use crate::plan::value_reader::{MapFields, ReadValues, ValueReader};

pub static AUTO_SCALING_GROUP: KeyMap = KeyMap {
    schema: "AutoScalingGroupSchema",
    meaning: "",
    rule: MapRule::Checked(agrees_with_itself),
    keys: &[
        PlanKey {
            name: "blue",
            kind: ValueKind::Text(&text_rules::ASG_NAME),
            default: KeyDefault::Required,
            example: "workers-blue",
            meaning: "The Auto Scaling group to be replaced.",
            more: "One that launches from a launch template or a launch configuration, is tagged `kubernetes.io/cluster/NAME` and belongs to no managed node group.",
            init: InitUse::Written,
        },
        PlanKey {
            name: "green",
            kind: ValueKind::Text(&text_rules::ASG_NAME),
            default: KeyDefault::Absent(
                "`x-green` for `x-blue` and the other way round, else `NAME-green`",
            ),
            example: "workers-green",
            meaning: "The new group's name.",
            more: "A taken name gets the version.",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "ami",
            kind: ValueKind::Text(&text_rules::IMAGE_OR_AUTO),
            default: KeyDefault::Absent("none; `ami` or `launchTemplateVersion` is needed"),
            example: "auto",
            meaning: "The image for the target: an id, or `auto` for the newest that AWS makes of the line blue's image is of.",
            more: "eksup makes a version of the same launch template with it, or a template of a launch configuration; user data, instance profile and all else stay. With an image of your own, which has one kubelet, a group cannot stop over on the way.",
            init: InitUse::Written,
        },
        PlanKey {
            name: "launchTemplateVersion",
            kind: ValueKind::Integer {
                least: 1,
                most: i32::MAX as i64,
            },
            default: KeyDefault::Absent("none"),
            example: "7",
            meaning: "A version of blue's launch template that has the new image already.",
            more: "Instead of `ami`.",
            init: InitUse::LeftOut,
        },
        node_groups::CAPACITY,
        node_groups::DRAIN,
        node_groups::TRAFFIC,
        node_groups::DELETE_OWNED,
        node_groups::TIMEOUT,
    ],
};

/// Notes contradictions between the keys; the group means something all the same.
fn agrees_with_itself(r: &mut ValueReader, f: &MapFields<'_>, values: &ReadValues) -> bool {
    node_groups::check_names_differ(r, f, values);
    if values.contains_key("ami") && values.contains_key("launchTemplateVersion") {
        r.note_problem(
            "plan::contradiction",
            f.location_of("ami"),
            "both `ami` and `launchTemplateVersion` say which image green has",
            "keep `ami` to have a template version made, or `launchTemplateVersion` for one that exists",
        );
    }
    true
}
