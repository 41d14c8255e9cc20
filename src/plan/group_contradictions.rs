//! Contradictions in what node groups say of themselves: their settings, and the routes that belong to them.

use super::contradictions::{CONTRADICTION_CODE, note_short_node_deadline};
use super::error::SourceLocation;
use super::group_settings::GROUP_LISTS;
use super::suggest::nearest_word;
use super::tree::{TreeNode, TreeValue};
use super::types::{NodeGroup, Plan};
use super::value_reader::{MapFields, ValueReader};
use super::words::{DeleteOwned, RetireHow, Strategy};

/// Notes settings of groups that contradict each other or the strategy.
pub fn check_group_settings(r: &mut ValueReader, f: &MapFields<'_>, plan: &Plan) {
    for item in GROUP_LISTS.iter().flat_map(|list| f.items_of(list)) {
        let drain = item.value_of("drain");
        if plan.strategy != Strategy::Canary
            && let Some(bake) = drain.and_then(|d| d.value_of("canaryBake"))
        {
            r.note_problem(
                CONTRADICTION_CODE,
                bake.at,
                "`canaryBake` means nothing without `strategy: canary`",
                "write `strategy: canary`, or remove `canaryBake`",
            );
        }
    }
    for group in plan.all_groups() {
        let at = |key: &str| location_in_group(f, group, key);
        if let Some(own) = &group.drain
            && (own.differs_in("podDeadline") || own.differs_in("nodeDeadline"))
            && own.effective.pod_deadline > own.effective.node_deadline
        {
            note_short_node_deadline(r, at("drain"), &own.effective);
        }
        if group.delete_owned == DeleteOwned::Stack && plan.retire.then == RetireHow::KeepAtZero {
            r.note_problem(
                CONTRADICTION_CODE,
                at("deleteOwned"),
                "`deleteOwned: stack` deletes what `retire.then: keep-at-zero` keeps",
                "remove one of the two",
            );
        }
        if group.traffic.is_some() && plan.routes_of(&group.blue).next().is_none() {
            r.note_problem(
                CONTRADICTION_CODE,
                at("traffic"),
                format!(
                    "the node group `{}` has `traffic` settings, and no route belongs to it",
                    group.blue
                ),
                format!(
                    "write `nodeGroup: {}` in its entry of `traffic.routes`, or remove `traffic` here",
                    group.blue
                ),
            );
        }
    }
}

/// Notes routes that belong to a group that the plan does not list, and target groups that would move with two groups.
pub fn check_tied_routes(r: &mut ValueReader, f: &MapFields<'_>, plan: &Plan) {
    let routes = &plan.traffic.routes;
    for (i, route) in routes.iter().enumerate() {
        let Some(name) = &route.node_group else {
            continue;
        };
        let blues = || plan.all_groups().map(|g| g.blue.as_str());
        if !plan.node_groups.is_empty() && blues().all(|blue| blue != name) {
            let listed: Vec<&str> = blues().collect();
            let help = match nearest_word(name, blues()) {
                Some(near) => format!(
                    "did you mean `{near}`? the plan lists {}",
                    listed.join(", ")
                ),
                None => format!("name the blue of an entry: {}", listed.join(", ")),
            };
            let message = format!("the plan lists no group with `blue: {name}`");
            r.note_problem(CONTRADICTION_CODE, location_of_tie(f, name), message, help);
        }
        // The rules of a pair move together, so that it can belong to one group only.
        let other = routes[..i].iter().find(|earlier| {
            earlier.blue == route.blue
                && earlier.green == route.green
                && earlier.node_group != route.node_group
        });
        if let Some(other) = other {
            note_divided_pair(r, f, name, other.node_group.as_deref());
        }
    }
    // The same where the route that belongs to no group comes later.
    for (i, route) in routes.iter().enumerate() {
        let tied = routes[..i].iter().find_map(|earlier| {
            let same = earlier.blue == route.blue && earlier.green == route.green;
            earlier.node_group.as_deref().filter(|_| same)
        });
        if let (None, Some(name)) = (&route.node_group, tied) {
            note_divided_pair(r, f, name, None);
        }
    }
}

fn note_divided_pair(r: &mut ValueReader, f: &MapFields<'_>, name: &str, other: Option<&str>) {
    let other = other.map_or_else(|| "to no group".to_owned(), |other| format!("to `{other}`"));
    r.note_problem(
        CONTRADICTION_CODE,
        location_of_tie(f, name),
        format!("a route of these two target groups belongs to `{name}`, and another one {other}"),
        "write the same `nodeGroup` in all routes of two target groups: their rules move together",
    );
}

/// Where a key of a group stands, or where the groups do.
fn location_in_group(f: &MapFields<'_>, group: &NodeGroup, key: &str) -> SourceLocation {
    let mut items = GROUP_LISTS.iter().flat_map(|list| f.items_of(list));
    let item = items.find(|item| has_text(item.value_of("blue"), &group.blue));
    let value = item.and_then(|item| item.value_of(key));
    value.map_or_else(|| f.location_of("nodeGroups"), |value| value.at)
}

/// Where a route says that it belongs to that group.
fn location_of_tie(f: &MapFields<'_>, name: &str) -> SourceLocation {
    let routes = f.get("traffic").and_then(|t| t.value_of("routes"));
    let items = match routes.map(|routes| &routes.what) {
        Some(TreeValue::List(items)) => items.as_slice(),
        Some(TreeValue::Null | TreeValue::Map(_) | TreeValue::Scalar { .. }) | None => &[],
    };
    let mut ties = items.iter().filter_map(|item| item.value_of("nodeGroup"));
    let tie = ties.find(|tie| has_text(Some(tie), name));
    tie.map_or_else(|| f.location_of("traffic"), |tie| tie.at)
}

fn has_text(node: Option<&TreeNode>, wanted: &str) -> bool {
    matches!(node.map(|n| &n.what), Some(TreeValue::Scalar { text, .. }) if text == wanted)
}
