//! What no single value of a plan shows: values that do not go together.

use serde_json::Value;

use super::duration;
use super::error::SourceLocation;
use super::group_contradictions;
use super::group_settings::GROUP_LISTS;
use super::tree::TreeValue;
use super::types::{Drain, Plan};
use super::value_reader::{MapFields, ReadValues, ValueReader};
use super::words::Strategy;
use crate::model::Minor;

pub const CONTRADICTION_CODE: &str = "plan::contradiction";

/// Notes a capacity that the strategy excludes. Only a capacity that is given can be one.
fn check_capacities(r: &mut ValueReader, f: &MapFields<'_>, strategy: Strategy) {
    let capacities = GROUP_LISTS.iter().flat_map(|list| f.items_of(list));
    for capacity in capacities.filter_map(|group| group.value_of("capacity")) {
        let full = matches!(&capacity.what, TreeValue::Scalar { text, .. } if text == "full");
        let surge = matches!(capacity.what, TreeValue::Map(_));
        // Rolling grows green as blue shrinks; recreate has no green while blue is emptied.
        match strategy {
            Strategy::Rolling if full => r.note_problem(
                CONTRADICTION_CODE,
                capacity.at,
                "`strategy: rolling` never has a full green beside blue",
                "write `capacity: {surge: 1}`, or choose `strategy: blue-green`",
            ),
            Strategy::Recreate if surge => r.note_problem(
                CONTRADICTION_CODE,
                capacity.at,
                "`strategy: recreate` empties blue before green exists, so there is nothing to surge",
                "remove `capacity`, or choose `strategy: rolling`",
            ),
            Strategy::Rolling | Strategy::BlueGreen | Strategy::Canary | Strategy::Recreate => {}
        }
    }
}

/// Fills in the capacity of groups that have none: its default is the strategy's.
pub fn set_default_capacities(plan: &mut ReadValues) {
    let strategy = plan.get("strategy").cloned().unwrap_or_default();
    let Ok(strategy) = serde_json::from_value::<Strategy>(strategy) else {
        return;
    };
    for list in GROUP_LISTS {
        let groups = plan.get_mut(*list).and_then(Value::as_array_mut);
        let groups = groups.into_iter().flatten();
        for group in groups.filter_map(Value::as_object_mut) {
            group
                .entry("capacity")
                .or_insert_with(|| serde_json::json!(strategy.default_capacity()));
        }
    }
}

/// Contradictions between parts of a plan. `to_known`: the target was read.
pub fn find_contradictions(r: &mut ValueReader, f: &MapFields<'_>, plan: &Plan, to_known: bool) {
    check_capacities(r, f, plan.strategy);
    group_contradictions::check_group_settings(r, f, plan);
    group_contradictions::check_tied_routes(r, f, plan);
    let list_at = f.location_of("nodeGroups");
    // Each entry is compared with those before it only, so that a pair is named once.
    for (i, group) in plan.all_groups().enumerate() {
        for earlier in plan.all_groups().take(i) {
            if group.blue == earlier.blue {
                r.note_problem(
                    CONTRADICTION_CODE,
                    list_at,
                    format!("the node group `{}` is blue twice", group.blue),
                    "keep one of the two entries",
                );
            }
            if group.green.is_some() && group.green == earlier.green {
                r.note_problem(
                    CONTRADICTION_CODE,
                    list_at,
                    format!(
                        "two node groups have the same green, `{}`",
                        group.green.as_deref().unwrap_or_default()
                    ),
                    "give each its own green",
                );
            }
        }
        // A node group that one entry fills and another one empties would be old and new at once.
        if let Some(green) = &group.green
            && plan
                .all_groups()
                .any(|other| other.blue == *green && other.blue != group.blue)
        {
            r.note_problem(
                CONTRADICTION_CODE,
                list_at,
                format!(
                    "`{green}` is the green of `{}` and itself a blue",
                    group.blue
                ),
                "a group is either old or new: remove one of the two entries",
            );
        }
        // Only Amazon Linux releases name a minor; of others it is unknown, and EKS judges them.
        if to_known
            && let Some(release) = &group.release_version
            && let Some(minor) = release_minor(release)
            && minor != plan.to
        {
            r.note_problem(
                CONTRADICTION_CODE,
                list_at,
                format!(
                    "`releaseVersion: {release}` is an image for {minor}, and the plan goes to {}",
                    plan.to
                ),
                format!(
                    "write a release of {}, or leave `releaseVersion` out for the newest",
                    plan.to
                ),
            );
        }
    }
    // A pin asks for a version, and a skip for no change: neither can win.
    for name in &plan.addons.skip {
        if plan.addons.pins.contains_key(name) {
            r.note_problem(
                CONTRADICTION_CODE,
                f.location_of("addons"),
                format!("the add-on `{name}` is both pinned and skipped"),
                "keep one of the two",
            );
        }
    }
    // kube-proxy is the one add-on whose version is bound to the control plane's.
    if to_known
        && let Some(pin) = plan.addons.pins.get("kube-proxy")
        && let Ok(minor) = Minor::from_reported(pin.as_str())
        && minor > plan.to
    {
        r.note_problem(
            CONTRADICTION_CODE,
            f.location_of("addons"),
            format!(
                "kube-proxy {pin} is newer than the control plane's {}",
                plan.to
            ),
            "kube-proxy must not be newer than the API server: pin an older one, or none",
        );
    }
    // The node's deadline would come first, and the pod's would mean nothing.
    if plan.drain.pod_deadline > plan.drain.node_deadline {
        note_short_node_deadline(r, f.location_of("drain"), &plan.drain);
    }
    // Only what was written is a contradiction: the key's default stands in every plan.
    if plan.strategy != Strategy::Canary
        && f.get("drain")
            .is_some_and(|d| d.value_of("canaryBake").is_some())
    {
        r.note_problem(
            CONTRADICTION_CODE,
            f.location_of("drain"),
            "`drain.canaryBake` means nothing without `strategy: canary`",
            "write `strategy: canary`, or remove `canaryBake`",
        );
    }
}

/// Notes that a node has less time than each of its pods.
pub fn note_short_node_deadline(r: &mut ValueReader, at: SourceLocation, drain: &Drain) {
    let (pod, node) = (
        duration::format_duration(drain.pod_deadline),
        duration::format_duration(drain.node_deadline),
    );
    r.note_problem(
        CONTRADICTION_CODE,
        at,
        format!(
            "a pod has {pod} to go (`podDeadline`), and its whole node only {node} (`nodeDeadline`)"
        ),
        "make `nodeDeadline` at least as long as `podDeadline`",
    );
}

/// The minor in an Amazon Linux release such as `1.30.14-20260801`; other systems number their releases otherwise.
fn release_minor(release: &str) -> Option<Minor> {
    let (version, date) = release.split_once('-')?;
    (date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit()) && version.split('.').count() == 3)
        .then(|| Minor::from_reported(version).ok())
        .flatten()
}
