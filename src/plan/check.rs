//! From the tree of a file to a checked plan. Every problem is noted and the reading goes on.

use serde_json::Value;

use super::contradictions;
use super::error::PlanErrors;
use super::group_settings;
use super::keys::{KeyDefault, UPGRADE_PLAN};
use super::table_reader::read_spelled_value;
use super::tree::{TreeNode, TreeValue};
use super::types::Plan;
use super::value_reader::ValueReader;

/// Reads a plan from a tree.
pub fn check_plan(name: &str, text: &str, root: &TreeNode) -> Result<Plan, PlanErrors> {
    if matches!(root.what, TreeValue::Null) {
        return Err(PlanErrors::for_whole_file(
            name,
            "plan::empty",
            "the plan is empty",
            "write at least `cluster: NAME` and `to: \"1.30\"`, or let `eksup init --cluster NAME` write one",
        ));
    }
    let mut r = ValueReader::default();
    let f = r.read_fields(root, "", UPGRADE_PLAN.key_names());
    let (mut values, _) = r.read_values(&UPGRADE_PLAN, &f);
    let to_known = values.contains_key("to");
    // What is required and missing is noted; an example stands in for it, so that contradictions are found as well.
    for key in UPGRADE_PLAN.keys {
        if matches!(key.default, KeyDefault::Required) && !values.contains_key(key.name) {
            let example = read_spelled_value(&key.kind, key.example).unwrap_or_default();
            values.insert(key.name.to_owned(), example);
        }
    }
    contradictions::set_default_capacities(&mut values);
    group_settings::merge_group_settings(&mut values);
    let plan = match serde_json::from_value::<Plan>(Value::Object(values)) {
        Ok(plan) => plan,
        // Each value was read by its table and fits; were a table wrong, a person could at least see where.
        Err(error) => {
            r.note_problem(
                "plan::value",
                root.at,
                format!("this plan cannot be used: {error}"),
                "this is a mistake in eksup: please report it with the plan",
            );
            return Err(PlanErrors::new(name, text, r.problems));
        }
    };
    contradictions::find_contradictions(&mut r, &f, &plan, to_known);
    if r.problems.is_empty() {
        Ok(plan)
    } else {
        Err(PlanErrors::new(name, text, r.problems))
    }
}
