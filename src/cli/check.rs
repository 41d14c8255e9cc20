//! `eksup check`.

use std::path::PathBuf;

use clap::Args;

use super::args::{OutputFormat, PlanArg};
use super::context::CommandContext;
use super::dispatch::run_with_network;
use super::error::CliError;
use super::findings::{self, count_blockers, not_ready_error};
use super::{offline, permissions, route_view};
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
pub fn check_cluster(cx: &CommandContext, args: CheckArgs) -> Result<(), CliError> {
    let (_, plan) = cx.load_plan(&args.plan)?;
    let found = match &args.snapshot {
        Some(path) => route_view::build_and_judge(&plan, &offline::read_inventory(path, &plan)?).1,
        None => run_with_network(survey_live(cx, &plan))?,
    };
    match cx.ui.format {
        OutputFormat::Text => cx
            .ui
            .write_result(&findings::render_text(&found, cx.ui.out_paint))?,
        OutputFormat::Markdown => cx.ui.write_result(&findings::render_markdown(&found))?,
        OutputFormat::Json => {
            cx.ui
                .write_json_line(&crate::report::json::version_line())?;
            let (findings, blocking) = (findings::render_json(&found), count_blockers(&found));
            let line =
                serde_json::json!({"type": "findings", "findings": findings, "blocking": blocking});
            cx.ui.write_json_line(&line)?;
        }
    }
    if count_blockers(&found) > 0 {
        return Err(not_ready_error(
            &plan.cluster,
            &found,
            &offline::with_snapshot_flag(
                cx.command_again("check", &args.plan),
                args.snapshot.as_ref(),
            ),
        ));
    }
    cx.ui.print_note(&format!(
        "cluster {} is ready for {}",
        plan.cluster, plan.to
    ));
    Ok(())
}

async fn survey_live(cx: &CommandContext, plan: &Plan) -> Result<Vec<Finding>, CliError> {
    let reached = cx
        .connect_cluster(&plan.cluster, plan.region.as_deref())
        .await?;
    let inventory = reached.read_for_upgrade(plan, &cx.ui).await?;
    let (route, mut found) = route_view::build_and_judge(plan, &inventory);
    found.extend(
        permissions::find_missing_permissions(&reached, plan, route.as_ref(), &inventory).await?,
    );
    Ok(found)
}
