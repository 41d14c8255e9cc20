//! `eksup check`.

use std::path::PathBuf;

use clap::Args;

use super::args::{Format, PlanArg};
use super::context::Context;
use super::error::CliError;
use super::findings::{self, blocking, not_ready};
use super::start::online;
use super::{offline, permissions, route};
use crate::plan::Plan;
use crate::ready::Finding;

/// Show readiness findings only; never writes anything
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    plan: PlanArg,
    /// Judge this snapshot instead of the live cluster; your own permissions are not asked about
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,
}

/// Shows what stands in the way.
pub fn run(cx: &Context, args: CheckArgs) -> Result<(), CliError> {
    let (_, plan) = cx.plan(&args.plan)?;
    let found = match &args.snapshot {
        Some(path) => route::survey(&plan, &offline::read(path, &plan)?).1,
        None => online(survey_live(cx, &plan))?,
    };
    match cx.ui.format {
        Format::Text => cx.ui.out(&findings::text(&found, cx.ui.out_paint))?,
        Format::Markdown => cx.ui.out(&findings::markdown(&found))?,
        Format::Json => {
            cx.ui.out_json(&crate::report::json::version())?;
            let (findings, blocking) = (findings::json(&found), blocking(&found));
            let line =
                serde_json::json!({"type": "findings", "findings": findings, "blocking": blocking});
            cx.ui.out_json(&line)?;
        }
    }
    if blocking(&found) > 0 {
        return Err(not_ready(
            &plan.cluster,
            &found,
            &offline::again(cx.again("check", &args.plan), args.snapshot.as_ref()),
        ));
    }
    cx.ui.say(&format!(
        "cluster {} is ready for {}",
        plan.cluster, plan.to
    ));
    Ok(())
}

async fn survey_live(cx: &Context, plan: &Plan) -> Result<Vec<Finding>, CliError> {
    let reached = cx.reach(&plan.cluster, plan.region.as_deref()).await?;
    let inventory = reached.read_for_upgrade(plan, &cx.ui).await?;
    let (route, mut found) = route::survey(plan, &inventory);
    found.extend(permissions::missing(&reached, plan, route.as_ref(), &inventory).await?);
    Ok(found)
}
