//! The plan that `apply` and `rehearse` take.

use std::path::Path;

use super::args::PlanArg;
use super::context::CommandContext;
use crate::plan::{self, Plan};
use crate::run::assess::PlanInput;
use crate::run::error::RunError;
use crate::run::saved_plan::SavedPlan;

/// The plan, from its file or from a saved one.
pub fn read_plan_input(cx: &CommandContext, arg: &PlanArg) -> Result<PlanInput, RunError> {
    let path = cx.plan_path(arg)?;
    match SavedPlan::read_file(&path)? {
        Some(saved) => {
            let plan = plan::parse_plan(&saved.plan_name, &saved.plan_text)?;
            Ok(PlanInput {
                plan,
                saved: Some(saved),
            })
        }
        None => Ok(PlanInput {
            plan: load_plan_file(&path)?,
            saved: None,
        }),
    }
}

fn load_plan_file(path: &Path) -> Result<Plan, RunError> {
    Ok(plan::load_plan(path)?)
}
