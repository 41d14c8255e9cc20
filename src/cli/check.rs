//! `eksup check`.

use std::path::PathBuf;

use clap::Args;

use super::args::{OutputFormat, PlanArg};
use super::context::CommandContext;
use super::findings;
use super::offline;
use super::runtime::run_with_network;
use super::ui::fit_terminal;
use crate::plan::Plan;
use crate::ready::Finding;
use crate::run::error::RunError;
use crate::run::judged_route;
use crate::run::not_ready::{count_blockers, not_ready_error};
use crate::run::permissions;

/// Show readiness findings only; changes nothing
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    plan: PlanArg,
    /// Check this snapshot instead of the live cluster; your own permissions are not checked
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,
}

/// Shows what stands in the way.
pub fn check_cluster(cx: &CommandContext, args: CheckArgs) -> Result<(), RunError> {
    let (_, plan) = cx.load_plan(&args.plan)?;
    // A snapshot needs no network, and so no permissions can be checked for it.
    let found = match &args.snapshot {
        Some(path) => {
            judged_route::build_and_judge(&plan, &offline::read_inventory(path, &plan)?).1
        }
        None => run_with_network(survey_live(cx, &plan))?,
    };
    let title = format!("## eksup check: `{}` to {}", plan.cluster, plan.to);
    let summary = format!("{title}\n\n{}", findings::render_markdown(&found));
    // A CI system shows the findings in places of its own, beside the output.
    cx.ui.annotate_findings(&found, &summary);
    match cx.ui.format {
        OutputFormat::Text => {
            let text = findings::render_text(&found, cx.ui.out_paint);
            let text = fit_terminal(&text, &console::Term::stdout());
            cx.ui.write_result(&text)?;
        }
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
    // The exit code says whether anything blocks, after everything has been shown.
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

async fn survey_live(cx: &CommandContext, plan: &Plan) -> Result<Vec<Finding>, RunError> {
    let reached = cx
        .connect_cluster(&plan.cluster, plan.region.as_deref())
        .await?;
    let inventory = reached.read_for_upgrade(plan, &cx.ui).await?;
    let (route, mut found) = judged_route::build_and_judge(plan, &inventory);
    found.extend(
        permissions::find_missing_permissions(&reached, plan, route.as_ref(), &inventory).await?,
    );
    Ok(found)
}
